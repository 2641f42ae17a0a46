//! The double of Resend: `POST /emails`, and the [contacts]. It sends nothing; the ledger records the mail.
//!
//! Facts: resend.com/docs (errors, idempotency keys, rate limit), and the error list of resend-rust. An idempotency key
//! never stores an error; it replays only a response that accepted the mail. Any sender domain counts as verified. The
//! sender `onboarding@resend.dev` may write to Resend's own test addresses only.

mod contacts;
mod error;
mod mail;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, header};
use contacts::{ContactRoute, Contacts};
use error::ResendError;
use serde_json::json;
use usher_proto::Timestamp;

use crate::answer::FakeResponse;
use crate::bounded::Bounded;
use crate::double::{Circumstances, DAY, Double, DoubleCall, DoubleRefusal, EffectSubject, ExpiringKey, USER};
use crate::ids;
use crate::limits::RateWindow;
use crate::locked::Locked;
use crate::request::{BodyFormat, Request};

/// Resend's default rate limit, in requests per second.
const USUAL_LIMIT: u32 = 10;
const LONGEST_KEY: usize = 256;

/// The double of one Resend account, with its contacts.
pub(crate) struct ResendDouble {
    contacts: Arc<Locked<Contacts>>,
}

impl ResendDouble {
    pub(crate) fn holding(most: usize) -> Self {
        Self { contacts: Arc::new(Locked::new(Bounded::new(most))) }
    }
}

impl Double for ResendDouble {
    fn name(&self) -> &'static str {
        "resend"
    }

    fn describe(&self, request: &Request) -> EffectSubject {
        if let Some(Ok(route)) = ContactRoute::of(request) {
            let (user, to) = route.whom(&request.body, &self.contacts);
            return EffectSubject { operation: Some(route.operation()), user, to };
        }
        let operation = is_send(request).ok().map(|()| "emails.send");
        let tags = request.body["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        let user = tags.iter().find(|tag| tag["name"] == USER).and_then(|tag| tag["value"].as_str());
        let to = mail::list(&request.body["to"]).filter(|to| !to.is_empty()).map(|to| to.join(", "));
        EffectSubject { operation, user: user.map(Into::into), to }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), FakeResponse> {
        let Some(header) = headers.get(header::AUTHORIZATION) else { return Err(ResendError::MISSING_API_KEY.into()) };
        let key = header.to_str().ok().and_then(|text| {
            let (scheme, key) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())?.strip_prefix("re_")
        });
        match key {
            Some(key) if !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => Ok(()),
            Some(_) | None => Err(ResendError::INVALID_API_KEY.into()),
        }
    }

    fn read(&self, request: &Request, now: Timestamp) -> Result<DoubleCall, FakeResponse> {
        if let Some(route) = ContactRoute::of(request) {
            return Ok(route?.call(request, self.contacts.clone())?);
        }
        is_send(request)?;
        let key = match request.headers.contains_key("idempotency-key") {
            false => None,
            true => Some(key(request.idempotency_key())?),
        };
        if request.written != BodyFormat::Json || !request.body.is_object() {
            return Err(ResendError::NOT_JSON.into());
        }
        mail::check(&request.body, now)?;
        let run = Box::new(|_| FakeResponse::done(json!({ "id": ids::uuid() })));
        Ok(DoubleCall { key, changes: true, run })
    }

    fn refuse(&self, refusal: DoubleRefusal<'_>) -> FakeResponse {
        match refusal {
            DoubleRefusal::Limited(quota) => {
                FakeResponse::from(ResendError::RATE_LIMIT_EXCEEDED).with("retry-after", quota.reset_seconds())
            }
            DoubleRefusal::KeyReused(_) => ResendError::INVALID_IDEMPOTENT_REQUEST.into(),
            DoubleRefusal::KeyInUse(_) => ResendError::CONCURRENT_IDEMPOTENT_REQUESTS.into(),
            DoubleRefusal::Fault { status, name, retry_after } => {
                let mut answer: FakeResponse = ResendError::of(status, name).into();
                if status.as_u16() == 429 {
                    let reset = Duration::from_secs(retry_after.unwrap_or(1));
                    tell(&mut answer, RateWindow { limit: USUAL_LIMIT, remaining: 0, reset });
                }
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
        }
    }

    fn finish(&self, answer: &mut FakeResponse, circumstances: Circumstances) {
        if let Some(quota) = circumstances.quota {
            tell(answer, quota);
        }
    }
}

/// Checks that path and method are those of sending a mail.
fn is_send(request: &Request) -> Result<(), ResendError> {
    match (&request.method, request.segments().as_slice()) {
        (&Method::POST, ["emails"]) => Ok(()),
        (_, ["emails"]) => Err(ResendError::METHOD_NOT_ALLOWED),
        _ => Err(ResendError::NOT_FOUND),
    }
}

fn key(text: Option<&str>) -> Result<ExpiringKey, ResendError> {
    match text {
        Some(text) if (1..=LONGEST_KEY).contains(&text.chars().count()) => {
            Ok(ExpiringKey { text: text.into(), lasts: DAY })
        }
        Some(_) | None => Err(ResendError::INVALID_IDEMPOTENCY_KEY),
    }
}

fn tell(answer: &mut FakeResponse, quota: RateWindow) {
    answer.set("ratelimit-limit", quota.limit);
    answer.set("ratelimit-remaining", quota.remaining);
    answer.set("ratelimit-reset", quota.reset_seconds());
}
