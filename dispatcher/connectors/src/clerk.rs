//! Clerk: writes metadata of users and organizations back, over its Backend API.
//!
//! Facts: Clerk's OpenAPI document of the Backend API, version 2026-05-12 (the merge, the form of errors); clerk.com/docs
//! (metadata, limits of the system, errors of the Backend API); clerk/javascript, `packages/backend` (the header of the
//! version). A write merges nested objects at every depth, null removes a key, and what is not named stays. So a repeated
//! write leaves the same state. Clerk has no idempotency keys.
//!
//! Clerk sends an event for each write. A flow that starts on that event could write again, without end. It ends because
//! a write that would change nothing is not made: the newest known state of the user shows that, and where it does not,
//! the object is read first. See ADR 28.

mod classify;
mod merge;
mod request;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use classify::{classify, done};
use request::MetadataWrite;
use reqwest::{Method, RequestBuilder};
use usher_engine::Outcome;
use usher_proto::Reason;
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use super::ParamType::{Id, Record, Text};
use super::client;
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, DefaultQuota, Idempotency, Operation, PrepareError, StepInput, SubjectChange,
    optional, required, setting, stored,
};

const SET_METADATA: &str = "set_metadata";
const SET_ORGANIZATION_METADATA: &str = "set_organization_metadata";
const KEY: &str = "CLERK_SECRET_KEY";
/// API version, pinned because requests and answers differ between versions.
const API_VERSION: &str = "2026-05-12";

const OPERATIONS: &[Operation] = &[
    Operation {
        name: SET_METADATA,
        params: &[
            optional("user_id", Id),
            optional("public", Record),
            optional("private", Record),
            optional("unsafe", Record),
        ],
        takes_template: false,
        writes_to: &[],
    },
    // An operation of its own: `unsafe` is refused where a flow gives it, and an organization whose id comes out empty is
    // never taken for the event's user.
    Operation {
        name: SET_ORGANIZATION_METADATA,
        params: &[required("organization_id", Text), optional("public", Record), optional("private", Record)],
        takes_template: false,
        writes_to: &[],
    },
];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "clerk",
    settings: Some(KEY),
    operations: OPERATIONS,
    // Half of what a production instance allows: the application itself calls the same API. A development instance allows
    // 10 a second, and says so by a 429.
    default_quota: Some(DefaultQuota { limit: "50/s", is_assumed: false }),
    announces_limits: false,
    repeats_unknown_outcomes: &[],
    writes_to_database: false,
    placeholders: &[(KEY, "sk_test_rehearsal")],
    open: |environment, _| Ok(Arc::new(Clerk::from_environment(environment)?)),
};

/// Connector for Clerk, with its settings.
pub(super) struct Clerk {
    client: HttpClient,
    base: String,
    key: Secret,
}

impl Clerk {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let key =
            setting(environment, KEY, "a secret key (sk_live_... or sk_test_...), from API keys in Clerk's dashboard")?;
        Ok(Self {
            client: client::build()?,
            base: client::base_url(environment, "CLERK_BASE_URL", "https://api.clerk.com")?,
            key: Secret::new(key),
        })
    }

    fn request(&self, method: Method, path: &Path) -> Result<RequestBuilder, Outcome> {
        let request = self.client.request(method, &self.base, path)?;
        Ok(request.bearer_auth(self.key.expose()).header("Clerk-API-Version", API_VERSION))
    }

    /// Sends a stored write. `Err` is the outcome if it was not sent or not answered.
    async fn write(&self, stored: &[u8], gate: &CallGate) -> Result<Outcome, Outcome> {
        let write: MetadataWrite = stored::read(stored)?;
        let other_path = || Outcome::reject(Reason::InvalidRequest, "the stored request could go to another path");
        let path = Path::kept(write.object.clone()).ok_or_else(other_path)?;
        if write.reads_first {
            let answer = client::send(self.request(Method::GET, &path)?, gate).await?;
            if !answer.status.is_success() {
                return Ok(classify(&answer, &write.id));
            }
            if write.is_in_place(&answer.json()) {
                return Ok(done(&write.id, false));
            }
        }
        let request = self.request(Method::PATCH, &path.then("/metadata"))?;
        let request = request.header("Content-Type", "application/json").body(write.body);
        Ok(classify(&client::send(request, gate).await?, &write.id))
    }
}

#[async_trait]
impl Connector for Clerk {
    fn idempotency(&self) -> Idempotency {
        Idempotency::Natural
    }

    fn subject_change(&self, inputs: &StepInput<'_>) -> SubjectChange {
        request::subject_change(inputs)
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        stored::write(&request::prepare(inputs)?)
    }

    async fn attempt(&self, request: &[u8], _: &str, gate: &CallGate) -> Outcome {
        self.write(request, gate).await.unwrap_or_else(|outcome| outcome)
    }
}
