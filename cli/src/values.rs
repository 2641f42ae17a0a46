//! Parsers of option values, with error messages for people.

use std::num::NonZeroU64;

use usher_lab::traffic::Url;
use usher_proto::Timestamp;
use usher_service::clock;

/// Parses the address of a page, on this or another machine.
///
/// # Errors
///
/// The text is no `http` or `https` address with a host; the message shows how one begins.
pub(crate) fn address(text: &str) -> Result<Url, String> {
    let parsed = text.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    parsed.ok_or_else(|| {
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        format!("an address begins with http:// or https://, such as http://{rest}")
    })
}

/// Parses a number of items, from 1.
///
/// # Errors
///
/// The text is no such number.
pub(crate) fn count(text: &str) -> Result<NonZeroU64, String> {
    text.parse().map_err(|_| "a number from 1".to_owned())
}

/// Parses a maximum number, from 1.
///
/// # Errors
///
/// The text is no such number.
pub(crate) fn limit(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| format!("a number from 1 to {}", u32::MAX))
}

/// Parses a rate: events or commands a second.
///
/// # Errors
///
/// The text is no finite number above 0.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>().ok();
    number.filter(|rate| rate.is_finite() && *rate > 0.0).ok_or_else(|| "a number a second, such as 50 or 0.5/s".into())
}

/// Parses a time, a day (its beginning in UTC), or a duration before now.
///
/// # Errors
///
/// The text is none of these.
pub(crate) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse().or_else(|_| format!("{text}T00:00:00Z").parse()) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| "a time such as 2026-01-31T12:00:00Z, a day such as 2026-01-31, or such as 2h".to_owned())?;
    let millis = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    Ok(Timestamp::from_millis(clock::now().millis().saturating_sub(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_told_how_it_begins() {
        assert!(address("http://127.0.0.1:8081/readyz").is_ok());
        for (text, meant) in [
            ("localhost:8080", "http://localhost:8080"),
            ("127.0.0.1:8080/x", "http://127.0.0.1:8080/x"),
            ("localhost", "http://localhost"),
            ("ftp://a.test", "http://a.test"),
        ] {
            let error = address(text).expect_err(text);
            assert!(error.ends_with(&format!("such as {meant}")), "{error}");
        }
    }

    #[test]
    fn a_time_is_a_moment_a_day_or_so_long_ago() {
        assert_eq!(since("2026-11-25").expect("a day").to_string(), "2026-11-25T00:00:00.000Z");
        assert_eq!(since("2026-11-25T10:00:00Z").expect("a moment").seconds() % 86_400, 36_000);
        assert!(since("2h").is_ok());
        assert!(since("yesterday").is_err_and(|error| error.contains("2026-01-31")));
    }

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!((rate("10/s"), rate("0.5")), (Ok(10.0), Ok(0.5)));
        for text in ["0", "-1", "inf", "ten", ""] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_begin_with_one() {
        assert!(count("1").is_ok() && limit("1").is_ok());
        for text in ["0", "all", "-1", ""] {
            assert!(count(text).is_err() && limit(text).is_err(), "{text}");
        }
    }
}
