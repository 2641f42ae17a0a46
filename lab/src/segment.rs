//! The double of Segment's HTTP tracking API: `POST /v1/identify`, `/v1/track`.
//!
//! Facts: the page "HTTP API Source" of Segment's documentation: Basic authentication with the write key as user; 200 for
//! every request but those that are larger than 32 KB or no JSON (400), also for events that Segment drops: without an
//! identifier, without a name, with a `messageId` that it has seen. `messageId` has up to 100 characters
//! (segmentio/segment-docs, issue 5924).

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::answer::FakeResponse;
use crate::receiver::{Accepted, ReceiverRules, basic, object, text};
use crate::request::Request;

/// Maximum size of an event, in bytes.
const MOST_BYTES: usize = 32 * 1024;
/// Maximum length of a `messageId`.
const LONGEST_ID: usize = 100;

pub(crate) const SEGMENT: ReceiverRules =
    ReceiverRules { name: "segment", hosts: &["api.segment.io", "events.eu1.segmentapis.com"], judge, refusal };

fn refusal(status: StatusCode, message: &str) -> FakeResponse {
    FakeResponse::refused(status, json!({ "success": false, "message": message }))
}

fn judge(request: &Request) -> Result<Accepted, FakeResponse> {
    let operation = match request.segments()[..] {
        ["v1", "identify"] => "identify",
        ["v1", "track"] => "track",
        _ => return Err(refusal(StatusCode::NOT_FOUND, "not found")),
    };
    if request.method != Method::POST {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"));
    }
    let body = object(request).filter(|_| request.raw().len() <= MOST_BYTES);
    let body = body.ok_or_else(|| refusal(StatusCode::BAD_REQUEST, "malformed JSON, or too large"))?;
    let answer = || FakeResponse::done(json!({ "success": true }));
    let id = text(&body["messageId"]);
    let is_taken = basic(&request.headers).is_some_and(|(key, _)| !key.is_empty())
        && (text(&body["userId"]).is_some() || text(&body["anonymousId"]).is_some())
        && (operation != "track" || text(&body["event"]).is_some())
        && id.as_ref().is_none_or(|id| id.len() <= LONGEST_ID);
    let once =
        id.filter(|_| is_taken).map(|id| (id, FakeResponse::refused(StatusCode::OK, json!({ "success": true }))));
    let accepted = Accepted::new(operation, answer()).user(&body["userId"]).to(&body["traits"]["email"]);
    Ok(Accepted { changes: is_taken, once, ..accepted })
}
