//! The answers of destinations that are no success, as operators see them: status, the error's name, and the message.
//!
//! Connectors decide by their own reading of an answer; this one is for people, the same for all destinations.

use std::error::Error as _;

use reqwest::StatusCode;
use serde_json::Value;
use usher_engine::DestinationAnswer;
use usher_proto::Json;

use super::client::Clean;

/// Places of the error's name in the destinations' answers, by JSON pointer: Stripe (`error.code`, `error.type`), Nylas
/// (`error.type`), Resend (`name`), Novu (`error`), Clerk (the first of `errors`), others.
const NAMES: [&str; 8] =
    ["/errors/0/code", "/error/code", "/error/type", "/name", "/code", "/type", "/title", "/error"];
/// Places of the message: Stripe and Nylas (`error.message`), Resend, Novu and Algolia (`message`), Mailchimp (`detail`),
/// Clerk.
const MESSAGES: [&str; 6] =
    ["/error/message", "/message", "/detail", "/error_description", "/error", "/errors/0/long_message"];
/// Place of Mailchimp's list of fields that it refuses, each with `field` and `message`.
const FIELDS: &str = "/errors";
/// Bytes of a body that is no JSON of a known form, of which the message is made.
const LONGEST_BODY: usize = 4096;

/// Returns an answer that is no success.
///
/// `clean` removes what must not be kept of its texts.
pub(super) fn refusal(status: StatusCode, body: &[u8], clean: Clean<'_>) -> DestinationAnswer {
    let text = String::from_utf8_lossy(body);
    let json = Json::read(&text).map(Json::to_value).unwrap_or_default();
    let name = NAMES.iter().find_map(|place| json.pointer(place)?.as_str()).map(clean);
    let message = MESSAGES.iter().find_map(|place| match json.pointer(place)? {
        Value::String(message) => Some(message.clone()),
        // Novu and others answer with a list of messages.
        Value::Array(messages) => Some(messages.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")),
        _ => None,
    });
    let message = match (message, fields(&json)) {
        (Some(message), Some(fields)) => format!("{message} ({fields})"),
        (Some(message), None) => message,
        (None, Some(fields)) => fields,
        (None, None) => text.into_owned(),
    };
    // Only then is it cut: a half of what is to be removed would not be recognised.
    let message: String = clean(&message).chars().take(LONGEST_BODY).collect();
    DestinationAnswer::new(Some(status.as_u16()), name.as_deref(), Some(&message))
}

/// Returns the fields that are refused, each with what is wrong with it; `None` if the answer names none.
fn fields(json: &Value) -> Option<String> {
    let of = |error: &Value| Some(format!("{}: {}", error.get("field")?.as_str()?, error.get("message")?.as_str()?));
    let fields: Vec<String> = json.pointer(FIELDS)?.as_array()?.iter().filter_map(of).collect();
    (!fields.is_empty()).then(|| fields.join("; "))
}

/// Returns the failure to get an answer. The address is left out, because it may hold a secret.
pub(super) fn no_answer(error: &reqwest::Error, clean: Clean<'_>) -> DestinationAnswer {
    let mut words = String::new();
    let mut source = error.source();
    while let Some(inner) = source {
        // Each level of an error repeats the next in its own words; the innermost says it best.
        words = inner.to_string();
        source = inner.source();
    }
    let what = if error.is_timeout() { "no answer in time" } else { words.as_str() };
    DestinationAnswer::new(None, None, Some(&clean(what)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_message_are_found_in_the_answers_of_all_destinations() {
        let cases = [
            (
                r#"{"statusCode":422,"name":"validation_error","message":"Invalid `to` field."}"#,
                "validation_error",
                "Invalid `to` field.",
            ),
            (
                r#"{"error":{"type":"card_error","code":"card_declined","message":"Your card was declined."}}"#,
                "card_declined",
                "Your card was declined.",
            ),
            (
                r#"{"request_id":"1","error":{"type":"invalid_request_error","message":"bad grant"}}"#,
                "invalid_request_error",
                "bad grant",
            ),
            (
                r#"{"message":["to must be a string","x"],"error":"Bad","statusCode":400}"#,
                "Bad",
                "to must be a string; x",
            ),
            (
                r#"{"title":"Invalid","detail":"fields.","errors":[{"field":"FNAME","message":"too long"}]}"#,
                "Invalid",
                "fields. (FNAME: too long)",
            ),
            (
                r#"{"errors":[{"code":"resource_not_found","message":"not found","long_message":"No user"}]}"#,
                "resource_not_found",
                "No user",
            ),
            (r#"{"message":"Record is too big","status":400}"#, "-", "Record is too big"),
            ("<html>Bad Gateway</html>", "-", "<html>Bad Gateway</html>"),
            ("", "-", "-"),
        ];
        for (body, name, message) in cases {
            let answer = refusal(StatusCode::BAD_REQUEST, body.as_bytes(), &str::to_owned);
            let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            assert_eq!(
                (answer.status, shown(answer.name), shown(answer.message)),
                (Some(400), name.into(), message.into()),
                "{body}"
            );
        }
    }
}
