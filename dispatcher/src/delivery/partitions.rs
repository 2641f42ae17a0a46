//! What is known of the partitions that a flow owns, and the batches that wait to be admitted.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use usher_proto::{Event, EventId, Key, Partition, Reason, Record, Source};
use usher_service::clock;

use crate::flows::Flow;
use crate::store::{Arrival, Batch};
use crate::subject::Snapshot;

/// One partition that is ours.
#[derive(Debug)]
pub(super) struct Owned {
    /// The log's number of the assignment.
    pub(super) assignment: u64,
    /// The store's number of the ownership.
    pub(super) epoch: i64,
    /// The end of the log when the partition became ours: until the frontier has reached it, no wait ends, for what would
    /// cancel it may not have been read yet.
    pub(super) end_seen: i64,
    /// Everything below is accounted for.
    pub(super) frontier: i64,
    /// Whether the store knows where it begins.
    pub(super) kept: bool,
    /// Whether the runs that were unfinished have all been found. Before that nothing new is admitted, for it could
    /// overtake them.
    pub(super) recovered: bool,
    /// Whether a batch is being admitted.
    pub(super) admitting: bool,
    /// Batches that wait for their turn.
    pub(super) waiting: VecDeque<Batch>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Partitions(pub(super) BTreeMap<Partition, Owned>);

impl Partitions {
    /// The partition, if it is (still) ours under this epoch.
    pub(super) fn current(&mut self, partition: Partition, epoch: i64) -> Option<&mut Owned> {
        self.0.get_mut(&partition).filter(|owned| owned.epoch == epoch)
    }

    /// The next batch of a partition whose turn has come.
    pub(super) fn next_batch(&mut self, partition: Partition) -> Option<Batch> {
        let owned = self.0.get_mut(&partition).filter(|owned| owned.recovered && !owned.admitting)?;
        let batch = owned.waiting.pop_front()?;
        owned.admitting = true;
        Some(batch)
    }

    /// Whether there are partitions, and the store knows of each where it begins: nothing that is accepted from now on can
    /// be missed.
    pub(super) fn all_begun(&self) -> bool {
        !self.0.is_empty() && self.0.values().all(|owned| owned.kept)
    }

    /// Events that wait to be admitted.
    pub(super) fn waiting(&self) -> usize {
        self.0.values().flat_map(|owned| &owned.waiting).map(|batch| batch.arrivals.len()).sum()
    }

    /// The partitions in which waits may end, with their epochs.
    pub(super) fn caught_up(&self) -> Vec<(Partition, i64)> {
        let caught_up = self.0.iter().filter(|(_, owned)| owned.recovered && owned.frontier >= owned.end_seen);
        caught_up.map(|(partition, owned)| (*partition, owned.epoch)).collect()
    }
}

/// What a record means to the flow; none if nothing. A record that is no event becomes a run that is given up at once,
/// so that it is seen.
pub(super) fn arrival(flow: &Flow, partition: Partition, offset: i64, record: &Record) -> Option<Arrival> {
    let event = match Event::from_record(record) {
        Ok(_) if holds_nul(record) => return Some(unreadable(partition, offset, record, "it holds a NUL byte")),
        Ok(event) if std::str::from_utf8(&event.body).is_ok() => event,
        Ok(_) => return Some(unreadable(partition, offset, record, "the body is not UTF-8")),
        Err(error) => return Some(unreadable(partition, offset, record, &error.to_string())),
    };
    let arrival = Arrival {
        offset,
        starts: flow.starts_on(&event),
        cancels: flow.cancels_on(&event),
        snapshot: Snapshot::of(&event),
        event,
        verdict: None,
    };
    (arrival.starts || arrival.cancels || arrival.snapshot.is_some()).then_some(arrival)
}

/// No JSON text holds one, and Postgres takes none in a text.
fn holds_nul(record: &Record) -> bool {
    let in_headers = record.headers.iter().any(|(name, value)| name.contains('\0') || value.contains('\0'));
    in_headers || record.key.as_str().contains('\0') || record.body.contains(&0)
}

/// A run that is given up at once. What cannot be stored as it is, is replaced; the log still holds the original.
fn unreadable(partition: Partition, offset: i64, record: &Record, why: &str) -> Arrival {
    let now = clock::now();
    let event = Event {
        // Where it stands is all that identifies it.
        id: EventId::new(format!("unreadable-{partition}-{offset}")),
        kind: "unreadable".to_owned(),
        source: Source::Usher,
        instance: usher_proto::event::DEFAULT_INSTANCE.to_owned(),
        key: Key::new(record.key.as_str().replace('\0', "\u{fffd}")),
        occurred_at: now,
        received_at: now,
        provenance: Vec::new(),
        body: Bytes::from(String::from_utf8_lossy(&record.body).replace('\0', "\u{fffd}")),
    };
    let verdict = Some((Reason::Malformed, why.to_owned()));
    Arrival { offset, event, starts: true, cancels: false, snapshot: None, verdict }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::builtin;

    #[test]
    fn a_record_that_is_no_event_becomes_a_run_that_every_store_takes() {
        let flow = Flow::check(builtin().remove(0)).expect("a good flow");
        let good = Event {
            id: EventId::new("e"),
            kind: "user.created".into(),
            source: Source::Clerk,
            instance: "default".into(),
            key: Key::new("user_1"),
            occurred_at: clock::now(),
            received_at: clock::now(),
            provenance: Vec::new(),
            body: Bytes::from_static(b"{}"),
        };
        let record = good.into_record();
        let verdict = |record: &Record| {
            let arrival = arrival(&flow, Partition(1), 7, record).expect("it means something");
            let texts =
                [arrival.event.id.as_str(), arrival.event.key.as_str(), &String::from_utf8_lossy(&arrival.event.body)];
            assert!(texts.iter().all(|text| !text.contains('\0')));
            arrival.verdict.map(|(reason, _)| reason)
        };
        assert_eq!(verdict(&record), None);
        let foreign = Record { headers: Vec::new(), ..record.clone() };
        let binary_key = Record { key: Key::new("a\0b"), ..record.clone() };
        let nul = Record { body: Bytes::from_static(b"{\0}"), ..record.clone() };
        let not_utf8 = Record { body: Bytes::from_static(b"{\xff}"), ..record };
        for bad in [foreign, binary_key, nul, not_utf8] {
            assert_eq!(verdict(&bad), Some(Reason::Malformed));
        }
    }
}
