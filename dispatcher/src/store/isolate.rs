//! One record that the store can never take does not stop the others: what is refused is split in halves until the record
//! is alone, and that one is given up where an operator sees it.
//!
//! Each part of a batch moves the frontier in the transaction of its own runs and under the batch's epoch, so a crash or a
//! new owner in between finds the same as after a smaller batch.

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use usher_proto::event::DEFAULT_INSTANCE;
use usher_proto::{Event, EventId, Key, Reason, Source};

use super::StoreError;
use crate::engine::arrival::{Admission, Arrival, Batch};
use crate::engine::{Change, ChangeKind, Changed};

/// Names are cut to this many characters where the record is reduced.
const MAX_NAME: usize = 200;
/// The forms in which a record that is refused is asked for again, each with less of it.
const FORMS: usize = 3;

/// The store's answer to one question.
#[derive(Debug)]
pub enum Asked<T> {
    /// It is carried out.
    Done(T),
    /// The store will never take it.
    Refused(StoreError),
}

/// A store that is asked until it answers. None means that the process stops.
#[async_trait]
pub trait Asking: Send + Sync {
    /// Admits a batch; `Done(None)` where the partition is somebody else's.
    async fn admit(&self, batch: &Batch) -> Option<Asked<Option<Admission>>>;

    /// Writes changes in one transaction.
    async fn change(&self, changes: &[Change]) -> Option<Asked<Vec<Changed>>>;

    /// The store refuses what holds nothing of any record, so no record is at fault: waits before it is asked again.
    async fn refuses_everything(&self, error: &StoreError) -> Option<()>;
}

/// What came of a batch, part by part.
#[derive(Debug)]
pub struct Isolated {
    /// All parts as if they were one; none where the partition is somebody else's.
    pub admission: Option<Admission>,
    /// Records that were given up.
    pub refused: usize,
    /// Whether it was carried out in parts.
    pub in_parts: bool,
}

/// Admits a batch, whole if the store takes it so.
pub async fn admit(asking: &dyn Asking, batch: Batch) -> Option<Isolated> {
    struct Part {
        batch: Batch,
        /// In which form its record is asked for; 0 as it came.
        form: usize,
        original: Option<Box<Arrival>>,
    }
    let mut isolated = Isolated { admission: None, refused: 0, in_parts: false };
    let mut admission = Admission::default();
    let mut parts = vec![Part { batch, form: 0, original: None }];
    while let Some(Part { mut batch, form, original }) = parts.pop() {
        match asking.admit(&batch).await? {
            Asked::Done(None) => return Some(isolated),
            Asked::Done(Some(of_part)) => {
                isolated.refused += usize::from(form > 0);
                merge(&mut admission, of_part);
            }
            Asked::Refused(error) => {
                isolated.in_parts = true;
                if batch.arrivals.len() > 1 {
                    let right = batch.arrivals.split_off(batch.arrivals.len() / 2);
                    // Nothing between the two halves means anything to the flow.
                    let frontier = right.first().map_or(batch.frontier, |first| first.offset);
                    let right = Batch { arrivals: right, ..batch.clone() };
                    parts.push(Part { batch: right, form: 0, original: None });
                    parts.push(Part { batch: Batch { frontier, ..batch }, form: 0, original: None });
                } else if let Some(arrival) = batch.arrivals.pop().filter(|_| form < FORMS) {
                    let original = original.unwrap_or_else(|| Box::new(arrival));
                    batch.arrivals.push(reduced(&batch, &original, form + 1, &error));
                    parts.push(Part { batch, form: form + 1, original: Some(original) });
                } else {
                    asking.refuses_everything(&error).await?;
                    batch.arrivals = original.map(|arrival| *arrival).into_iter().collect();
                    parts.push(Part { batch, form: 0, original: None });
                }
            }
        }
    }
    isolated.admission = Some(admission);
    Some(isolated)
}

/// Adds what came of a later part.
fn merge(all: &mut Admission, later: Admission) {
    // Of one batch nothing is a head that the batch itself has cancelled.
    let ended = |id: &EventId| later.cancelled.iter().any(|(_, cancelled)| cancelled == id);
    all.heads.retain(|run| !ended(&run.event.id));
    all.woken.retain(|run| !ended(&run.event.id));
    all.heads.extend(later.heads);
    all.woken.extend(later.woken);
    all.behind.extend(later.behind);
    all.cancelled.extend(later.cancelled);
    all.repeated += later.repeated;
}

/// A run that is given up at once, with less of the record the higher the form: without its body; without anything but
/// its id and key; without those, too. The log still holds the original.
fn reduced(batch: &Batch, original: &Arrival, form: usize, error: &StoreError) -> Arrival {
    let verdict = Some((Reason::Unstorable, storable(&format!("the store refuses the event: {error}"))));
    let of = &original.event;
    let plain = |text: &str| storable(text).chars().take(MAX_NAME).collect::<String>();
    let (provenance, body) = (Vec::new(), Bytes::new());
    match form {
        1 => Arrival {
            starts: true,
            verdict,
            event: Event { provenance, body, ..of.clone() },
            // A deletion holds no data, and is final: it counts if it can.
            snapshot: original.snapshot.clone().filter(|snapshot| snapshot.data.is_none()),
            remember: None,
            ..original.clone()
        },
        2 => {
            let event = Event { kind: plain(&of.kind), instance: plain(&of.instance), provenance, body, ..of.clone() };
            Arrival { verdict, expires_at: original.expires_at, ..Arrival::starting(original.offset, event) }
        }
        _ => {
            let event = Event {
                id: EventId::new(format!("unreadable-{}-{}", batch.partition, original.offset)),
                kind: "unreadable".to_owned(),
                source: Source::Usher,
                instance: DEFAULT_INSTANCE.to_owned(),
                key: Key::new(format!("sha256-{}", hex(&Sha256::digest(of.key.as_str())))),
                provenance,
                body,
                ..of.clone()
            };
            Arrival { verdict, ..Arrival::starting(original.offset, event) }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text as every database takes it: Postgres refuses NUL in a text, and nothing else that a Rust string can hold.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Writes changes, all at once if the store takes them so. One that is refused comes back as [`Changed::Refused`].
pub async fn change(asking: &dyn Asking, changes: &[Change]) -> Option<Vec<Changed>> {
    let mut done = Vec::with_capacity(changes.len());
    let mut parts = vec![changes];
    while let Some(part) = parts.pop() {
        match (asking.change(part).await?, part) {
            (Asked::Done(changed), _) => done.extend(changed),
            (Asked::Refused(_), []) => {}
            // It holds nothing of a record any more.
            (Asked::Refused(error), [only]) if gives_up_unstorable(only) => {
                asking.refuses_everything(&error).await?;
                parts.push(part);
            }
            (Asked::Refused(_), [_]) => done.push(Changed::Refused),
            (Asked::Refused(_), _) => {
                let (left, right) = part.split_at(part.len() / 2);
                parts.extend([right, left]);
            }
        }
    }
    Some(done)
}

fn gives_up_unstorable(change: &Change) -> bool {
    matches!(&change.kind, ChangeKind::End { verdict: Some((Reason::Unstorable, _)), .. })
}
