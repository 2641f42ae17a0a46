//! The few body fields that `ingest` reads. Deviations in all other fields are tolerated.
//!
//! Senders change their payloads without notice, and end users write parts of them. A field of another type than
//! documented is treated as absent. A body is refused only if it is not a JSON object, repeats a field that
//! `ingest` reads, or has no type. The depth of nesting is not limited here: every verified body is stored, and
//! only its size is bounded.

use std::borrow::Cow;

use usher_proto::event::MAX_ID;
use usher_proto::{EventId, Json, Timestamp};

use crate::error::Refusal;

/// Returns a body as text. Bytes that are not UTF-8 are replaced: they may be in a field that nobody reads.
pub(super) fn text(body: &[u8]) -> Cow<'_, str> {
    // Nearly always; a check is several times as fast as a search for what is to be replaced.
    str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed)
}

/// Parses a body as a JSON object, and returns the fields of these names.
///
/// # Errors
///
/// The body is not a JSON object, or contains one of the fields more than once: readers may differ in the
/// occurrence that they use.
pub(super) fn fields<'a, const N: usize>(body: &'a str, names: [&str; N]) -> Result<[Option<Json<'a>>; N], Refusal> {
    let object = Json::read(body).filter(|body| body.is_object());
    object.and_then(|object| object.unique(names)).ok_or(Refusal::BodyMalformed)
}

/// Returns the type of an event from the field that holds it.
///
/// # Errors
///
/// The type is absent, empty or not a string.
pub(super) fn kind(field: Option<Json<'_>>) -> Result<String, Refusal> {
    let kind = field.and_then(Json::filled);
    Ok(kind.ok_or(Refusal::BodyMalformed)?.into_owned())
}

/// Returns the id of an event from the field that holds it.
///
/// # Errors
///
/// The id is absent, empty, not a string, too long, or contains control characters.
pub(super) fn id(field: Option<Json<'_>>) -> Result<EventId, Refusal> {
    let id = field.and_then(Json::filled).filter(|id| id.len() <= MAX_ID && !id.contains(char::is_control));
    Ok(EventId::new(id.ok_or(Refusal::BodyMalformed)?))
}

/// Parses a time: a number in seconds or milliseconds, the text of such a number, or RFC 3339.
pub(super) fn time(value: Json<'_>) -> Option<Timestamp> {
    match value.whole() {
        Some(number) => Timestamp::from_seconds_or_millis(number.value),
        None => value.text()?.trim().parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_whatever_type_it_comes() {
        let of = |text: &str| time(Json::read(text).expect("JSON")).map(Timestamp::millis);
        for (text, expected) in [
            ("1767261600", Some(1_767_261_600_000)),
            ("1767261600250", Some(1_767_261_600_250)),
            ("1767261600250.0", Some(1_767_261_600_250)),
            (r#""1767261600250""#, Some(1_767_261_600_250)),
            (r#""2026-01-01T10:00:00.250Z""#, Some(1_767_261_600_250)),
            ("1e400", None),
            ("9223372036854775807", None),
            (r#""soon""#, None),
            (r#""""#, None),
            ("null", None),
            ("true", None),
            ("[1767261600]", None),
            ("{}", None),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
