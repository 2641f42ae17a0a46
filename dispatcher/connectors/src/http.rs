//! `http`: posts signed JSON to any receiver.
//!
//! Facts: the Standard Webhooks specification (github.com/standard-webhooks/standard-webhooks,
//! spec/standard-webhooks.md): the headers `webhook-id`, `webhook-timestamp` (of the attempt) and `webhook-signature`,
//! HMAC-SHA256 over `{id}.{timestamp}.{body}`, several signatures while a secret is exchanged, and the meaning of a
//! receiver's status.
//!
//! `webhook-id` is the same for every attempt, so a receiver that remembers ids processes each message once. No
//! receiver is required to remember them, so the idempotency counts as none. A flow whose receiver remembers ids can
//! set `on_unknown_outcome = "send"`.

mod address;
mod check;
mod classify;
mod request;
mod secrets;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(super) use address::is_address;
use address::{ALLOW_PLAIN, PlainHttp};
use async_trait::async_trait;
use classify::classify;
use request::Post;
use reqwest::{Method, Url};
use secrets::{NamedSecrets, SECRET};
pub(super) use secrets::{REHEARSAL_SECRET, named_secrets};
use usher_engine::Outcome;
use usher_proto::Reason;
use usher_service::ConfigError;
use usher_service::clock;
use usher_service::options::Environment;

use super::ParamType::{Address, Json, Name};
use super::client;
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, Idempotency, Operation, PrepareError, StepInput, StepUse, optional,
    optional_or, required, stored,
};

const OPERATIONS: &[Operation] = &[Operation {
    name: "post",
    params: &[required("url", Address), optional("body", Json), optional_or("secret", Name, SECRET)],
    takes_template: false,
    writes_to: &[],
}];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "http",
    settings: None,
    operations: OPERATIONS,
    default_quota: None,
    // There is a different receiver behind each address, so the limits of one do not apply to the others.
    announces_limits: false,
    // Receivers of Standard Webhooks must recognise a repeated message by its id, and a 503 of theirs must not end the run.
    repeats_unknown_outcomes: true,
    writes_to_database: false,
    placeholders: &[
        (SECRET, REHEARSAL_SECRET),
        // Allows `http://`, so that such an address is judged by its host alone.
        (ALLOW_PLAIN, "true"),
    ],
    open: |environment, _| Ok(Arc::new(SignedPost::from_environment(environment)?)),
};

/// Connector for `http`, with its settings.
pub(super) struct SignedPost {
    client: HttpClient,
    /// Base URL that replaces the scheme, host and port of every request; the original host and path follow it. Used
    /// for a lab, or a proxy that lets only known hosts pass.
    base: Option<String>,
    secrets: NamedSecrets,
    plain_http: PlainHttp,
}

impl SignedPost {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let secrets = NamedSecrets::from_environment(environment)?;
        let plain_http = PlainHttp::from_environment(environment)?;
        let base = match environment.get("HTTP_BASE_URL")? {
            None => None,
            Some(_) => Some(client::base_url(environment, "HTTP_BASE_URL", "http://127.0.0.1:8090/http")?),
        };
        Ok(Self { client: client::build()?, base, secrets, plain_http })
    }

    /// Returns the base and path that a request to `url` is really sent to.
    fn target(&self, url: &Url) -> (String, Path) {
        match &self.base {
            None => (format!("{}://{}", url.scheme(), url.authority()), Path::of_address("", url)),
            Some(base) => (base.clone(), Path::of_address(&format!("/{}", url.authority()), url)),
        }
    }

    /// Signs and sends a stored request. `Err` is the outcome if it was not sent or not answered.
    async fn post(&self, request: &[u8], key: &str, gate: &CallGate) -> Result<Outcome, Outcome> {
        let Post { url, secret, body } = stored::read(request)?;
        let url = Url::parse(&url).map_err(|_| stored::unreadable())?;
        let missing = |_| Outcome::reject(Reason::Configuration, "its signing secret is not set any more");
        let secrets = self.secrets.get(secret.as_deref()).map_err(missing)?;
        // A full stop in the id would allow the signed text to be split at another place.
        let id = key.replace('.', "_");
        let timestamp = clock::wall().seconds().to_string();
        let signatures: Vec<String> =
            secrets.iter().map(|secret| secret.sign(&id, &timestamp, body.as_bytes())).collect();
        let (base, path) = self.target(&url);
        let request = self
            .client
            .request(Method::POST, &base, &path)?
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures.join(" "))
            .header("Content-Type", "application/json")
            .body(body);
        Ok(classify(&client::send_for_status(request, gate).await?, id))
    }
}

#[async_trait]
impl Connector for SignedPost {
    fn idempotency(&self) -> Idempotency {
        Idempotency::None
    }

    async fn check(&self, uses: &[StepUse<'_>]) -> Result<(), ConfigError> {
        self.check_steps(uses)
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        stored::write(&request::prepare(inputs, &self.secrets, self.plain_http)?)
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome {
        self.post(request, idempotency_key, gate).await.unwrap_or_else(|outcome| outcome)
    }
}
