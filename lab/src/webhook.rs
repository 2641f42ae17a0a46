//! The double of a receiver of signed webhooks, `/http/<host>/<path>`: any path accepts a POST of JSON.
//!
//! Facts: the Standard Webhooks specification. The double checks the signature and the timestamp, and remembers the ids
//! of accepted messages for a day: a repeated message is answered with 200 and has no new effect. Receivers are not
//! required to do that; `DELETE /keys/http` makes this one forget.
//!
//! Requests to the hosts of services that have a double of their own go to that one.

use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use usher_proto::Timestamp;
use usher_proto::signature::{Signed, SigningSecret, verify};

use crate::answer::FakeResponse;
use crate::double::{DAY, Double, DoubleCall, DoubleRefusal, EffectSubject, ExpiringKey, USER};
use crate::request::{BodyFormat, Request};

/// The signing secret of the lab. It is public, so it must not be used outside a lab.
pub(crate) const SECRET: &str = "whsec_dXNoZXItbGFiLXVzaGVyLWxhYi11c2hlci1sYWI=";

/// The name of the double.
pub(crate) const NAME: &str = "http";

/// The double of a webhook receiver. It has no state.
pub(crate) struct WebhookDouble;

impl Double for WebhookDouble {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self, request: &Request) -> EffectSubject {
        let body = &request.body;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let user = text(&body[USER]).or_else(|| text(&body["data"]["user_id"])).or_else(|| text(&body["data"]["id"]));
        let operation = (request.method == Method::POST).then_some("post");
        EffectSubject { operation, user, to: request.segments().first().map(|host| (*host).to_owned()) }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), FakeResponse> {
        let signed = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let whole = signed.iter().all(|name| headers.contains_key(*name));
        if whole { Ok(()) } else { Err(refusal(StatusCode::UNAUTHORIZED, "unsigned")) }
    }

    fn read(&self, request: &Request, now: Timestamp) -> Result<DoubleCall, FakeResponse> {
        if request.method != Method::POST {
            return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"));
        }
        let header = |name| request.header(name).unwrap_or_default();
        let id = header("webhook-id");
        let signed = Signed { id, timestamp: header("webhook-timestamp"), signatures: header("webhook-signature") };
        let secret = SigningSecret::parse(SECRET).map_err(|_| refusal(StatusCode::UNAUTHORIZED, "no_secret"))?;
        verify(&[secret], signed, request.raw(), now).map_err(|_| refusal(StatusCode::UNAUTHORIZED, "signature"))?;
        if request.written != BodyFormat::Json {
            return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json"));
        }
        let run = Box::new(|_| FakeResponse::done(json!({ "received": true })));
        Ok(DoubleCall { key: Some(ExpiringKey { text: id.to_owned(), lasts: DAY }), changes: true, run })
    }

    fn refuse(&self, refused: DoubleRefusal<'_>) -> FakeResponse {
        match refused {
            DoubleRefusal::Limited(quota) => {
                refusal(StatusCode::TOO_MANY_REQUESTS, "slow_down").with("retry-after", quota.reset_seconds())
            }
            DoubleRefusal::KeyReused(_) => refusal(StatusCode::CONFLICT, "id_reused"),
            DoubleRefusal::KeyInUse(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "id_in_use"),
            DoubleRefusal::Fault { status, name, retry_after } => {
                let answer = refusal(status, name.unwrap_or("on_purpose"));
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
        }
    }
}

fn refusal(status: StatusCode, code: &str) -> FakeResponse {
    FakeResponse::refused(status, json!({ "error": code }))
}
