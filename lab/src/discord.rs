//! The double of Discord's webhooks: `POST /api/webhooks/<id>/<token>`.
//!
//! Facts: docs.discord.com, "Webhook Resource" (Execute Webhook: `content` of up to 2,000 characters or up to 10 `embeds`;
//! with `wait=true` the message, otherwise 204) and "Opcodes and Status Codes" (50006 an empty message, 50035 an
//! invalid body, 50027 an invalid token, 10015 an unknown webhook); "Rate Limits": 429 with `retry_after`.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::FakeResponse;
use crate::ids;
use crate::receiver::{Accepted, ReceiverRules, object, text};
use crate::request::Request;

/// Maximum length of a message, in characters, and number of embeds.
const LONGEST_CONTENT: usize = 2000;
const MOST_EMBEDS: usize = 10;

/// The address of the lab's webhook.
pub(crate) const DISCORD_URL: &str = "https://discord.com/api/webhooks/1000000000000000000/labWebhookOfUsher0000000";

pub(crate) const DISCORD: ReceiverRules =
    ReceiverRules { name: "discord", hosts: &["discord.com", "discordapp.com"], judge, refusal };

fn refusal(status: StatusCode, message: &str) -> FakeResponse {
    if status == StatusCode::TOO_MANY_REQUESTS {
        let body = json!({ "message": "You are being rate limited.", "retry_after": 1.0, "global": false });
        return FakeResponse::refused(status, body);
    }
    error(status, 0, message)
}

fn error(status: StatusCode, code: u32, message: &str) -> FakeResponse {
    FakeResponse::refused(status, json!({ "message": message, "code": code }))
}

fn judge(request: &Request) -> Result<Accepted, FakeResponse> {
    let ["api", "webhooks", id, _] = request.segments()[..] else {
        return Err(refusal(StatusCode::NOT_FOUND, "404: Not Found"));
    };
    if !DISCORD_URL.contains(&format!("/{id}/")) {
        return Err(error(StatusCode::NOT_FOUND, 10_015, "Unknown Webhook"));
    }
    if !DISCORD_URL.ends_with(&request.path) {
        return Err(error(StatusCode::UNAUTHORIZED, 50_027, "Invalid Webhook Token"));
    }
    if request.method != Method::POST {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"));
    }
    let invalid = || error(StatusCode::BAD_REQUEST, 50_035, "Invalid Form Body");
    let body = object(request).ok_or_else(invalid)?;
    let embeds = match &body["embeds"] {
        Value::Null => 0,
        Value::Array(embeds) if embeds.len() <= MOST_EMBEDS => embeds.len(),
        _ => return Err(invalid()),
    };
    match text(&body["content"]) {
        None if embeds == 0 => return Err(error(StatusCode::BAD_REQUEST, 50_006, "Cannot send an empty message")),
        Some(content) if content.chars().count() > LONGEST_CONTENT => return Err(invalid()),
        None | Some(_) => {}
    }
    let waits = request.query.as_deref().is_some_and(|query| query.split('&').any(|pair| pair == "wait=true"));
    let answer = match waits {
        true => FakeResponse::done(json!({ "id": ids::prefixed("1", 18), "content": body["content"] })),
        false => FakeResponse::done(Value::Null).status(StatusCode::NO_CONTENT),
    };
    Ok(Accepted::new("webhooks.execute", answer).to(&id.into()))
}
