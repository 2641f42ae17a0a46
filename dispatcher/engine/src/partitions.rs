//! The partitions that a flow owns: the position of each, and its pending work.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use usher_proto::{Assignment, Epoch, Event, EventRef, Offset, Partition, SubjectId, Timestamp};

use super::Run;
use super::ahead::Ahead;
use super::arrival::{Arrival, Batch};

/// Largest number of events that are admitted for each slot: those of keys that need none are admitted between the others, and
/// the others wait for them.
const PER_SLOT: usize = 4;

/// A place in a partition's order; `None` is before all others.
pub(super) type SearchPlace = Option<(i64, EventRef)>;

/// The progress of the search for lanes that the store holds and memory does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Search {
    /// There are none, as far as is known.
    Done,
    /// To be continued after this place.
    From(SearchPlace),
    /// The store has been queried.
    Asked,
    /// The store has been queried, and everything after this place must be searched again after the answer.
    AskedInVain(SearchPlace),
}

/// Batches that wait for admission. Events and bytes are counted as batches enter and leave, because the totals are
/// needed after every input.
#[derive(Debug, Default)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    events: usize,
    bytes: usize,
}

impl Queue {
    /// Adds the records to the last batch if that then holds at most `most`; otherwise appends this batch.
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

    /// Removes and returns the first batch, or only its first events: those before there are more than `most` different keys
    /// that need a slot, and at most [`PER_SLOT`] for each of them. Returns the number of these keys, too.
    pub(super) fn pop(&mut self, most: usize, needs_slot: impl Fn(&SubjectId) -> bool) -> Option<(Batch, usize)> {
        let first = self.batches.front_mut()?;
        let mut keys = HashSet::new();
        let mut fit = |arrival: &&Arrival| {
            let key = &arrival.event.subject;
            !arrival.starts || !needs_slot(key) || keys.contains(key) || keys.len() < most && keys.insert(key.clone())
        };
        let fitting = first.arrivals.iter().take(PER_SLOT * most).take_while(&mut fit).count();
        let batch = match first {
            first if fitting < first.arrivals.len() => first_events(first, fitting),
            _ => self.batches.pop_front()?,
        };
        self.events -= batch.len();
        self.bytes -= batch.weight();
        Some((batch, keys.len()))
    }

    /// Discards all batches.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns true if no batch waits.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

/// Removes and returns the first `most` events of a batch, with everything before the next one.
fn first_events(batch: &mut Batch, most: usize) -> Batch {
    let rest = batch.arrivals.split_off(most);
    let frontier = rest.first().map_or(batch.frontier, |next| next.offset);
    let refused = std::mem::take(&mut batch.refused);
    let (before, after) = refused.into_iter().partition(|record| record.offset < frontier);
    let all = std::mem::replace(&mut batch.arrivals, rest);
    batch.refused = after;
    Batch {
        partition: batch.partition,
        epoch: batch.epoch,
        frontier,
        arrivals: all,
        refused: before,
        flow_version: batch.flow_version.clone(),
        connector: batch.connector.clone(),
        begins: BTreeSet::new(),
    }
}

/// The phase of a partition's ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnershipPhase {
    /// The store has not recorded yet at which offset this flow begins.
    Starting,
    /// Its records are read, and its runs worked on.
    Active,
    /// It was revoked. Steps in flight may finish until this time; then it is handed back.
    Leaving(Timestamp),
}

/// Runs that may begin with their admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Beginning {
    /// Number of runs.
    pub(super) runs: usize,
    /// The number of the catching up that was over when their admission was requested: what they are made from is older
    /// than a later one.
    pub(super) catch_up: u64,
    /// Number of steps that had ended when their admission was requested.
    pub(super) ended: usize,
    /// Number of slots that were expected to become free during their admission.
    pub(super) ahead: usize,
}

/// A partition that this process owns.
#[derive(Debug)]
pub(super) struct Owned {
    /// The log's number of the assignment.
    pub(super) assignment: Assignment,
    /// The store's fencing token of the ownership.
    pub(super) epoch: Epoch,
    /// The offset below which everything is accounted for.
    pub(super) frontier: Offset,
    /// The offset that is read next.
    pub(super) next: Offset,
    /// The end of the partition when it was last asked for.
    pub(super) end: Offset,
    /// The progress of reading ahead.
    pub(super) ahead: Ahead,
    /// The time at which something was last read, or at which there was nothing to read.
    pub(super) read_at: Timestamp,
    pub(super) phase: OwnershipPhase,
    /// True if a batch is being admitted.
    pub(super) admitting: bool,
    /// Number of events in that batch.
    pub(super) in_admission: usize,
    /// Number of keys of these events that need a slot.
    pub(super) keys_in_admission: usize,
    /// The runs of that batch that may begin with their admission.
    pub(super) beginning: Beginning,
    /// Batches that wait for admission.
    pub(super) waiting: Queue,
    /// The search for the partition's lanes in the store.
    pub(super) search: Search,
}

impl Owned {
    /// Returns true if the store has recorded the offset at which this flow begins. False for a partition that is
    /// leaving: its next owner may have to begin it.
    pub(super) fn has_started(&self) -> bool {
        self.phase == OwnershipPhase::Active
    }

    /// Records that the store knows the offset at which this flow begins.
    pub(super) fn started(&mut self) {
        if self.phase == OwnershipPhase::Starting {
            self.phase = OwnershipPhase::Active;
        }
    }

    /// Returns true if the partition was revoked.
    pub(super) fn is_leaving(&self) -> bool {
        self.drain_deadline().is_some()
    }

    /// Returns the deadline for handing the partition back; `None` if it was not revoked.
    pub(super) fn drain_deadline(&self) -> Option<Timestamp> {
        match self.phase {
            OwnershipPhase::Starting | OwnershipPhase::Active => None,
            OwnershipPhase::Leaving(deadline) => Some(deadline),
        }
    }

    /// Starts the search for the partition's lanes from the beginning.
    pub(super) fn search_again(&mut self) {
        self.search_after(None);
    }

    /// Extends the search to this head, which has been left to the store.
    pub(super) fn search_from(&mut self, head: &Run) {
        // A place before the head: finding runs in between loses nothing.
        self.search_after(Some((head.position - 1, head.event.reference())));
    }

    fn search_after(&mut self, place: SearchPlace) {
        self.search = match std::mem::replace(&mut self.search, Search::Done) {
            Search::Asked => Search::AskedInVain(place),
            Search::AskedInVain(earlier) => Search::AskedInVain(earlier.min(place)),
            Search::Done => Search::From(place),
            Search::From(earlier) => Search::From(earlier.min(place)),
        };
    }

    /// Returns true if the store holds no lanes that memory does not, as far as is known.
    pub(super) fn is_searched(&self) -> bool {
        self.search == Search::Done
    }

    /// Takes the store's answer: heads up to the place `last`; `all` is true if there are no more.
    pub(super) fn searched(&mut self, last: SearchPlace, all: bool) {
        self.search = match std::mem::replace(&mut self.search, Search::Done) {
            Search::AskedInVain(again) if all => Search::From(again),
            Search::AskedInVain(again) => Search::From(again.min(last)),
            Search::Done | Search::From(_) | Search::Asked if all => Search::Done,
            Search::Done | Search::From(_) | Search::Asked => Search::From(last),
        };
    }
}

/// All partitions that this process owns.
#[derive(Debug, Default)]
pub(super) struct Partitions(pub(super) BTreeMap<Partition, Owned>);

impl Partitions {
    /// Returns the partition, if this process (still) owns it under this epoch.
    pub(super) fn current(&mut self, partition: Partition, epoch: Epoch) -> Option<&mut Owned> {
        self.0.get_mut(&partition).filter(|owned| owned.epoch == epoch)
    }

    /// Returns the partition's epoch, if this process owns it.
    pub(super) fn epoch(&self, partition: Partition) -> Option<Epoch> {
        self.0.get(&partition).map(|owned| owned.epoch)
    }

    /// Returns true if a record of its partition that is read and not admitted may end the run of this event.
    pub(super) fn may_end(&self, partition: Partition, event: &Event, position: i64) -> bool {
        self.0.get(&partition).is_some_and(|owned| owned.ahead.may_end(event, position, owned.frontier))
    }

    /// Returns the partitions that have events to admit.
    pub(super) fn admissible(&self) -> Vec<Partition> {
        let admissible = |owned: &Owned| !owned.admitting && !owned.is_leaving() && !owned.waiting.is_empty();
        self.0.iter().filter(|(_, owned)| admissible(owned)).map(|(partition, _)| *partition).collect()
    }

    /// Returns the next events of a partition: those of at most `most` keys that need a slot, and those of other keys
    /// between them.
    pub(super) fn next_batch(
        &mut self,
        partition: Partition,
        most: usize,
        needs_slot: impl Fn(&SubjectId) -> bool,
    ) -> Option<Batch> {
        let owned = self.0.get_mut(&partition)?;
        let (batch, keys) = owned.waiting.pop(most, needs_slot)?;
        owned.admitting = true;
        owned.in_admission = batch.len();
        owned.keys_in_admission = keys;
        Some(batch)
    }

    /// Returns the number of events that wait for admission, and their approximate size in bytes.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let waiting = self.0.values().map(|owned| &owned.waiting);
        waiting.fold((0, 0), |(events, bytes), queue| (events + queue.events, bytes + queue.bytes))
    }

    /// Returns the number of runs that may begin with their admission.
    pub(super) fn beginning(&self) -> usize {
        self.0.values().map(|owned| owned.beginning.runs).sum()
    }

    /// Returns the number of keys that need a slot and whose events are being admitted.
    pub(super) fn keys_in_admission(&self) -> usize {
        self.0.values().map(|owned| owned.keys_in_admission).sum()
    }

    /// Returns the number of events that are being admitted.
    pub(super) fn in_admission(&self) -> usize {
        self.0.values().map(|owned| owned.in_admission).sum()
    }

    /// Returns the number of partitions whose lanes the store is being queried for.
    pub(super) fn asked(&self) -> usize {
        let is_asked = |owned: &&Owned| matches!(owned.search, Search::Asked | Search::AskedInVain(_));
        self.0.values().filter(is_asked).count()
    }

    /// Returns the partitions that are not revoked, with their epochs.
    pub(super) fn staying(&self) -> Vec<(Partition, Epoch)> {
        let staying = self.0.iter().filter(|(_, owned)| !owned.is_leaving());
        staying.map(|(partition, owned)| (*partition, owned.epoch)).collect()
    }

    /// Returns the offset below which a partition is known, admitted or only read ahead, if this process owns it and it is
    /// not revoked.
    pub(super) fn known(&self, partition: Partition) -> Option<Offset> {
        self.0.get(&partition).filter(|owned| !owned.is_leaving()).map(|owned| owned.ahead.known)
    }

    /// Takes the end of a partition.
    pub(super) fn ends(&mut self, partition: Partition, end: Offset) {
        if let Some(owned) = self.0.get_mut(&partition) {
            owned.end = owned.end.max(end);
        }
    }

    /// Returns the number of offsets that are not admitted.
    pub(super) fn unadmitted(&self) -> i64 {
        self.0.values().map(|owned| (owned.end - owned.frontier).max(0)).sum()
    }

    /// Returns the partitions that have been revoked and not yet handed back.
    pub(super) fn leaving(&self) -> Vec<Partition> {
        self.0.iter().filter(|(_, owned)| owned.is_leaving()).map(|(partition, _)| *partition).collect()
    }
}
