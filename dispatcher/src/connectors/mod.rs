//! The destinations, one file each.
//!
//! A connector knows everything of its destination and nothing of flows, retries or the store: it turns parameters into
//! an exact request, sends one, and says what it came to. Adding one costs a file and its lines in the lists below.

mod http;

mod database;
mod resend;
mod stripe;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use usher_proto::Event;
use usher_service::exit::BadSetting;
use usher_service::options::Environment;

use crate::engine::Outcome;
use crate::sql::Database;

/// How long one attempt may take in all.
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(30);

/// Every connector and what it can do, for the check of flow files.
pub const OPERATIONS: &[(&str, &[Operation])] =
    &[("resend", resend::OPERATIONS), ("stripe", stripe::OPERATIONS), ("database", database::OPERATIONS)];

/// Something a connector can do.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name, after the connector's and a dot.
    pub name: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// Whether it sends a template's HTML and text, as `html` and `text`.
    pub takes_template: bool,
}

/// A parameter of an operation.
#[derive(Debug, PartialEq, Eq)]
pub struct Param {
    /// Its key in the flow file.
    pub name: &'static str,
    /// Whether a flow must give it.
    pub required: bool,
    /// What it may be.
    pub shape: Shape,
    /// The variable that stands in where a flow does not give it; then one of the two must.
    pub variable: Option<&'static str>,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A text, rendered as a template.
    Text,
    /// A text or a list of texts.
    Texts,
    /// A whole number.
    Number,
    /// A table of texts.
    Table,
}

impl Shape {
    /// Whether a value has this shape.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Texts => {
                value.is_string() || value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
            }
            Self::Number => value.is_u64(),
            Self::Table => value.as_object().is_some_and(|fields| fields.values().all(Value::is_string)),
        }
    }

    /// How to say what it is.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Texts => "a text or a list of texts",
            Self::Number => "a whole number from 0",
            Self::Table => "a table of texts",
        }
    }
}

const fn required(name: &'static str, shape: Shape) -> Param {
    Param { name, required: true, shape, variable: None }
}

const fn optional(name: &'static str, shape: Shape) -> Param {
    Param { name, required: false, shape, variable: None }
}

const fn optional_or(name: &'static str, shape: Shape, variable: &'static str) -> Param {
    Param { name, required: false, shape, variable: Some(variable) }
}

/// What an operation is to do it with.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The operation's name.
    pub operation: &'a str,
    /// Its parameters, rendered; a text that came out empty is absent.
    pub params: &'a Map<String, Value>,
    /// The event that started the run.
    pub event: &'a Event,
    /// The event's `data`.
    pub data: &'a Value,
}

impl Inputs<'_> {
    /// A parameter that may not be empty.
    fn required(&self, name: &str) -> Result<&Value, CannotPrepare> {
        self.params.get(name).ok_or_else(|| CannotPrepare(format!("{name} came out empty")))
    }
}

/// A request cannot be made of these inputs. Names the parameter, not its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CannotPrepare(pub String);

/// One destination.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The exact request, as bytes that only this connector reads. A pure function of its inputs: it is kept, and sent
    /// again as it is while its outcome is not known.
    fn prepare(&self, inputs: &Inputs<'_>) -> Result<Vec<u8>, CannotPrepare>;

    /// Sends it once. `idempotency_key` is the same for every attempt that must have one effect between them.
    async fn attempt(&self, request: &[u8], idempotency_key: &str) -> Outcome;
}

/// The connectors that some flow uses, by name.
pub type Connectors = BTreeMap<String, Arc<dyn Connector>>;

/// Makes the connectors that `used` names, each from its own settings. A missing key is told here, before anything
/// starts. `database` is where users are written.
pub fn open(used: &[&str], environment: &Environment, database: &Database) -> Result<Connectors, BadSetting> {
    let mut connectors = Connectors::new();
    for name in used {
        let connector: Arc<dyn Connector> = match *name {
            "resend" => Arc::new(resend::Resend::from_environment(environment)?),
            "stripe" => Arc::new(stripe::Stripe::from_environment(environment)?),
            "database" => Arc::new(database::Users::new(database.clone())),
            other => return Err(BadSetting::new("use", format!("there is no connector {other}"))),
        };
        connectors.insert((*name).to_owned(), connector);
    }
    Ok(connectors)
}

/// The setting `name`, which must be there.
fn setting(environment: &Environment, name: &str, what: &str) -> Result<String, BadSetting> {
    environment.get(name)?.ok_or_else(|| BadSetting::new(name, format!("not set: {what}")))
}

/// Whether an outcome is a retry for this cause, or a rejection for this reason.
#[cfg(test)]
fn assert_outcome(outcome: &Outcome, expected: Result<crate::engine::Cause, usher_proto::Reason>, case: &str) {
    let found = match outcome {
        Outcome::Retry { cause, .. } => Some(Ok(*cause)),
        Outcome::Reject { reason, .. } => Some(Err(*reason)),
        Outcome::Done(_) | Outcome::Overtaken => None,
    };
    assert_eq!(found, Some(expected), "{case}");
}
