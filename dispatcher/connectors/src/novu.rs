//! Novu: triggers workflows for subscribers, which it creates or updates in the same request, and keeps subscribers
//! without a trigger.
//!
//! Facts: docs.novu.co (trigger, idempotency, rate limits), its OpenAPI file, novu-go, and the server's source for the
//! wrapping in `data`. A 201 means that the request was understood, not that anything is sent: see its `status`.
//!
//! Novu has two mechanisms against duplicates, and neither is certain. The `Idempotency-Key` header is valid for a day
//! where Novu's support has switched it on, and is ignored elsewhere. Novu's worker checks the `transactionId` only
//! after the answer was sent, and the maintainers do not call that idempotency. The idempotency therefore counts as
//! none, and an unknown outcome is resolved by querying the notifications of the transaction. A request that is sent
//! again after that still carries the same `transactionId`.

mod classify;
mod lookup;
mod request;
mod subscriber;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use classify::{classify, is_replayed};
use reqwest::{Method, RequestBuilder};
use usher_engine::{Cause, Outcome};
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use super::ParamType::{Email, Json, Text};
use super::client::{self, HttpAnswer};
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, DefaultQuota, Idempotency, Lookup, Operation, PrepareError, StepInput,
    clearing, optional, required, setting, stored,
};

const TRIGGER: &str = "trigger";
const PUT_SUBSCRIBER: &str = "put_subscriber";
const DELETE_SUBSCRIBER: &str = "delete_subscriber";

const OPERATIONS: &[Operation] = &[
    Operation {
        name: TRIGGER,
        params: &[
            required("workflow", Text),
            required("subscriber_id", Text),
            optional("email", Email),
            optional("phone", Text),
            optional("first_name", Text),
            optional("last_name", Text),
            optional("locale", Text),
            optional("data", Json),
            optional("payload", Json),
        ],
        takes_template: false,
        writes_to: &["email"],
    },
    Operation {
        name: PUT_SUBSCRIBER,
        params: &[
            required("subscriber_id", Text),
            clearing("email", Email),
            clearing("phone", Text),
            clearing("first_name", Text),
            clearing("last_name", Text),
            clearing("locale", Text),
            clearing("timezone", Text),
            optional("data", Json),
        ],
        takes_template: false,
        // It only stores the address: a trigger, which writes, checks it.
        writes_to: &[],
    },
    Operation {
        name: DELETE_SUBSCRIBER,
        params: &[required("subscriber_id", Text)],
        takes_template: false,
        writes_to: &[],
    },
];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "novu",
    settings: Some("NOVU_"),
    operations: OPERATIONS,
    // The limit of the free plan. Other plans report a higher one.
    default_quota: Some(DefaultQuota { limit: "60/s", is_assumed: true }),
    announces_limits: true,
    repeats_unknown_outcomes: &[],
    writes_to_database: false,
    placeholders: &[("NOVU_SECRET_KEY", "rehearsal")],
    open: |environment, _| Ok(Arc::new(Novu::from_environment(environment)?)),
};

/// Connector for Novu, with its settings.
pub(super) struct Novu {
    client: HttpClient,
    base: String,
    key: Secret,
}

impl Novu {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let key = setting(environment, "NOVU_SECRET_KEY", "the secret key of an environment, from Novu's dashboard")?;
        Ok(Self {
            client: client::build()?,
            // The EU region is https://eu.api.novu.co.
            base: client::base_url(environment, "NOVU_BASE_URL", "https://api.novu.co")?,
            key: Secret::new(key),
        })
    }

    fn request(&self, method: Method, path: &Path) -> Result<RequestBuilder, Outcome> {
        let request = self.client.request(method, &self.base, path)?;
        Ok(request.header("Authorization", format!("ApiKey {}", self.key.expose())))
    }

    async fn post(&self, trigger: String, key: &str, gate: &CallGate) -> Result<HttpAnswer, Outcome> {
        let request = self.request(Method::POST, &Path::of("/v1/events/trigger"))?;
        let request = request.header("Idempotency-Key", key).header("Content-Type", "application/json");
        client::send(request.body(trigger), gate).await
    }

    /// Sends a stored trigger. `Err` is the outcome if it was not sent or not answered.
    async fn trigger(&self, stored: &[u8], key: &str, gate: &CallGate) -> Result<Outcome, Outcome> {
        let trigger = request::with_transaction(stored, key).ok_or_else(stored::unreadable)?;
        let answer = self.post(trigger, key, gate).await?;
        let outcome = classify(&answer);
        if !matches!(outcome, Outcome::Retry { .. }) || !is_replayed(&answer) {
            return Ok(outcome);
        }
        // Novu also replays errors for a day if idempotency keys are switched on: only another key can succeed.
        Ok(match self.look_up(key, gate).await {
            Lookup::Found(effect) => Outcome::Done(effect),
            Lookup::Absent => Outcome::retry(Cause::Replayed),
            Lookup::Unknown | Lookup::Later(_) => outcome,
        })
    }
}

#[async_trait]
impl Connector for Novu {
    fn idempotency(&self) -> Idempotency {
        Idempotency::None
    }

    fn idempotency_of(&self, request: &[u8]) -> Idempotency {
        if stored::has_operation(request) { Idempotency::Natural } else { self.idempotency() }
    }

    async fn lookup(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Lookup {
        // A change of a subscriber makes no notification, and needs none: it can be repeated.
        if stored::has_operation(request) { Lookup::Unknown } else { self.look_up(idempotency_key, gate).await }
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        if inputs.operation == TRIGGER {
            request::prepare(inputs)
        } else {
            stored::write(&subscriber::prepare(inputs)?)
        }
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome {
        let outcome = if stored::has_operation(request) {
            self.apply(request, gate).await
        } else {
            self.trigger(request, idempotency_key, gate).await
        };
        outcome.unwrap_or_else(|outcome| outcome)
    }
}
