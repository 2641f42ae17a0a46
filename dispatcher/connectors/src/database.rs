//! Tables of users, organizations, memberships and invitations. They hold Clerk's state; an older state never
//! overwrites a newer one, and a deleted object never returns.
//!
//! Facts: clerk/openapi-specs, webhooks (2025-04-15): the fields of each object and which of them may be missing.
//! Webhooks arrive in any order, and those of one organization under different keys, so every write must be correct on
//! its own: the newer of two states wins, by the object's `updated_at`, then by the event's time. Every write is
//! idempotent and needs no key: repeating it leaves the same rows.

mod row;
mod table;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use row::RowChange;
use serde_json::json;
use table::TableKind;
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;
use usher_sql::fault::{self, DatabaseFault};
use usher_sql::{Database, Tables};

use super::{CallGate, Connector, ConnectorSpec, Idempotency, Operation, PrepareError, StepInput};

/// The tables of the users.
pub const USERS_TABLES: Tables = Tables {
    postgres: || sqlx::migrate!("migrations/postgres"),
    sqlite: || sqlx::migrate!("migrations/sqlite"),
    history: "usher_users_migrations",
};

const OPERATIONS: &[Operation] = &[
    Operation { name: "sync_user", params: &[], takes_template: false, writes_to: &[] },
    Operation { name: "sync_organization", params: &[], takes_template: false, writes_to: &[] },
    Operation { name: "sync_membership", params: &[], takes_template: false, writes_to: &[] },
    Operation { name: "sync_invitation", params: &[], takes_template: false, writes_to: &[] },
];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "database",
    settings: None,
    operations: OPERATIONS,
    default_quota: None,
    announces_limits: false,
    repeats_unknown_outcomes: false,
    writes_to_database: true,
    placeholders: &[],
    open: |_, database| match database {
        Some(database) => Ok(Arc::new(Directory::new(database.clone()))),
        None => Ok(Arc::new(Unconnected)),
    },
};

/// Connector for the tables of users, with their database.
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

    async fn attempt(&self, request: &[u8], _: &str, _: &CallGate) -> Outcome {
        let Ok(change) = serde_json::from_slice(request) else {
            return Outcome::reject(Reason::FlowChanged, "the stored request cannot be read");
        };
        let applied = match &change {
            RowChange::Upsert(row) => write::upsert(&self.database, row).await,
            RowChange::Delete { kind, id, at } => write::delete(&self.database, *kind, id, *at).await,
        };
        match (applied, change) {
            (Ok(false), _) => Outcome::Overtaken,
            (Ok(true), RowChange::Upsert(row)) => done(row.id(), "upserted"),
            (Ok(true), RowChange::Delete { id, .. }) => done(&id, "deleted"),
            (Err(error), _) => classify(&error),
        }
    }
}

fn prepare(inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
    let kind = match inputs.operation {
        "sync_user" => TableKind::User,
        "sync_organization" => TableKind::Organization,
        "sync_membership" => TableKind::Membership,
        "sync_invitation" => TableKind::Invitation,
        other => return Err(PrepareError(format!("database cannot {other}"))),
    };
    let change = RowChange::of(kind, inputs)?;
    serde_json::to_vec(&change).map_err(|error| PrepareError(error.to_string()))
}

/// Connector that builds requests without a database, for rehearsals.
pub(super) struct Unconnected;

#[async_trait]
impl Connector for Unconnected {
    fn idempotency(&self) -> Idempotency {
        Idempotency::Natural
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        prepare(inputs)
    }

    async fn attempt(&self, _: &[u8], _: &str, _: &CallGate) -> Outcome {
        Outcome::reject(Reason::Configuration, "there is no database")
    }
}

fn done(id: &str, operation: &str) -> Outcome {
    Outcome::Done(Effect::new(id, json!({ "operation": operation })))
}

/// Classifies an error by the same table as the store's errors.
fn classify(error: &sqlx::Error) -> Outcome {
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
    outcome(DatabaseFault::of(error), &code, fault::describe(error))
}

fn outcome(fault: DatabaseFault, code: &str, error: String) -> Outcome {
    match fault {
        DatabaseFault::Refused => Outcome::reject(Reason::InvalidRequest, error),
        // SQLSTATE class 42: a table or a column does not exist, or the right to use it is missing.
        DatabaseFault::Setting if code.len() == 5 && code.starts_with("42") => {
            Outcome::reject(Reason::Configuration, error)
        }
        // A wrong password or certificate stops every run until it is corrected, so the run is retried. An unclear
        // error counts against a run only while other runs succeed.
        DatabaseFault::Setting | DatabaseFault::Passing | DatabaseFault::Damaged | DatabaseFault::Unclear => {
            Outcome::retry(Cause::Unavailable)
        }
    }
}
