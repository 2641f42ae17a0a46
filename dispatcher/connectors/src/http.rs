//! `http`: sends requests to any receiver: `http.request` as a flow writes them, `http.post` as signed JSON.
//!
//! Facts: the Standard Webhooks specification (github.com/standard-webhooks/standard-webhooks,
//! spec/standard-webhooks.md): the headers `webhook-id`, `webhook-timestamp` (of the attempt) and `webhook-signature`,
//! HMAC-SHA256 over `{id}.{timestamp}.{body}`, several signatures while a secret is exchanged, and the meaning of a
//! receiver's status. RFC 9110, 9.2.2: a repeated GET, PUT or DELETE has the effect of one.
//!
//! `webhook-id` is the same for every attempt, so a receiver that remembers ids processes each message once. No
//! receiver is required to remember them, so the idempotency of a POST counts as none, unless the flow names the header in
//! which the receiver expects an idempotency key.
//!
//! Secrets that flows name are not in stored requests: `placeholder.rs` holds their places, `send.rs` fills them in, and
//! what a receiver repeats of them is removed before anything of its answer is kept.

mod address;
mod address_text;
mod check;
mod classify;
mod form;
mod kept_answer;
mod request;
mod rules;
mod secret_store;
mod secrets;
mod send;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use address::{ALLOW_PLAIN, PlainHttp};
pub(super) use address_text::check_address;
pub use address_text::{AddressPart, address_parts};
use address_text::{PlacePart, place};
use async_trait::async_trait;
pub(super) use kept_answer::are_places;
use request::{HttpRequest, METHODS};
pub(super) use rules::are_statuses;
use secret_store::SecretStore;
use secrets::{NamedSecrets, SECRET};
pub(super) use secrets::{REHEARSAL_SECRET, rehearsal_secrets};
use usher_engine::Outcome;
use usher_service::ConfigError;
use usher_service::options::Environment;

use super::ParamType::{Address, Choice, Json, Literal, Name, Places, Statuses, Switch, Table, Text};
use super::client;
use super::path::HttpClient;
use super::placeholder::TextPiece;
use super::{
    CallGate, Connector, ConnectorSpec, Idempotency, Operation, PrepareError, StepInput, StepUse, optional,
    optional_or, required, stored,
};

const POST: &str = "post";

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "request",
        params: &[
            required("url", Address).with_secrets(),
            optional("method", Choice(METHODS)),
            optional("query", Table).with_secrets(),
            optional("headers", Table).with_secrets(),
            optional("basic_auth", Table).with_secrets(),
            optional("body", Json).with_secrets(),
            optional("form", Json).with_secrets(),
            optional("text", Text).with_secrets(),
            optional("content_type", Literal),
            optional("sign", Switch),
            optional("secret", Name),
            optional("success_on", Statuses),
            optional("retry_on", Statuses),
            optional("idempotency_header", Literal),
            optional("answer", Places),
        ],
        takes_template: false,
        writes_to: &[],
    },
    Operation {
        name: POST,
        params: &[
            required("url", Address).with_secrets(),
            optional("body", Json).with_secrets(),
            optional_or("secret", Name, SECRET),
        ],
        takes_template: false,
        writes_to: &[],
    },
];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "http",
    settings: None,
    operations: OPERATIONS,
    default_quota: None,
    // There is a different receiver behind each address, so the limits of one do not apply to the others.
    announces_limits: false,
    // Receivers of Standard Webhooks must recognise a repeated message by its id, and a 503 of theirs must not end the run.
    repeats_unknown_outcomes: &[POST],
    writes_to_database: false,
    placeholders: &[
        (SECRET, REHEARSAL_SECRET),
        // Allows `http://`, so that such an address is judged by its host alone.
        (ALLOW_PLAIN, "true"),
    ],
    open: |environment, _| Ok(Arc::new(HttpConnector::from_environment(environment)?)),
};

/// The quota's share of the requests to places that no step of the current flows names, such as those of earlier versions.
const OTHER_PLACES: &str = "other";

/// Connector for `http`, with its settings.
pub(super) struct HttpConnector {
    client: HttpClient,
    /// Base URL that replaces the scheme, host and port of every request; the original host and path follow it. Used
    /// for a lab, or a proxy that lets only known hosts pass.
    base: Option<String>,
    signing: NamedSecrets,
    secrets: SecretStore,
    plain_http: PlainHttp,
    /// The places that the steps of the flows send requests to, once they are known.
    places: OnceLock<BTreeSet<String>>,
}

impl HttpConnector {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let base = match environment.get("HTTP_BASE_URL")? {
            None => None,
            Some(_) => Some(client::base_url(environment, "HTTP_BASE_URL", "http://127.0.0.1:8090/http")?),
        };
        Ok(Self {
            client: client::build()?,
            base,
            signing: NamedSecrets::from_environment(environment)?,
            secrets: SecretStore::new(environment),
            plain_http: PlainHttp::from_environment(environment)?,
            places: OnceLock::new(),
        })
    }
}

#[async_trait]
impl Connector for HttpConnector {
    fn idempotency(&self) -> Idempotency {
        Idempotency::None
    }

    fn idempotency_of(&self, request: &[u8]) -> Idempotency {
        request::idempotency(request)
    }

    async fn check(&self, uses: &[StepUse<'_>]) -> Result<(), ConfigError> {
        self.check_steps(uses)
    }

    fn sub_accounts(&self) -> Vec<String> {
        let places = self.places.get().into_iter().flatten().cloned();
        places.chain([OTHER_PLACES.to_owned()]).collect()
    }

    fn sub_account(&self, request: &[u8]) -> Option<String> {
        let request = HttpRequest::read(request).ok()?;
        let parts = request.url.0.iter().map(|piece| match piece {
            TextPiece::Text(text) => PlacePart::Text(text),
            TextPiece::Secret { secret } => PlacePart::Secret(secret),
            TextPiece::Data { data } => PlacePart::Text(data),
        });
        let place = place(parts);
        let is_known = self.places.get().is_some_and(|places| places.contains(&place));
        Some(if is_known { place } else { OTHER_PLACES.to_owned() })
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        let request = request::prepare(inputs)?;
        let not_set = |error: ConfigError| PrepareError(error.to_string());
        let secrets = self.secrets.all(request.secrets()).map_err(not_set)?;
        address::resolve(&request.url, &secrets, self.plain_http)?;
        if let Some(signed) = &request.signed {
            self.signing.get(signed.secret.as_deref())?;
        }
        stored::write(&request)
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome {
        self.send(request, idempotency_key, gate).await.unwrap_or_else(|outcome| outcome)
    }
}
