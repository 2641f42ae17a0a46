//! Tables of users, organizations, memberships and invitations. They hold Clerk's state; an older state never
//! overwrites a newer one, and a deleted object never returns.
//!
//! Facts: clerk/openapi-specs, webhooks (2025-04-15): the fields of each object and which of them may be missing.
//! Webhooks arrive in any order, and those of one organization under different keys, so every write must be correct on
//! its own: the newer of two states wins, by the object's `updated_at`, then by the event's time. Every write is
//! idempotent and needs no key: repeating it leaves the same rows.

mod batches;
mod classify;
mod request;
mod table;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use batches::RowBatches;
use classify::failed;
use request::RowChange;
use serde_json::json;
use usher_engine::{Effect, Outcome};
use usher_proto::Reason;
use usher_sql::{Database, Tables};

use super::{CallGate, Connector, ConnectorSpec, Idempotency, Operation, PrepareError, StepInput, stored};

/// The tables of the users.
pub const USERS_TABLES: Tables = Tables {
    postgres: usher_sql::migrations!("migrations/postgres": "0001_users", "0002_organizations"),
    sqlite: usher_sql::migrations!("migrations/sqlite": "0001_users", "0002_organizations"),
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
    repeats_unknown_outcomes: &[],
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
    batches: RowBatches,
}

impl Directory {
    pub(super) fn new(database: Database) -> Self {
        let batches = RowBatches::new(database.clone());
        Self { database, batches }
    }

    /// Carries out a stored change. `Err` is the outcome if it cannot be read or the database refuses it.
    async fn apply(&self, request: &[u8], gate: &CallGate) -> Result<Outcome, Outcome> {
        match stored::read(request)? {
            RowChange::Upsert(row) => {
                let row = Arc::new(row);
                let written = self.batches.upsert(row.clone(), request.len(), gate).await?;
                Ok(if written { done(row.id(), "upserted") } else { Outcome::Overtaken })
            }
            // Alone: deleting the rows that belong to an object may take long, and other calls must not wait for it.
            RowChange::Delete { kind, id, at } => {
                write::delete(&self.database, kind, &id, at).await.map_err(|error| failed(&error, gate))?;
                Ok(done(&id, "deleted"))
            }
        }
    }
}

fn done(id: &str, operation: &str) -> Outcome {
    Outcome::Done(Effect::new(id, json!({ "operation": operation })))
}

#[async_trait]
impl Connector for Directory {
    fn idempotency(&self) -> Idempotency {
        Idempotency::Natural
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        stored::write(&request::prepare(inputs)?)
    }

    async fn attempt(&self, request: &[u8], _: &str, gate: &CallGate) -> Outcome {
        self.apply(request, gate).await.unwrap_or_else(|outcome| outcome)
    }
}

/// Connector that builds requests without a database, for rehearsals.
pub(super) struct Unconnected;

#[async_trait]
impl Connector for Unconnected {
    fn idempotency(&self) -> Idempotency {
        Idempotency::Natural
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        stored::write(&request::prepare(inputs)?)
    }

    async fn attempt(&self, _: &[u8], _: &str, _: &CallGate) -> Outcome {
        Outcome::reject(Reason::Configuration, "there is no database")
    }
}
