//! The double of PostHog's capture endpoint: `POST /i/v0/e/`, `/capture/`.
//!
//! Facts: posthog.com/docs/api/capture: `api_key`, `event` and `distinct_id` (beside them or in `properties`) are required,
//! `properties` and `timestamp` optional. PostHog/posthog, rust/capture: a request without a token, or with one that is
//! a personal key, is 401; one without event or `distinct_id` is 400. The form of the successful response differs between
//! its versions (`1` or `"Ok"`); clients look at the status only.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::FakeResponse;
use crate::receiver::{Accepted, ReceiverRules, object, text};
use crate::request::Request;

/// Maximum length of a `distinct_id`.
const LONGEST_ID: usize = 200;

pub(crate) const POSTHOG: ReceiverRules =
    ReceiverRules { name: "posthog", hosts: &["us.i.posthog.com", "eu.i.posthog.com"], judge, refusal };

fn refusal(status: StatusCode, message: &str) -> FakeResponse {
    FakeResponse::refused(status, message.into()).plain()
}

fn judge(request: &Request) -> Result<Accepted, FakeResponse> {
    let bad = |message: &str| refusal(StatusCode::BAD_REQUEST, message);
    if !matches!(request.segments()[..], ["i", "v0", "e"] | ["capture"] | ["e"]) {
        return Err(refusal(StatusCode::NOT_FOUND, "not found"));
    }
    if request.method != Method::POST {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"));
    }
    let body = object(request).ok_or_else(|| bad("failed to parse request"))?;
    let key = text(&body["api_key"]).or_else(|| text(&body["token"]));
    if key.is_none_or(|key| key.starts_with("phx_") || !key.is_ascii()) {
        return Err(refusal(StatusCode::UNAUTHORIZED, "event submitted without a valid api_key"));
    }
    if text(&body["event"]).is_none() {
        return Err(bad("event submitted with an empty event name"));
    }
    let properties = &body["properties"];
    if !(properties.is_null() || properties.is_object()) {
        return Err(bad("failed to parse request"));
    }
    let id = [&body["distinct_id"], &properties["distinct_id"]].into_iter().find(|id| !id.is_null());
    let is_id = |id: &&Value| id.is_number() || text(id).is_some_and(|id| id.chars().count() <= LONGEST_ID);
    let id = id.filter(is_id).ok_or_else(|| bad("event submitted without a distinct_id"))?;
    let email = &properties["$set"]["email"];
    Ok(Accepted::new("events.capture", FakeResponse::done(json!({ "status": "Ok" }))).user(id).to(email))
}
