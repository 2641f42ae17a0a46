//! Nylas: sends mails from one's own mailboxes, over its API v3. A connected mailbox is called a grant.
//!
//! Facts: developer.nylas.com (sending, idempotency, errors, rate limits, listing messages, headers) and nylas-nodejs.
//! Its idempotency key is valid for an hour and preserves errors as well as successes: after a failure that certainly
//! had no effect the next attempt needs another key, and a replayed error contains no new information. Nylas itself
//! does not retry.
//!
//! Each mail carries the key in a header of its own, so that a mail whose answer was lost can be found among the
//! messages of the mailbox.
//!
//! Only Nylas can decide if a grant may send as `from`, when it receives the mail (402 or 422). At the start the domain
//! of `from` is compared with that of the mailbox. Providers limit how much a mailbox may send (Google 2,000 mails a
//! day, Microsoft 30 a minute): Nylas refuses mails beyond that with 429 on their behalf, and they wait.

mod check;
mod classify;
mod lookup;
mod request;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use classify::{classify, is_replayed};
use request::{StoredMail, with_key_header};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use usher_engine::{Cause, Outcome};
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use super::ParamType::{Html, Mailboxes, Sender, Table, Text};
use super::client::{self, HttpAnswer};
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, Idempotency, Lookup, Operation, PrepareError, StepInput, StepUse, optional,
    required, setting, stored,
};

/// Time for which an idempotency key is relied on: an hour, less an allowance for clock skew.
const KEYS_LIVE: Duration = Duration::from_secs(55 * 60);
/// Time limit of a request. Sending takes seconds, occasionally a minute. Normally the step's `timeout` applies; this
/// limit is only a fallback.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Variable that lists the mailboxes.
const GRANTS: &str = "NYLAS_GRANT_ID";

const OPERATIONS: &[Operation] = &[Operation {
    name: "send",
    params: &[
        required("to", Mailboxes),
        optional("cc", Mailboxes),
        optional("bcc", Mailboxes),
        required("subject", Text),
        optional("from", Sender),
        optional("reply_to", Mailboxes),
        optional("html", Html),
        optional("text", Text),
        optional("headers", Table),
    ],
    takes_template: true,
    writes_to: &["to", "cc", "bcc"],
}];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "nylas",
    settings: Some("NYLAS_"),
    operations: OPERATIONS,
    default_quota: None,
    announces_limits: true,
    repeats_unknown_outcomes: &[],
    writes_to_database: false,
    placeholders: &[("NYLAS_API_KEY", "rehearsal"), ("NYLAS_GRANT_ID", "rehearsal")],
    open: |environment, _| Ok(Arc::new(Nylas::from_environment(environment)?)),
};

/// Connector for Nylas, with its settings.
pub(super) struct Nylas {
    client: HttpClient,
    base: String,
    key: Secret,
    /// Ids of the mailboxes; at least one.
    grants: Vec<String>,
}

impl Nylas {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let key = setting(environment, "NYLAS_API_KEY", "an API key (nyk_...) from Nylas's dashboard")?;
        let what = "the id of a connected mailbox, or several separated by spaces";
        let grants = setting(environment, GRANTS, what)?;
        let grants: Vec<String> = grants.split_whitespace().map(str::to_owned).collect();
        let unfit = |grant: &String| grant.contains('@') || mailbox_path(grant).is_err();
        if grants.is_empty() || grants.iter().any(unfit) {
            // An email address would appear in metrics and logs.
            return Err(ConfigError::new(GRANTS, format!("it is {what}")));
        }
        Ok(Self {
            client: client::build()?,
            // The EU region is https://api.eu.nylas.com.
            base: client::base_url(environment, "NYLAS_BASE_URL", "https://api.us.nylas.com")?,
            key: Secret::new(key),
            grants,
        })
    }

    fn request(&self, method: Method, path: &Path) -> Result<RequestBuilder, Outcome> {
        let request = self.client.request(method, &self.base, path)?;
        Ok(request.bearer_auth(self.key.expose()).timeout(REQUEST_TIMEOUT))
    }

    /// Queries Nylas about a mailbox.
    async fn ask(
        &self,
        path: Result<Path, PrepareError>,
        deadline: Duration,
        gate: &CallGate,
    ) -> Result<HttpAnswer, Outcome> {
        client::send(self.request(Method::GET, &path?)?.timeout(deadline), gate).await
    }

    /// Sends a stored mail. `Err` is the outcome if it was not sent or not answered.
    async fn send(&self, request: &[u8], key: &str, gate: &CallGate) -> Result<Outcome, Outcome> {
        let stored: StoredMail = stored::read(request)?;
        let path = mailbox_path(&stored.grant)?.then("/messages/send");
        let request = self
            .request(Method::POST, &path)?
            .header("Idempotency-Key", key)
            .header("Content-Type", "application/json")
            .body(Value::Object(with_key_header(stored.mail.clone(), key)).to_string());
        let answer = client::send(request, gate).await?;
        let outcome = classify(&answer);
        if !matches!(outcome, Outcome::Retry { .. }) || !is_replayed(&answer) {
            return Ok(outcome);
        }
        // An earlier attempt's error, replayed for the rest of the hour. The mailbox shows if that attempt sent the
        // mail; if it did not, only another key can send it.
        Ok(match self.look_up(&stored, key, gate).await {
            Lookup::Found(effect) => Outcome::Done(effect),
            Lookup::Absent => Outcome::retry(Cause::Replayed),
            Lookup::Unknown | Lookup::Later(_) => outcome,
        })
    }
}

/// Returns the path of a mailbox.
fn mailbox_path(grant: &str) -> Result<Path, PrepareError> {
    Path::of("/v3/grants").segment("grant", grant)
}

#[async_trait]
impl Connector for Nylas {
    fn idempotency(&self) -> Idempotency {
        Idempotency::KeyFor(KEYS_LIVE)
    }

    async fn check(&self, uses: &[StepUse<'_>]) -> Result<(), ConfigError> {
        self.check_mailboxes(uses).await
    }

    async fn lookup(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Lookup {
        match stored::read(request) {
            Ok(stored) => self.look_up(&stored, idempotency_key, gate).await,
            Err(_) => Lookup::Unknown,
        }
    }

    fn sub_accounts(&self) -> Vec<String> {
        self.grants.clone()
    }

    fn sub_account(&self, request: &[u8]) -> Option<String> {
        stored::read::<StoredMail>(request).ok().map(|stored| stored.grant)
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        stored::write(&request::prepare(inputs, &self.grants)?)
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome {
        self.send(request, idempotency_key, gate).await.unwrap_or_else(|outcome| outcome)
    }
}
