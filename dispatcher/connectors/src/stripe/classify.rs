//! Classification of Stripe's answers.
//!
//! Facts: docs.stripe.com (errors, low-level errors, rate limits) and stripe-node's `_shouldRetry`: a
//! `Stripe-Should-Retry` header overrides the status.

use serde_json::{Value, json};
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;

use crate::client::HttpAnswer;

/// Returns the effect of creating an object, from Stripe's representation of it.
pub(super) fn created(object: &Value) -> Effect {
    let id = object["id"].as_str().unwrap_or_default();
    Effect::new(id, json!({ "status": object["status"] }))
}

/// True if the answer is that of an earlier request under the same idempotency key.
pub(super) fn is_replayed(answer: &HttpAnswer) -> bool {
    header(answer, "idempotent-replayed") == Some("true")
}

/// True if the requested object, or one that a parameter names, does not exist or no longer exists. With a key of the
/// wrong mode no object exists; then Stripe's message states that there is a similar object in the other mode, which is
/// a configuration error.
pub(super) fn is_missing(answer: &HttpAnswer) -> bool {
    matches!(answer.status.as_u16(), 400 | 404)
        && answer.json()["error"]["code"] == "resource_missing"
        && !is_of_other_mode(answer)
}

/// True if the price is invalid: there is none with that id, or it was archived ("The price specified is inactive",
/// invertase/stripe-firebase-extensions#560). The price is a setting.
fn is_about_price(answer: &HttpAnswer) -> bool {
    let body = answer.json();
    let param = body["error"]["param"].as_str().unwrap_or_default();
    answer.status.as_u16() == 400 && param.starts_with("items[") && param.ends_with("[price]")
}

/// True if an object that a parameter names does not exist, such as a deleted customer. A customer without a card gets
/// the same code but another message.
fn is_no_such(answer: &HttpAnswer) -> bool {
    let says = |text: &str| text.starts_with("No such ");
    is_missing(answer) && answer.json()["error"]["message"].as_str().is_some_and(says)
}

fn is_of_other_mode(answer: &HttpAnswer) -> bool {
    answer.json()["error"]["message"].as_str().is_some_and(|text| text.contains("a similar object exists in"))
}

fn header<'a>(answer: &'a HttpAnswer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).and_then(|value| value.to_str().ok())
}

/// Returns the outcome of an answer that is not a success.
pub(super) fn classify(answer: &HttpAnswer) -> Outcome {
    let body = answer.json();
    let status = answer.status.as_u16();
    let word = |field: &str| {
        let text = body["error"][field].as_str()?;
        text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_').then(|| text.to_owned())
    };
    let kind = word("type").unwrap_or_default();
    let code = word("code").unwrap_or_default();
    let parts = [status.to_string(), kind.clone(), code.clone()];
    let error = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let cause = match status {
        // Two writers of one object, not too many requests: other objects are still served.
        429 if code == "lock_timeout" => Cause::Conflict,
        429 => Cause::Throttled,
        500..=599 => Cause::Unavailable,
        _ => Cause::Conflict,
    };
    let reason = match status {
        401 | 403 => Reason::Configuration,
        _ if is_of_other_mode(answer) || is_about_price(answer) => Reason::Configuration,
        404 => Reason::NotFound,
        _ if is_no_such(answer) => Reason::NotFound,
        _ if kind == "idempotency_error" => Reason::IdempotencyConflict,
        _ => Reason::InvalidRequest,
    };
    // stripe-node does not repeat a plain 429; the documentation recommends to repeat it after a pause.
    let again = match header(answer, "stripe-should-retry") {
        Some("true") => true,
        Some("false") => false,
        _ => matches!(status, 409 | 424 | 429 | 500..=599),
    };
    if again { answer.retry(cause) } else { Outcome::reject(reason, error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assert_outcome;
    use crate::testing::answer;

    #[test]
    fn an_object_of_the_other_mode_is_not_gone() {
        let missing = |message: &str| {
            answer(404, &serde_json::json!({"error": {"code": "resource_missing", "message": message}}).to_string())
        };
        assert!(is_missing(&missing("No such customer: 'cus_1'")));
        let other = "No such customer: 'cus_1'; a similar object exists in test mode, but a live mode key was used.";
        assert!(!is_missing(&missing(other)));
        assert_outcome(&classify(&missing(other)), Err(Reason::Configuration), "the other mode");
    }

    #[test]
    fn what_a_parameter_names_may_be_gone_and_a_price_is_a_setting() {
        for (param, code, message, reason) in [
            ("customer", "resource_missing", "No such customer: 'cus_1'", Reason::NotFound),
            ("customer", "resource_missing", "This customer has no attached payment source", Reason::InvalidRequest),
            ("items[0][price]", "resource_missing", "No such price: 'price_1'", Reason::Configuration),
            ("items[0][price]", "", "The price specified is inactive.", Reason::Configuration),
            ("items[0][quantity]", "parameter_invalid_integer", "Invalid integer: x", Reason::InvalidRequest),
        ] {
            let error = serde_json::json!({ "param": param, "code": code, "message": message });
            let answer = answer(400, &serde_json::json!({ "error": error }).to_string());
            assert_outcome(&classify(&answer), Err(reason), message);
        }
    }
}
