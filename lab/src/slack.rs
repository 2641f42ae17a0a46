//! The double of Slack's incoming webhooks: `POST /services/T.../B.../...`.
//!
//! Facts: docs.slack.dev, "Sending messages using incoming webhooks" (the response `ok` and the errors are plain text; what
//! each error means) and "Block Kit" (up to 50 blocks, a section's text of up to 3,000 characters). The statuses of
//! `no_text` and of a webhook that was revoked are not documented; here they are 400 and 404.

use axum::http::{Method, StatusCode};
use serde_json::Value;

use crate::answer::FakeResponse;
use crate::receiver::{Accepted, ReceiverRules, object, text};
use crate::request::Request;

/// Maximum number of blocks, and of characters of a section's text.
const MOST_BLOCKS: usize = 50;
const LONGEST_TEXT: usize = 3000;

/// The address of the lab's webhook.
pub(crate) const SLACK_URL: &str = "https://hooks.slack.com/services/T00000LAB/B00000LAB/labWebhookOfUsher0000000";

pub(crate) const SLACK: ReceiverRules = ReceiverRules { name: "slack", hosts: &["hooks.slack.com"], judge, refusal };

fn refusal(status: StatusCode, code: &str) -> FakeResponse {
    FakeResponse::refused(status, code.into()).plain()
}

fn judge(request: &Request) -> Result<Accepted, FakeResponse> {
    let ["services", team, _, _] = request.segments()[..] else {
        return Err(refusal(StatusCode::NOT_FOUND, "no_service"));
    };
    if !request.path.ends_with(SLACK_URL.trim_start_matches("https://hooks.slack.com")) {
        return Err(refusal(StatusCode::NOT_FOUND, "no_service"));
    }
    let body = object(request).filter(|_| request.method == Method::POST);
    let body = body.ok_or_else(|| refusal(StatusCode::BAD_REQUEST, "invalid_payload"))?;
    let blocks = &body["blocks"];
    if text(&body["text"]).is_none() && blocks.as_array().is_none_or(Vec::is_empty) {
        return Err(refusal(StatusCode::BAD_REQUEST, "no_text"));
    }
    let are_good = match blocks {
        Value::Null => true,
        Value::Array(blocks) => blocks.len() <= MOST_BLOCKS && blocks.iter().all(is_block),
        _ => false,
    };
    if !are_good {
        return Err(refusal(StatusCode::BAD_REQUEST, "invalid_blocks"));
    }
    Ok(Accepted::new("messages.post", FakeResponse::done("ok".into()).plain()).to(&team.into()))
}

fn is_block(block: &Value) -> bool {
    let is_text = |text: &Value| {
        let is_kind = text["type"] == "mrkdwn" || text["type"] == "plain_text";
        is_kind && text["text"].as_str().is_some_and(|text| (1..=LONGEST_TEXT).contains(&text.chars().count()))
    };
    match block["type"].as_str() {
        Some("section") => is_text(&block["text"]) || block["fields"].is_array(),
        Some(kind) => !kind.is_empty(),
        None => false,
    }
}
