//! The rate limit of one double: at most N requests in any second. The decision is pure. The order of the checks is in
//! [`crate::fake_server`], and each double builds its own refusal.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::locked::Locked;

const WINDOW: Duration = Duration::from_secs(1);
/// Highest limit, in requests per second. The window stores the time of each request that passed, and a higher limit is
/// not worth testing.
const HIGHEST: u32 = 100_000;

/// A rate limit, as `PUT /limits/<provider>` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Maximum number of requests in any one second, 1 to 100,000.
    pub per_second: u32,
}

/// The limit is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("per_second is {0}: it may be 1 to {HIGHEST}; DELETE ends the limit")]
pub struct InvalidLimit(u32);

/// The state of the limit after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateWindow {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// Time until one more request passes.
    pub(crate) reset: Duration,
}

impl RateWindow {
    /// Returns `reset` rounded up to whole seconds for headers, at least 1. A client that waits for that time
    /// is let through.
    pub(crate) fn reset_seconds(&self) -> u64 {
        self.reset.as_secs() + u64::from(self.reset.subsec_nanos() > 0 || self.reset.is_zero())
    }
}

/// The times of the requests that passed within the last second.
#[derive(Debug)]
struct Window {
    limit: u32,
    passed: VecDeque<Instant>,
}

impl Window {
    fn new(limit: u32) -> Self {
        Self { limit, passed: VecDeque::new() }
    }

    /// Lets a request through, or refuses it with an error. Refused requests do not count, so that refusals cannot keep
    /// the window full.
    fn take(&mut self, now: Instant) -> Result<RateWindow, RateWindow> {
        while self.passed.front().is_some_and(|first| now.saturating_duration_since(*first) >= WINDOW) {
            self.passed.pop_front();
        }
        let room = self.passed.len() < self.limit as usize;
        if room {
            self.passed.push_back(now);
        }
        let quota = RateWindow {
            limit: self.limit,
            remaining: self.limit.saturating_sub(u32::try_from(self.passed.len()).unwrap_or(u32::MAX)),
            reset: self.passed.front().map_or(WINDOW, |first| WINDOW - now.saturating_duration_since(*first)),
        };
        if room { Ok(quota) } else { Err(quota) }
    }
}

/// The limit of one double, initially none.
#[derive(Debug, Default)]
pub(crate) struct ProviderLimits {
    window: Locked<Option<Window>>,
}

impl ProviderLimits {
    /// Sets a limit, replacing an earlier one. The new window starts empty.
    pub(crate) fn set(&self, limit: Limit) -> Result<(), InvalidLimit> {
        if !(1..=HIGHEST).contains(&limit.per_second) {
            return Err(InvalidLimit(limit.per_second));
        }
        self.window.with(|window| *window = Some(Window::new(limit.per_second)));
        Ok(())
    }

    pub(crate) fn end(&self) {
        self.window.with(|window| *window = None);
    }

    pub(crate) fn in_force(&self) -> Option<Limit> {
        self.window.with(|window| window.as_ref().map(|window| Limit { per_second: window.limit }))
    }

    /// Counts a request against the limit. Returns `None` if there is no limit, and an error if the request is refused.
    pub(crate) fn take(&self, now: Instant) -> Option<Result<RateWindow, RateWindow>> {
        self.window.with(|window| window.as_mut().map(|window| window.take(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_limit_passes_in_any_second() {
        let mut window = Window::new(3);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let passed: Vec<bool> = [0, 400, 800, 999, 1000, 1300, 1400].map(|t| window.take(at(t)).is_ok()).to_vec();
        assert_eq!(passed, [true, true, true, false, true, false, true]);
    }

    #[test]
    fn a_refusal_says_when_the_next_request_passes() {
        let mut window = Window::new(1);
        let start = Instant::now();
        assert_eq!(window.take(start).map(|quota| quota.remaining), Ok(0));
        let quota = window.take(start + Duration::from_millis(300)).expect_err("the second is full");
        assert_eq!((quota.reset, quota.reset_seconds()), (Duration::from_millis(700), 1));
        assert!(window.take(start + Duration::from_millis(300) + quota.reset).is_ok());
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        let limits = ProviderLimits::default();
        assert_eq!(limits.set(Limit { per_second: 0 }), Err(InvalidLimit(0)));
        assert_eq!(limits.take(Instant::now()), None);
    }
}
