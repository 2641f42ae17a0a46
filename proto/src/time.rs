//! Points in time as Usher stores and prints them: whole milliseconds since the Unix epoch, RFC 3339 as text.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Values below this are seconds, other values are milliseconds. Clerk documents its `timestamp` in milliseconds and
/// shows it in seconds in its own schema examples. 1e11 seconds is the year 5138, 1e11 milliseconds is March 1973.
const SECONDS_BELOW: i64 = 100_000_000_000;

impl Timestamp {
    /// Creates a time from milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Creates a time from whole seconds since the epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Creates a time from a number whose unit the sender does not state: seconds if it is below 1e11, else
    /// milliseconds. `None` for a time that RFC 3339 cannot express.
    pub fn from_seconds_or_millis(value: i64) -> Option<Self> {
        let time = if value < SECONDS_BELOW { Self::from_seconds(value) } else { Self(value) };
        jiff::Timestamp::from_millisecond(time.0).ok().map(|_| time)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Returns the time `by` later.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns the time `by` earlier.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns the time elapsed since `earlier`; zero if `earlier` is later than this time.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            // Years after 9999 have no RFC 3339 text; the number of milliseconds is printed instead.
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time")]
pub struct InvalidTimestamp;

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp)?;
        Ok(Self(time.as_millisecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_milliseconds_and_reads_back() {
        let time = Timestamp::from_millis(1_767_261_600_250);
        assert_eq!(time.to_string(), "2026-01-01T10:00:00.250Z");
        assert_eq!(time.to_string().parse(), Ok(time));
        assert_eq!("2026-01-01T10:00:00Z".parse(), Ok(Timestamp::from_seconds(1_767_261_600)));
    }

    #[test]
    fn ten_digits_are_seconds_and_thirteen_are_milliseconds() {
        let seconds = Timestamp::from_seconds_or_millis(1_767_261_600);
        assert_eq!(seconds, Timestamp::from_seconds_or_millis(1_767_261_600_000));
        assert_eq!(Timestamp::from_seconds_or_millis(i64::MAX), None);
    }

    #[test]
    fn an_earlier_time_is_no_negative_duration() {
        let early = Timestamp::from_millis(5);
        let late = Timestamp::from_millis(9);
        assert_eq!(late.since(early), Duration::from_millis(4));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
