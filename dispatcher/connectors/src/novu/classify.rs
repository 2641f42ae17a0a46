//! Classification of Novu's answers.

use serde_json::{Value, json};
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;

use crate::client::HttpAnswer;

/// End of the message of Novu's server for a key that was used with another body: the error has no other name.
const KEY_REUSED: &str = "is being reused for a different body";

/// Returns the answer without the `data` object. Servers wrap the answer in it, although the OpenAPI file does not.
fn unwrapped(answer: &HttpAnswer) -> Value {
    let mut body = answer.json();
    if body["data"].is_object() { body["data"].take() } else { body }
}

/// True if the answer is that of an earlier request under the same idempotency key.
pub(super) fn is_replayed(answer: &HttpAnswer) -> bool {
    answer.headers.contains_key("idempotency-replay")
}

/// Returns the outcome of the answer to a trigger.
pub(super) fn classify(answer: &HttpAnswer) -> Outcome {
    if answer.status.is_success() { triggered(answer) } else { refused(answer) }
}

/// Returns the outcome of an answer that is not a success.
pub(super) fn refused(answer: &HttpAnswer) -> Outcome {
    let status = answer.status.as_u16();
    // `message` is an error name in some errors, and a sentence or a list in others.
    let body = answer.json();
    let name = body["message"].as_str();
    let error = answer.error(name.filter(|name| name.contains('_')));
    match (status, name) {
        (429, _) => answer.retry(Cause::Throttled),
        (409, _) => answer.retry(Cause::Conflict),
        (408, _) => answer.retry(Cause::Timeout),
        (500..=599, _) => answer.retry(Cause::Unavailable),
        (401 | 403, _) => Outcome::reject(Reason::Configuration, error),
        (422, Some(text)) if text.ends_with(KEY_REUSED) => Outcome::reject(Reason::IdempotencyConflict, error),
        (404, _) | (422, Some("workflow_not_found")) => Outcome::reject(Reason::NotFound, error),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}

/// Classifies a success by its `status`. Only `processed` counts as done, and means that the trigger is queued.
fn triggered(answer: &HttpAnswer) -> Outcome {
    let body = unwrapped(answer);
    let (Some(status), id) = (body["status"].as_str(), body["transactionId"].as_str().unwrap_or_default()) else {
        return Outcome::retry(Cause::Interrupted);
    };
    let error = answer.error(Some(status));
    match status {
        "processed" => Outcome::Done(Effect::new(id, json!({ "status": status }))),
        // An operator has to activate the workflow, add steps to it, or create the tenant.
        "trigger_not_active" | "no_workflow_active_steps_defined" | "no_workflow_steps_defined" | "no_tenant_found" => {
            Outcome::reject(Reason::Configuration, error)
        }
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}
