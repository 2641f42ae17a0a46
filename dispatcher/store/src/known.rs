//! The events that a flow has admitted. Each has its effects once, including those that start no run. A repeat, by a
//! later delivery or after a lost answer, changes nothing.

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};
use usher_engine::arrival::{Arrival, Batch, RefusedRecord};
use usher_proto::{EventRef, Reason, Source};
use usher_sql::Dialect;

use super::{StoreError, refused};

/// The arrivals of a batch, sorted by what is known of them.
#[derive(Default)]
pub(super) struct Sorted<'a> {
    /// Arrivals that come for the first time.
    pub(super) new: Vec<&'a Arrival>,
    /// Number of arrivals that are known already.
    pub(super) repeated: usize,
    /// Arrivals whose id is known with another body. One of the two would otherwise be lost silently.
    pub(super) conflicts: Vec<RefusedRecord>,
}

/// Returns a digest of the event's body. It shows another body under the same id after the body itself has been
/// deleted.
pub(super) fn digest(arrival: &Arrival) -> String {
    hex::encode(&Sha256::digest(&arrival.event.body)[..16])
}

/// Separates new arrivals from known ones: known to the store, or from earlier in the batch.
pub(super) async fn sort<'a>(
    connection: &mut AnyConnection,
    dialect: Dialect,
    flow: &str,
    batch: &'a Batch,
) -> Result<Sorted<'a>, StoreError> {
    let mut sorted = Sorted::default();
    if batch.arrivals.is_empty() {
        return Ok(sorted);
    }
    let named: Vec<(EventRef, &Arrival)> = batch.arrivals.iter().map(|it| (it.event.reference(), it)).collect();
    let mut known = known(connection, dialect, flow, &named).await?;
    for (event, arrival) in named {
        let own = digest(arrival);
        match known.get(event.as_str()) {
            None => {
                known.insert(event.to_string(), Some(own));
                sorted.new.push(arrival);
            }
            // The id of an event of Usher itself identifies its content; only the author may differ in the body.
            Some(Some(first)) if *first != own && arrival.event.source != Source::Usher => {
                sorted.conflicts.push(conflict(&event, arrival));
            }
            Some(_) => sorted.repeated += 1,
        }
    }
    Ok(sorted)
}

/// Returns the digests of the events that are in the store. A digest is `None` if an earlier version has admitted the
/// event, or if the event was stored without its body.
async fn known(
    connection: &mut AnyConnection,
    dialect: Dialect,
    flow: &str,
    of: &[(EventRef, &Arrival)],
) -> Result<BTreeMap<String, Option<String>>, StoreError> {
    let texts: Vec<&str> = of.iter().map(|(event, _)| event.as_str()).collect();
    let sql = format!(
        "SELECT event_ref, digest FROM usher_run WHERE flow = $1 AND event_ref IN ({0}) \
         UNION ALL SELECT event_ref, digest FROM usher_event WHERE flow = $1 AND event_ref IN ({0})",
        dialect.texts()
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(flow).bind(json!(texts).to_string()).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn conflict(event: &EventRef, arrival: &Arrival) -> RefusedRecord {
    RefusedRecord {
        offset: arrival.offset,
        reason: Reason::EventConflict,
        error: format!("{event} came before with another body"),
        event: event.id().to_owned(),
        key: usher_proto::Key::new(arrival.event.subject.key()),
        body: arrival.event.body.clone(),
    }
}

const EVENT: [(&str, &str); 3] = [("event_ref", "text"), ("digest", "text"), ("received_at", "bigint")];

/// Records the arrivals that start no run; a run records its own event.
pub(super) async fn keep(
    connection: &mut AnyConnection,
    dialect: Dialect,
    flow: &str,
    new: &[&Arrival],
) -> Result<(), StoreError> {
    let row = |arrival: &&&Arrival| {
        let event = &arrival.event;
        json!({
            "event_ref": event.reference().as_str(),
            "digest": digest(arrival),
            "received_at": event.received_at.millis(),
        })
    };
    let rows: Vec<serde_json::Value> = new.iter().filter(|arrival| !arrival.starts).map(|it| row(&it)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO usher_event (flow, event_ref, digest, received_at) \
         SELECT $2, r.event_ref, r.digest, r.received_at FROM {} WHERE true ON CONFLICT (flow, event_ref) DO NOTHING",
        dialect.rows(&EVENT)
    );
    let rows = serde_json::Value::Array(rows).to_string();
    sqlx::query(AssertSqlSafe(sql)).bind(rows).bind(flow).execute(connection).await?;
    Ok(())
}

/// Stores the records that no flow can take, and those that came under a known id. Returns the number of records that
/// were not stored before.
pub(super) async fn refuse(
    connection: &mut AnyConnection,
    batch: &Batch,
    conflicts: &[RefusedRecord],
) -> Result<usize, StoreError> {
    let mut kept = 0;
    for record in batch.refused.iter().chain(conflicts) {
        kept += refused::keep(connection, batch.partition, record).await?;
    }
    Ok(kept)
}
