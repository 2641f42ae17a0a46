//! Runs as rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use usher_proto::{Event, EventId, Key, Partition, Source, Timestamp};

use super::StoreError;
use crate::engine::Run;

/// The columns that [`run`] reads, in its order.
pub(super) const RUN_COLUMNS: &str = "event, key, partition, position, source, type, instance, occurred_at, \
     received_at, provenance, body, flow_version, step, attempts, generation, request, results, due_at, reason, error";

/// Reads a run out of a row of [`RUN_COLUMNS`].
fn run(row: &AnyRow) -> Result<Run, StoreError> {
    let unreadable = |what: &str| StoreError::Unreadable(what.to_owned());
    let number = |index: usize| -> Result<i64, sqlx::Error> { row.try_get(index) };
    let source: String = row.try_get(4)?;
    let provenance: String = row.try_get(9)?;
    let body: Option<String> = row.try_get(10)?;
    let results: String = row.try_get(16)?;
    let (reason, error): (Option<String>, Option<String>) = (row.try_get(18)?, row.try_get(19)?);
    let verdict = match reason {
        None => None,
        Some(label) => Some((label.parse().map_err(|_| unreadable("reason"))?, error.unwrap_or_default())),
    };
    let results: BTreeMap<usize, serde_json::Value> =
        serde_json::from_str(&results).map_err(|_| unreadable("results"))?;
    Ok(Run {
        event: Event {
            id: EventId::new(row.try_get::<String, _>(0)?),
            kind: row.try_get(5)?,
            source: source.parse::<Source>().map_err(|_| unreadable("source"))?,
            instance: row.try_get(6)?,
            key: Key::new(row.try_get::<String, _>(1)?),
            occurred_at: Timestamp::from_millis(number(7)?),
            received_at: Timestamp::from_millis(number(8)?),
            provenance: serde_json::from_str(&provenance).map_err(|_| unreadable("provenance"))?,
            body: Bytes::from(body.unwrap_or_default()),
        },
        partition: Partition(i32::try_from(number(2)?).map_err(|_| unreadable("partition"))?),
        position: number(3)?,
        flow_version: row.try_get(11)?,
        step: usize::try_from(number(12)?).map_err(|_| unreadable("step"))?,
        attempts: u32::try_from(number(13)?).map_err(|_| unreadable("attempts"))?,
        generation: u32::try_from(number(14)?).map_err(|_| unreadable("generation"))?,
        request: row.try_get(15)?,
        results,
        wait_until: row.try_get::<Option<i64>, _>(17)?.map(Timestamp::from_millis),
        verdict,
    })
}

pub(super) fn runs(rows: &[AnyRow]) -> Result<Vec<Run>, StoreError> {
    rows.iter().map(run).collect()
}
