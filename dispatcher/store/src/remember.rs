//! Fields that each flow remembers of its subjects. They are compared and updated at admission, and written in the
//! transaction that creates the runs. So an event that is admitted again finds no partial result.

use std::collections::BTreeMap;

use serde_json::json;
use usher_engine::arrival::Batch;
use usher_engine::field_diff::{PreviousFields, RememberedFields, diff};
use usher_proto::SubjectId;
use usher_sql::{Answer, Dialect, Rows, SqlQuery};

use super::StoreError;
use super::admit::fenced;
use super::change::FENCE;
use super::known::{Identified, LogPlace};
use super::rows::Named;

/// Returns the statement that reads what the flow remembers of the subjects of these events; `None` if that is not needed.
pub(super) fn look(dialect: Dialect, flow: &str, events: &[Identified<'_>]) -> Option<SqlQuery> {
    let compared = events.iter().filter(|event| is_compared(event));
    let subjects: Vec<&SubjectId> = compared.map(|event| &event.arrival.event.subject).collect();
    if subjects.is_empty() {
        return None;
    }
    let rows = Rows::of(&subjects).text("subject", |subject| subject.as_str());
    Some(rows.query(dialect, vec![flow.into()], |rows| {
        format!(
            "SELECT o.subject, o.updated_at, o.occurred_at, o.fields FROM {rows} \
             JOIN usher_remembered o ON o.subject = r.subject AND o.flow = $1"
        )
    }))
}

fn is_compared(event: &Identified<'_>) -> bool {
    event.arrival.remember.is_some() && event.arrival.snapshot.is_some()
}

/// News of the subjects of a batch.
#[derive(Default)]
pub(super) struct Learnt<'a> {
    /// The fields known before each arrival, by its place. An arrival that has no snapshot, or whose flow remembers nothing,
    /// has no entry.
    pub(super) before: BTreeMap<LogPlace, PreviousFields>,
    after: Vec<(&'a SubjectId, (&'a Batch, RememberedFields))>,
}

/// Compares each arrival with the one before it, also if that is of the same batch. `known` is the answer to [`look`].
pub(super) fn compare<'a>(events: &[Identified<'a>], known: &Answer) -> Result<Learnt<'a>, StoreError> {
    let mut known = known.rows.iter().map(read).collect::<Result<BTreeMap<_, _>, _>>()?;
    let mut before = BTreeMap::new();
    let mut learnt = BTreeMap::new();
    for event in events {
        let Identified { arrival, batch, .. } = event;
        let (Some(snapshot), Some(fields)) = (&arrival.snapshot, &arrival.remember) else { continue };
        let key = &arrival.event.subject;
        let (previous, after) = diff(known.get(key), snapshot, fields);
        before.insert(event.place(), previous);
        if let Some(after) = after {
            known.insert(key.clone(), after.clone());
            learnt.insert(key, (*batch, after));
        }
    }
    Ok(Learnt { before, after: learnt.into_iter().collect() })
}

fn read(row: &usher_sql::Row) -> Result<(SubjectId, RememberedFields), StoreError> {
    let row = Named(row);
    let fields: Option<String> = row.get("fields")?;
    let fields = fields.map(|text| serde_json::from_str(&text)).transpose();
    let fields = fields.map_err(|_| StoreError::Unreadable("fields".into()))?;
    let updated_at = row.get("updated_at")?;
    let occurred_at = row.get("occurred_at")?;
    Ok((row.parsed("subject")?, RememberedFields { updated_at, occurred_at, fields }))
}

/// Returns the statement that writes what was learnt; `None` if nothing was.
pub(super) fn keep(dialect: Dialect, flow: &str, learnt: &Learnt<'_>) -> Option<SqlQuery> {
    if learnt.after.is_empty() {
        return None;
    }
    let rows = fenced(&learnt.after, |(_, (batch, _))| batch)
        .text("subject", |(subject, _)| subject.as_str())
        .int("updated_at", |(_, (_, fields))| fields.updated_at)
        .int("occurred_at", |(_, (_, fields))| fields.occurred_at)
        .text("fields", |(_, (_, fields))| fields.fields.as_ref().map(|fields| json!(fields).to_string()));
    // Already compared: only the owner of the partition writes these rows.
    Some(rows.query(dialect, vec![flow.into()], |rows| {
        format!(
            "INSERT INTO usher_remembered (flow, subject, updated_at, occurred_at, fields) \
             SELECT $1, r.subject, r.updated_at, r.occurred_at, r.fields FROM {rows} WHERE {FENCE} \
             ON CONFLICT (flow, subject) DO UPDATE SET \
               updated_at = excluded.updated_at, occurred_at = excluded.occurred_at, fields = excluded.fields"
        )
    }))
}
