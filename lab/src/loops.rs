//! The double of Loops: `POST /api/v1/events/send`, `PUT /api/v1/contacts/update`.
//!
//! Facts: loops.so/docs/api-reference ("Send event", "Update contact", "Introduction"): a Bearer key; `eventName`, and `email`
//! or `userId`; `Idempotency-Key` of up to 100 characters, and 409 for one that was used within 24 hours; names of
//! events have no colon; errors are `{ "success": false, "message" }`.

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::answer::FakeResponse;
use crate::receiver::{Accepted, ReceiverRules, bearer, object, text};
use crate::request::Request;

/// Maximum length of an idempotency key.
const LONGEST_KEY: usize = 100;

pub(crate) const LOOPS: ReceiverRules = ReceiverRules { name: "loops", hosts: &["app.loops.so"], judge, refusal };

fn refusal(status: StatusCode, message: &str) -> FakeResponse {
    FakeResponse::refused(status, json!({ "success": false, "message": message }))
}

fn judge(request: &Request) -> Result<Accepted, FakeResponse> {
    let bad = |message: &str| refusal(StatusCode::BAD_REQUEST, message);
    if bearer(&request.headers).is_none() {
        return Err(refusal(StatusCode::UNAUTHORIZED, "Invalid API key"));
    }
    let is_event = match request.segments()[..] {
        ["api", "v1", "events", "send"] => true,
        ["api", "v1", "contacts", "update"] => false,
        _ => return Err(refusal(StatusCode::NOT_FOUND, "Not found")),
    };
    if request.method != (if is_event { Method::POST } else { Method::PUT }) {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"));
    }
    let body = object(request).ok_or_else(|| bad("Invalid JSON"))?;
    let (email, user) = (text(&body["email"]), text(&body["userId"]));
    if email.is_none() && user.is_none() {
        return Err(bad("An email or userId is required."));
    }
    if email.is_some_and(|email| !email.contains('@')) {
        return Err(bad("The email is invalid."));
    }
    let answer = FakeResponse::done(json!({ "success": true }));
    if !is_event {
        return Ok(Accepted::new("contacts.update", answer).user(&body["userId"]).to(&body["email"]));
    }
    if text(&body["eventName"]).is_none_or(|name| name.contains(':')) {
        return Err(bad("eventName is required, and has no colon."));
    }
    let key = request.header("idempotency-key");
    if key.is_some_and(|key| key.is_empty() || key.len() > LONGEST_KEY) {
        return Err(bad("The idempotency key has up to 100 characters."));
    }
    let again = refusal(StatusCode::CONFLICT, "Idempotency key has been used in the previous 24 hours");
    let once = key.map(|key| (key.to_owned(), again));
    Ok(Accepted { once, ..Accepted::new("events.send", answer).user(&body["userId"]).to(&body["email"]) })
}
