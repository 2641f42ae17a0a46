//! Classification of Nylas's answers.

use serde_json::json;
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;

use crate::client::HttpAnswer;

/// True if the answer is that of an earlier request under the same idempotency key.
pub(super) fn is_replayed(answer: &HttpAnswer) -> bool {
    answer.headers.contains_key("idempotent-response")
}

/// Returns the outcome of an answer.
pub(super) fn classify(answer: &HttpAnswer) -> Outcome {
    let body = answer.json();
    if answer.status.is_success() {
        // IMAP mailboxes assign no id to a mail.
        let id = body["data"]["id"].as_str().or_else(|| body["request_id"].as_str());
        return match id {
            Some(id) => Outcome::Done(Effect::new(id, json!({}))),
            None => Outcome::retry(Cause::Interrupted),
        };
    }
    let kind = body["error"]["type"].as_str().unwrap_or_default();
    let error = answer.error(Some(kind));
    match (answer.status.as_u16(), kind) {
        (409, "api.invalid_idempotent_request") => Outcome::reject(Reason::IdempotencyConflict, error),
        (409, _) => answer.retry(Cause::Conflict),
        (408, _) => answer.retry(Cause::Timeout),
        (429, _) => answer.retry(Cause::Throttled),
        // It is unknown if the provider has sent the mail.
        (504, _) => answer.retry(Cause::Timeout),
        (500..=599, _) => answer.retry(Cause::Unavailable),
        // Blocked: this passes by itself, or an operator resolves it.
        (423, _) => answer.retry(Cause::Conflict),
        // The API key, the mailbox's own login, or a mailbox that does not exist: the path contains nothing else.
        (401 | 403 | 404, _) => Outcome::reject(Reason::Configuration, error),
        // 402: some of several recipients may have received the mail, so it must not be sent again automatically.
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}
