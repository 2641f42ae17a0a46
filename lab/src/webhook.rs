//! The double of a receiver of signed webhooks, `/http/<host>/<path>`: any path takes a POST of JSON.
//!
//! Facts: the Standard Webhooks specification. It checks the signature and the timestamp, and remembers the ids it has
//! accepted for a day: a message that comes again is answered with 200 and is no new effect. Receivers need not do that;
//! `DELETE /keys/http` makes this one forget.

use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use usher_proto::Timestamp;
use usher_proto::signature::{Signed, SigningSecret, verify};

use crate::answer::Answer;
use crate::double::{Call, DAY, Double, Key, Refusal, Subject, USER};
use crate::request::{Request, Written};

/// What it signs with: known to everybody, and so worth nothing outside a lab.
pub(crate) const SECRET: &str = "whsec_dXNoZXItbGFiLXVzaGVyLWxhYi11c2hlci1sYWI=";

/// Keeps nothing of its own.
pub(crate) struct Webhook;

impl Double for Webhook {
    fn name(&self) -> &'static str {
        "http"
    }

    fn describe(&self, request: &Request) -> Subject {
        let body = &request.body;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let user = text(&body[USER]).or_else(|| text(&body["data"]["user_id"])).or_else(|| text(&body["data"]["id"]));
        let operation = (request.method == Method::POST).then_some("post");
        Subject { operation, user, to: request.segments().first().map(|host| (*host).to_owned()) }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), Answer> {
        let signed = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let whole = signed.iter().all(|name| headers.contains_key(*name));
        if whole { Ok(()) } else { Err(refusal(StatusCode::UNAUTHORIZED, "unsigned")) }
    }

    fn read(&self, request: &Request, now: Timestamp) -> Result<Call, Answer> {
        if request.method != Method::POST {
            return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"));
        }
        let header = |name| request.header(name).unwrap_or_default();
        let id = header("webhook-id");
        let signed = Signed { id, timestamp: header("webhook-timestamp"), signatures: header("webhook-signature") };
        let secret = SigningSecret::parse(SECRET).map_err(|_| refusal(StatusCode::UNAUTHORIZED, "no_secret"))?;
        verify(&[secret], signed, request.raw(), now).map_err(|_| refusal(StatusCode::UNAUTHORIZED, "signature"))?;
        if request.written != Written::Json {
            return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json"));
        }
        let run = Box::new(|_| Answer::done(json!({ "received": true })));
        Ok(Call { key: Some(Key { text: id.to_owned(), lasts: DAY }), changes: true, run })
    }

    fn refuse(&self, refused: Refusal<'_>) -> Answer {
        match refused {
            Refusal::Limited(quota) => {
                refusal(StatusCode::TOO_MANY_REQUESTS, "slow_down").with("retry-after", quota.reset_seconds())
            }
            Refusal::KeyReused(_) => refusal(StatusCode::CONFLICT, "id_reused"),
            Refusal::KeyInUse(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "id_in_use"),
            Refusal::Fault { status, name, retry_after } => {
                let answer = refusal(status, name.unwrap_or("on_purpose"));
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
        }
    }
}

fn refusal(status: StatusCode, code: &str) -> Answer {
    Answer::refused(status, json!({ "error": code }))
}
