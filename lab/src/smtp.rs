//! The double of a mail server: takes every mail, delivers none, shows them all.
//!
//! Facts: RFC 5321. It asks for no login and offers no TLS. The statuses of its faults are reply codes: `{"status":451}`
//! refuses the message after its end, `hang` and `drop_after_effect` take place there, too. A fault with `match` strikes
//! where its text stands: `{"status":550,"match":"RCPT TO:<ghost@"}` refuses a recipient, `{"hang":true,"match":"DATA"}`
//! hangs before the message. It knows no idempotency keys; as such a mail's record shows its Message-ID.

mod server;
mod session;

use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use usher_proto::Timestamp;

use crate::answer::Answer;
use crate::double::{Call, Double, Refusal, Subject};
use crate::ids;
use crate::request::Request;
pub(crate) use server::serve;

pub(crate) const NAME: &str = "smtp";
/// The header by which a mail says which Clerk user it is for, in lower case.
const USER_HEADER: &str = "x-clerk-user-id";

/// The mail server, as far as the controls see it.
pub(crate) struct Smtp;

impl Double for Smtp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self, request: &Request) -> Subject {
        let to =
            request.body["to"].as_array().map(|to| to.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
        let user = request.body["headers"][USER_HEADER].as_str().map(str::to_owned);
        Subject { operation: Some("messages.send"), user, to }
    }

    fn authenticate(&self, _headers: &HeaderMap) -> Result<(), Answer> {
        Ok(())
    }

    fn read(&self, request: &Request, _now: Timestamp) -> Result<Call, Answer> {
        if !request.body["message"].is_string() {
            return Err(reply(StatusCode::NOT_FOUND, "this is a mail server: it has a port of its own"));
        }
        let run = |_now: Timestamp| {
            Answer::done(json!({ "reply": format!("250 2.0.0 Ok: queued as {}", ids::prefixed("", 11)) }))
        };
        Ok(Call { key: None, changes: true, run: Box::new(run) })
    }

    fn refuse(&self, refusal: Refusal<'_>) -> Answer {
        match refusal {
            Refusal::Limited(_) => reply(StatusCode::MISDIRECTED_REQUEST, "4.7.0 Too many messages, try again later"),
            Refusal::Fault { status, name, .. } => {
                let class = if status.is_server_error() { '5' } else { '4' };
                let default = format!("{class}.0.0 The lab answers this on purpose");
                reply(status, name.unwrap_or(&default))
            }
            // There are no keys.
            Refusal::KeyReused(_) | Refusal::KeyInUse(_) => {
                reply(StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, "4.3.0 Busy")
            }
        }
    }
}

/// A refusal. Reply codes and HTTP's statuses are numbers of the same range, and mean different things.
fn reply(code: StatusCode, text: &str) -> Answer {
    Answer::refused(code, json!({ "reply": format!("{} {text}", code.as_u16()) }))
}
