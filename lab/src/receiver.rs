//! A double of a service that is called by `http.request`: one function judges a request, and everything else is shared.
//! Such a double is reached at `/<name>/...`, and at `/http/<host>/...` by the hosts of the real service.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use usher_proto::Timestamp;

use crate::answer::FakeResponse;
use crate::bounded::Bounded;
use crate::double::{Double, DoubleCall, DoubleRefusal, EffectSubject};
use crate::locked::Locked;
use crate::request::{BodyFormat, Request};

/// The rules of one service.
pub(crate) struct ReceiverRules {
    /// The name of its double.
    pub(crate) name: &'static str,
    /// The hosts of the real service. One that begins with a full stop stands for all that end so.
    pub(crate) hosts: &'static [&'static str],
    /// Judges a request. An error is the refusal to send.
    pub(crate) judge: fn(&Request) -> Result<Accepted, FakeResponse>,
    /// Builds a refusal with this status and text in the service's form.
    pub(crate) refusal: fn(StatusCode, &str) -> FakeResponse,
}

/// A request that a service accepts.
pub(crate) struct Accepted {
    /// The operation, such as `events.send`.
    pub(crate) operation: &'static str,
    /// The user whom it concerns, by the id of Clerk.
    pub(crate) user: Option<String>,
    /// The address, channel or other place that it is for.
    pub(crate) to: Option<String>,
    /// The response.
    pub(crate) answer: FakeResponse,
    /// True if it changes anything. Some services accept what they then drop.
    pub(crate) changes: bool,
    /// The mark by which the service recognises a repeated request, and its response to one.
    pub(crate) once: Option<(String, FakeResponse)>,
}

impl Accepted {
    /// Returns a request that is accepted with this response.
    pub(crate) fn new(operation: &'static str, answer: FakeResponse) -> Self {
        Self { operation, user: None, to: None, answer, changes: true, once: None }
    }

    /// Sets the user whom it concerns.
    pub(crate) fn user(self, user: &Value) -> Self {
        Self { user: text(user), ..self }
    }

    /// Sets the place that it is for.
    pub(crate) fn to(self, to: &Value) -> Self {
        Self { to: text(to), ..self }
    }
}

/// Returns a text that is not empty.
pub(crate) fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Returns the body of a request, if it is a JSON object.
pub(crate) fn object(request: &Request) -> Option<&Value> {
    (request.written == BodyFormat::Json && request.body.is_object()).then_some(&*request.body)
}

/// Returns the token of the header `Authorization: Bearer`, if it is not empty.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim).filter(|token| !token.is_empty())
}

/// Returns user and password of Basic authentication.
pub(crate) fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let pair = String::from_utf8(BASE64_STANDARD.decode(value).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The double of one service, with the marks that it has seen.
pub(crate) struct ReceiverDouble {
    receiver: &'static ReceiverRules,
    seen: Arc<Locked<Bounded<String, ()>>>,
}

impl ReceiverDouble {
    pub(crate) fn holding(receiver: &'static ReceiverRules, most: usize) -> Self {
        Self { receiver, seen: Arc::new(Locked::new(Bounded::new(most))) }
    }
}

impl Double for ReceiverDouble {
    fn name(&self) -> &'static str {
        self.receiver.name
    }

    fn hosts(&self) -> &'static [&'static str] {
        self.receiver.hosts
    }

    fn describe(&self, request: &Request) -> EffectSubject {
        match (self.receiver.judge)(request) {
            Ok(Accepted { operation, user, to, .. }) => EffectSubject { operation: Some(operation), user, to },
            Err(_) => EffectSubject::default(),
        }
    }

    fn authenticate(&self, _: &HeaderMap) -> Result<(), FakeResponse> {
        // The address may be the secret, so it is judged with the rest.
        Ok(())
    }

    fn read(&self, request: &Request, _: Timestamp) -> Result<DoubleCall, FakeResponse> {
        let Accepted { answer, changes, once, .. } = (self.receiver.judge)(request)?;
        if let Some((mark, again)) = once {
            if self.seen.with(|seen| seen.contains_key(&mark)) {
                return Ok(DoubleCall { key: None, changes: false, run: Box::new(|_| again) });
            }
            let seen = self.seen.clone();
            let run = move |_| {
                // Another request with the same mark may have run since it was judged.
                let is_new = seen.with(|seen| {
                    let is_new = !seen.contains_key(&mark);
                    drop(seen.insert(mark, ()));
                    is_new
                });
                if is_new { answer } else { again }
            };
            return Ok(DoubleCall { key: None, changes, run: Box::new(run) });
        }
        Ok(DoubleCall { key: None, changes, run: Box::new(|_| answer) })
    }

    fn refuse(&self, refusal: DoubleRefusal<'_>) -> FakeResponse {
        let refused = self.receiver.refusal;
        match refusal {
            DoubleRefusal::Limited(quota) => {
                let answer = refused(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
                answer.with("retry-after", quota.reset_seconds())
            }
            DoubleRefusal::KeyReused(_) | DoubleRefusal::KeyInUse(_) => refused(StatusCode::CONFLICT, "conflict"),
            DoubleRefusal::Fault { status, name, retry_after } => {
                let answer = refused(status, name.unwrap_or("on_purpose"));
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
        }
    }
}
