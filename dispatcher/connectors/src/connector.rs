//! The client of one destination, as the rest of the dispatcher uses it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use usher_engine::Outcome;
use usher_service::ConfigError;

use super::CallGate;
use super::step_input::{PrepareError, StepInput, StepUse};

/// Effect of a repeated request with the same idempotency key at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// Repeating a write leaves the same state.
    Natural,
    /// Requests with the same key have one effect within this time.
    KeyFor(Duration),
    /// A repeated request has its effect again.
    None,
}

/// Result of looking up the effect of a request whose answer was lost.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// The request had its effect.
    Found(usher_engine::Effect),
    /// The request had no effect and will have none.
    Absent,
    /// The destination cannot answer this.
    Unknown,
    /// The destination cannot answer now. The outcome causes a retry.
    Later(Outcome),
}

/// Change that an operation makes to the subject of the event from which its request is built. Only a destination that is the
/// source of the subject's events makes one.
#[derive(Debug, Clone, PartialEq)]
pub enum SubjectChange {
    /// It is not known, or the operation does not concern the subject.
    Unknown,
    /// The subject is as the operation would leave it: the request would change nothing.
    Nothing,
    /// The subject afterwards, as its source will describe it.
    Becomes(serde_json::Value),
}

/// Client of one destination.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Returns how the destination treats repeated requests.
    fn idempotency(&self) -> Idempotency;

    /// Returns how the destination treats a repetition of this request, where requests differ in that.
    fn idempotency_of(&self, request: &[u8]) -> Idempotency {
        let _ = request;
        self.idempotency()
    }

    /// Queries the destination for the effect of an earlier attempt. Called where
    /// [`idempotency_of`](Connector::idempotency_of) does not already settle it.
    async fn lookup(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Lookup {
        let _ = (request, idempotency_key, gate);
        Lookup::Unknown
    }

    /// Checks that the flows' use of this connector is compatible with its settings. Called once, before anything
    /// starts. Facts that only the destination could report do not prevent a start while it is unreachable.
    ///
    /// # Errors
    ///
    /// A parameter of a step does not fit the settings, or a setting that a step needs is missing.
    async fn check(&self, uses: &[StepUse<'_>]) -> Result<(), ConfigError> {
        let _ = uses;
        Ok(())
    }

    /// Returns the sub-accounts of this account if the quota applies to each of them and not to all together, such as
    /// mailboxes. Most connectors have none.
    fn sub_accounts(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the sub-account that a request uses, or `None` if there are no sub-accounts.
    fn sub_account(&self, request: &[u8]) -> Option<String> {
        let _ = request;
        None
    }

    /// Returns the change that the operation makes to the event's subject, by its newest known state. A step that would change
    /// nothing is passed over: at a destination that sends an event for each write, it would start itself without end.
    fn subject_change(&self, inputs: &StepInput<'_>) -> SubjectChange {
        let _ = inputs;
        SubjectChange::Unknown
    }

    /// Builds the exact request, as bytes that only this connector reads. A pure function of its inputs, except for a
    /// date in the request: the request is stored, and sent again unchanged while its outcome is unknown.
    ///
    /// # Errors
    ///
    /// The inputs do not make a valid request.
    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError>;

    /// Sends the request once. `idempotency_key` is the same for all attempts that must have a single effect. Every request
    /// over the network passes `gate` first.
    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome;
}

/// The connectors that flows use, by name; in a dispatcher by [account](usher_engine::account).
pub type Connectors = BTreeMap<String, Arc<dyn Connector>>;
