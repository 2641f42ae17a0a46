//! The limits of an account in text: `10/s, 50000/d, 8 at once`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp as Instant, ToSpan as _};
use usher_proto::Timestamp;

/// The limits of an account; with no field set, it has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quota {
    /// The limit of calls in any stretch of time of a given length.
    pub pace: Option<Pace>,
    /// The limits of calls in a calendar hour, day or month.
    pub caps: Vec<Cap>,
    /// Maximum number of concurrent calls.
    pub max_concurrent: Option<u32>,
}

/// A number of calls in any stretch of time of the given length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Number of calls; at least 1.
    pub calls: u32,
    /// The length: a second or a minute when configured.
    pub per: Duration,
}

impl Pace {
    /// Returns the number of calls in a second.
    pub fn rate(&self) -> f64 {
        f64::from(self.calls) / self.per.as_secs_f64()
    }
}

/// A number of calls from one full hour, midnight or first of a month to the next, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// Number of calls; at least 1.
    pub calls: u32,
    /// The calendar span.
    pub span: Span,
}

/// The calendar span of a cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A month.
    Month,
}

impl Span {
    /// Returns the name of the span that contains `now`, which no other span has, and the time at which it ends.
    pub fn of(self, now: Timestamp) -> (String, Timestamp) {
        let at = Instant::from_millisecond(now.millis()).unwrap_or_default().to_zoned(TimeZone::UTC).datetime();
        let day = at.date().to_datetime(jiff::civil::Time::midnight());
        let (name, begin, length) = match self {
            Self::Hour => ("%Y-%m-%dT%H", at.date().at(at.hour(), 0, 0, 0), 1.hour()),
            Self::Day => ("%Y-%m-%d", day, 1.day()),
            Self::Month => ("%Y-%m", at.date().first_of_month().to_datetime(jiff::civil::Time::midnight()), 1.month()),
        };
        let end = begin.checked_add(length).unwrap_or(DateTime::MAX);
        let end = end.to_zoned(TimeZone::UTC).map_or(i64::MAX, |end| end.timestamp().as_millisecond());
        (begin.strftime(name).to_string(), Timestamp::from_millis(end))
    }
}

/// A text that does not state a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no limit; write \"10/s\", \"30/min\", \"100/h\", \"5000/d\", \"50000/month\" or \"8 at once\", several with commas, or \"none\""
)]
pub struct InvalidQuota(String);

impl FromStr for Quota {
    type Err = InvalidQuota;

    fn from_str(text: &str) -> Result<Self, InvalidQuota> {
        let mut quota = Self::default();
        if text.trim() == "none" {
            return Ok(quota);
        }
        for part in text.split(',').map(str::trim) {
            let wrong = || InvalidQuota(part.to_owned());
            let number = |text: &str| text.trim().parse().ok().filter(|calls| *calls > 0).ok_or_else(wrong);
            let second_time = if let Some(number_at_once) = part.strip_suffix("at once") {
                quota.max_concurrent.replace(number(number_at_once)?).is_some()
            } else {
                let (calls, unit) = part.split_once('/').ok_or_else(wrong)?;
                let calls = number(calls)?;
                let pace = |seconds| Pace { calls, per: Duration::from_secs(seconds) };
                let cap = |span| Cap { calls, span };
                match unit.trim() {
                    "s" | "sec" | "second" => quota.pace.replace(pace(1)).is_some(),
                    "min" | "minute" => quota.pace.replace(pace(60)).is_some(),
                    "h" | "hour" => quota.add(cap(Span::Hour)),
                    "d" | "day" => quota.add(cap(Span::Day)),
                    "month" => quota.add(cap(Span::Month)),
                    _ => return Err(wrong()),
                }
            };
            if second_time {
                return Err(wrong());
            }
        }
        Ok(quota)
    }
}

impl Quota {
    /// Adds a cap. Returns true if there was one for the same span.
    fn add(&mut self, cap: Cap) -> bool {
        let known = self.caps.iter().any(|known| known.span == cap.span);
        self.caps.push(cap);
        known
    }

    /// Returns true if nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(Pace { calls, per }) = self.pace {
            parts.push(format!("{calls}/{}", if per.as_secs() == 1 { "s" } else { "min" }));
        }
        for Cap { calls, span } in &self.caps {
            let unit = match span {
                Span::Hour => "h",
                Span::Day => "d",
                Span::Month => "month",
            };
            parts.push(format!("{calls}/{unit}"));
        }
        parts.extend(self.max_concurrent.map(|calls| format!("{calls} at once")));
        f.write_str(if parts.is_empty() { "none" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_written_alike() {
        for text in ["none", "10/s", "30/min", "10/s, 100/d, 3000/month, 8 at once", "8 at once"] {
            assert_eq!(text.parse::<Quota>().map(|limits| limits.to_string()), Ok(text.to_owned()));
        }
        let limits: Quota = " 2 / second,5/hour".parse().expect("good");
        assert_eq!(limits.pace, Some(Pace { calls: 2, per: Duration::from_secs(1) }));
        assert_eq!(limits.caps, [Cap { calls: 5, span: Span::Hour }]);
    }

    #[test]
    fn what_is_no_limit_is_named() {
        for text in ["", "10", "0/s", "-1/s", "10/x", "1/s, 2/s", "1/d, 2/d", "at once", "ten/s"] {
            assert!(text.parse::<Quota>().is_err(), "{text:?}");
        }
        let told = "10/s, fast".parse::<Quota>().expect_err("bad").to_string();
        assert!(told.starts_with("\"fast\" is no limit; write \"10/s\""), "{told}");
    }

    #[test]
    fn spans_follow_the_calendar() {
        let now: Timestamp = "2026-12-31T23:15:00Z".parse().expect("a time");
        let told = |span: Span| {
            let (name, end) = span.of(now);
            format!("{name} until {end}")
        };
        assert_eq!(told(Span::Hour), "2026-12-31T23 until 2027-01-01T00:00:00.000Z");
        assert_eq!(told(Span::Day), "2026-12-31 until 2027-01-01T00:00:00.000Z");
        assert_eq!(told(Span::Month), "2026-12 until 2027-01-01T00:00:00.000Z");
    }
}
