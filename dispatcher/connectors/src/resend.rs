//! Resend: sends mails over its HTTP API, and keeps the contacts of its broadcasts.
//!
//! Facts: resend.com/docs (API reference, idempotency keys, errors, rate limit) and the error names of its own Rust
//! client. The idempotency key of a mail is valid for 24 hours; the same key with another body is refused. Contacts have
//! no key: see [`contact_change`].

mod classify;
mod contact;
mod contact_change;
mod request;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use classify::classify;
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use usher_engine::Outcome;
use usher_proto::Mailbox;
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use super::ParamType::{Email, Flag, Html, Json, Mailboxes, Record, Sender, Table, Text, Texts};
use super::attachments::{ATTACHMENTS, AttachmentFolder, StoredFile};
use super::client::{self, HttpAnswer};
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, DefaultQuota, FROM, Idempotency, KEYS_LIVE, Operation, PrepareError, StepInput,
    StepUse, default_sender, optional, optional_or, required, setting, stored,
};

const SEND: &str = "send";
const PUT_CONTACT: &str = "put_contact";
const DELETE_CONTACT: &str = "delete_contact";

const OPERATIONS: &[Operation] = &[
    Operation {
        name: SEND,
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
            optional("tags", Table),
            optional("hosted_template", Text),
            optional("variables", Json),
            optional("scheduled_at", Text),
            optional(ATTACHMENTS, Texts),
        ],
        takes_template: true,
        writes_to: &["to", "cc", "bcc"],
    },
    Operation {
        name: PUT_CONTACT,
        params: &[
            required("email", Email),
            optional("first_name", Text),
            optional("last_name", Text),
            optional("unsubscribed", Flag),
            optional("segments", Texts),
            optional("topics", Table),
            optional("properties", Record),
            optional("former_email", Email),
        ],
        takes_template: false,
        writes_to: &["email"],
    },
    Operation { name: DELETE_CONTACT, params: &[required("email", Email)], takes_template: false, writes_to: &[] },
];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "resend",
    settings: Some("RESEND_"),
    operations: OPERATIONS,
    // New teams have ten requests per second; older teams have two, and their rate-limit headers report it.
    default_quota: Some(DefaultQuota { limit: "2/s", is_assumed: true }),
    announces_limits: true,
    repeats_unknown_outcomes: &[],
    writes_to_database: false,
    placeholders: &[("RESEND_API_KEY", "re_rehearsal")],
    open: |environment, database| {
        let mut resend = Resend::from_environment(environment)?;
        if database.is_none() {
            resend.attachments = AttachmentFolder::Rehearsal;
        }
        Ok(Arc::new(resend))
    },
};

/// Connector for Resend, with its settings.
pub(super) struct Resend {
    client: HttpClient,
    base: String,
    key: Secret,
    from: Option<Mailbox>,
    attachments: AttachmentFolder,
}

impl Resend {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let key = setting(environment, "RESEND_API_KEY", "an API key (re_...) from Resend's dashboard")?;
        Ok(Self {
            client: client::build()?,
            base: client::base_url(environment, "RESEND_BASE_URL", "https://api.resend.com")?,
            key: Secret::new(key),
            from: default_sender(environment)?,
            attachments: AttachmentFolder::from_environment(environment)?,
        })
    }

    fn request(&self, method: Method, path: &Path) -> Result<RequestBuilder, Outcome> {
        Ok(self.client.request(method, &self.base, path)?.bearer_auth(self.key.expose()))
    }

    /// Returns a stored mail as it is sent: with the content of its files.
    async fn with_files(&self, request: &[u8]) -> Result<Vec<u8>, Outcome> {
        #[derive(Deserialize)]
        struct Carrying {
            #[serde(default)]
            attachments: Vec<StoredFile>,
        }
        let Carrying { attachments } = stored::read(request)?;
        if attachments.is_empty() {
            return Ok(request.to_vec());
        }
        let mut mail: Map<String, Value> = stored::read(request)?;
        let mut files = Vec::new();
        for (index, file) in attachments.iter().enumerate() {
            let content = STANDARD.encode(self.attachments.read(index, file).await?);
            files.push(json!({ "filename": file.filename, "content": content }));
        }
        mail.insert(ATTACHMENTS.to_owned(), Value::Array(files));
        Ok(stored::write(&mail)?)
    }

    async fn post(&self, mail: Vec<u8>, key: &str, gate: &CallGate) -> Result<HttpAnswer, Outcome> {
        let request = self
            .request(Method::POST, &Path::of("/emails"))?
            .header("Idempotency-Key", key)
            .header("Content-Type", "application/json");
        client::send(request.body(mail), gate).await
    }
}

#[async_trait]
impl Connector for Resend {
    fn idempotency(&self) -> Idempotency {
        Idempotency::KeyFor(KEYS_LIVE)
    }

    fn idempotency_of(&self, request: &[u8]) -> Idempotency {
        if stored::has_operation(request) { Idempotency::Natural } else { self.idempotency() }
    }

    async fn check(&self, uses: &[StepUse<'_>]) -> Result<(), ConfigError> {
        self.attachments.check(uses)
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        if inputs.operation == SEND {
            stored::write(&request::prepare(inputs, self.from.as_ref(), &self.attachments)?)
        } else {
            stored::write(&contact::prepare(inputs)?)
        }
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome {
        if stored::has_operation(request) {
            return self.apply(request, gate).await.unwrap_or_else(|outcome| outcome);
        }
        let mail = match self.with_files(request).await {
            Ok(mail) => mail,
            Err(outcome) => return outcome,
        };
        match self.post(mail, idempotency_key, gate).await {
            Ok(answer) => classify(&answer),
            Err(outcome) => outcome,
        }
    }
}
