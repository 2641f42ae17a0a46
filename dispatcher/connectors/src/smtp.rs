//! SMTP: sends mails through any mail server.
//!
//! Facts: RFC 5321 (replies 4.2, time limits 4.5.3.2, responsibility 6.1), RFC 3463 (enhanced status codes), RFC 4954
//! (authentication). A server does nothing before it has received the dot that ends the message, and has no idempotency
//! keys: once the dot was sent, only the server's answer shows whether it accepted the mail. If that answer is lost,
//! the flow's `on_unknown_outcome` decides. The Message-ID is the idempotency key, so that a mail that was sent twice
//! can be recognised; some receivers drop the second one.

mod classify;
mod request;
mod server;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use request::Mail;
use serde_json::json;
use server::MailServer;
use usher_engine::{Effect, Outcome};
use usher_proto::Mailbox;
use usher_service::ConfigError;
use usher_service::options::Environment;

use super::ParamType::{Html, Mailboxes, Sender, Table, Text};
use super::{
    CallGate, Connector, ConnectorSpec, FROM, Idempotency, Operation, PrepareError, StepInput, default_sender,
    optional, optional_or, required, setting, stored,
};

const OPERATIONS: &[Operation] = &[Operation {
    name: "send",
    params: &[
        required("to", Mailboxes),
        optional("cc", Mailboxes),
        optional("bcc", Mailboxes),
        required("subject", Text),
        optional_or("from", Sender, FROM),
        optional("reply_to", Mailboxes),
        optional("html", Html),
        optional("text", Text),
        optional("headers", Table),
    ],
    takes_template: true,
    writes_to: &["to", "cc", "bcc"],
}];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "smtp",
    settings: Some("SMTP_"),
    operations: OPERATIONS,
    default_quota: None,
    // A mail server has no headers.
    announces_limits: false,
    repeats_unknown_outcomes: &[],
    writes_to_database: false,
    placeholders: &[("SMTP_URL", "smtp://127.0.0.1:1")],
    open: |environment, _| Ok(Arc::new(Smtp::from_environment(environment)?)),
};

/// Connector for SMTP, with its settings.
pub(super) struct Smtp {
    server: MailServer,
    from: Option<Mailbox>,
}

impl Smtp {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let url = setting(environment, "SMTP_URL", "a mail server, such as smtps://user:password@mail.example.com")?;
        Ok(Self { server: MailServer::from_url(&url)?, from: default_sender(environment)? })
    }

    /// Sends a stored mail. `Err` is the outcome if the server did not take it.
    async fn send(&self, request: &[u8], key: &str, gate: &CallGate) -> Result<Outcome, Outcome> {
        let mail: Mail = stored::read(request)?;
        let id = mail.message_id(key);
        self.server.send(&mail, &id, gate).await?;
        Ok(Outcome::Done(Effect::new(id, json!({}))))
    }
}

#[async_trait]
impl Connector for Smtp {
    fn idempotency(&self) -> Idempotency {
        Idempotency::None
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        stored::write(&request::prepare(inputs, self.from.as_ref(), usher_service::clock::now())?)
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome {
        self.send(request, idempotency_key, gate).await.unwrap_or_else(|outcome| outcome)
    }
}
