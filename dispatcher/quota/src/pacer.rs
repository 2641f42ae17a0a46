//! Pace of one account's calls in this process. Any stretch of time contains at most this process's share of calls,
//! evenly spaced. Calls granted late are made up for.

use std::cell::Cell;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};

use crate::Pace;

/// Factor by which the counting window exceeds the period of the pace, because clocks differ.
const WINDOW_FACTOR: f64 = 1.02;
/// Longest extra time for which a call counts because its answer is late. The request may have arrived equally late,
/// and must not coincide with too many of those sent after it.
const MAX_LATENESS: Duration = Duration::from_millis(500);
/// Number of latest response times stored. The shortest of them is taken as the response time without any delay.
const MEASURED: usize = 64;
/// Divisor for bursts: of the calls of a second, one in this many may be made up for at once.
const BURST_DIVISOR: u32 = 4;
/// Time before a larger share is used, because its previous holder may have used it a moment ago.
const SHARE_GROWTH_DELAY: Duration = Duration::from_secs(1);

/// Spaces calls evenly, in the time that its clock was last set to.
type Spacer = RateLimiter<NotKeyed, InMemoryState, GivenTime, NoOpMiddleware<Nanos>>;

/// A clock that shows the time it was set to.
#[derive(Debug, Clone)]
struct GivenTime(Cell<Duration>);

impl Clock for GivenTime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.get().into()
    }
}

/// Paces the calls of one account. Times are since boot.
#[derive(Debug, Default)]
pub(crate) struct CallPacer {
    /// The pace that is shared, and this process's part of it.
    pace: Option<(Pace, u32)>,
    /// Time from which a larger part counts, and that part.
    growing: Option<(Duration, u32)>,
    /// Spaces the calls evenly.
    spacer: Option<Spacer>,
    /// The latest calls, oldest first.
    granted: VecDeque<PacedCall>,
    /// Number of the first call in `granted`.
    first: u64,
    /// Response times of the latest answers, at most [`MEASURED`].
    took: VecDeque<Duration>,
}

/// A call that was granted.
#[derive(Debug, Clone, Copy)]
struct PacedCall {
    at: Duration,
    ended: Option<Duration>,
}

impl CallPacer {
    /// Sets this process's part of the pace; `None` means that there is no pace.
    pub(crate) fn share(&mut self, part: Option<(Pace, u32)>, now: Duration) {
        let Some((pace, part)) = part else {
            // Calls still in flight keep their numbers, so these are not issued again.
            let first = self.first + self.granted.len() as u64;
            return *self = Self { first, ..Self::default() };
        };
        let present = match self.pace {
            Some((known, present)) if known == pace => present,
            _ => 0,
        };
        if part <= present {
            self.growing = None;
            return self.set(pace, part, now);
        }
        // Over a long period, the previous holder may have made the last call of this part within the same window.
        let interval = if pace.per > SHARE_GROWTH_DELAY { stretch(pace) / part } else { Duration::ZERO };
        let usual = now + SHARE_GROWTH_DELAY + interval;
        let since = self.growing.filter(|(_, to)| *to >= part).map_or(usual, |(since, _)| since);
        self.growing = Some((since, part));
        self.set(pace, present, now);
        self.grow(now);
    }

    fn grow(&mut self, now: Duration) {
        if let (Some((since, to)), Some((pace, _))) = (self.growing, self.pace)
            && since <= now
        {
            self.growing = None;
            self.set(pace, to, now);
        }
    }

    fn set(&mut self, pace: Pace, part: u32, now: Duration) {
        if self.pace == Some((pace, part)) {
            return;
        }
        self.pace = Some((pace, part));
        // Over a long period, each late call is a small part, so no burst makes up for it.
        let burst = if pace.per <= SHARE_GROWTH_DELAY { part / BURST_DIVISOR } else { 1 };
        let quota = stretch(pace).checked_div(part).and_then(governor::Quota::with_period);
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let clock = GivenTime(Cell::new(now));
        self.spacer = quota.map(|quota| RateLimiter::direct_with_clock(quota.allow_burst(burst), clock));
        if pace.per > SHARE_GROWTH_DELAY
            && let Some(spacer) = &self.spacer
        {
            // The previous holder of this share may have made its call just now, so the first call waits for one full
            // interval.
            let _ = spacer.check();
        }
    }

    /// Returns the approximate number of calls per second.
    pub(crate) fn per_second(&self) -> f64 {
        let part = self.growing.map(|(_, to)| to).or(self.pace.map(|(_, part)| part)).unwrap_or(0);
        self.pace.map_or(f64::INFINITY, |(pace, _)| f64::from(part) / pace.per.as_secs_f64())
    }

    /// Returns the time from which a call no longer counts.
    fn free_at(&self, sent: PacedCall, stretch: Duration, now: Duration) -> Duration {
        let usual = self.took.iter().min().copied().unwrap_or_default();
        let late = (sent.ended.unwrap_or(now).saturating_sub(sent.at)).saturating_sub(usual);
        sent.at + stretch + late.min(MAX_LATENESS)
    }

    /// Records that a granted call has been answered. `measured`: true if the time until now is the response time.
    pub(crate) fn ended(&mut self, number: u64, measured: bool, now: Duration) {
        let Some(sent) = number.checked_sub(self.first).and_then(|at| self.granted.get_mut(usize::try_from(at).ok()?))
        else {
            return;
        };
        let took = now.saturating_sub(sent.at);
        sent.ended = Some(if measured { now } else { sent.at });
        if measured {
            self.took.push_back(took);
            if self.took.len() > MEASURED {
                self.took.pop_front();
            }
        }
    }

    /// Grants one call and returns its number; `None` if calls are not counted. The error is the pause before the next
    /// try.
    pub(crate) fn grant(&mut self, now: Duration) -> Result<Option<u64>, Duration> {
        self.grow(now);
        let next = self.first + self.granted.len() as u64;
        let Some((pace, part)) = self.pace else { return Ok(None) };
        let stretch = stretch(pace);
        let part = part as usize;
        while self.granted.front().is_some_and(|sent| self.free_at(*sent, stretch, now) <= now) {
            self.granted.pop_front();
            self.first += 1;
        }
        if self.granted.len() >= part {
            let free = self.granted.len().checked_sub(part.max(1)).and_then(|at| self.granted.get(at));
            let free = free.map_or(SHARE_GROWTH_DELAY, |sent| self.free_at(*sent, stretch, now).saturating_sub(now));
            // A call before this one may count longer.
            let free = free.max(Duration::from_millis(1));
            return Err(self.growing.map_or(free, |(since, _)| free.min(since.saturating_sub(now))));
        }
        if let Some(spacer) = &self.spacer {
            spacer.clock().0.set(now);
            spacer.check().map_err(|not_until| not_until.wait_time_from(now.into()))?;
        }
        self.granted.push_back(PacedCall { at: now, ended: None });
        Ok(Some(next))
    }
}

/// Returns the window over which calls are counted.
fn stretch(pace: Pace) -> Duration {
    pace.per.mul_f64(WINDOW_FACTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(calls: u32, part: u32) -> Option<(Pace, u32)> {
        Some((Pace { calls, per: Duration::from_secs(1) }, part))
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn never_more_than_our_share_in_any_stretch_however_late_they_come() {
        let mut pacer = CallPacer::default();
        let mut now = at(1_000);
        pacer.share(second(20, 20), now);
        let mut granted = Vec::new();
        while granted.len() < 60 {
            match pacer.grant(now) {
                Ok(number) => {
                    granted.push(now);
                    pacer.ended(number.expect("counted"), true, now);
                }
                // Simulates a caller that sends nothing for a while, now and then.
                Err(_) if granted.len() % 7 == 3 => now += at(40),
                Err(wait) => now += wait,
            }
        }
        let within = |from: Duration| granted.iter().filter(|it| **it >= from && **it < from + at(1_020)).count();
        let most = granted.iter().map(|from| within(*from));
        assert!(most.max() <= Some(20), "{granted:?}");
        let took = granted[59] - granted[0];
        assert!(took < at(4_000), "60 calls at 19.6 a second: {took:?}");
    }

    #[test]
    fn a_larger_share_is_used_a_second_later_and_a_smaller_one_at_once() {
        let mut pacer = CallPacer::default();
        pacer.share(second(10, 2), at(0));
        assert!(pacer.grant(at(0)).is_err(), "nothing at first");
        pacer.share(second(10, 2), at(500));
        assert_eq!(pacer.grant(at(1_000)), Ok(Some(0)), "asking again does not put it off");
        pacer.share(second(10, 10), at(1_100));
        pacer.share(second(10, 9), at(1_600));
        assert_eq!(pacer.growing, Some((at(2_100), 9)));
        pacer.share(second(10, 0), at(1_700));
        assert!(pacer.grant(at(5_000)).is_err() && pacer.growing.is_none());
    }

    /// Requests may arrive late and answers may come late. Any second contains at most the limit of arrivals, as long
    /// as no delay exceeds the allowed one.
    #[test]
    fn late_requests_do_not_meet_those_that_come_after_them() {
        let mut seed = 3_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for usual in [0, 5, 200] {
            let mut pacer = CallPacer::default();
            pacer.share(second(20, 20), at(0));
            let mut arrived: Vec<u64> = Vec::new();
            let mut under_way: Vec<(u64, u64)> = Vec::new();
            for now in 1_000..30_000_u64 {
                under_way.retain(|(number, ends)| {
                    let ended = *ends <= now;
                    if ended {
                        pacer.ended(*number, true, at(now));
                    }
                    !ended
                });
                // Only the counting is tested, not the even spacing.
                pacer.grow(at(now));
                pacer.spacer = None;
                while let Ok(Some(number)) = pacer.grant(at(now)) {
                    let late = if random(4) == 0 { random(400) } else { 0 };
                    arrived.push(now + usual / 2 + late);
                    under_way.push((number, now + usual + late));
                }
            }
            arrived.sort_unstable();
            let within = |from: u64| arrived.iter().filter(|it| **it >= from && **it < from + 1_000).count();
            let most = arrived.iter().map(|from| within(*from)).max();
            assert!(most <= Some(20), "{most:?} with {usual} ms");
            assert!(arrived.len() > 29 * 12, "{} with {usual} ms", arrived.len());
        }
    }

    #[test]
    fn without_a_pace_everything_goes_at_once() {
        let mut pacer = CallPacer::default();
        pacer.share(None, at(0));
        assert!((0..1_000).all(|_| pacer.grant(at(0)).is_ok()) && pacer.per_second().is_infinite());
    }
}
