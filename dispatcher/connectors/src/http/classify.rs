//! Classification of a receiver's answers.

use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;

use super::request::HttpRequest;
use crate::client::HttpAnswer;

/// Classifies an answer: by the flow's rules, and otherwise by the table of Standard Webhooks. A status that the
/// specification only calls a failure is a permanent rejection if HTTP attributes it to the request. `done` is the effect
/// of a success.
pub(super) fn classify(answer: &HttpAnswer, request: &HttpRequest, done: impl FnOnce() -> Effect) -> Outcome {
    let status = answer.status.as_u16();
    let error = answer.error(None);
    let is_success = match &request.success_on {
        Some(success) => success.has(status),
        None => (200..=299).contains(&status),
    };
    if is_success {
        return Outcome::Done(done());
    }
    let cause = match status {
        // The server timed out waiting for the request (408), or wants it later (425). Both are temporary, like a 503.
        408 | 425 => Some(Cause::Timeout),
        429 => Some(Cause::Throttled),
        500..=599 => Some(Cause::Unavailable),
        _ => None,
    };
    let is_retried = request.retry_on.as_ref().map_or(cause.is_some(), |retry| retry.has(status));
    if is_retried {
        // A receiver that refuses a request by a 4xx has done nothing.
        return answer.retry(cause.unwrap_or(Cause::Deferred));
    }
    match status {
        // Redirects are not followed: the operator must correct the address.
        300..=399 | 401 | 403 => Outcome::reject(Reason::Configuration, error),
        // 410: the receiver wants no more messages, which an operator has to act upon.
        404 | 410 => Outcome::reject(Reason::NotFound, error),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}
