//! Algolia: records of a search index.
//!
//! Facts: algolia.com/doc (REST API, partial updates, built-in operations, retry strategy) and
//! algoliasearch-client-python. Algolia queues accepted requests and carries them out in the order of their arrival.
//!
//! A record stores the time of the state that it holds in `usher_updated_at`. An update raises it with `IncrementSet`,
//! which Algolia carries out only if the new value is greater than the stored one; otherwise it skips the whole update.
//! So an older state cannot overwrite a newer one, and a repeated update does nothing. Only partial updates can be
//! guarded this way; a full replacement is always written. A partial update removes no attributes, so empty values are
//! written as null. A deletion leaves no value to compare with: an update that is still in flight when its object is
//! deleted creates the object again. The order of the events of one key prevents that, not Algolia.

use std::sync::Arc;

use async_trait::async_trait;
use rand::seq::SliceRandom as _;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use super::ParamType::{Record, Text};
use super::client::{self, HttpAnswer};
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, Idempotency, Operation, Param, PrepareError, StepInput, optional, optional_or,
    required, setting,
};

const SAVE: &str = "save";
const DELETE: &str = "delete";
const INDEX: Param = optional_or("index", Text, INDEX_VARIABLE);
const INDEX_VARIABLE: &str = "ALGOLIA_INDEX";
/// Attribute that stores the time of the record's state: milliseconds, followed by three digits for the number of
/// reruns. A rerun therefore overwrites its own state, but never a later one.
const GUARD: &str = "usher_updated_at";
/// Value of one millisecond in the guard.
const MILLISECOND: i64 = 1000;
/// Fields of a user that are never put into an index, because browsers search it.
const PRIVATE: [&str; 2] = ["private_metadata", "unsafe_metadata"];

const OPERATIONS: &[Operation] = &[
    Operation {
        name: SAVE,
        params: &[required("object_id", Text), INDEX, optional("fields", Record)],
        takes_template: false,
        writes_to: &[],
    },
    Operation { name: DELETE, params: &[required("object_id", Text), INDEX], takes_template: false, writes_to: &[] },
];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "algolia",
    settings: Some("ALGOLIA_"),
    operations: OPERATIONS,
    default_quota: None,
    announces_limits: true,
    repeats_unknown_outcomes: false,
    writes_to_database: false,
    placeholders: &[("ALGOLIA_APP_ID", "REHEARSAL"), ("ALGOLIA_API_KEY", "rehearsal"), ("ALGOLIA_INDEX", "people")],
    open: |environment, _| Ok(Arc::new(Algolia::from_environment(environment)?)),
};

/// Connector for Algolia, with its settings.
pub(super) struct Algolia {
    client: HttpClient,
    /// The primary host, followed by the hosts to try if it is unavailable.
    hosts: Vec<String>,
    application: String,
    key: Secret,
    index: Option<String>,
}

impl Algolia {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let application = setting(environment, "ALGOLIA_APP_ID", "an application's id, from Algolia's dashboard")?;
        if !application.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(ConfigError::new("ALGOLIA_APP_ID", "it has letters and digits only: it is part of an address"));
        }
        let key = setting(environment, "ALGOLIA_API_KEY", "a key that may add, change and delete records")?;
        let hosts = match environment.get("ALGOLIA_BASE_URL")? {
            Some(_) => vec![client::base_url(environment, "ALGOLIA_BASE_URL", "http://127.0.0.1:8090/algolia")?],
            None => {
                let mut fallbacks = [1, 2, 3].map(|n| format!("https://{application}-{n}.algolianet.com"));
                // Shuffled, so that not all clients query the same host when the primary one is unavailable.
                fallbacks.shuffle(&mut rand::rng());
                std::iter::once(format!("https://{application}.algolia.net")).chain(fallbacks).collect()
            }
        };
        let client = client::build()?;
        let index = environment.get(INDEX_VARIABLE)?;
        if let Some(index) = &index {
            Path::of("").segment("it", index).map_err(|error| ConfigError::new(INDEX_VARIABLE, error))?;
        }
        Ok(Self { client, hosts, application, key: Secret::new(key), index })
    }

    /// Sends a request to the hosts in turn until one is available. Safe because every write may be repeated.
    async fn ask(&self, path: &Path, change: &RecordChange, gate: &CallGate) -> Result<HttpAnswer, Outcome> {
        let mut last = Err(Outcome::retry(Cause::Unreachable));
        for host in &self.hosts {
            let method = if change.body.is_some() { Method::POST } else { Method::DELETE };
            let mut request = self
                .client
                .request(method, host, path)?
                .header("x-algolia-application-id", &self.application)
                .header("x-algolia-api-key", self.key.expose());
            if let Some(body) = &change.body {
                request = request.header("Content-Type", "application/json").body(body.clone());
            }
            last = client::send(request, gate).await;
            let absent = match &last {
                Ok(answer) => !answer.status.is_success() && !answer.status.is_client_error(),
                Err(Outcome::Retry { cause: Cause::Unreachable | Cause::Interrupted, .. }) => true,
                // There was no answer in time, so no time is left for another host.
                Err(_) => false,
            };
            if !absent {
                break;
            }
        }
        last
    }
}

/// A request as it is stored. With a body it is a partial update, without one it is a deletion.
#[derive(Debug, Serialize, Deserialize)]
struct RecordChange {
    object: String,
    path: String,
    body: Option<String>,
}

#[async_trait]
impl Connector for Algolia {
    fn idempotency(&self) -> Idempotency {
        Idempotency::Natural
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        let object = inputs.required("object_id")?.as_str().unwrap_or_default().to_owned();
        let index = inputs.params.get("index").and_then(Value::as_str).or(self.index.as_deref());
        let index = index.ok_or_else(|| PrepareError("index is not given, and ALGOLIA_INDEX is not set".into()))?;
        let record = Path::of("/1/indexes").segment("index", index)?.segment("object_id", &object)?;
        let change = match inputs.operation {
            SAVE => {
                let mut record_fields = fields(inputs)?;
                record_fields.insert(GUARD.into(), json!({ "_operation": "IncrementSet", "value": age(inputs) }));
                let body = Some(Value::Object(record_fields).to_string());
                // `true` is Algolia's default. It is set explicitly because the first save has to create the record.
                let path = record.then("/partial").query("createIfNotExists", "true");
                RecordChange { object, path: path.into_text(), body }
            }
            DELETE => RecordChange { object, path: record.into_text(), body: None },
            other => return Err(PrepareError(format!("algolia cannot {other}"))),
        };
        serde_json::to_vec(&change).map_err(|error| PrepareError(error.to_string()))
    }

    async fn attempt(&self, request: &[u8], _: &str, gate: &CallGate) -> Outcome {
        let Ok(change) = serde_json::from_slice::<RecordChange>(request) else {
            return Outcome::reject(Reason::FlowChanged, "the stored request cannot be read");
        };
        let Some(path) = Path::kept(change.path.clone()) else {
            return Outcome::reject(Reason::InvalidRequest, "the stored request could go to another path");
        };
        match self.ask(&path, &change, gate).await {
            Ok(answer) => classify(&answer, change.object),
            Err(outcome) => outcome,
        }
    }
}

/// Returns the fields of the record: those of the flow, or else the event's user. Empty values are null in both.
fn fields(inputs: &StepInput<'_>) -> Result<Map<String, Value>, PrepareError> {
    let mut fields = match (inputs.params.get("fields"), inputs.data.as_object()) {
        (Some(fields), _) => fields.as_object().cloned().unwrap_or_default(),
        (None, Some(user)) if inputs.data["object"] == "user" && inputs.data["deleted"] != true => {
            let public = |(name, _): &(&String, &Value)| !PRIVATE.contains(&name.as_str());
            user.iter().filter(public).map(|(name, value)| (name.clone(), value.clone())).collect()
        }
        (None, _) => return Err(PrepareError("fields are not given, and the event brings no user".into())),
    };
    // The path identifies the object.
    fields.remove("objectID");
    Ok(fields)
}

/// Returns the time of the written state, in the guard's unit: by the object's own clock, else by the event's.
fn age(inputs: &StepInput<'_>) -> i64 {
    let occurred_at = inputs.event.occurred_at.millis();
    let millis = inputs.sent().map_or(occurred_at, |object| usher_clerk::updated_at(object, occurred_at));
    millis.saturating_mul(MILLISECOND).saturating_add(i64::from(inputs.rerun).min(MILLISECOND - 1))
}

/// Classifies an answer. Algolia's errors have a message and no name. A 429 means "too many jobs" and is temporary;
/// Algolia's own clients leave the retry to the caller.
fn classify(answer: &HttpAnswer, object: String) -> Outcome {
    let error = answer.error(None);
    match answer.status.as_u16() {
        200..=299 => match answer.json()["taskID"].as_u64() {
            Some(task) => Outcome::Done(Effect::new(object, json!({ "task": task }))),
            None => Outcome::retry(Cause::Interrupted),
        },
        429 => answer.retry(Cause::Throttled),
        408 => answer.retry(Cause::Timeout),
        500..=599 => answer.retry(Cause::Unavailable),
        401 | 403 => Outcome::reject(Reason::Configuration, error),
        404 => Outcome::reject(Reason::NotFound, error),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}

#[cfg(test)]
mod tests;
