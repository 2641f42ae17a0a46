//! Classification of Resend's answers.

use std::time::Duration;

use serde_json::json;
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;

use crate::client::HttpAnswer;

/// Pause until the next day's quota if Resend does not give one. The start of its day is not documented.
const DAILY_QUOTA_PAUSE: Duration = Duration::from_secs(3600);

/// Classifies an answer by name and status together: `validation_error` comes with 400, 403 and 422, and a 429 can be a
/// monthly quota.
pub(super) fn classify(answer: &HttpAnswer) -> Outcome {
    let body = answer.json();
    if answer.status.is_success() {
        return match body["id"].as_str() {
            Some(id) => Outcome::Done(Effect::new(id, json!({}))),
            None => Outcome::retry(Cause::Interrupted),
        };
    }
    let name = body["name"].as_str().unwrap_or_default();
    let error = answer.error(Some(name));
    match (answer.status.as_u16(), name) {
        (_, "monthly_quota_exceeded") => Outcome::reject(Reason::QuotaExhausted, error),
        (429, "daily_quota_exceeded") => {
            let after = answer.retry_after().unwrap_or(DAILY_QUOTA_PAUSE);
            Outcome::Retry { cause: Cause::Throttled, after: Some(after) }
        }
        (429, _) => answer.retry(Cause::Throttled),
        (409, "invalid_idempotent_request") => Outcome::reject(Reason::IdempotencyConflict, error),
        (409, _) => answer.retry(Cause::Conflict),
        (408, _) => answer.retry(Cause::Timeout),
        (401 | 403, _) | (_, "invalid_api_key" | "missing_api_key" | "restricted_api_key") => {
            Outcome::reject(Reason::Configuration, error)
        }
        (404, _) => Outcome::reject(Reason::NotFound, error),
        (500..=599, _) => answer.retry(Cause::Unavailable),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}
