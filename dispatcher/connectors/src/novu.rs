//! Novu: triggers workflows for subscribers, which it creates or updates in the same request.
//!
//! Facts: docs.novu.co (trigger, idempotency, rate limits), its OpenAPI file, novu-go, and the server's source for the
//! wrapping in `data`. A 201 means that the request was understood, not that anything is sent: see its `status`.
//!
//! Novu has two mechanisms against duplicates, and neither is certain. The `Idempotency-Key` header is valid for a day
//! where Novu's support has switched it on, and is ignored elsewhere. Novu's worker checks the `transactionId` only
//! after the answer was sent, and the maintainers do not call that idempotency. The idempotency therefore counts as
//! none, and an unknown outcome is resolved by querying the notifications of the transaction. A request that is sent
//! again after that still carries the same `transactionId`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::{Method, RequestBuilder};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use super::ParamType::{Email, Json, Text};
use super::client::{self, HttpAnswer};
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, DefaultQuota, Idempotency, Lookup, Operation, PrepareError, StepInput,
    optional, required, setting,
};

const OPERATIONS: &[Operation] = &[Operation {
    name: "trigger",
    params: &[
        required("workflow", Text),
        required("subscriber_id", Text),
        optional("email", Email),
        optional("phone", Text),
        optional("first_name", Text),
        optional("last_name", Text),
        optional("payload", Json),
    ],
    takes_template: false,
    writes_to: &["email"],
}];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "novu",
    settings: Some("NOVU_"),
    operations: OPERATIONS,
    // The limit of the free plan. Other plans report a higher one.
    default_quota: Some(DefaultQuota { limit: "60/s", is_assumed: true }),
    announces_limits: true,
    repeats_unknown_outcomes: false,
    writes_to_database: false,
    placeholders: &[("NOVU_SECRET_KEY", "rehearsal")],
    open: |environment, _| Ok(Arc::new(Novu::from_environment(environment)?)),
};

/// End of the message of Novu's server for a key that was used with another body: the error has no other name.
const KEY_REUSED: &str = "is being reused for a different body";
/// Size of a stored request, in bytes, at most. Novu accepts 512 KiB; the rest is reserved for the transaction's id.
const MOST_BYTES: usize = 512 * 1024 - 1024;

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

    async fn notifications(&self, transaction: &str, gate: &CallGate) -> Result<HttpAnswer, Outcome> {
        let path = Path::of("/v1/notifications").query("transactionId", transaction);
        client::send(self.request(Method::GET, &path)?, gate).await
    }

    async fn trigger(&self, trigger: String, key: &str, gate: &CallGate) -> Result<HttpAnswer, Outcome> {
        let request = self.request(Method::POST, &Path::of("/v1/events/trigger"))?;
        let request = request.header("Idempotency-Key", key).header("Content-Type", "application/json");
        client::send(request.body(trigger), gate).await
    }
}

#[async_trait]
impl Connector for Novu {
    fn idempotency(&self) -> Idempotency {
        Idempotency::None
    }

    async fn lookup(&self, _: &[u8], idempotency_key: &str, gate: &CallGate) -> Lookup {
        match self.notifications(idempotency_key, gate).await {
            Ok(answer) if answer.status.is_success() => found(&answer, idempotency_key),
            other => client::no_lookup(other),
        }
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        let mut subscriber = Map::new();
        subscriber.insert("subscriberId".into(), inputs.required("subscriber_id")?.clone());
        if let Some(email) = inputs.email()? {
            subscriber.insert("email".into(), json!(email));
        }
        for (param, field) in [("phone", "phone"), ("first_name", "firstName"), ("last_name", "lastName")] {
            if let Some(value) = inputs.params.get(param) {
                subscriber.insert(field.into(), value.clone());
            }
        }
        let value = |value: &Value| to_raw_value(value).map_err(|error| PrepareError(error.to_string()));
        let raw = |json: String| RawValue::from_string(json).map_err(|error| PrepareError(error.to_string()));
        let trigger = Trigger::from([
            ("name".to_owned(), value(inputs.required("workflow")?)?),
            ("payload".to_owned(), raw(inputs.json("payload").unwrap_or("{}").to_owned())?),
            ("to".to_owned(), value(&Value::Object(subscriber))?),
        ]);
        let request = serde_json::to_vec(&trigger).map_err(|error| PrepareError(error.to_string()))?;
        if request.len() > MOST_BYTES {
            return Err(PrepareError("payload is larger than the 512 KiB that Novu takes".into()));
        }
        Ok(request)
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome {
        let Some(trigger) = with_transaction(request, idempotency_key) else {
            return Outcome::reject(Reason::FlowChanged, "the stored request cannot be read");
        };
        let answer = match self.trigger(trigger, idempotency_key, gate).await {
            Ok(answer) => answer,
            Err(outcome) => return outcome,
        };
        let outcome = classify(&answer);
        if !matches!(outcome, Outcome::Retry { .. }) || !answer.headers.contains_key("idempotency-replay") {
            return outcome;
        }
        // Novu also replays errors for a day if idempotency keys are switched on: only another key can succeed.
        match self.lookup(&[], idempotency_key, gate).await {
            Lookup::Found(effect) => Outcome::Done(effect),
            Lookup::Absent => Outcome::retry(Cause::Replayed),
            Lookup::Unknown | Lookup::Later(_) => outcome,
        }
    }
}

/// Fields of a trigger, in the order in which they are sent. Their values are passed on unchanged.
type Trigger = BTreeMap<String, Box<RawValue>>;

/// Returns a stored trigger with its transaction's id.
fn with_transaction(request: &[u8], id: &str) -> Option<String> {
    let mut trigger: Trigger = serde_json::from_slice(request).ok()?;
    trigger.insert("transactionId".to_owned(), RawValue::from_string(Value::from(id).to_string()).ok()?);
    serde_json::to_string(&trigger).ok()
}

/// Returns the answer without the `data` object. Servers wrap the answer in it, although the OpenAPI file does not.
fn unwrapped(answer: &HttpAnswer) -> Value {
    let mut body = answer.json();
    if body["data"].is_object() { body["data"].take() } else { body }
}

fn classify(answer: &HttpAnswer) -> Outcome {
    let status = answer.status.as_u16();
    if answer.status.is_success() {
        return triggered(answer);
    }
    // `message` is an error name in some errors, and a sentence or a list in others.
    let body = answer.json();
    let name = body["message"].as_str();
    let error = answer.error(name.filter(|name| name.contains('_')));
    match (status, name) {
        (429, _) => answer.retry(Cause::Throttled),
        (409, _) => answer.retry(Cause::Conflict),
        (408, _) => answer.retry(Cause::Timeout),
        (500..=599, _) => answer.retry(Cause::Unavailable),
        (401 | 403, _) => Outcome::reject(Reason::Configuration, error),
        (422, Some(text)) if text.ends_with(KEY_REUSED) => Outcome::reject(Reason::IdempotencyConflict, error),
        (404, _) | (422, Some("workflow_not_found")) => Outcome::reject(Reason::NotFound, error),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}

/// Classifies a success by its `status`. Only `processed` counts as done, and means that the trigger is queued.
fn triggered(answer: &HttpAnswer) -> Outcome {
    let body = unwrapped(answer);
    let (Some(status), id) = (body["status"].as_str(), body["transactionId"].as_str().unwrap_or_default()) else {
        return Outcome::retry(Cause::Interrupted);
    };
    let error = answer.error(Some(status));
    match status {
        "processed" => Outcome::Done(Effect::new(id, json!({ "status": status }))),
        // An operator has to activate the workflow, add steps to it, or create the tenant.
        "trigger_not_active" | "no_workflow_active_steps_defined" | "no_workflow_steps_defined" | "no_tenant_found" => {
            Outcome::reject(Reason::Configuration, error)
        }
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}

/// Reads Novu's list of the notifications of a transaction. Novu would ignore a filter that it does not support, so the
/// id is compared as well.
fn found(answer: &HttpAnswer, transaction: &str) -> Lookup {
    let body = answer.json();
    let Some(list) = body["data"].as_array().or_else(|| body.as_array()) else { return Lookup::Unknown };
    let mine = list.iter().find(|notification| notification["transactionId"] == transaction);
    match mine {
        Some(_) => Lookup::Found(Effect::new(transaction, json!({ "status": "processed" }))),
        None if list.is_empty() => Lookup::Absent,
        None => Lookup::Unknown,
    }
}

#[cfg(test)]
mod tests;
