//! Classification of Clerk's answers.
//!
//! Facts: Clerk's OpenAPI document (`ClerkErrors`: a list of errors, each with a `code`); clerk.com/docs (errors of the
//! Backend API, limits of the system: 429 with `Retry-After`).

use serde_json::json;
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;

use crate::client::HttpAnswer;

/// Returns the outcome of a write to the object `id`. `changed` is false if it was not necessary.
pub(super) fn done(id: &str, changed: bool) -> Outcome {
    Outcome::Done(Effect::new(id, json!({ "changed": changed })))
}

/// Returns the outcome of an answer about the object `id`.
pub(super) fn classify(answer: &HttpAnswer, id: &str) -> Outcome {
    let body = answer.json();
    if answer.status.is_success() {
        // Clerk answers with the object. Anything else does not prove that the write was made.
        return if body.is_object() { done(id, true) } else { Outcome::retry(Cause::Interrupted) };
    }
    let error = answer.error(body["errors"][0]["code"].as_str());
    match answer.status.as_u16() {
        408 => answer.retry(Cause::Timeout),
        409 => answer.retry(Cause::Conflict),
        429 => answer.retry(Cause::Throttled),
        500..=599 => answer.retry(Cause::Unavailable),
        // A key that is wrong or was withdrawn, or a plan without the feature.
        401..=403 => Outcome::reject(Reason::Configuration, error),
        // Gone, or of another instance than the key: no answer tells these apart. Counting it as done would hide a wrong
        // key.
        404 => Outcome::reject(Reason::NotFound, error),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}
