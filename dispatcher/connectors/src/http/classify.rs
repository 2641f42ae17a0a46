//! Classification of a receiver's answers.

use serde_json::json;
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;

use crate::client::HttpAnswer;

/// Classifies an answer by the specification's table. A status that the specification only calls a failure is a
/// permanent rejection if HTTP attributes it to the request.
pub(super) fn classify(answer: &HttpAnswer, id: String) -> Outcome {
    let status = answer.status.as_u16();
    let error = answer.error(None);
    match status {
        200..=299 => Outcome::Done(Effect::new(id, json!({ "status": status }))),
        // The server timed out waiting for the request (408), or wants it later (425). Both are temporary, like a 503.
        408 | 425 => answer.retry(Cause::Timeout),
        429 => answer.retry(Cause::Throttled),
        500..=599 => answer.retry(Cause::Unavailable),
        // Redirects are not followed: the operator must correct the address.
        300..=399 | 401 | 403 => Outcome::reject(Reason::Configuration, error),
        // 410: the receiver wants no more messages, which an operator has to act upon.
        404 | 410 => Outcome::reject(Reason::NotFound, error),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}
