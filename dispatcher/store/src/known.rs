//! The events that a flow has admitted. Each has its effects once, including those that start no run. A repeat, by a
//! later delivery or after a lost answer, changes nothing.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use usher_engine::arrival::{Arrival, Batch, RefusedRecord};
use usher_proto::{EventRef, Offset, Partition, Reason};
use usher_sql::{Answer, Dialect, Rows, SqlQuery};

use super::StoreError;
use super::admit::fenced;
use super::change::FENCE;
use super::rows::Named;

/// A place in the log.
pub(super) type LogPlace = (Partition, Offset);

/// An arrival with what identifies it.
pub(super) struct Identified<'a> {
    pub(super) arrival: &'a Arrival,
    /// The batch of the arrival.
    pub(super) batch: &'a Batch,
    pub(super) event: EventRef,
    /// Digest of the event's body. It shows another body under the same id after the body itself has been deleted.
    pub(super) digest: String,
}

impl<'a> Identified<'a> {
    fn of(batch: &'a Batch, arrival: &'a Arrival) -> Self {
        let digest = hex::encode(&Sha256::digest(&arrival.event.body)[..16]);
        Self { arrival, batch, event: arrival.event.reference(), digest }
    }

    /// Returns the place of the arrival in the log.
    pub(super) fn place(&self) -> LogPlace {
        (self.batch.partition, self.arrival.offset)
    }
}

/// Returns the arrivals of batches with what identifies them.
pub(super) fn identified(batches: &[Batch]) -> Vec<Identified<'_>> {
    let of = |batch| move |arrival| Identified::of(batch, arrival);
    batches.iter().flat_map(|batch| batch.arrivals.iter().map(of(batch))).collect()
}

/// Returns the statement that looks for the digests of events that are in the store. A digest is `NULL` if one of the first
/// versions has admitted the event, or if the event was stored without its body.
pub(super) fn look(dialect: Dialect, flow: &str, events: &[Identified<'_>]) -> SqlQuery {
    let rows = Rows::of(events).text("event", |event| event.event.as_str());
    rows.query(dialect, vec![flow.into()], |rows| {
        let tables = ["usher_open_run", "usher_ended_run", "usher_event"];
        let of = |event: &str| {
            let one = |table| format!("SELECT event_ref, digest FROM {table} WHERE event_ref = {event} AND flow = $1");
            tables.map(one).join(" UNION ALL ")
        };
        match dialect {
            // Joined, the tables could be read as a whole, whatever the planner believes of them.
            Dialect::Postgres => format!("SELECT k.event_ref, k.digest FROM {rows}, LATERAL ({}) AS k", of("r.event")),
            Dialect::Sqlite => of("$2"),
        }
    })
}

/// The arrivals of a batch, sorted by what is known of them.
#[derive(Default)]
pub(super) struct Sorted<'a> {
    /// Arrivals that come for the first time.
    pub(super) new: Vec<Identified<'a>>,
    /// The partition of each arrival that is known already.
    pub(super) repeated: Vec<Partition>,
    /// Arrivals whose id is known with another body. One of the two would otherwise be lost silently.
    pub(super) conflicts: Vec<(&'a Batch, RefusedRecord)>,
}

/// Separates new arrivals from known ones: known to the store by the answer to [`look`], or from earlier in the batch.
pub(super) fn sort<'a>(events: Vec<Identified<'a>>, known: &Answer) -> Result<Sorted<'a>, StoreError> {
    let read = |row| Ok((Named(row).get("event_ref")?, Named(row).get("digest")?));
    let mut known = known.rows.iter().map(read).collect::<Result<BTreeMap<String, Option<String>>, StoreError>>()?;
    let mut sorted = Sorted::default();
    for event in events {
        match known.get(event.event.as_str()) {
            None => {
                known.insert(event.event.to_string(), Some(event.digest.clone()));
                sorted.new.push(event);
            }
            Some(Some(first)) if *first != event.digest && event.arrival.event.source.repeats_bodies() => {
                sorted.conflicts.push((event.batch, conflict(&event.event, event.arrival)));
            }
            Some(_) => sorted.repeated.push(event.batch.partition),
        }
    }
    Ok(sorted)
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

/// Returns the statement that records the events that start no run; a run records its own event.
pub(super) fn keep(dialect: Dialect, flow: &str, events: &[&Identified<'_>]) -> SqlQuery {
    let rows = fenced(events, |event| event.batch)
        .text("event_ref", |event| event.event.as_str())
        .text("digest", |event| event.digest.as_str())
        .int("received_at", |event| event.arrival.event.received_at.millis());
    rows.query(dialect, vec![flow.into()], |rows| {
        format!(
            "INSERT INTO usher_event (flow, event_ref, digest, received_at) \
             SELECT $1, r.event_ref, r.digest, r.received_at FROM {rows} WHERE {FENCE} ON CONFLICT (flow, event_ref) DO NOTHING"
        )
    })
}
