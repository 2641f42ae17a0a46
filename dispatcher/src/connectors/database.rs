//! The table of users: kept as Clerk has them, never overwritten by an older state, a deleted user never back.
//!
//! Every write is idempotent, so it needs no key: done twice it leaves the same row.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, Row as _};
use usher_proto::Reason;

use super::{CannotPrepare, Connector, Inputs, Operation};
use crate::engine::{Cause, Effect, Outcome};
use crate::sql::Database;
use crate::subject::{primary_email, primary_phone};

pub(super) const OPERATIONS: &[Operation] = &[Operation { name: "sync_user", params: &[], takes_template: false }];

/// Fields that have a column of their own.
const COLUMNS: [&str; 8] =
    ["id", "username", "first_name", "last_name", "image_url", "external_id", "created_at", "updated_at"];

/// The connector.
pub(super) struct Users {
    database: Database,
}

impl Users {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

/// What is to become of one user's row.
#[derive(Debug, Serialize, Deserialize)]
enum Change {
    Upsert(Box<User>),
    Delete { id: String, at: i64 },
}

#[derive(Debug, Serialize, Deserialize)]
struct User {
    id: String,
    email: Option<String>,
    phone: Option<String>,
    username: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    image_url: Option<String>,
    external_id: Option<String>,
    created_at: Option<i64>,
    updated_at: i64,
    event_at: i64,
    extra: String,
}

#[async_trait]
impl Connector for Users {
    fn prepare(&self, inputs: &Inputs<'_>) -> Result<Vec<u8>, CannotPrepare> {
        let data = inputs.data.as_object().ok_or_else(|| CannotPrepare("the event has no data".into()))?;
        let id = data.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| CannotPrepare("the event has no user id".into()))?.to_owned();
        let event_at = inputs.event.occurred_at.millis();
        let change = if data.get("deleted") == Some(&Value::Bool(true)) {
            Change::Delete { id, at: event_at }
        } else {
            Change::Upsert(Box::new(user(id, data, event_at)))
        };
        serde_json::to_vec(&change).map_err(|error| CannotPrepare(error.to_string()))
    }

    async fn attempt(&self, request: &[u8], _: &str) -> Outcome {
        let Ok(change) = serde_json::from_slice(request) else {
            return Outcome::reject(Reason::FlowChanged, "the kept request cannot be read");
        };
        let applied = match &change {
            Change::Upsert(user) => self.upsert(user).await,
            Change::Delete { id, at } => self.delete(id, *at).await,
        };
        match (applied, change) {
            (Ok(false), _) => Outcome::Overtaken,
            (Ok(true), Change::Upsert(user)) => done(user.id, "upserted"),
            (Ok(true), Change::Delete { id, .. }) => done(id, "deleted"),
            (Err(error), _) => classify(&error),
        }
    }
}

fn done(id: String, operation: &str) -> Outcome {
    let result = json!({ "id": id, "operation": operation });
    Outcome::Done(Effect { id, result })
}

fn user(id: String, data: &Map<String, Value>, event_at: i64) -> User {
    let text = |field: &str| data.get(field).and_then(Value::as_str).map(str::to_owned);
    let number = |field: &str| data.get(field).and_then(Value::as_i64);
    let extra: Map<String, Value> = data
        .iter()
        .filter(|(field, _)| !COLUMNS.contains(&field.as_str()))
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    User {
        id,
        email: primary_email(data),
        phone: primary_phone(data),
        username: text("username"),
        first_name: text("first_name"),
        last_name: text("last_name"),
        image_url: text("image_url"),
        external_id: text("external_id"),
        created_at: number("created_at"),
        // Required by Clerk's schema; without it the event's own time has to decide.
        updated_at: number("updated_at").unwrap_or(event_at),
        event_at,
        extra: Value::Object(extra).to_string(),
    }
}

impl Users {
    /// Whether the row is now at least as new as `user`'s state because of this.
    async fn upsert(&self, user: &User) -> Result<bool, sqlx::Error> {
        let sql = format!(
            "INSERT INTO usher_users (id, email, phone, username, first_name, last_name, image_url, external_id, \
                                      created_at, updated_at, event_at, extra) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12{} \
             WHERE NOT EXISTS (SELECT 1 FROM usher_users_deleted WHERE id = $1) \
             ON CONFLICT (id) DO UPDATE SET \
               email = excluded.email, phone = excluded.phone, username = excluded.username, \
               first_name = excluded.first_name, last_name = excluded.last_name, image_url = excluded.image_url, \
               external_id = excluded.external_id, created_at = excluded.created_at, \
               updated_at = excluded.updated_at, event_at = excluded.event_at, extra = excluded.extra \
             WHERE (usher_users.updated_at, usher_users.event_at) <= (excluded.updated_at, excluded.event_at)",
            self.database.dialect.as_json()
        );
        let mut writing = self.database.write().await?;
        self.lock(&mut writing, &user.id).await?;
        let written = sqlx::query(AssertSqlSafe(sql))
            .bind(&user.id)
            .bind(&user.email)
            .bind(&user.phone)
            .bind(&user.username)
            .bind(&user.first_name)
            .bind(&user.last_name)
            .bind(&user.image_url)
            .bind(&user.external_id)
            .bind(user.created_at)
            .bind(user.updated_at)
            .bind(user.event_at)
            .bind(&user.extra)
            .execute(writing.connection())
            .await?;
        writing.commit().await?;
        Ok(written.rows_affected() > 0)
    }

    /// A deletion always wins.
    async fn delete(&self, id: &str, at: i64) -> Result<bool, sqlx::Error> {
        let mut writing = self.database.write().await?;
        self.lock(&mut writing, id).await?;
        sqlx::query("INSERT INTO usher_users_deleted (id, deleted_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING")
            .bind(id)
            .bind(at)
            .execute(writing.connection())
            .await?;
        sqlx::query("DELETE FROM usher_users WHERE id = $1").bind(id).execute(writing.connection()).await?;
        writing.commit().await?;
        Ok(true)
    }

    /// Keeps an upsert and a deletion of the same user apart: neither sees what the other has not committed, so together
    /// they could leave a deleted user in the table.
    async fn lock(&self, writing: &mut crate::sql::Writing, id: &str) -> Result<(), sqlx::Error> {
        if self.database.dialect == crate::sql::Dialect::Postgres {
            let row = sqlx::query("SELECT 1::bigint FROM (SELECT pg_advisory_xact_lock(hashtextextended($1, 0))) AS l")
                .bind(id)
                .fetch_one(writing.connection())
                .await?;
            let _: i64 = row.try_get(0)?;
        }
        Ok(())
    }
}

/// A value the database refuses is refused again; everything else passes.
fn classify(error: &sqlx::Error) -> Outcome {
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    // Postgres: class 22, data that is not acceptable; 42, tables that are not as expected or not allowed.
    match code.get(..2) {
        Some("22") => Outcome::reject(Reason::InvalidRequest, format!("database error {code}")),
        Some("42") if code.len() == 5 => Outcome::reject(Reason::Configuration, format!("database error {code}")),
        _ => Outcome::retry(Cause::Unavailable),
    }
}
