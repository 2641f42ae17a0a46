//! The double of a mail server: accepts every mail, delivers none, and records all in the ledger.
//!
//! Facts: RFC 5321. The server requires no login and offers no TLS. The status of a fault is a reply code:
//! `{"status":451}` refuses the message after its end; `hang` and `drop_after_effect` also take place there. A fault
//! with `match` applies at the command that contains its text: `{"status":550,"match":"RCPT TO:<ghost@"}` refuses a
//! recipient, `{"hang":true,"match":"DATA"}` hangs before the message. There are no idempotency keys; the ledger shows
//! the Message-ID of a mail in their place.

mod server;
mod session;

use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
pub(crate) use server::serve;
use usher_proto::Timestamp;

use crate::answer::FakeResponse;
use crate::double::{Double, DoubleCall, DoubleRefusal, EffectSubject};
use crate::ids;
use crate::request::Request;

pub(crate) const NAME: &str = "smtp";
/// The mail header that holds the Clerk user id, in lower case.
const USER_HEADER: &str = "x-clerk-user-id";

/// The mail server's part in the controls and the ledger.
pub(crate) struct SmtpDouble;

impl Double for SmtpDouble {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self, request: &Request) -> EffectSubject {
        let to =
            request.body["to"].as_array().map(|to| to.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
        let user = request.body["headers"][USER_HEADER].as_str().map(str::to_owned);
        EffectSubject { operation: Some("messages.send"), user, to }
    }

    fn authenticate(&self, _headers: &HeaderMap) -> Result<(), FakeResponse> {
        Ok(())
    }

    fn read(&self, request: &Request, _now: Timestamp) -> Result<DoubleCall, FakeResponse> {
        if !request.body["message"].is_string() {
            return Err(reply(StatusCode::NOT_FOUND, "this is a mail server: it has a port of its own"));
        }
        let run = |_now: Timestamp| {
            FakeResponse::done(json!({ "reply": format!("250 2.0.0 Ok: queued as {}", ids::prefixed("", 11)) }))
        };
        Ok(DoubleCall { key: None, changes: true, run: Box::new(run) })
    }

    fn refuse(&self, refusal: DoubleRefusal<'_>) -> FakeResponse {
        match refusal {
            DoubleRefusal::Limited(_) => {
                reply(StatusCode::MISDIRECTED_REQUEST, "4.7.0 Too many messages, try again later")
            }
            DoubleRefusal::Fault { status, name, .. } => {
                let class = if status.is_server_error() { '5' } else { '4' };
                let default = format!("{class}.0.0 The lab answers this on purpose");
                reply(status, name.unwrap_or(&default))
            }
            // Cannot happen, because there are no idempotency keys.
            DoubleRefusal::KeyReused(_) | DoubleRefusal::KeyInUse(_) => {
                reply(StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, "4.3.0 Busy")
            }
        }
    }
}

/// Builds a refusal. The reply code is carried as an HTTP status, which has the same range of numbers
/// but other meanings.
fn reply(code: StatusCode, text: &str) -> FakeResponse {
    FakeResponse::refused(code, json!({ "reply": format!("{} {text}", code.as_u16()) }))
}
