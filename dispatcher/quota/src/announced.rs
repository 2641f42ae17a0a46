//! The limits that a destination announces in its answers, and the calls that they leave.
//!
//! A limit is a number of calls in a window of time; the caller decides how they are spread within it. Windows of up to
//! two seconds are a pace, which the replicas share like a configured one. The calls of a longer window are counted,
//! and the remaining calls that the destination reports take precedence over our own count, because the destination
//! sees all replicas. Everything here expires with its window. Times are measured from the start of the machine.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Pace, RateLimitHeaders};

/// The longest window that is kept as a pace.
const SHORT: Duration = Duration::from_secs(2);
/// Minimum time for which a limit is kept after it was announced, so that answers that arrive a little apart keep
/// it in force.
const HOLD: Duration = Duration::from_secs(3);
/// The longest time without a call while the destination reports that none is left: the report may be wrong.
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// Two window ends at most this far apart are the same end: headers have whole seconds.
const SAME_END: Duration = Duration::from_millis(1_500);
/// Maximum number of calls in flight before the first answer has shown if the destination announces a limit. The number
/// doubles with each second without an answer.
const PROBES: u32 = 2;
/// Number of seconds after which the doubling ends.
const MAX_DOUBLINGS: u64 = 16;
/// Number of parts of a window in which calls are counted.
const BUCKETS: u32 = 60;
/// Maximum number of windows that one destination may announce; further ones are ignored.
const MAX_WINDOWS: usize = 4;

/// The limits that are in force for one account.
#[derive(Debug, Default)]
pub struct Announced {
    windows: Vec<Window>,
    left: Option<Left>,
    knows: Knowledge,
    last_call: Option<Duration>,
}

/// The knowledge of one account's announcements of limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Knowledge {
    /// Not known yet if it announces limits.
    #[default]
    Unknown,
    /// Not known yet if it announces limits. Holds the time of the first call, whose answer may show it.
    Asking(Duration),
    /// It has announced none.
    Silent,
    /// It has announced a limit.
    Announces,
}

/// The remaining calls that the destination has reported.
#[derive(Debug, Clone, Copy)]
struct Left {
    calls: u32,
    /// Calls made by this process since that report.
    made: u32,
    heard_at: Duration,
    until: Duration,
}

/// One announced limit.
#[derive(Debug)]
struct Window {
    limit: u32,
    length: Duration,
    /// True if the length was announced, false if it was inferred from the time of reset.
    said: bool,
    until: Duration,
    /// Calls made, by the time of the first call of each bucket.
    calls: VecDeque<(Duration, u32)>,
}

impl Announced {
    /// Takes the headers of an answer. `usual` is the window of a limit that is given without one.
    pub fn observe(&mut self, headers: &RateLimitHeaders, usual: Option<Duration>, under_way: u32, now: Duration) {
        self.expire(now);
        if headers.is_silent() {
            if self.windows.is_empty() && self.left.is_none() {
                self.knows = Knowledge::Silent;
            }
            return;
        }
        for policy in &headers.policies {
            self.hold(policy.calls, policy.per, true, now);
        }
        if let Some(limit) = headers.limit.filter(|_| headers.policies.is_empty())
            && let Some(length) = window_of(headers.reset, usual)
        {
            self.hold(limit, length, false, now);
        }
        // Within a short window the number is outdated before it arrives, and the pace limits the calls anyway.
        if let (Some(remaining), Some(reset)) = (headers.remaining, headers.reset)
            && reset > SHORT
        {
            let until = now + reset;
            // The number may not include the calls in flight yet.
            let calls = remaining.saturating_sub(under_way);
            // An answer after a pause belongs to the call that ended the pause, and to no earlier one.
            let is_probe = |left: &Left| self.last_call.is_some_and(|call| call >= left.heard_at + PROBE_EVERY);
            let same = self.left.filter(|left| left.until.abs_diff(until) <= SAME_END && !is_probe(left));
            // Answers arrive in any order: a later one never raises the number.
            let calls = same.map_or(calls, |left| left.calls.saturating_sub(left.made).min(calls));
            self.left = Some(Left { calls, made: 0, heard_at: now, until });
        }
        // A limit without a window, or a report only of the rest of a second, cannot be enforced.
        let is_held = !self.windows.is_empty() || self.left.is_some();
        self.knows = if is_held { Knowledge::Announces } else { Knowledge::Silent };
    }

    fn hold(&mut self, limit: u32, length: Duration, said: bool, now: Duration) {
        let until = now + length.max(HOLD);
        let room = self.windows.len() < MAX_WINDOWS;
        let known = self.windows.iter_mut().find(|known| if said { known.length == length } else { !known.said });
        match known {
            Some(known) => {
                // A window's end that comes nearer does not show the window's length.
                known.length = if known.limit == limit { known.length.max(length) } else { length };
                known.limit = limit;
                known.until = now + known.length.max(HOLD);
            }
            None if room => {
                self.windows.push(Window { limit, length, said, until, calls: VecDeque::new() });
            }
            None => {}
        }
    }

    fn expire(&mut self, now: Duration) {
        self.windows.retain(|window| now < window.until);
        self.left = self.left.filter(|left| now < left.until);
        if self.knows == Knowledge::Announces && self.windows.is_empty() && self.left.is_none() {
            self.knows = Knowledge::Unknown;
        }
    }

    /// Returns the announced pace: the slowest of the short windows.
    pub fn pace(&self, now: Duration) -> Option<Pace> {
        let short = self.windows.iter().filter(|window| window.length <= SHORT && now < window.until);
        short.map(Window::pace).min_by(|a, b| a.rate().total_cmp(&b.rate()))
    }

    /// Returns true if calls of a longer window are counted.
    pub fn counts(&self, now: Duration) -> bool {
        self.left.is_some_and(|left| now < left.until) || self.long(now).next().is_some()
    }

    fn long(&self, now: Duration) -> impl Iterator<Item = &Window> {
        self.windows.iter().filter(move |window| window.length > SHORT && now < window.until)
    }

    /// Checks if one of `sharers` processes may make a call now, according to all limits but the pace.
    ///
    /// # Errors
    ///
    /// If no call may be made. The error holds the time after which to check again.
    pub fn check(&self, sharers: u32, now: Duration) -> Result<(), Duration> {
        let sharers = sharers.max(1);
        let left = self.left.filter(|left| now < left.until);
        if let Some(left) = left {
            let share = (left.calls / sharers).max(left.calls.min(1));
            let quiet_since = self.last_call.map_or(left.heard_at, |call| call.max(left.heard_at));
            let probe = quiet_since + PROBE_EVERY;
            if left.made >= share && now < probe {
                return Err(left.until.min(probe) - now);
            }
        }
        for window in self.long(now) {
            let share = if left.is_some() { window.limit } else { (window.limit / sharers).max(1) };
            window.check(share, now)?;
        }
        Ok(())
    }

    /// Checks if a call may begin in addition to those in flight, before it is known if the destination
    /// announces a limit.
    ///
    /// # Errors
    ///
    /// If no call may begin. The error holds the time after which to check again.
    pub fn may_probe(&self, under_way: u32, now: Duration) -> Result<(), Duration> {
        let since = match self.knows {
            Knowledge::Silent => return Ok(()),
            Knowledge::Announces if self.pace(now).is_some() || self.counts(now) => return Ok(()),
            Knowledge::Asking(since) => since,
            Knowledge::Announces | Knowledge::Unknown => now,
        };
        let seconds = now.saturating_sub(since).as_secs();
        if under_way < PROBES << seconds.min(MAX_DOUBLINGS) {
            return Ok(());
        }
        Err(since + Duration::from_secs(seconds + 1) - now)
    }

    /// Counts a call that is made now.
    pub fn count(&mut self, now: Duration) {
        self.expire(now);
        self.last_call = Some(now);
        if self.knows == Knowledge::Unknown {
            self.knows = Knowledge::Asking(now);
        }
        if let Some(left) = &mut self.left {
            left.made = left.made.saturating_add(1);
        }
        self.windows.iter_mut().filter(|window| window.length > SHORT).for_each(|window| window.count(now));
    }
}

/// Returns the window of a limit that is given without one, from the time until it ends.
fn window_of(reset: Option<Duration>, usual: Option<Duration>) -> Option<Duration> {
    let whole = |time: Duration| Duration::from_secs((time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1));
    let reset = reset.map(whole);
    usual.into_iter().chain(reset).max()
}

impl Window {
    const fn pace(&self) -> Pace {
        Pace { calls: self.limit, per: self.length }
    }

    /// Checks that fewer than `most` calls were made within the window. The error holds the time after which
    /// to check again.
    fn check(&self, most: u32, now: Duration) -> Result<(), Duration> {
        let mut made = 0_u32;
        // From the newest to the oldest: the bucket with which the limit is reached is the one whose end
        // must be awaited.
        for (begun, calls) in self.calls.iter().rev() {
            let over = *begun + self.length + self.bucket();
            if over <= now {
                break;
            }
            made = made.saturating_add(*calls);
            if made >= most {
                return Err(over - now);
            }
        }
        Ok(())
    }

    fn count(&mut self, now: Duration) {
        let length = self.length;
        let bucket = self.bucket();
        while self.calls.front().is_some_and(|(begun, _)| *begun + length + bucket <= now) {
            self.calls.pop_front();
        }
        match self.calls.back_mut() {
            Some((begun, calls)) if now < *begun + bucket => *calls += 1,
            _ => self.calls.push_back((now, 1)),
        }
    }

    /// Returns the length of one bucket.
    fn bucket(&self) -> Duration {
        self.length / BUCKETS
    }
}

#[cfg(test)]
mod tests;
