//! The double of Nylas v3: sends mail from mailboxes, and lists the sent mail.
//!
//! Facts: developer.nylas.com (sending, idempotency, errors, listing messages, grants). Any grant exists except those
//! that begin with `missing`. The grant `of-acme` reports a mailbox in the domain `acme.test`. Other grants report no
//! address, so that an experiment may send from any domain.
//!
//! An `Idempotency-Key` is valid for one hour within its grant and stores errors as well as successes. A replayed
//! response carries `Idempotent-Response: true`. A refusal before the mailbox is contacted (API key, rate limit, form
//! of the request) is not stored.
//!
//! A recipient that begins with `refused` or is not ASCII is refused by the mail provider (402), and one that begins
//! with `unknown` as well (422). Of the responses of a fault, 402, 422, 423, 429, 500 and 504 count as outcomes of an
//! execution. The 504 of a mail that was sent all the same is `{"status":504,"after_effect":true}`.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use usher_proto::Timestamp;

use crate::answer::FakeResponse;
use crate::bounded::Bounded;
use crate::double::{Circumstances, Double, DoubleCall, DoubleRefusal, EffectSubject, ExpiringKey, HOUR};
use crate::ids;
use crate::locked::Locked;
use crate::request::{BodyFormat, Request};

const LONGEST_KEY: usize = 256;

/// The double of Nylas, with all mailboxes.
pub(crate) struct NylasDouble {
    sent: Arc<Locked<Sent>>,
}

/// Sent mail by id.
type Sent = Bounded<String, Value>;

impl NylasDouble {
    pub(crate) fn holding(most: usize) -> Self {
        Self { sent: Arc::new(Locked::new(Bounded::new(most))) }
    }
}

enum Route {
    Grant(String),
    Send(String),
    List(String),
}

fn route(request: &Request) -> Option<Route> {
    match (&request.method, request.segments().as_slice()) {
        (&Method::GET, ["v3", "grants", grant]) => Some(Route::Grant((*grant).into())),
        (&Method::POST, ["v3", "grants", grant, "messages", "send"]) => Some(Route::Send((*grant).into())),
        (&Method::GET, ["v3", "grants", grant, "messages"]) => Some(Route::List((*grant).into())),
        _ => None,
    }
}

impl Double for NylasDouble {
    fn name(&self) -> &'static str {
        "nylas"
    }

    /// Describes the request. Nylas has no field for the user; `metadata` may name one.
    fn describe(&self, request: &Request) -> EffectSubject {
        let operation = route(request).map(|route| match route {
            Route::Grant(_) => "grants.get",
            Route::Send(_) => "messages.send",
            Route::List(_) => "messages.list",
        });
        let to = addresses(&request.body["to"]).filter(|to| !to.is_empty()).map(|to| to.join(", "));
        let user = request.body["metadata"][crate::double::USER].as_str().map(str::to_owned);
        EffectSubject { operation, user, to }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), FakeResponse> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match value.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") && key.starts_with("nyk_") => Ok(()),
            Some(_) | None => Err(error(StatusCode::UNAUTHORIZED, "api.authentication_error")),
        }
    }

    fn read(&self, request: &Request, _: Timestamp) -> Result<DoubleCall, FakeResponse> {
        let sent = self.sent.clone();
        let not_found = || error(StatusCode::NOT_FOUND, "api.not_found_error");
        let grant = |grant: String| if grant.starts_with("missing") { Err(not_found()) } else { Ok(grant) };
        match route(request).ok_or_else(not_found)? {
            Route::Grant(id) => {
                let grant = grant(id)?;
                let run = move |_| shown(&grant);
                Ok(DoubleCall { key: None, changes: false, run: Box::new(run) })
            }
            Route::List(id) => {
                let grant = grant(id)?;
                let query = request.query();
                let run = move |_| sent.with(|sent| list(sent, &grant, &query));
                Ok(DoubleCall { key: None, changes: false, run: Box::new(run) })
            }
            Route::Send(id) => {
                let grant = grant(id)?;
                let key = match request.header("idempotency-key") {
                    None => None,
                    Some(key) if (1..=LONGEST_KEY).contains(&key.chars().count()) => {
                        Some(ExpiringKey { text: format!("{grant} {key}"), lasts: HOUR })
                    }
                    Some(_) => return Err(error(StatusCode::BAD_REQUEST, "api.invalid_idempotency_key")),
                };
                if request.written != BodyFormat::Json || !request.body.is_object() {
                    return Err(error(StatusCode::BAD_REQUEST, "invalid_request_error"));
                }
                check(&request.body)?;
                let mail = request.body.clone();
                let run = move |now| sent.with(|sent| send(sent, grant, &mail, now)).kept();
                Ok(DoubleCall { key, changes: true, run: Box::new(run) })
            }
        }
    }

    fn refuse(&self, refusal: DoubleRefusal<'_>) -> FakeResponse {
        match refusal {
            DoubleRefusal::Limited(_) => error(StatusCode::TOO_MANY_REQUESTS, "nylas_rate_limit_exceeded"),
            DoubleRefusal::KeyReused(_) => error(StatusCode::CONFLICT, "api.invalid_idempotent_request"),
            DoubleRefusal::KeyInUse(_) => error(StatusCode::CONFLICT, "api.concurrent_idempotent_request"),
            DoubleRefusal::Fault { status, name, retry_after } => {
                let usual = match status.as_u16() {
                    401 => "api.authentication_error",
                    404 => "api.not_found_error",
                    402 | 422 | 504 => "provider_error",
                    429 => "rate_limit_error",
                    _ => "api.internal_error",
                };
                let answer = error(status, name.unwrap_or(usual));
                let answer =
                    if matches!(status.as_u16(), 402 | 422 | 423 | 429 | 500 | 504) { answer.kept() } else { answer };
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
        }
    }

    fn finish(&self, answer: &mut FakeResponse, circumstances: Circumstances) {
        // The official SDK reads the request id from the header only.
        if let Some(id) = answer.body["request_id"].as_str().map(str::to_owned) {
            answer.set("x-request-id", id);
        }
        if circumstances.replayed {
            answer.set("idempotent-response", "true");
        }
    }
}

fn error(status: StatusCode, kind: &str) -> FakeResponse {
    let error = json!({ "type": kind, "message": "The lab says so." });
    FakeResponse::refused(status, json!({ "request_id": ids::uuid(), "error": error }))
}

fn shown(grant: &str) -> FakeResponse {
    let email = grant.strip_prefix("of-").map(|name| format!("mailbox@{name}.test"));
    let data = json!({ "id": grant, "provider": "google", "grant_status": "valid", "email": email, "scope": [] });
    FakeResponse::done(json!({ "request_id": ids::uuid(), "data": data }))
}

fn addresses(list: &Value) -> Option<Vec<&str>> {
    list.as_array()?.iter().map(|entry| entry["email"].as_str()).collect()
}

/// Validates a mail before its mailbox is contacted.
fn check(mail: &Value) -> Result<(), FakeResponse> {
    let invalid = || error(StatusCode::BAD_REQUEST, "invalid_request_error");
    let whole = |list: &[&str]| !list.is_empty() && list.iter().all(|email| email.contains('@'));
    addresses(&mail["to"]).filter(|to| whole(to)).ok_or_else(invalid)?;
    for field in ["from", "reply_to", "cc", "bcc"] {
        if mail.get(field).is_some() {
            addresses(&mail[field]).filter(|list| whole(list)).ok_or_else(invalid)?;
        }
    }
    let texts = ["subject", "body"].iter().all(|field| mail.get(field).is_none_or(Value::is_string));
    if texts { Ok(()) } else { Err(invalid()) }
}

fn send(sent: &mut Sent, grant: String, mail: &Value, now: Timestamp) -> FakeResponse {
    let to = addresses(&mail["to"]).unwrap_or_default();
    if to.iter().any(|email| email.starts_with("refused") || !email.is_ascii()) {
        return error(StatusCode::PAYMENT_REQUIRED, "provider_error");
    }
    if to.iter().any(|email| email.starts_with("unknown")) {
        return error(StatusCode::UNPROCESSABLE_ENTITY, "provider_error");
    }
    let id = ids::base62(&mut rand::rng(), 16);
    let mut message = mail.clone();
    message["id"] = json!(id);
    message["thread_id"] = json!(id);
    message["object"] = json!("message");
    message["grant_id"] = json!(grant);
    message["date"] = json!(now.seconds());
    sent.insert(id, message.clone());
    if let Some(fields) = message.as_object_mut() {
        fields.remove("custom_headers");
    }
    FakeResponse::done(json!({ "request_id": ids::uuid(), "grant_id": grant, "data": message }))
}

/// Lists sent mail, newest first. Headers are included only if `fields` is `include_headers`.
fn list(sent: &Sent, grant: &str, query: &Value) -> FakeResponse {
    let text = |name: &str| query[name].as_str();
    let since: i64 = text("received_after").and_then(|text| text.parse().ok()).unwrap_or(i64::MIN);
    let limit: usize = text("limit").and_then(|text| text.parse().ok()).unwrap_or(50).clamp(1, 200);
    let fits = |mail: &&Value| {
        let to = addresses(&mail["to"]).unwrap_or_default();
        mail["grant_id"] == grant
            && mail["date"].as_i64() > Some(since)
            && text("to").is_none_or(|one| to.contains(&one))
    };
    let all: Vec<&Value> = sent.newest_first().filter(fits).collect();
    let show = |mail: &&Value| {
        let mut shown = (*mail).clone();
        let headers = shown.as_object_mut().and_then(|fields| fields.remove("custom_headers"));
        if text("fields") == Some("include_headers") {
            shown["headers"] = headers.unwrap_or_else(|| json!([]));
        }
        shown
    };
    let page: Vec<Value> = all.iter().take(limit).map(show).collect();
    let mut body = json!({ "request_id": ids::uuid(), "data": page });
    if all.len() > limit {
        body["next_cursor"] = json!(ids::base62(&mut rand::rng(), 24));
    }
    FakeResponse::done(body)
}
