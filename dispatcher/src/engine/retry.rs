//! When to try again, and when to stop trying.

use std::time::Duration;

use usher_proto::Timestamp;

/// Exponential back-off with full jitter, bounded in number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many attempts a step gets in all; at least 1.
    pub attempts: u32,
    /// The longest pause after the first failure. It doubles with each further one.
    pub first: Duration,
    /// The longest pause of all.
    pub max: Duration,
}

impl Default for RetryPolicy {
    /// Twenty attempts: with pauses that grow to five minutes, about an hour.
    fn default() -> Self {
        Self { attempts: 20, first: Duration::from_millis(500), max: Duration::from_secs(300) }
    }
}

impl RetryPolicy {
    /// When to make the attempt after `made` failed ones; none if that was the last. `after` is what the destination
    /// asked for: it is obeyed, but not beyond `max`. `jitter` is random in 0..1.
    pub fn next(&self, made: u32, after: Option<Duration>, jitter: f64, now: Timestamp) -> Option<Timestamp> {
        if made >= self.attempts {
            return None;
        }
        let doublings = made.saturating_sub(1).min(30);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.max);
        let pause = ceiling.mul_f64(jitter.clamp(0.0, 1.0));
        let asked = after.unwrap_or_default().min(self.max);
        Some(now.plus(pause.max(asked)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);
    const POLICY: RetryPolicy = RetryPolicy { attempts: 5, first: Duration::from_secs(1), max: Duration::from_secs(6) };

    fn pause(made: u32, after: Option<u64>, jitter: f64) -> Option<u64> {
        let at = POLICY.next(made, after.map(Duration::from_secs), jitter, NOW)?;
        Some(at.since(NOW).as_secs())
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!([1, 2, 3, 4].map(|made| pause(made, None, 1.0)), [Some(1), Some(2), Some(4), Some(6)]);
    }

    #[test]
    fn the_last_attempt_has_no_successor() {
        assert_eq!((pause(4, None, 0.5), pause(5, None, 0.5)), (Some(3), None));
    }

    #[test]
    fn the_destination_is_obeyed_within_bounds() {
        assert_eq!(pause(1, Some(5), 0.0), Some(5));
        assert_eq!(pause(1, Some(3600), 0.0), Some(6));
    }
}
