//! Fields that each flow remembers of its subjects. They are compared and updated at admission, with a fixed number of
//! statements, and in the transaction that creates the runs. So an event that is admitted again finds no partial
//! result.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::{AnyConnection, AssertSqlSafe};
use usher_engine::arrival::Arrival;
use usher_engine::field_diff::{PreviousFields, RememberedFields, diff};
use usher_proto::{Offset, SubjectId};
use usher_sql::Dialect;

use super::StoreError;

const REMEMBERED: [(&str, &str); 4] =
    [("subject", "text"), ("updated_at", "bigint"), ("occurred_at", "bigint"), ("fields", "text")];

/// Returns the fields known before each arrival, by offset. An arrival that has no snapshot, or whose flow remembers
/// nothing, has no entry. Each arrival is compared with the one before it, also if that is of the same batch.
pub(super) async fn compare(
    connection: &mut AnyConnection,
    dialect: Dialect,
    flow: &str,
    arrivals: &[&Arrival],
) -> Result<BTreeMap<Offset, PreviousFields>, StoreError> {
    let say = |arrival: &Arrival| arrival.remember.is_some() && arrival.snapshot.is_some();
    let keys: Vec<&str> = arrivals.iter().filter(|arrival| say(arrival)).map(|a| a.event.subject.as_str()).collect();
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut known = known(connection, dialect, flow, &keys).await?;
    let mut previous_fields = BTreeMap::new();
    let mut learnt = BTreeMap::new();
    for arrival in arrivals {
        let (Some(snapshot), Some(fields)) = (&arrival.snapshot, &arrival.remember) else { continue };
        let key = &arrival.event.subject;
        let (before, after) = diff(known.get(key), snapshot, fields);
        previous_fields.insert(arrival.offset, before);
        if let Some(after) = after {
            known.insert(key.clone(), after.clone());
            learnt.insert(key, after);
        }
    }
    keep(connection, dialect, flow, &learnt).await?;
    Ok(previous_fields)
}

async fn known(
    connection: &mut AnyConnection,
    dialect: Dialect,
    flow: &str,
    keys: &[&str],
) -> Result<BTreeMap<SubjectId, RememberedFields>, StoreError> {
    let sql = format!(
        "SELECT subject, updated_at, occurred_at, fields FROM usher_remembered WHERE flow = $1 AND subject IN ({})",
        dialect.texts()
    );
    let rows: Vec<(String, i64, i64, Option<String>)> =
        sqlx::query_as(AssertSqlSafe(sql)).bind(flow).bind(json!(keys).to_string()).fetch_all(connection).await?;
    let read = |(subject, updated_at, occurred_at, fields): (String, i64, i64, Option<String>)| {
        let fields = fields.map(|text| serde_json::from_str(&text)).transpose();
        let fields = fields.map_err(|_| StoreError::Unreadable("fields".into()))?;
        let subject = subject.parse().map_err(|_| StoreError::Unreadable("subject".into()))?;
        Ok((subject, RememberedFields { updated_at, occurred_at, fields }))
    };
    rows.into_iter().map(read).collect()
}

async fn keep(
    connection: &mut AnyConnection,
    dialect: Dialect,
    flow: &str,
    learnt: &BTreeMap<&SubjectId, RememberedFields>,
) -> Result<(), StoreError> {
    let row = |(key, RememberedFields { updated_at, occurred_at, fields }): (&&SubjectId, &RememberedFields)| {
        let fields = fields.as_ref().map(|fields| json!(fields).to_string());
        json!({ "subject": key.as_str(), "updated_at": updated_at, "occurred_at": occurred_at, "fields": fields })
    };
    let rows: Vec<serde_json::Value> = learnt.iter().map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    // Already compared: only the owner of the partition writes these rows.
    let sql = format!(
        "INSERT INTO usher_remembered (flow, subject, updated_at, occurred_at, fields) \
         SELECT $2, r.subject, r.updated_at, r.occurred_at, r.fields FROM {} WHERE true \
         ON CONFLICT (flow, subject) DO UPDATE SET \
           updated_at = excluded.updated_at, occurred_at = excluded.occurred_at, fields = excluded.fields",
        dialect.rows(&REMEMBERED)
    );
    let rows = serde_json::Value::Array(rows).to_string();
    sqlx::query(AssertSqlSafe(sql)).bind(rows).bind(flow).execute(connection).await?;
    Ok(())
}
