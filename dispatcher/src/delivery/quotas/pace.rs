//! The pace of one account in this process: never more calls in any stretch of time than our share, evenly, and with what
//! was let go late made up for.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, RateLimiter};

use crate::engine::quota::Pace;

/// Calls are counted over this much more than the time in which so many are allowed: clocks are not alike.
const SPREAD: f64 = 1.02;
/// The longest time for which a call counts on because its answer is late: the request may have arrived as late, and
/// must not meet too many of those that come after it.
const MAX_LATENESS: Duration = Duration::from_millis(500);
/// Number of latest answers of which the fastest tells how long an answer takes that nothing delays.
const MEASURED: usize = 64;
/// Of the calls of a second, one in so many may be made up for at once.
const CATCH_UP: u32 = 4;
/// How long a larger share is not used at first: whoever had it before may have used it a moment ago.
const SETTLE: Duration = Duration::from_secs(1);

/// Sets the pace. Times are since the machine was started.
#[derive(Default)]
pub(super) struct CallPacer {
    /// The pace that is shared, and our part of it.
    pace: Option<(Pace, u32)>,
    /// A larger part, and from when on it counts.
    growing: Option<(Duration, u32)>,
    /// Makes it even.
    limiter: Option<DefaultDirectRateLimiter>,
    /// The last calls.
    granted: VecDeque<PacedCall>,
    /// The number of the first of them.
    first: u64,
    /// Durations of the latest answers.
    took: VecDeque<Duration>,
}

/// A call that was let go.
#[derive(Debug, Clone, Copy)]
struct PacedCall {
    at: Duration,
    ended: Option<Duration>,
}

impl CallPacer {
    /// Our part is now this.
    pub(super) fn share(&mut self, part: Option<(Pace, u32)>, now: Duration) {
        let Some((pace, part)) = part else {
            // Calls that are still under way keep their numbers to themselves.
            let first = self.first + self.granted.len() as u64;
            return *self = Self { first, ..Self::default() };
        };
        let present = match self.pace {
            Some((known, present)) if known == pace => present,
            _ => 0,
        };
        if part <= present {
            self.growing = None;
            return self.set(pace, part);
        }
        let since = self.growing.filter(|(_, to)| *to >= part).map_or(now + SETTLE, |(since, _)| since);
        self.growing = Some((since, part));
        self.set(pace, present);
        self.grow(now);
    }

    fn grow(&mut self, now: Duration) {
        if let (Some((since, to)), Some((pace, _))) = (self.growing, self.pace)
            && since <= now
        {
            self.growing = None;
            self.set(pace, to);
        }
    }

    fn set(&mut self, pace: Pace, part: u32) {
        if self.pace == Some((pace, part)) {
            return;
        }
        self.pace = Some((pace, part));
        // Of a long time every late call is a small part.
        let burst = if pace.per <= SETTLE { part / CATCH_UP } else { 1 };
        let quota = stretch(pace).checked_div(part).and_then(governor::Quota::with_period);
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        self.limiter = quota.map(|quota| RateLimiter::direct(quota.allow_burst(burst)));
        if pace.per > SETTLE
            && let Some(limiter) = &self.limiter
        {
            // Whoever had this call before may have made it just now: it comes when its time is over once.
            let _ = limiter.check();
        }
    }

    /// Calls in a second, about.
    pub(super) fn per_second(&self) -> f64 {
        let part = self.growing.map(|(_, to)| to).or(self.pace.map(|(_, part)| part)).unwrap_or(0);
        self.pace.map_or(f64::INFINITY, |(pace, _)| f64::from(part) / pace.per.as_secs_f64())
    }

    /// Time from which on a call counts no more.
    fn free_at(&self, sent: PacedCall, stretch: Duration, now: Duration) -> Duration {
        let usual = self.took.iter().min().copied().unwrap_or_default();
        let late = (sent.ended.unwrap_or(now).saturating_sub(sent.at)).saturating_sub(usual);
        sent.at + stretch + late.min(MAX_LATENESS)
    }

    /// A call that was let go has had its answer. `measured`: the time until now is the time that an answer takes.
    pub(super) fn ended(&mut self, number: u64, measured: bool, now: Duration) {
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

    /// Lets one call go and returns its number where calls are counted, or says after how long to ask again.
    pub(super) fn grant(&mut self, now: Duration) -> Result<Option<u64>, Duration> {
        self.grow(now);
        let next = self.first + self.granted.len() as u64;
        let Some((pace, part)) = self.pace else { return Ok(None) };
        let (stretch, part) = (stretch(pace), part as usize);
        while self.granted.front().is_some_and(|sent| self.free_at(*sent, stretch, now) <= now) {
            self.granted.pop_front();
            self.first += 1;
        }
        if self.granted.len() >= part {
            let free = self.granted.len().checked_sub(part.max(1)).and_then(|at| self.granted.get(at));
            let free = free.map_or(SETTLE, |sent| self.free_at(*sent, stretch, now).saturating_sub(now));
            // One before it may be later.
            let free = free.max(Duration::from_millis(1));
            return Err(self.growing.map_or(free, |(since, _)| free.min(since.saturating_sub(now))));
        }
        if let Some(Err(not_until)) = self.limiter.as_ref().map(RateLimiter::check) {
            return Err(not_until.wait_time_from(DefaultClock::default().now()));
        }
        self.granted.push_back(PacedCall { at: now, ended: None });
        Ok(Some(next))
    }
}

/// The time over which the calls are counted.
fn stretch(pace: Pace) -> Duration {
    pace.per.mul_f64(SPREAD)
}

#[cfg(test)]
mod tests {
    use usher_service::clock;

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
        let begin = clock::since_boot();
        pacer.share(second(20, 20), begin);
        let mut granted = Vec::new();
        while granted.len() < 60 {
            let now = clock::since_boot();
            match pacer.grant(now) {
                Ok(number) => {
                    granted.push(now);
                    pacer.ended(number.expect("counted"), true, now);
                }
                // Nobody comes for a while, now and then.
                Err(_) if granted.len() % 7 == 3 => std::thread::sleep(at(40)),
                Err(wait) => std::thread::sleep(wait),
            }
        }
        let within = |from: Duration| granted.iter().filter(|it| **it >= from && **it < from + at(1_020)).count();
        let most = granted.iter().map(|from| within(*from));
        assert!(most.max() <= Some(20), "{granted:?}");
        let took = granted[59] - granted[0];
        assert!(took < at(6_000), "60 calls at 19.6 a second, by what is left of a busy machine: {took:?}");
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

    /// However late requests arrive and answers come: what arrives in any second is never more than the limit, as long
    /// as nothing is later than what is allowed for.
    #[test]
    fn late_requests_do_not_meet_those_that_come_after_them() {
        let mut seed = 3_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for usual in [0, 5, 200] {
            let mut pacer = CallPacer { limiter: None, ..CallPacer::default() };
            pacer.share(second(20, 20), at(0));
            let (mut arrived, mut under_way): (Vec<u64>, Vec<(u64, u64)>) = (Vec::new(), Vec::new());
            for now in 1_000..30_000_u64 {
                under_way.retain(|(number, ends)| {
                    let ended = *ends <= now;
                    if ended {
                        pacer.ended(*number, true, at(now));
                    }
                    !ended
                });
                // Only the counting is looked at, not how even it is.
                pacer.grow(at(now));
                pacer.limiter = None;
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
