//! The double of Customer.io's Track API: `PUT` and `DELETE /api/v1/customers/<id>`.
//!
//! Facts: docs.customer.io/api/track and its OpenAPI document (Basic authentication with site id and key; an empty object as
//! the response), "Invalid Track API Requests" (400 with `{ "meta": { "error" } }`; up to 300 attributes, names of up to 150
//! bytes). `created_at` counts seconds.

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::answer::FakeResponse;
use crate::receiver::{Accepted, ReceiverRules, basic, object, text};
use crate::request::Request;

/// Maximum number of attributes, and length of a name in bytes.
const MOST_ATTRIBUTES: usize = 300;
const LONGEST_NAME: usize = 150;
/// A time in seconds is below this number; one in milliseconds is above it.
const LAST_SECOND: u64 = 100_000_000_000;

pub(crate) const CUSTOMER_IO: ReceiverRules =
    ReceiverRules { name: "customer-io", hosts: &["track.customer.io", "track-eu.customer.io"], judge, refusal };

fn refusal(status: StatusCode, message: &str) -> FakeResponse {
    FakeResponse::refused(status, json!({ "meta": { "error": message } }))
}

fn judge(request: &Request) -> Result<Accepted, FakeResponse> {
    let bad = |message: &str| refusal(StatusCode::BAD_REQUEST, message);
    if basic(&request.headers).is_none_or(|(site, key)| site.is_empty() || key.is_empty()) {
        return Err(refusal(StatusCode::UNAUTHORIZED, "Unauthorized request"));
    }
    let ["api", "v1", "customers", id] = request.segments()[..] else {
        return Err(refusal(StatusCode::NOT_FOUND, "not found"));
    };
    let done = || FakeResponse::done(json!({}));
    if request.method == Method::DELETE {
        return Ok(Accepted::new("customers.delete", done()).user(&id.into()));
    }
    if request.method != Method::PUT {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"));
    }
    let body = object(request).ok_or_else(|| bad("malformed JSON"))?;
    let fields = body.as_object().into_iter().flatten();
    if fields.clone().count() > MOST_ATTRIBUTES {
        return Err(bad("cannot identify more than 300 attributes in one request"));
    }
    if fields.clone().any(|(name, _)| name.len() > LONGEST_NAME) {
        return Err(bad("attribute name cannot be longer than 150 bytes"));
    }
    if text(&body["email"]).is_some_and(|email| !email.contains('@')) {
        return Err(bad("value for attribute 'email' is not an address"));
    }
    if !body["created_at"].is_null() && body["created_at"].as_u64().is_none_or(|time| time >= LAST_SECOND) {
        return Err(bad("value for attribute 'created_at' is no time in seconds"));
    }
    Ok(Accepted::new("customers.put", done()).user(&id.into()).to(&body["email"]))
}
