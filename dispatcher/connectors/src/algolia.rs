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

mod classify;
mod request;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use classify::{classify, is_unavailable};
use rand::seq::SliceRandom as _;
use request::RecordChange;
use reqwest::Method;
use usher_engine::{Cause, Outcome};
use usher_proto::Reason;
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use super::ParamType::{Record, Text};
use super::client::{self, HttpAnswer};
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, Idempotency, Operation, Param, PrepareError, StepInput, optional, optional_or,
    required, setting, stored,
};

const SAVE: &str = "save";
const DELETE: &str = "delete";
const INDEX: Param = optional_or("index", Text, INDEX_VARIABLE);
const INDEX_VARIABLE: &str = "ALGOLIA_INDEX";

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
    repeats_unknown_outcomes: &[],
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
            if !is_unavailable(&last) {
                break;
            }
        }
        last
    }

    /// Sends a stored change. `Err` is the outcome if it was not sent or not answered.
    async fn apply(&self, stored: &[u8], gate: &CallGate) -> Result<Outcome, Outcome> {
        let change: RecordChange = stored::read(stored)?;
        let other_path = || Outcome::reject(Reason::InvalidRequest, "the stored request could go to another path");
        let path = Path::kept(change.path.clone()).ok_or_else(other_path)?;
        Ok(classify(&self.ask(&path, &change, gate).await?, change.object))
    }
}

#[async_trait]
impl Connector for Algolia {
    fn idempotency(&self) -> Idempotency {
        Idempotency::Natural
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        stored::write(&request::prepare(inputs, self.index.as_deref())?)
    }

    async fn attempt(&self, request: &[u8], _: &str, gate: &CallGate) -> Outcome {
        self.apply(request, gate).await.unwrap_or_else(|outcome| outcome)
    }
}
