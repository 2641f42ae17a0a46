//! Times in templates: the forms in which senders write them, and the filters that move them.

use std::time::Duration;

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Value as Rendered};
use usher_proto::Timestamp;

use super::sent::Digits;

/// Message about a value that is no time. It does not repeat the value, which may be personal.
pub(super) const NO_TIME: &str = "it is no time: RFC 3339 such as 2026-12-24T09:00:00Z, a date such as 2026-12-24, or seconds or milliseconds since \
     1970";
/// Message about an argument of the filters that is no duration.
pub(super) const NO_DURATION: &str = "plus and minus take a time such as '90m' or '3d'";

pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("plus", |time: &Rendered, by: &str| moved(time, by, Timestamp::plus));
    environment.add_filter("minus", |time: &Rendered, by: &str| moved(time, by, Timestamp::minus));
}

fn moved(time: &Rendered, by: &str, how: fn(Timestamp, Duration) -> Timestamp) -> Result<Rendered, Error> {
    let invalid = |what| Error::new(ErrorKind::InvalidOperation, what);
    let by = humantime::parse_duration(by).map_err(|_| invalid(NO_DURATION))?;
    let time = read(time).ok_or_else(|| invalid(NO_TIME))?;
    Ok(Rendered::from(how(time, by).to_string()))
}

/// Reads a time: RFC 3339, a date, which stands for its first moment in UTC, or a number of seconds or milliseconds since
/// 1970, also as a text. `None` for anything else.
pub(super) fn read(value: &Rendered) -> Option<Timestamp> {
    if let Some(Digits(digits)) = value.downcast_object_ref() {
        return read_text(digits);
    }
    if let Some(text) = value.as_str() {
        return read_text(text);
    }
    if value.kind() != ValueKind::Number {
        return None;
    }
    let number = i64::try_from(value.clone()).ok().or_else(|| whole(f64::try_from(value.clone()).ok()?));
    Timestamp::from_seconds_or_millis(number?)
}

fn read_text(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let number = || text.parse().ok().or_else(|| whole(text.parse().ok()?)).and_then(Timestamp::from_seconds_or_millis);
    let date = || is_date(text).then(|| format!("{text}T00:00:00Z").parse().ok()).flatten();
    number().or_else(|| text.parse().ok()).or_else(date)
}

/// True for four, two and two digits with dashes between them. The date itself is checked when it is read.
fn is_date(text: &str) -> bool {
    let is_part = |(at, byte): (usize, u8)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(is_part)
}

/// Returns the whole part of a number, if 64 bits have it.
fn whole(number: f64) -> Option<i64> {
    // Larger numbers of milliseconds are beyond the years that RFC 3339 can express.
    const MOST: f64 = 1e15;
    #[expect(clippy::cast_possible_truncation, reason = "below 1e15")]
    let whole = number.trunc() as i64;
    (number.abs() < MOST).then_some(whole)
}
