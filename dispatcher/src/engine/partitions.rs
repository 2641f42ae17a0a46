//! The partitions that a flow owns: where each stands, and what it waits for.

use std::collections::{BTreeMap, VecDeque};

use usher_proto::{EventRef, Partition, Timestamp};

use super::Run;
use super::arrival::Batch;

/// A place in a partition's order; none is before all others.
pub(super) type Place = Option<(i64, EventRef)>;

/// How far the search for lanes has come that the store holds and memory does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Search {
    /// There are none, as far as is known.
    Done,
    /// To be gone on with, after this place.
    From(Place),
    /// The store has been asked.
    Asked,
    /// The store has been asked, and what comes after this place is to be searched again after it.
    AskedInVain(Place),
}

/// Batches that wait for admission. Counted as they come and go: it is asked after every input how much there is.
#[derive(Debug, Default)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    events: usize,
    bytes: usize,
}

impl Queue {
    /// Adds arrivals to the last batch if it has room for them, up to `most`, else as this batch of their own.
    pub(super) fn push(&mut self, batch: Batch, most: usize) {
        self.events += batch.len();
        self.bytes += batch.weight();
        match self.batches.back_mut().filter(|last| last.len() + batch.len() <= most) {
            Some(last) => {
                last.arrivals.extend(batch.arrivals);
                last.refused.extend(batch.refused);
                last.frontier = batch.frontier;
            }
            None => self.batches.push_back(batch),
        }
    }

    /// The first batch.
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.events -= batch.len();
        self.bytes -= batch.weight();
        Some(batch)
    }

    /// Forgets all of it.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

/// One partition that is ours.
#[derive(Debug)]
pub(super) struct Owned {
    /// The log's number of the assignment.
    pub(super) assignment: u64,
    /// The store's number of the ownership.
    pub(super) epoch: i64,
    /// Everything below is accounted for.
    pub(super) frontier: i64,
    /// The offset that is read next.
    pub(super) next: i64,
    /// When something was read last, or there was nothing to read.
    pub(super) read_at: Timestamp,
    /// Whether the store knows where it begins.
    pub(super) kept: bool,
    /// Whether a batch is being admitted.
    pub(super) admitting: bool,
    /// Batches that wait for their turn.
    pub(super) waiting: Queue,
    /// The search for its lanes in the store.
    pub(super) search: Search,
    /// Taken away, and to be handed back by then at the latest.
    pub(super) leaves_by: Option<Timestamp>,
}

impl Owned {
    /// Lanes of this partition are to be looked for from the beginning.
    pub(super) fn search_again(&mut self) {
        self.search_after(None);
    }

    /// This head has been left to the store, and is to be found there.
    pub(super) fn search_from(&mut self, head: &Run) {
        // Some place before it: nothing is lost by finding what stands between.
        self.search_after(Some((head.position - 1, head.event.reference())));
    }

    fn search_after(&mut self, place: Place) {
        self.search = match std::mem::replace(&mut self.search, Search::Done) {
            Search::Asked => Search::AskedInVain(place),
            Search::AskedInVain(earlier) => Search::AskedInVain(earlier.min(place)),
            Search::Done => Search::From(place),
            Search::From(earlier) => Search::From(earlier.min(place)),
        };
    }

    /// Whether the store holds no lanes that memory does not, as far as is known.
    pub(super) fn is_searched(&self) -> bool {
        self.search == Search::Done
    }

    /// The store has answered with heads up to this place; `all` if there are no more.
    pub(super) fn searched(&mut self, last: Place, all: bool) {
        self.search = match std::mem::replace(&mut self.search, Search::Done) {
            Search::AskedInVain(again) if all => Search::From(again),
            Search::AskedInVain(again) => Search::From(again.min(last)),
            Search::Done | Search::From(_) | Search::Asked if all => Search::Done,
            Search::Done | Search::From(_) | Search::Asked => Search::From(last),
        };
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Partitions(pub(super) BTreeMap<Partition, Owned>);

impl Partitions {
    /// The partition, if it is (still) ours under this epoch.
    pub(super) fn current(&mut self, partition: Partition, epoch: i64) -> Option<&mut Owned> {
        self.0.get_mut(&partition).filter(|owned| owned.epoch == epoch)
    }

    /// The partition's epoch, if it is ours.
    pub(super) fn epoch(&self, partition: Partition) -> Option<i64> {
        self.0.get(&partition).map(|owned| owned.epoch)
    }

    /// The next batch of a partition whose turn has come.
    pub(super) fn next_batch(&mut self, partition: Partition) -> Option<Batch> {
        let free = |owned: &&mut Owned| !owned.admitting && owned.leaves_by.is_none();
        let owned = self.0.get_mut(&partition).filter(free)?;
        let batch = owned.waiting.pop()?;
        owned.admitting = true;
        Some(batch)
    }

    /// Events that wait to be admitted, and roughly their bytes.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let waiting = self.0.values().map(|owned| &owned.waiting);
        waiting.fold((0, 0), |(events, bytes), queue| (events + queue.events, bytes + queue.bytes))
    }

    /// In how many the store is being asked for lanes.
    pub(super) fn asked(&self) -> usize {
        let is_asked = |owned: &&Owned| matches!(owned.search, Search::Asked | Search::AskedInVain(_));
        self.0.values().filter(is_asked).count()
    }

    /// Those that are not being taken away, with their epochs.
    pub(super) fn staying(&self) -> Vec<(Partition, i64)> {
        let staying = self.0.iter().filter(|(_, owned)| owned.leaves_by.is_none());
        staying.map(|(partition, owned)| (*partition, owned.epoch)).collect()
    }

    /// The frontier of a partition that is ours and being read.
    pub(super) fn frontier(&self, partition: Partition) -> Option<i64> {
        self.0.get(&partition).filter(|owned| owned.leaves_by.is_none()).map(|owned| owned.frontier)
    }

    /// Those that have been taken away and not been handed back yet.
    pub(super) fn leaving(&self) -> Vec<Partition> {
        self.0.iter().filter(|(_, owned)| owned.leaves_by.is_some()).map(|(partition, _)| *partition).collect()
    }
}
