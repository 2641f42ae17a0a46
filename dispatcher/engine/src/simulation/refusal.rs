//! The permanent refusals of the simulated store, handled by the dispatcher's own code.

use std::sync::Mutex;

use async_trait::async_trait;
use futures::FutureExt as _;
use usher_proto::Reason;

use super::happening::{EventPlan, Fate, event_number};
use super::store::SimulatedStore;
use super::store_queue::Question;
use super::world::World;
use crate::arrival::{Admission, Arrival, Batch};
use crate::isolate::{self, RetryingStore, StoreAnswer};
use crate::{Change, ChangeKind, Changed, StoreRequest, StoreWrite};

/// Returns true if the store refuses a batch: for an arrival, or for the claim with which its run would begin. A reduced
/// arrival holds nothing that could be refused.
fn is_refused(batch: &Batch, events: &[EventPlan]) -> bool {
    let refused = |arrival: &Arrival| {
        let number = event_number(&arrival.event.reference());
        let is_reduced = matches!(arrival.verdict, Some((Reason::Unstorable, _)));
        match events[number].fate {
            Fate::Unstorable => !is_reduced,
            Fate::Unwritable(0) => batch.begins.contains(&arrival.offset) && claim_is_refused(number),
            _ => false,
        }
    };
    batch.arrivals.iter().any(refused)
}

/// Returns true if the store refuses the claims of a run whose results it refuses.
fn claim_is_refused(number: usize) -> bool {
    number.is_multiple_of(2)
}

struct OfWorld<'a> {
    store: Mutex<&'a mut SimulatedStore>,
    take: fn(&mut SimulatedStore, &Batch, &[EventPlan], i64) -> Option<Admission>,
    events: &'a [EventPlan],
    now: i64,
}

#[async_trait]
impl RetryingStore for OfWorld<'_> {
    type Error = &'static str;

    async fn admit(&self, batch: &Batch) -> Option<StoreAnswer<Option<Admission>, Self::Error>> {
        Some(if is_refused(batch, self.events) {
            StoreAnswer::Refused("refused")
        } else {
            StoreAnswer::Done((self.take)(&mut self.store.lock().expect("one thread"), batch, self.events, self.now))
        })
    }

    async fn change(&self, _: &[Change]) -> Option<StoreAnswer<Vec<Changed>, Self::Error>> {
        None
    }

    async fn refuses_everything(&self, _: &Self::Error) -> Option<()> {
        None
    }
}

/// Admits a batch as the dispatcher does. The flag is true if it was admitted in parts.
pub(super) fn admit(
    store: &mut SimulatedStore,
    events: &[EventPlan],
    batch: &Batch,
    now: i64,
) -> (Option<Admission>, bool) {
    in_parts(OfWorld { store: Mutex::new(store), take: SimulatedStore::admit, events, now }, batch)
}

/// Tells the news of a batch as the dispatcher does. The flag is true if it was told in parts.
pub(super) fn tell(store: &mut SimulatedStore, events: &[EventPlan], batch: &Batch) -> (Option<Admission>, bool) {
    in_parts(
        OfWorld { store: Mutex::new(store), take: |store, batch, events, _| store.tell(batch, events), events, now: 0 },
        batch,
    )
}

fn in_parts(of_world: OfWorld<'_>, batch: &Batch) -> (Option<Admission>, bool) {
    let isolated = isolate::admit(&of_world, batch.clone()).now_or_never().flatten();
    let isolated = isolated.expect("this store answers at once, and takes what is reduced");
    (isolated.admission, isolated.in_parts)
}

impl World {
    /// Returns true if the store will never carry this question out as it is.
    pub(super) fn is_refused(&self, question: &Question) -> bool {
        match question {
            Question::Engine(StoreRequest::Write(StoreWrite::Admit(batch) | StoreWrite::Tell(batch))) => {
                is_refused(batch, &self.events)
            }
            Question::Engine(StoreRequest::Change(change)) | Question::Claim(_, change) => self.refuses(change),
            Question::Engine(StoreRequest::Write(_) | StoreRequest::Read(_)) => false,
        }
    }

    /// Returns true if the store will never accept a change because it holds the request or the result of a run that
    /// cannot be written. The end of a dead run holds neither.
    pub(super) fn refuses(&self, change: &Change) -> bool {
        let number = event_number(&change.event);
        let Fate::Unwritable(step) = self.events[number].fate else { return false };
        let holds_something = match &change.kind {
            // The request of every second run, the result of all.
            ChangeKind::Claim { .. } => claim_is_refused(number),
            ChangeKind::Advance { .. }
            | ChangeKind::Wait { .. }
            | ChangeKind::Retry { .. }
            | ChangeKind::Park { .. } => true,
            ChangeKind::End { verdict, .. } => verdict.is_none(),
        };
        let at_step = self.store.row(number).is_some_and(|row| row.step == step && !row.state.is_terminal());
        holds_something && at_step && self.store.owns(change.partition, change.epoch)
    }
}
