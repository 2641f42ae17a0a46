//! The retry policy: the time of the next attempt, and the end of all attempts.

use std::time::Duration;

use usher_proto::Timestamp;

use super::run::AttemptState;

/// Exponential back-off with full jitter, limited in number and in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Maximum number of failed attempts of a step that count; at least 1. Failures during an outage do not count.
    pub attempts: u32,
    /// The longest pause after the first failure. It doubles with each further failure.
    pub first: Duration,
    /// The upper limit of all pauses.
    pub max: Duration,
    /// The time after its first attempt within which a step may still be tried while its destination is not known
    /// to be down.
    pub within: Duration,
}

impl Default for RetryPolicy {
    /// Returns a policy of twenty attempts: with pauses that grow to five minutes, they take about an hour.
    fn default() -> Self {
        let first = Duration::from_millis(500);
        let max = Duration::from_secs(300);
        Self { attempts: 20, first, max, within: Duration::from_secs(3 * 24 * 3600) }
    }
}

impl RetryPolicy {
    /// Returns the time of the attempt after `made` failed ones. `after` is the pause that the destination requested:
    /// it is respected up to `max`. `jitter` is random in 0..1.
    pub fn next(&self, made: u32, after: Option<Duration>, jitter: f64, now: Timestamp) -> Timestamp {
        let doublings = made.saturating_sub(1).min(30);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.max);
        let pause = ceiling.mul_f64(jitter.clamp(0.0, 1.0));
        let asked = after.unwrap_or_default().min(self.max);
        now.plus(pause.max(asked))
    }

    /// Returns true if a step must not be tried again.
    pub fn is_spent(&self, tries: &AttemptState, now: Timestamp) -> bool {
        tries.counted >= self.attempts || tries.first_at.is_some_and(|since| now.since(since) > self.within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);
    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 5,
        first: Duration::from_secs(1),
        max: Duration::from_secs(6),
        within: Duration::from_secs(60),
    };

    fn pause(made: u32, after: Option<u64>, jitter: f64) -> u64 {
        POLICY.next(made, after.map(Duration::from_secs), jitter, NOW).since(NOW).as_secs()
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!([1, 2, 3, 4].map(|made| pause(made, None, 1.0)), [1, 2, 4, 6]);
    }

    #[test]
    fn the_destination_is_obeyed_within_bounds() {
        assert_eq!(pause(1, Some(5), 0.0), 5);
        assert_eq!(pause(1, Some(3600), 0.0), 6);
    }

    #[test]
    fn a_step_is_tried_so_often_and_so_long() {
        let spent = |spent, since: i64| {
            let since = Some(Timestamp::from_seconds(1_000 - since));
            POLICY.is_spent(&AttemptState { counted: spent, first_at: since, ..AttemptState::default() }, NOW)
        };
        assert_eq!((spent(4, 60), spent(5, 0), spent(0, 61)), (false, true, true));
    }
}
