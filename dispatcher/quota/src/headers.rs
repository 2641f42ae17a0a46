//! The rate limit headers of an answer.
//!
//! Facts: the header fields of the IETF draft "RateLimit header fields for HTTP" (up to version 7), as Resend and Novu
//! send them: `ratelimit-limit`, `ratelimit-remaining`, `ratelimit-reset` (seconds), `ratelimit-policy` (`2;w=1`;
//! several are separated by commas). Other destinations send the time of the reset in `ratelimit-reset`, as an epoch in
//! seconds or milliseconds. Later versions of the draft put the limit after a name (`"burst";q=100;w=60`).

use std::time::Duration;

use http::HeaderMap;
use http::header::DATE;
use jiff::fmt::rfc2822::DateTimeParser;
use usher_proto::Timestamp;

use super::Pace;

/// Longest window and furthest reset that are accepted, in seconds: 31 days.
const LONGEST: f64 = 31.0 * 86_400.0;
/// A reset from this value on is an epoch in seconds (2001 or later), from `EPOCH_MILLIS` on one in milliseconds.
const EPOCH_SECONDS: f64 = 1e9;
const EPOCH_MILLIS: f64 = 1e12;

/// The rate limit headers of one answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RateLimitHeaders {
    /// The limits that are given with their windows.
    pub policies: Vec<Pace>,
    /// A limit that is given without its window; absent if there is none.
    pub limit: Option<u32>,
    /// Calls left until `reset`; absent if the answer gives no number.
    pub remaining: Option<u32>,
    /// Time until the window ends; absent if the answer gives none.
    pub reset: Option<Duration>,
    /// The name of a header that cannot be read, whose value is missing above; absent if all could be read.
    pub unreadable: Option<&'static str>,
}

impl RateLimitHeaders {
    /// Reads the rate limit headers of an answer that arrived at `now`. An unreadable header is ignored, and its name is
    /// stored in `unreadable`.
    pub fn read(headers: &HeaderMap, now: Timestamp) -> Self {
        let mut unreadable = None;
        let mut field = |name: &'static str, read: &mut dyn FnMut(&str) -> Option<()>| {
            let Some(value) = headers.get(name) else { return };
            if value.to_str().ok().and_then(|text| read(text.trim())).is_none() {
                unreadable = Some(name);
            }
        };
        let mut limit = None;
        let mut policies = Vec::new();
        let mut remaining = None;
        let mut reset = None;
        field("ratelimit-limit", &mut |text| {
            // Drafts up to the sixth list the windows here, after the limit that is closest to being reached.
            let (first, rest) = text.split_once(',').unwrap_or((text, ""));
            let first = first.split(';').next()?.trim().parse().ok().filter(|limit| *limit > 0)?;
            limit = Some(first);
            policies = listed(rest).unwrap_or_default();
            Some(())
        });
        field("ratelimit-policy", &mut |text| {
            policies = listed(text)?;
            Some(())
        });
        field("ratelimit-remaining", &mut |text| {
            remaining = Some(text.split([',', ';']).next()?.trim().parse().ok()?);
            Some(())
        });
        field("ratelimit-reset", &mut |text| {
            reset = Some(until_reset(text.parse().ok()?, || answered_at(headers, now))?);
            Some(())
        });
        Self { policies, limit, remaining, reset, unreadable }
    }

    /// Returns true if the answer announces no limit.
    pub(crate) fn is_silent(&self) -> bool {
        self.policies.is_empty() && self.limit.is_none() && self.remaining.is_none()
    }
}

/// Parses limits with their windows: `2;w=1`, `10;w=1, 1000;w=3600`, `"burst";q=100;w=60`. `None` if one is invalid.
fn listed(text: &str) -> Option<Vec<Pace>> {
    let policy = |text: &str| {
        let mut parts = text.split(';').map(str::trim);
        let first = parts.next()?;
        let mut calls = first.parse().ok();
        let mut per = None;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "w" => per = Some(value.trim().parse::<u64>().ok()?),
                "q" => calls = Some(value.trim().parse().ok()?),
                _ => {}
            }
        }
        let per = per.filter(|seconds| *seconds > 0 && *seconds as f64 <= LONGEST)?;
        Some(Pace { calls: calls.filter(|calls| *calls > 0)?, per: Duration::from_secs(per) })
    };
    text.split(',').map(policy).collect()
}

/// Returns the time until a reset, given in seconds or as an epoch; zero if it has passed. `None` beyond `LONGEST`.
fn until_reset(number: f64, answered_at: impl Fn() -> Timestamp) -> Option<Duration> {
    let seconds = match number {
        millis if millis >= EPOCH_MILLIS => (millis - answered_at().millis() as f64) / 1e3,
        seconds if seconds >= EPOCH_SECONDS => seconds - answered_at().millis() as f64 / 1e3,
        // A negative number of seconds is invalid, whereas an epoch in the past means that the reset is over.
        seconds => return (0.0..=LONGEST).contains(&seconds).then(|| Duration::from_secs_f64(seconds)),
    };
    (seconds <= LONGEST).then(|| Duration::from_secs_f64(seconds.max(0.0)))
}

/// Returns the destination's time from the `Date` header, because its epochs follow that clock; else `now`.
fn answered_at(headers: &HeaderMap, now: Timestamp) -> Timestamp {
    let date = headers.get(DATE).and_then(|date| DateTimeParser::new().parse_timestamp(date.to_str().ok()?).ok());
    date.map_or(now, |date| Timestamp::from_millis(date.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    /// 2026-01-01T00:00:00Z
    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

    fn with(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        headers.iter().map(header).collect()
    }

    fn read(headers: &HeaderMap) -> RateLimitHeaders {
        RateLimitHeaders::read(headers, NOW)
    }

    #[test]
    fn every_header_is_read() {
        let headers = with(&[
            ("ratelimit-limit", "2, 2;w=1"),
            ("ratelimit-policy", "2;w=1"),
            ("ratelimit-remaining", "0"),
            ("ratelimit-reset", "0.5"),
        ]);
        let expected = RateLimitHeaders {
            policies: vec![second(2)],
            limit: Some(2),
            remaining: Some(0),
            reset: Some(Duration::from_millis(500)),
            unreadable: None,
        };
        assert_eq!(read(&headers), expected);
    }

    fn second(calls: u32) -> Pace {
        Pace { calls, per: Duration::from_secs(1) }
    }

    #[test]
    fn what_cannot_be_read_says_nothing_and_is_named() {
        let unreadable = |name, value| {
            let headers = read(&with(&[(name, value)]));
            assert_eq!(
                RateLimitHeaders { unreadable: None, ..headers.clone() },
                RateLimitHeaders::default(),
                "{value}"
            );
            assert_eq!(headers.unreadable, Some(name), "{value}");
        };
        for limit in ["many", "0", "-1", "", "99999999999999999999", "1.5", "NaN"] {
            unreadable("ratelimit-limit", limit);
        }
        for reset in ["-1", "soon", "NaN", "inf", "400000000", "9999999999", "99999999999999999"] {
            unreadable("ratelimit-reset", reset);
        }
        for policy in ["100", "0;w=1", "100;w=0", "100;w=-1", "100;w=99999999999", "x;w=1", "10;w=1, 5"] {
            unreadable("ratelimit-policy", policy);
        }
        assert_eq!(read(&HeaderMap::new()), RateLimitHeaders::default());
    }

    #[test]
    fn several_windows_are_read_in_every_spelling() {
        let hour = Pace { calls: 1_000, per: Duration::from_secs(3_600) };
        let policies = |name, value| read(&with(&[(name, value)])).policies;
        for policy in ["10;w=1, 1000;w=3600", "10; w=1 ,1000;w=3600;burst=2", "\"a\";q=10;w=1,\"b\";q=1000;w=3600"] {
            assert_eq!(policies("ratelimit-policy", policy), [second(10), hour], "{policy}");
        }
        assert_eq!(policies("ratelimit-limit", "10, 10;w=1, 1000;w=3600"), [second(10), hour]);
    }

    #[test]
    fn a_reset_is_a_number_of_seconds_or_an_epoch_by_the_destinations_clock() {
        let date = "Wed, 31 Dec 2025 23:59:00 GMT";
        let reset = |value| read(&with(&[("date", date), ("ratelimit-reset", value)])).reset;
        for (value, seconds) in [
            ("60", 60.0),
            ("0.25", 0.25),
            ("1767225600", 60.0),
            ("1767225600.5", 60.5),
            ("1767225600000", 60.0),
            ("1767225500", 0.0),
            ("86400", 86_400.0),
        ] {
            assert_eq!(reset(value), Some(Duration::from_secs_f64(seconds)), "{value}");
        }
        assert_eq!(reset("1777225600"), None, "in four months");
        let soon = NOW.millis() / 1_000 + 30;
        assert_eq!(until_reset(soon as f64, || NOW), Some(Duration::from_secs(30)), "without a date, by our own clock");
    }
}
