//! Classification of Algolia's answers.

use serde_json::json;
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;

use crate::client::HttpAnswer;

/// True if a host is unavailable, so that the next one is tried.
pub(super) fn is_unavailable(answer: &Result<HttpAnswer, Outcome>) -> bool {
    match answer {
        Ok(answer) => !answer.status.is_success() && !answer.status.is_client_error(),
        Err(Outcome::Retry { cause: Cause::Unreachable | Cause::Interrupted, .. }) => true,
        // There was no answer in time, so no time is left for another host.
        Err(_) => false,
    }
}

/// Classifies an answer. Algolia's errors have a message and no name. A 429 means "too many jobs" and is temporary;
/// Algolia's own clients leave the retry to the caller.
pub(super) fn classify(answer: &HttpAnswer, object: String) -> Outcome {
    let error = answer.error(None);
    match answer.status.as_u16() {
        200..=299 => match answer.json()["taskID"].as_u64() {
            Some(task) => Outcome::Done(Effect::new(object, json!({ "task": task }))),
            None => Outcome::retry(Cause::Interrupted),
        },
        429 => answer.retry(Cause::Throttled),
        408 => answer.retry(Cause::Timeout),
        500..=599 => answer.retry(Cause::Unavailable),
        401 | 403 => Outcome::reject(Reason::Configuration, error),
        404 => Outcome::reject(Reason::NotFound, error),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}
