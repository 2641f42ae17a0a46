//! Stripe's errors, `{"error":{"type","code","message","param","doc_url","request_log_url"}}`.

use std::borrow::Cow;

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::answer::FakeResponse;
use crate::ids;

pub(super) const REQUEST_ID: &str = "request-id";
/// The header that names the limiter of a 429. A 429 without it is caused by a lock on an object.
const LIMITED_REASON: &str = "stripe-rate-limited-reason";

const INVALID_REQUEST: &str = "invalid_request_error";
const IDEMPOTENCY: &str = "idempotency_error";
const API: &str = "api_error";
const CARD: &str = "card_error";

/// An error as Stripe writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StripeError {
    status: StatusCode,
    kind: &'static str,
    code: Option<Cow<'static, str>>,
    param: Option<String>,
    message: String,
}

impl StripeError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code: None, param: None, message: message.into() }
    }

    /// Creates a 400 about one parameter.
    pub(super) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message) }
    }

    /// Sets the code.
    pub(super) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code.into()), ..self }
    }

    pub(super) fn unknown_parameter(param: &str) -> Self {
        Self::invalid(param, format!("Received unknown parameter: {param}")).code("parameter_unknown")
    }

    pub(super) fn missing_parameter(param: &str) -> Self {
        Self::invalid(param, format!("Missing required param: {param}.")).code("parameter_missing")
    }

    /// Creates a 404 for the object that the path names.
    pub(super) fn no_such(object: &str, id: &str) -> Self {
        Self { status: StatusCode::NOT_FOUND, ..Self::no_such_in("id", object, id) }
    }

    /// Creates a 400 for an object that a parameter names.
    pub(super) fn no_such_in(param: &str, object: &str, id: &str) -> Self {
        Self::invalid(param, format!("No such {object}: '{id}'")).code("resource_missing")
    }

    pub(super) fn no_such_path(method: &Method, path: &str) -> Self {
        let message =
            format!("Unrecognized request URL ({method}: {path}). The lab has customers and subscriptions only.");
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message)
    }

    pub(super) fn not_a_form() -> Self {
        let message = "Invalid request (check that your POST content type is application/x-www-form-urlencoded).";
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message)
    }

    pub(super) fn no_key() -> Self {
        let message = "You did not provide an API key. Give it in the Authorization header, with Bearer or as the user \
            name of Basic.";
        Self::new(StatusCode::UNAUTHORIZED, INVALID_REQUEST, message)
    }

    /// Creates the error of an invalid API key. Stripe shows the last characters of the key; the lab does not, because
    /// a key does not belong in a response.
    pub(super) fn wrong_key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, INVALID_REQUEST, "Invalid API Key provided: ****")
    }

    pub(super) fn key_length() -> Self {
        let message = "Idempotency keys may have 1 to 255 characters.";
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message)
    }

    pub(super) fn key_reused(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used for the same endpoint and with the same parameters as at \
             first. Use another key than '{key}' if this is another request."
        );
        Self::new(StatusCode::BAD_REQUEST, IDEMPOTENCY, message)
    }

    pub(super) fn key_in_use(key: &str) -> Self {
        let message = format!("Another request with the idempotent key '{key}' is still in progress. Try again later.");
        Self::new(StatusCode::CONFLICT, IDEMPOTENCY, message).code("idempotency_key_in_use")
    }
}

impl From<StripeError> for FakeResponse {
    fn from(error: StripeError) -> Self {
        let request = ids::prefixed("req_", 14);
        let mut body = Map::new();
        if let Some(code) = &error.code {
            let page = code.replace('_', "-");
            body.insert("code".into(), json!(code));
            body.insert("doc_url".into(), json!(format!("https://stripe.com/docs/error-codes/{page}")));
            if error.kind == CARD {
                body.insert("decline_code".into(), json!("generic_decline"));
            }
        }
        if let Some(param) = error.param {
            body.insert("param".into(), Value::String(param));
        }
        body.insert("message".into(), Value::String(error.message));
        body.insert("type".into(), json!(error.kind));
        body.insert("request_log_url".into(), json!(format!("https://dashboard.stripe.com/test/logs/{request}")));
        let answer = Self::refused(error.status, json!({ "error": body })).with(REQUEST_ID, request);
        if error.status == StatusCode::UNAUTHORIZED {
            return answer.with("www-authenticate", "Basic realm=\"Stripe\"");
        }
        answer
    }
}

/// Builds the 429 of the rate limiter.
pub(super) fn rate_limited() -> FakeResponse {
    let message = "Request rate limit exceeded. Retry with an exponential backoff.";
    let error = StripeError::new(StatusCode::TOO_MANY_REQUESTS, INVALID_REQUEST, message).code("rate_limit");
    FakeResponse::from(error).with(LIMITED_REASON, "global-rate")
}

/// Builds the response of a fault with this status. A given `name` is used as its code.
pub(super) fn on_purpose(status: StatusCode, name: Option<&str>) -> FakeResponse {
    let (kind, code, message) = match status.as_u16() {
        401 if name.is_none() => return StripeError::wrong_key().into(),
        402 => (CARD, Some("card_declined"), "Your card was declined."),
        403 => (INVALID_REQUEST, None, "The provided key does not have the required permissions for this endpoint."),
        404 => (INVALID_REQUEST, Some("resource_missing"), "No such object."),
        409 => (IDEMPOTENCY, Some("idempotency_key_in_use"), "Another request with this key is still in progress."),
        424 => (API, None, "An external dependency failed."),
        429 if name.is_none_or(|name| name == "rate_limit") => return rate_limited(),
        429 => (INVALID_REQUEST, None, "This object cannot be accessed right now because another request is using it."),
        500..=599 => (API, None, "Sorry! There was an error while talking to one of our backends."),
        _ => (INVALID_REQUEST, None, "The lab answers this on purpose."),
    };
    let code = name.map(|name| Cow::Owned(name.to_owned())).or(code.map(Cow::Borrowed));
    let answer = FakeResponse::from(StripeError { code, ..StripeError::new(status, kind, message) });
    if matches!(status.as_u16(), 402 | 500) { answer.kept() } else { answer }
}
