//! Resend: sends mails over its HTTP API.
//!
//! Facts: resend.com/docs (API reference, idempotency keys, errors, rate limit) and the error names of its own Rust
//! client. Its idempotency key is valid for 24 hours; the same key with another body is refused.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Map, Value, json};
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::{Mailbox, Reason};
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use super::ParamType::{Html, Mailboxes, Sender, Table, Text};
use super::client::{self, HttpAnswer};
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, DefaultQuota, FROM, Idempotency, KEYS_LIVE, Operation, PrepareError, StepInput,
    default_sender, optional, optional_or, required, setting,
};

/// Pause until the next day's quota if Resend does not give one. The start of its day is not documented.
const DAILY_QUOTA_PAUSE: Duration = Duration::from_secs(3600);

const OPERATIONS: &[Operation] = &[Operation {
    name: "send",
    params: &[
        required("to", Mailboxes),
        required("subject", Text),
        optional_or("from", Sender, FROM),
        optional("reply_to", Mailboxes),
        optional("html", Html),
        optional("text", Text),
        optional("headers", Table),
        optional("tags", Table),
    ],
    takes_template: true,
    writes_to: &["to"],
}];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "resend",
    settings: Some("RESEND_"),
    operations: OPERATIONS,
    // New teams have ten requests per second; older teams have two, and their rate-limit headers report it.
    default_quota: Some(DefaultQuota { limit: "2/s", is_assumed: true }),
    announces_limits: true,
    repeats_unknown_outcomes: false,
    writes_to_database: false,
    placeholders: &[("RESEND_API_KEY", "re_rehearsal")],
    open: |environment, _| Ok(Arc::new(Resend::from_environment(environment)?)),
};

/// Connector for Resend, with its settings.
pub(super) struct Resend {
    client: HttpClient,
    base: String,
    key: Secret,
    from: Option<Mailbox>,
}

impl Resend {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let key = setting(environment, "RESEND_API_KEY", "an API key (re_...) from Resend's dashboard")?;
        Ok(Self {
            client: client::build()?,
            base: client::base_url(environment, "RESEND_BASE_URL", "https://api.resend.com")?,
            key: Secret::new(key),
            from: default_sender(environment)?,
        })
    }
}

#[async_trait]
impl Connector for Resend {
    fn idempotency(&self) -> Idempotency {
        Idempotency::KeyFor(KEYS_LIVE)
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        let mut mail = Map::new();
        mail.insert("from".into(), json!(inputs.sender(self.from.as_ref())?.to_text()));
        mail.insert("to".into(), texts(&inputs.recipients()?));
        mail.insert("subject".into(), json!(inputs.subject()?));
        let reply_to = inputs.mailboxes("reply_to")?;
        if !reply_to.is_empty() {
            mail.insert("reply_to".into(), texts(&reply_to));
        }
        for name in ["html", "text"] {
            if let Some(value) = inputs.params.get(name) {
                mail.insert(name.into(), value.clone());
            }
        }
        let headers = inputs.headers()?;
        if !headers.is_empty() {
            let header = |(name, value): (&str, String)| (name.to_owned(), json!(value));
            mail.insert("headers".into(), headers.into_iter().map(header).collect());
        }
        if !mail.contains_key("html") && !mail.contains_key("text") {
            return Err(PrepareError("the mail has neither html nor text".into()));
        }
        if let Some(tags) = inputs.params.get("tags").and_then(Value::as_object) {
            let tag = |(name, value): (&String, &Value)| json!({ "name": name, "value": value });
            mail.insert("tags".into(), tags.iter().map(tag).collect());
        }
        serde_json::to_vec(&mail).map_err(|error| PrepareError(error.to_string()))
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome {
        let posted = match self.client.request(Method::POST, &self.base, &Path::of("/emails")) {
            Ok(posted) => posted,
            Err(outcome) => return outcome,
        };
        let posted = posted
            .bearer_auth(self.key.expose())
            .header("Idempotency-Key", idempotency_key)
            .header("Content-Type", "application/json")
            .body(request.to_vec());
        match client::send(posted, gate).await {
            Ok(answer) => classify(&answer),
            Err(outcome) => outcome,
        }
    }
}

/// Returns a single address as a text, several as a list.
fn texts(mailboxes: &[Mailbox]) -> Value {
    match mailboxes {
        [one] => json!(one.to_text()),
        several => several.iter().map(Mailbox::to_text).collect(),
    }
}

/// Classifies an answer by name and status together: `validation_error` comes with 400, 403 and 422, and a 429 can be a
/// monthly quota.
fn classify(answer: &HttpAnswer) -> Outcome {
    let body = answer.json();
    if answer.status.is_success() {
        return match body["id"].as_str() {
            Some(id) => Outcome::Done(Effect::new(id, json!({}))),
            None => Outcome::retry(Cause::Interrupted),
        };
    }
    let name = body["name"].as_str().unwrap_or_default();
    let error = answer.error(Some(name));
    match (answer.status.as_u16(), name) {
        (_, "monthly_quota_exceeded") => Outcome::reject(Reason::QuotaExhausted, error),
        (429, "daily_quota_exceeded") => {
            let after = answer.retry_after().unwrap_or(DAILY_QUOTA_PAUSE);
            Outcome::Retry { cause: Cause::Throttled, after: Some(after) }
        }
        (429, _) => answer.retry(Cause::Throttled),
        (409, "invalid_idempotent_request") => Outcome::reject(Reason::IdempotencyConflict, error),
        (409, _) => answer.retry(Cause::Conflict),
        (408, _) => answer.retry(Cause::Timeout),
        (401 | 403, _) | (_, "invalid_api_key" | "missing_api_key" | "restricted_api_key") => {
            Outcome::reject(Reason::Configuration, error)
        }
        (404, _) => Outcome::reject(Reason::NotFound, error),
        (500..=599, _) => answer.retry(Cause::Unavailable),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::answer;
    use super::*;

    #[test]
    fn a_mail_bears_the_headers_it_is_given() {
        usher_service::telemetry::install_tls();
        let settings = [("RESEND_API_KEY", "re_1"), ("USHER_FROM", "h@acme.test")];
        let resend = Resend::from_environment(&Environment::from_vars(settings)).expect("good settings");
        let headers = json!({ "List-Unsubscribe": "<https://acme.test/out>" });
        let mail = json!({ "to": "a@b.test", "subject": "Hi", "text": "x", "headers": headers });
        let made = super::super::testing::prepare(&resend, "send", &mail, &Value::Null).expect("a request");
        assert_eq!(serde_json::from_slice::<Value>(&made).expect("JSON")["headers"], headers);
    }

    #[test]
    fn a_success_that_cannot_be_read_is_not_done() {
        assert_eq!(classify(&answer(200, "<html>")), Outcome::retry(Cause::Interrupted));
        assert!(matches!(classify(&answer(200, r#"{"id":"m1"}"#)), Outcome::Done(effect) if effect.id == "m1"));
    }
}
