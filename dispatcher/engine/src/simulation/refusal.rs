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

/// Returns true if the store refuses an arrival. A reduced arrival holds nothing that could be refused.
fn is_refused(arrival: &Arrival, events: &[EventPlan]) -> bool {
    let is_reduced = matches!(arrival.verdict, Some((Reason::Unstorable, _)));
    !is_reduced && events[event_number(&arrival.event.reference())].fate == Fate::Unstorable
}

struct OfWorld<'a> {
    store: Mutex<&'a mut SimulatedStore>,
    take: fn(&mut SimulatedStore, &Batch, &[EventPlan]) -> Option<Admission>,
    events: &'a [EventPlan],
}

#[async_trait]
impl RetryingStore for OfWorld<'_> {
    type Error = &'static str;

    async fn admit(&self, batch: &Batch) -> Option<StoreAnswer<Option<Admission>, Self::Error>> {
        Some(if batch.arrivals.iter().any(|arrival| is_refused(arrival, self.events)) {
            StoreAnswer::Refused("refused")
        } else {
            StoreAnswer::Done((self.take)(&mut self.store.lock().expect("one thread"), batch, self.events))
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
pub(super) fn admit(store: &mut SimulatedStore, events: &[EventPlan], batch: &Batch) -> (Option<Admission>, bool) {
    in_parts(OfWorld { store: Mutex::new(store), take: SimulatedStore::admit, events }, batch)
}

/// Tells the news of a batch as the dispatcher does. The flag is true if it was told in parts.
pub(super) fn tell(store: &mut SimulatedStore, events: &[EventPlan], batch: &Batch) -> (Option<Admission>, bool) {
    in_parts(OfWorld { store: Mutex::new(store), take: SimulatedStore::tell, events }, batch)
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
                batch.arrivals.iter().any(|arrival| is_refused(arrival, &self.events))
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
            ChangeKind::Claim { .. } => number.is_multiple_of(2),
            ChangeKind::Advance { .. } | ChangeKind::Wait { .. } | ChangeKind::Park { .. } => true,
            ChangeKind::End { verdict, .. } => verdict.is_none(),
        };
        let at_step = self.store.row(number).is_some_and(|row| row.step == step && !row.state.is_terminal());
        holds_something && at_step && self.store.owns(change.partition, change.epoch)
    }
}
