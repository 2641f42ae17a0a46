//! The double of Resend: `POST /emails`. Sends nothing; the ledger is its outbox.
//!
//! Facts: resend.com/docs (errors, idempotency keys, rate limit), the error list of resend-rust. Errors are never kept
//! under an idempotency key: only a first answer that accepted the mail comes again. Any sender's domain counts as
//! verified, except that `onboarding@resend.dev` may write to Resend's own test addresses only.

mod error;
mod mail;

use std::time::Duration;

use axum::http::{HeaderMap, Method, header};
use serde_json::json;
use usher_proto::Timestamp;

use crate::answer::Answer;
use crate::double::{Call, Circumstances, DAY, Double, Key, Refusal, Subject, USER};
use crate::ids;
use crate::limits::Quota;
use crate::request::{Request, Written};
use error::Error;

/// Resend's limit where it has not been asked to be another.
const USUAL_LIMIT: u32 = 10;
const LONGEST_KEY: usize = 256;

/// Keeps nothing of its own.
pub(crate) struct Resend;

impl Double for Resend {
    fn name(&self) -> &'static str {
        "resend"
    }

    fn describe(&self, request: &Request) -> Subject {
        let operation = is_send(request).ok().map(|()| "emails.send");
        let tags = request.body["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        let user = tags.iter().find(|tag| tag["name"] == USER).and_then(|tag| tag["value"].as_str());
        let to = mail::list(&request.body["to"]).filter(|to| !to.is_empty()).map(|to| to.join(", "));
        Subject { operation, user: user.map(Into::into), to }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), Answer> {
        let Some(header) = headers.get(header::AUTHORIZATION) else { return Err(Error::MISSING_API_KEY.into()) };
        let key = header.to_str().ok().and_then(|text| {
            let (scheme, key) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())?.strip_prefix("re_")
        });
        match key {
            Some(key) if !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => Ok(()),
            Some(_) | None => Err(Error::INVALID_API_KEY.into()),
        }
    }

    fn read(&self, request: &Request, now: Timestamp) -> Result<Call, Answer> {
        is_send(request)?;
        let key = match request.headers.contains_key("idempotency-key") {
            false => None,
            true => Some(key(request.idempotency_key())?),
        };
        if request.written != Written::Json || !request.body.is_object() {
            return Err(Error::NOT_JSON.into());
        }
        mail::check(&request.body, now)?;
        let run = Box::new(|_| Answer::done(json!({ "id": ids::uuid() })));
        Ok(Call { key, changes: true, run })
    }

    fn refuse(&self, refusal: Refusal<'_>) -> Answer {
        match refusal {
            Refusal::Limited(quota) => {
                Answer::from(Error::RATE_LIMIT_EXCEEDED).with("retry-after", quota.reset_seconds())
            }
            Refusal::KeyReused(_) => Error::INVALID_IDEMPOTENT_REQUEST.into(),
            Refusal::KeyInUse(_) => Error::CONCURRENT_IDEMPOTENT_REQUESTS.into(),
            Refusal::Fault { status, name, retry_after } => {
                let mut answer: Answer = Error::of(status, name).into();
                if status.as_u16() == 429 {
                    let reset = Duration::from_secs(retry_after.unwrap_or(1));
                    tell(&mut answer, Quota { limit: USUAL_LIMIT, remaining: 0, reset });
                }
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
        }
    }

    fn finish(&self, answer: &mut Answer, circumstances: Circumstances) {
        if let Some(quota) = circumstances.quota {
            tell(answer, quota);
        }
    }
}

/// Whether the path and method are those of sending.
fn is_send(request: &Request) -> Result<(), Error> {
    match (&request.method, request.segments().as_slice()) {
        (&Method::POST, ["emails"]) => Ok(()),
        (_, ["emails"]) => Err(Error::METHOD_NOT_ALLOWED),
        _ => Err(Error::NOT_FOUND),
    }
}

fn key(text: Option<&str>) -> Result<Key, Error> {
    match text {
        Some(text) if (1..=LONGEST_KEY).contains(&text.chars().count()) => Ok(Key { text: text.into(), lasts: DAY }),
        Some(_) | None => Err(Error::INVALID_IDEMPOTENCY_KEY),
    }
}

fn tell(answer: &mut Answer, quota: Quota) {
    answer.set("ratelimit-limit", quota.limit);
    answer.set("ratelimit-remaining", quota.remaining);
    answer.set("ratelimit-reset", quota.reset_seconds());
}
