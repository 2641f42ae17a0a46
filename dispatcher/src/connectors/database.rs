//! The tables of users, organizations, memberships and invitations: kept as Clerk has them, never overwritten by an older
//! state, and what was deleted never back.
//!
//! Facts: clerk/openapi-specs, webhooks (2025-04-15): which fields each object has and which may be missing. Webhooks come
//! in any order, and those of one organization under different keys, so every write has to stand on its own: the newer of
//! two states holds, by the object's `updated_at`, then by the event's time. Every write is idempotent and needs no key:
//! done twice it leaves the same rows.

mod row;
mod table;
mod write;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use serde_json::json;
use usher_proto::Reason;

use super::{Connector, Idempotency, Operation, PrepareError, StepInput};
use crate::engine::{Cause, Effect, Outcome};
use crate::sql::Database;
use crate::sql::fault::{self, Fault};
use row::Change;
use table::Kind;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "sync_user", params: &[], takes_template: false, writes_to: &[] },
    Operation { name: "sync_organization", params: &[], takes_template: false, writes_to: &[] },
    Operation { name: "sync_membership", params: &[], takes_template: false, writes_to: &[] },
    Operation { name: "sync_invitation", params: &[], takes_template: false, writes_to: &[] },
];

/// The connector.
pub(super) struct Directory {
    database: Database,
}

impl Directory {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Connector for Directory {
    fn idempotency(&self) -> Idempotency {
        Idempotency::Natural
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        prepare(inputs)
    }

    async fn attempt(&self, request: &[u8], _: &str) -> Outcome {
        let Ok(change) = serde_json::from_slice(request) else {
            return Outcome::reject(Reason::FlowChanged, "the kept request cannot be read");
        };
        let applied = match &change {
            Change::Upsert(row) => write::upsert(&self.database, row).await,
            Change::Delete { kind, id, at } => write::delete(&self.database, *kind, id, *at).await,
        };
        match (applied, change) {
            (Ok(false), _) => Outcome::Overtaken,
            (Ok(true), Change::Upsert(row)) => done(row.id(), "upserted"),
            (Ok(true), Change::Delete { id, .. }) => done(&id, "deleted"),
            (Err(error), _) => classify(&error),
        }
    }
}

fn prepare(inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
    let kind = match inputs.operation {
        "sync_user" => Kind::User,
        "sync_organization" => Kind::Organization,
        "sync_membership" => Kind::Membership,
        "sync_invitation" => Kind::Invitation,
        other => return Err(PrepareError(format!("database cannot {other}"))),
    };
    let change = Change::of(kind, inputs)?;
    serde_json::to_vec(&change).map_err(|error| PrepareError(error.to_string()))
}

/// Makes requests where there is no database, for rehearsals.
pub(super) struct Unconnected;

#[async_trait]
impl Connector for Unconnected {
    fn idempotency(&self) -> Idempotency {
        Idempotency::Natural
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        prepare(inputs)
    }

    async fn attempt(&self, _: &[u8], _: &str) -> Outcome {
        Outcome::reject(Reason::Configuration, "there is no database")
    }
}

fn done(id: &str, operation: &str) -> Outcome {
    Outcome::Done(Effect::new(id, json!({ "operation": operation })))
}

/// By the same table as the store's errors.
fn classify(error: &sqlx::Error) -> Outcome {
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
    outcome(Fault::of(error), &code, fault::describe(error))
}

fn outcome(fault: Fault, code: &str, error: String) -> Outcome {
    match fault {
        Fault::Refused => Outcome::reject(Reason::InvalidRequest, error),
        // SQLSTATE class 42: a table, a column, or a right to them is not there.
        Fault::Setting if code.len() == 5 && code.starts_with("42") => Outcome::reject(Reason::Configuration, error),
        // A password or a certificate that is wrong keeps everybody out, and lets everybody in once it is right. What is
        // unclear counts against a run only while others are served.
        Fault::Setting | Fault::Passing | Fault::Damaged | Fault::Unclear => Outcome::retry(Cause::Unavailable),
    }
}
