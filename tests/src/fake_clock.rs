//! A clock that is ahead of the machine's, for programs that are started with it: days pass in a test without being
//! waited for.

use std::time::Duration;

use crate::backend::setting;

/// The clock of programs that start from now on. Panics if `USHER_TEST_FAKETIME` is not set when it is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct FakeClock {
    /// Time by which it is ahead of the machine's clock.
    pub ahead: Duration,
}

impl FakeClock {
    /// Environment variables of a program that has this clock.
    pub fn variables(self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", setting("USHER_TEST_FAKETIME")),
            ("FAKETIME", format!("+{}", self.ahead.as_secs())),
            // Only the time of day is another one: timers run as ever, and files have their own times.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }
}
