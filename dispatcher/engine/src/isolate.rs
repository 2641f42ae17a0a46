//! Isolation of a record that the store can never accept, so that it does not stop the others. A refused batch is split
//! in halves until the record is alone. That record is given up in a place where an operator sees it. A record is at
//! fault only if the store accepts a write that holds nothing of any record, and still refuses this one: an error whose
//! code is unclear may be an outage.
//!
//! Each part of a batch moves the frontier in the transaction of its own runs and under the batch's epoch. So after a
//! crash or a change of owner in between, the state is the same as after a smaller batch.

use std::fmt::Display;

use async_trait::async_trait;
use bytes::Bytes;
use usher_proto::{Event, Key, Reason};

use crate::arrival::{Admission, Arrival, Batch, RefusedRecord};
use crate::{Change, ChangeKind, Changed};

/// The store's answer to one request.
#[derive(Debug)]
pub enum StoreAnswer<T, E> {
    /// The request was carried out.
    Done(T),
    /// The store will never accept the request.
    Refused(E),
}

/// A store that is retried until it answers. `None` means that the process stops.
#[async_trait]
pub trait RetryingStore: Send + Sync {
    /// An error of the store.
    type Error: Display + Send + Sync;

    /// Admits a batch. `Done(None)` means that another replica owns the partition.
    async fn admit(&self, batch: &Batch) -> Option<StoreAnswer<Option<Admission>, Self::Error>>;

    /// Writes changes in one transaction.
    async fn change(&self, changes: &[Change]) -> Option<StoreAnswer<Vec<Changed>, Self::Error>>;

    /// Waits before the next try of a store that refuses even a write without any record. No record is at fault then.
    async fn refuses_everything(&self, error: &Self::Error) -> Option<()>;
}

/// Result of admitting a batch, possibly in parts.
#[derive(Debug)]
pub struct Isolated {
    /// The result of all parts together; `None` if another replica owns the partition.
    pub admission: Option<Admission>,
    /// Number of records that were given up.
    pub refused: usize,
    /// True if the batch was admitted in parts.
    pub in_parts: bool,
}

/// Admits a batch, in one piece if the store accepts it. Returns `None` if the process stops.
pub async fn admit<S: RetryingStore>(store: &S, batch: Batch) -> Option<Isolated> {
    struct Part {
        batch: Batch,
        /// The record as it arrived, once a reduced form of it is tried: a run without a body, then no run.
        original: Option<Box<Arrival>>,
        /// True if the store has accepted a write without records since it refused this record.
        is_suspect: bool,
    }
    let part = |batch| Part { batch, original: None, is_suspect: false };
    let mut isolated = Isolated { admission: None, refused: 0, in_parts: false };
    let mut admission = Admission::default();
    let mut parts = vec![part(batch)];
    while let Some(Part { mut batch, original, is_suspect }) = parts.pop() {
        match store.admit(&batch).await? {
            StoreAnswer::Done(None) => return Some(isolated),
            StoreAnswer::Done(Some(of_part)) => {
                isolated.refused += usize::from(original.is_some());
                merge(&mut admission, of_part);
            }
            StoreAnswer::Refused(error) => {
                isolated.in_parts = true;
                // It may be a claim that the store refuses, and no record.
                batch.begins.clear();
                match (batch.arrivals.len(), original) {
                    (0, None) => {
                        store.refuses_everything(&error).await?;
                        parts.push(part(batch));
                    }
                    (0, Some(original)) => {
                        store.refuses_everything(&error).await?;
                        batch.refused.retain(|record| record.offset != original.offset);
                        batch.arrivals = vec![*original];
                        parts.push(part(batch));
                    }
                    (1, None) if !is_suspect => {
                        let frontier = batch.arrivals[0].offset;
                        let nothing = Batch { arrivals: Vec::new(), refused: Vec::new(), frontier, ..batch.clone() };
                        match store.admit(&nothing).await? {
                            StoreAnswer::Done(None) => return Some(isolated),
                            StoreAnswer::Done(Some(_)) => parts.push(Part { is_suspect: true, ..part(batch) }),
                            StoreAnswer::Refused(error) => {
                                store.refuses_everything(&error).await?;
                                parts.push(part(batch));
                            }
                        }
                    }
                    (1, None) => {
                        let original = Box::new(batch.arrivals.remove(0));
                        batch.arrivals.push(reduced(&original, &error));
                        parts.push(Part { original: Some(original), ..part(batch) });
                    }
                    (1, Some(original)) => {
                        batch.arrivals.clear();
                        batch.refused.push(record(&original, &error));
                        parts.push(Part { original: Some(original), ..part(batch) });
                    }
                    (count, _) => {
                        let right = batch.arrivals.split_off(count / 2);
                        // The records between the two halves mean nothing to the flow.
                        let frontier = right.first().map_or(batch.frontier, |first| first.offset);
                        let right = Batch { arrivals: right, refused: Vec::new(), ..batch.clone() };
                        parts.extend([part(right), part(Batch { frontier, ..batch })]);
                    }
                }
            }
        }
    }
    isolated.admission = Some(admission);
    Some(isolated)
}

/// Adds the result of a later part.
fn merge(all: &mut Admission, later: Admission) {
    // A run that the same batch has cancelled is not a head.
    let ended = |event: &Event| later.cancelled.iter().any(|(_, cancelled)| cancelled.is(event));
    all.heads.retain(|run| !ended(&run.event));
    all.followers.retain(|run| !ended(&run.event));
    all.woken.retain(|run| !ended(&run.event));
    all.heads.extend(later.heads);
    all.followers.extend(later.followers);
    all.woken.extend(later.woken);
    all.behind.extend(later.behind);
    all.cancelled.extend(later.cancelled);
    all.repeated += later.repeated;
    all.refused += later.refused;
}

/// Returns the arrival as a run that is given up at once, without its body. The log still holds the body.
fn reduced(original: &Arrival, error: &dyn Display) -> Arrival {
    let verdict = Some((Reason::Unstorable, refusal(error)));
    let event = Event { provenance: Vec::new(), body: Bytes::new(), ..original.event.clone() };
    // A deletion holds no data and is final, so it is applied if possible.
    let snapshot = original.snapshot.clone().filter(|snapshot| snapshot.data.is_none());
    Arrival { starts: true, verdict, event, snapshot, remember: None, ..original.clone() }
}

/// Returns the record in the form that is stored apart from all runs, in which the store has nothing to refuse.
fn record(original: &Arrival, error: &dyn Display) -> RefusedRecord {
    let event = &original.event;
    RefusedRecord {
        offset: original.offset,
        reason: Reason::Unstorable,
        error: refusal(error),
        event: event.id.to_string(),
        key: Key::new(event.subject.key()),
        body: event.body.clone(),
    }
}

fn refusal(error: &dyn Display) -> String {
    storable(&format!("the store refuses the event: {error}"))
}

/// Returns the text in a form that every database accepts. Postgres refuses NUL in a text, and nothing else that a Rust
/// string can hold.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Writes changes, all at once if the store accepts them. A refused change is returned as [`Changed::Refused`]. Returns
/// `None` if the process stops.
pub async fn change<S: RetryingStore>(store: &S, changes: &[Change]) -> Option<Vec<Changed>> {
    let mut done = Vec::with_capacity(changes.len());
    // The flag is true if the store has accepted a write without changes since it refused the part.
    let mut parts = vec![(changes, false)];
    while let Some((part, is_suspect)) = parts.pop() {
        match (store.change(part).await?, part) {
            (StoreAnswer::Done(changed), _) => done.extend(changed),
            (StoreAnswer::Refused(_), []) => {}
            // The change no longer holds anything of a record.
            (StoreAnswer::Refused(error), [only]) if gives_up_unstorable(only) => {
                store.refuses_everything(&error).await?;
                parts.push((part, false));
            }
            (StoreAnswer::Refused(_), [_]) if is_suspect => done.push(Changed::Refused),
            (StoreAnswer::Refused(_), [_]) => match store.change(&[]).await? {
                StoreAnswer::Done(_) => parts.push((part, true)),
                StoreAnswer::Refused(error) => {
                    store.refuses_everything(&error).await?;
                    parts.push((part, false));
                }
            },
            (StoreAnswer::Refused(_), _) => {
                let (left, right) = part.split_at(part.len() / 2);
                parts.extend([(right, false), (left, false)]);
            }
        }
    }
    Some(done)
}

fn gives_up_unstorable(change: &Change) -> bool {
    matches!(&change.kind, ChangeKind::End { verdict: Some((Reason::Unstorable, _)), .. })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;
    use usher_proto::{Epoch, EventId, Instance, Offset, Partition, Source, SubjectId, Timestamp};

    use super::*;
    use crate::RunState;

    /// A store that refuses everything for a while, then nothing.
    struct Away(AtomicUsize);

    impl Away {
        fn answer<T>(&self, answer: T) -> Option<StoreAnswer<T, &'static str>> {
            let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            Some(match left {
                Ok(_) => StoreAnswer::Refused("anything"),
                Err(_) => StoreAnswer::Done(answer),
            })
        }
    }

    #[async_trait]
    impl RetryingStore for Away {
        type Error = &'static str;

        async fn admit(&self, _: &Batch) -> Option<StoreAnswer<Option<Admission>, Self::Error>> {
            self.answer(Some(Admission::default()))
        }

        async fn change(&self, changes: &[Change]) -> Option<StoreAnswer<Vec<Changed>, Self::Error>> {
            self.answer(vec![Changed::Written; changes.len()])
        }

        async fn refuses_everything(&self, _: &Self::Error) -> Option<()> {
            Some(())
        }
    }

    fn event() -> Event {
        Event {
            id: EventId::new("e"),
            kind: "user.created".into(),
            source: Source::Clerk,
            subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("a")),
            occurred_at: Timestamp::from_millis(0),
            received_at: Timestamp::from_millis(0),
            provenance: Vec::new(),
            body: Bytes::new(),
        }
    }

    #[test]
    fn an_outage_with_a_code_that_tells_nothing_gives_nobody_up() {
        for lasts in 0..20 {
            let arrivals = (0..4).map(|offset| Arrival::starting(Offset(offset), event())).collect();
            let partition = Partition(0);
            let epoch = 1;
            let frontier = 4;
            let refused = Vec::new();
            let flow_version = "1".to_owned();
            let connector = None;
            let batch = Batch {
                partition,
                epoch: Epoch(epoch),
                frontier: Offset(frontier),
                arrivals,
                refused,
                flow_version,
                connector,
                begins: BTreeSet::new(),
            };
            let isolated = admit(&Away(AtomicUsize::new(lasts)), batch).now_or_never().flatten().expect("an answer");
            assert_eq!((isolated.refused, isolated.admission.is_some()), (0, true), "{lasts}");

            let kind =
                ChangeKind::End { state: RunState::Done, effect: None, note: None, verdict: None, in_doubt: false };
            let event = event();
            let of_one = Change {
                event: event.reference(),
                key: event.subject.clone(),
                partition,
                epoch: Epoch(epoch),
                kind,
                story: Box::default(),
            };
            let changed =
                change(&Away(AtomicUsize::new(lasts)), &vec![of_one; 4]).now_or_never().flatten().expect("an answer");
            assert_eq!(changed, vec![Changed::Written; 4], "{lasts}");
        }
    }
}
