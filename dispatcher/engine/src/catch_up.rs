//! Catching up: after an assignment and after a resume no step begins until everything that was in the log at that time
//! is known, in every partition of the topic, including those that other replicas own. A record is known when it is
//! admitted, or read ahead and its news told to the store.
//!
//! A suppression, a bounce or a deletion has a key of its own, so it may be in another partition than the run that it
//! concerns, and may still be unread there. The ends are read once; later records do not move them.

use std::collections::BTreeMap;
use std::time::Duration;

use usher_proto::{Offset, Partition, Timestamp};

/// Interval between reads of the other replicas' frontiers from the store.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Delay before a failed read of the log's ends is repeated.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The bounds of a partition when they were last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The partition.
    pub partition: Partition,
    /// The oldest offset at that time.
    pub low: Offset,
    /// The offset that the next record would have got.
    pub end: Offset,
}

/// The records that must be known before any step begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unread {
    /// The partitions waited for. Empty until the log has reported its ends.
    pub partitions: Vec<Partition>,
    /// Number of offsets below those ends that are not known yet.
    pub events: i64,
}

#[derive(Debug)]
enum State {
    /// Everything is known.
    Done,
    /// The log's ends are to be read, not before this time.
    Wanted(Option<Timestamp>),
    /// The log has been queried for its ends.
    Looking,
    /// The partitions that are not known up to the end read, with that end and the offset below which they are.
    Reading(BTreeMap<Partition, (Offset, Offset)>),
}

/// Tracks if everything that was in the log at the last assignment or resume is known.
#[derive(Debug)]
pub(super) struct CatchUp {
    state: State,
    /// Counts the reads of the log's ends, so that an answer from before the last start is ignored.
    look: u64,
    asking: bool,
    asked_at: Option<Timestamp>,
}

impl CatchUp {
    pub(super) fn new() -> Self {
        Self { state: State::Done, look: 0, asking: false, asked_at: None }
    }

    /// Starts again: everything that is in the log now counts as unread.
    pub(super) fn start(&mut self) {
        self.look += 1;
        self.state = State::Wanted(None);
    }

    /// Returns the number of the last start.
    pub(super) fn number(&self) -> u64 {
        self.look
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Returns the number of the read of the log's ends that is to be made now, if one is.
    pub(super) fn wants_look(&mut self, now: Timestamp) -> Option<u64> {
        let State::Wanted(not_before) = self.state else { return None };
        if not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.state = State::Looking;
        Some(self.look)
    }

    /// Returns true if an answer belongs to the last read that was requested.
    pub(super) fn is_current(&self, look: u64) -> bool {
        self.look == look && matches!(self.state, State::Looking)
    }

    /// Takes the ends of the log's partitions; `None` if the log could not be queried.
    pub(super) fn looked(&mut self, ends: Option<Vec<Seen>>, now: Timestamp) {
        self.state = match ends {
            None => State::Wanted(Some(now.plus(LOOK_AGAIN))),
            // An empty partition has nothing to tell.
            Some(ends) => State::Reading(
                ends.into_iter()
                    .filter(|seen| seen.end > seen.low)
                    .map(|seen| (seen.partition, (seen.end, seen.low)))
                    .collect(),
            ),
        };
    }

    /// Takes how far the partitions are known from `frontier`.
    pub(super) fn read_on(&mut self, frontier: impl Fn(Partition) -> Option<Offset>) {
        let State::Reading(unread) = &mut self.state else { return };
        unread.retain(|partition, (end, known)| {
            *known = frontier(*partition).map_or(*known, |frontier| frontier.max(*known));
            *known < *end
        });
        if unread.is_empty() {
            self.state = State::Done;
        }
    }

    /// Takes from the store how far all partitions are known that any replica has ever owned; `None` if the store could not be
    /// queried. A partition beyond the first `layout` that was never owned is not part of the topic in use. Of partitions
    /// that are `ours`, the store does not know enough: what ends their runs is noted only here.
    pub(super) fn told(
        &mut self,
        known: Option<&BTreeMap<Partition, Option<Offset>>>,
        layout: i32,
        ours: impl Fn(Partition) -> Option<Offset>,
    ) {
        self.asking = false;
        let Some(known) = known else { return };
        if let State::Reading(unread) = &mut self.state {
            unread.retain(|partition, _| partition.0 < layout || known.contains_key(partition));
        }
        self.read_on(|partition| ours(partition).or_else(|| known.get(&partition).copied().flatten()));
    }

    /// Returns true if the store is to be queried now for the frontiers of partitions that are not `ours`.
    pub(super) fn wants_frontiers(&mut self, ours: impl Fn(Partition) -> bool, now: Timestamp) -> bool {
        let State::Reading(unread) = &self.state else { return false };
        let recently = self.asked_at.is_some_and(|at| now.since(at) < ASK_EVERY);
        if self.asking || recently || unread.keys().all(|partition| ours(*partition)) {
            return false;
        }
        self.asking = true;
        self.asked_at = Some(now);
        true
    }

    /// Returns the time of the next read of the log's ends, or of the frontiers of partitions that are not `ours`. `None`
    /// if an answer is awaited, or nothing is to be read.
    pub(super) fn next_try(&self, ours: impl Fn(Partition) -> bool) -> Option<Timestamp> {
        match &self.state {
            State::Done | State::Looking => None,
            State::Wanted(not_before) => *not_before,
            State::Reading(unread) if self.asking || unread.keys().all(|partition| ours(*partition)) => None,
            State::Reading(_) => self.asked_at.map(|at| at.plus(ASK_EVERY)),
        }
    }

    /// Returns the records that are still unknown; `None` if everything is known.
    pub(super) fn unread(&self) -> Option<Unread> {
        match &self.state {
            State::Done => None,
            State::Wanted(_) | State::Looking => Some(Unread::default()),
            State::Reading(unread) => Some(Unread {
                partitions: unread.keys().copied().collect(),
                events: unread.values().map(|(end, known)| *end - *known).sum(),
            }),
        }
    }
}
