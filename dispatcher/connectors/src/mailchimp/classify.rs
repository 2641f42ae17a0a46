//! Classification of Mailchimp's refusals.

use usher_engine::{Cause, Outcome};
use usher_proto::Reason;

use crate::client::HttpAnswer;

/// Documented titles of `application/problem+json` with the names for them. Other titles are not repeated.
const TITLES: [(&str, &str); 6] = [
    ("Invalid Resource", "invalid_resource"),
    ("Member Exists", "member_exists"),
    ("Member In Compliance State", "member_in_compliance_state"),
    ("Forgotten Email Not Subscribed", "forgotten_email_not_subscribed"),
    ("API Key Invalid", "api_key_invalid"),
    ("Resource Not Found", "resource_not_found"),
];

/// Returns the outcome of an answer that is not a success.
pub(super) fn classify(answer: &HttpAnswer) -> Outcome {
    let body = answer.json();
    let title = body["title"].as_str();
    let error = answer.error(TITLES.iter().find(|(known, _)| Some(*known) == title).map(|(_, name)| *name));
    match answer.status.as_u16() {
        429 => answer.retry(Cause::Throttled),
        // Under load, Mailchimp's edge servers answer 403 without Mailchimp's error format.
        403 if title.is_none() => answer.retry(Cause::Throttled),
        401 | 403 => Outcome::reject(Reason::Configuration, error),
        408 => answer.retry(Cause::Timeout),
        500..=599 => answer.retry(Cause::Unavailable),
        404 => Outcome::reject(Reason::NotFound, error),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}
