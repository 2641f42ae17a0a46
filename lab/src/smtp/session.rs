//! The state of one connection, and the replies to its commands. Independent of sockets.

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

use crate::fake_server::FakeServer;
use crate::request::Request;

const HELLO: &str =
    "250-lab.usher.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 41943040";

/// The next action on the connection.
pub(super) enum SessionReply {
    Reply(String),
    /// The client sends the message next.
    Message,
    Quit,
    /// The connection is closed without a reply.
    Close,
}

pub(super) struct Session {
    server: Arc<FakeServer>,
    from: Option<String>,
    /// True if MAIL asked for SMTPUTF8.
    beyond_ascii: bool,
    to: Vec<String>,
}

/// Maximum length of an address, in bytes. RFC 5321, 4.5.3.1.3: a path has up to 256 octets, including
/// its angle brackets.
const LONGEST_ADDRESS: usize = 254;

/// Returns the refusal of an invalid address, with the codes of RFC 5321 and RFC 3463.
fn refusal(address: &str, beyond_ascii: bool) -> Option<&'static str> {
    let (local, _) = address.rsplit_once('@')?;
    let is_quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    let is_bare =
        local.split('.').all(|atom| !atom.is_empty() && !atom.contains([' ', '"', '\\', '(', ')', ',', ';', ':']));
    if address.len() > LONGEST_ADDRESS {
        // RFC 5321, 4.5.3.1.10.
        Some("501 5.1.3 Path too long")
    } else if !address.is_ascii() && !beyond_ascii {
        // RFC 6531, 3.5.
        Some("553 5.6.7 Non-ASCII addresses need SMTPUTF8")
    } else if !is_quoted && !is_bare {
        // RFC 5321, 4.1.2: a dot-string or a quoted string.
        Some("501 5.1.3 Bad address syntax")
    } else {
        None
    }
}

fn reply(text: &str) -> SessionReply {
    SessionReply::Reply(text.to_owned())
}

impl Session {
    pub(super) fn new(server: Arc<FakeServer>) -> Self {
        Self { server, from: None, beyond_ascii: false, to: Vec::new() }
    }

    /// Executes a command. A fault that matches the command takes precedence.
    pub(super) async fn command(&mut self, line: &str) -> SessionReply {
        if let Some(struck) = self.struck(line).await {
            return struck;
        }
        let (verb, rest) = line.split_once([' ', ':']).unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => reply(HELLO),
            "HELO" => reply("250 lab.usher.test"),
            "MAIL" => match address(rest) {
                Some(from) => {
                    let parameters = rest.rsplit_once('>').map_or("", |(_, parameters)| parameters);
                    let asks = parameters.split_whitespace().any(|word| word.eq_ignore_ascii_case("SMTPUTF8"));
                    if let Some(refused) = refusal(&from, asks) {
                        return reply(refused);
                    }
                    self.from = Some(from);
                    self.beyond_ascii = asks;
                    self.to = Vec::new();
                    reply("250 2.1.0 Ok")
                }
                None => reply("501 5.1.7 Bad sender address"),
            },
            "RCPT" if self.from.is_none() => reply("503 5.5.1 MAIL first"),
            "RCPT" => match address(rest).filter(|address| address.contains('@')) {
                Some(to) => match refusal(&to, self.beyond_ascii) {
                    Some(refused) => reply(refused),
                    None => {
                        self.to.push(to);
                        reply("250 2.1.5 Ok")
                    }
                },
                None => reply("501 5.1.3 Bad recipient address"),
            },
            "DATA" if self.to.is_empty() => reply("503 5.5.1 RCPT first"),
            "DATA" => SessionReply::Message,
            "RSET" => {
                self.from = None;
                self.to = Vec::new();
                reply("250 2.0.0 Ok")
            }
            "NOOP" => reply("250 2.0.0 Ok"),
            "QUIT" => SessionReply::Quit,
            _ => reply("502 5.5.2 Not implemented"),
        }
    }

    /// Applies a fault that matches this command. Commands are checked only if every fault in force has a `match`; a
    /// fault without one applies to messages.
    async fn struck(&self, line: &str) -> Option<SessionReply> {
        let now = Instant::now();
        if !self.server.faults.in_force(now).iter().all(|fault| fault.fault.containing.is_some()) {
            return None;
        }
        let request = Request::made("/command", HeaderMap::new(), json!(line));
        let matched = self.server.faults.take_match(&request, self.server.under_way(), now)?;
        tokio::time::sleep(matched.latency()).await;
        if matched.fault.hang {
            return if matched.hung().await { None } else { Some(SessionReply::Close) };
        }
        if matched.fault.drop_after_effect {
            return Some(SessionReply::Close);
        }
        let code = matched.status()?.as_u16();
        let text = matched.fault.name.as_deref().unwrap_or("The lab answers this on purpose");
        Some(SessionReply::Reply(format!("{code} {text}")))
    }

    /// Receives a message and returns the reply to it.
    pub(super) async fn message(&mut self, message: &[u8]) -> SessionReply {
        let message = String::from_utf8_lossy(message).into_owned();
        let fields = fields(&message);
        let mut headers = HeaderMap::new();
        let id = fields.get("message-id").and_then(Value::as_str).map(|id| id.trim_matches(['<', '>']));
        if let Some(Ok(id)) = id.map(HeaderValue::from_str) {
            headers.insert("idempotency-key", id);
        }
        let from = self.from.take();
        let to = std::mem::take(&mut self.to);
        let body = json!({ "from": from, "to": to, "headers": fields, "message": message });
        match self.server.clone().decide(Request::made("/message", headers, body)).await {
            Some(answer) => SessionReply::Reply(answer.body["reply"].as_str().unwrap_or("451 4.3.0 Odd").to_owned()),
            None => SessionReply::Close,
        }
    }
}

/// Returns the text in angle brackets.
fn address(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('<')?;
    rest.split_once('>').map(|(address, _)| address.to_owned())
}

/// Reads the header fields, with folded lines joined, names in lower case and values as sent.
fn fields(message: &str) -> Map<String, Value> {
    let head = message.split_once("\r\n\r\n").map_or(message, |(head, _)| head);
    let head = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), json!(value.trim())))
    };
    head.split("\r\n").filter_map(field).collect()
}
