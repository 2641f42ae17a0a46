//! Catching up: after an assignment and after a resume nothing is begun until everything that stood in the log then has
//! been admitted, in every partition of the topic, whoever owns it.
//!
//! A suppression, a bounce or a deletion has a key of its own, so it may stand in another partition than the run that it
//! concerns, and may still be unread there. The ends are looked at once; what comes later does not move them.

use std::collections::BTreeMap;
use std::time::Duration;

use usher_proto::{Partition, Timestamp};

/// Interval between reads of the other replicas' frontiers from the store.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Delay before a failed read of the log's ends is repeated.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The end of a partition when it was last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The partition.
    pub partition: Partition,
    /// The oldest offset there was.
    pub low: i64,
    /// The offset that the next record would have got.
    pub end: i64,
}

/// What has still to be admitted before anything is begun.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unread {
    /// The partitions waited for. None while the log has not said yet where it ends.
    pub partitions: Vec<Partition>,
    /// Offsets below the ends seen that are not known to be admitted.
    pub events: i64,
}

#[derive(Debug)]
enum State {
    /// Everything has been admitted.
    Done,
    /// The log's ends are to be looked at, not before this time.
    Wanted(Option<Timestamp>),
    /// The log has been asked for its ends.
    Looking,
    /// The partitions that have not been admitted to the end seen, with that end and the last known frontier.
    Reading(BTreeMap<Partition, (i64, i64)>),
}

/// Whether everything that stood in the log at the last assignment or resume has been admitted.
#[derive(Debug)]
pub(super) struct CatchUp {
    state: State,
    /// Numbers the looks at the log's ends, so that an answer from before the last start does not count.
    look: u64,
    asking: bool,
    asked_at: Option<Timestamp>,
}

impl CatchUp {
    pub(super) fn new() -> Self {
        Self { state: State::Done, look: 0, asking: false, asked_at: None }
    }

    /// Nothing that is in the log now counts as read.
    pub(super) fn start(&mut self) {
        self.look += 1;
        self.state = State::Wanted(None);
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The number of a look at the log's ends that is to be taken now.
    pub(super) fn wants_look(&mut self, now: Timestamp) -> Option<u64> {
        let State::Wanted(not_before) = self.state else { return None };
        if not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.state = State::Looking;
        Some(self.look)
    }

    /// Whether an answer is that of the look that was asked for last.
    pub(super) fn is_current(&self, look: u64) -> bool {
        self.look == look && matches!(self.state, State::Looking)
    }

    /// The log has said where its partitions end; none if it could not be asked.
    pub(super) fn looked(&mut self, ends: Option<Vec<Seen>>, now: Timestamp) {
        self.state = match ends {
            None => State::Wanted(Some(now.plus(LOOK_AGAIN))),
            // A partition that holds nothing has nothing to say, read or not.
            Some(ends) => State::Reading(
                ends.into_iter()
                    .filter(|seen| seen.end > seen.low)
                    .map(|seen| (seen.partition, (seen.end, seen.low)))
                    .collect(),
            ),
        };
    }

    /// Takes in how far partitions have been admitted, by `frontier`.
    pub(super) fn read_on(&mut self, frontier: impl Fn(Partition) -> Option<i64>) {
        let State::Reading(unread) = &mut self.state else { return };
        unread.retain(|partition, (end, known)| {
            *known = frontier(*partition).map_or(*known, |frontier| frontier.max(*known));
            *known < *end
        });
        if unread.is_empty() {
            self.state = State::Done;
        }
    }

    /// The store has said how far it has admitted partitions, of those that somebody has ever owned; none if it could not
    /// be asked. A partition beyond the first `layout` that nobody has ever owned is no part of the topic as it is used.
    pub(super) fn told(&mut self, frontiers: Option<&BTreeMap<Partition, Option<i64>>>, layout: i32) {
        self.asking = false;
        let Some(frontiers) = frontiers else { return };
        if let State::Reading(unread) = &mut self.state {
            unread.retain(|partition, _| partition.0 < layout || frontiers.contains_key(partition));
        }
        self.read_on(|partition| frontiers.get(&partition).copied().flatten());
    }

    /// Whether the store is to be asked now how far the partitions have been admitted that are not `ours`.
    pub(super) fn wants_frontiers(&mut self, ours: impl Fn(Partition) -> bool, now: Timestamp) -> bool {
        let State::Reading(unread) = &self.state else { return false };
        let recently = self.asked_at.is_some_and(|at| now.since(at) < ASK_EVERY);
        if self.asking || recently || unread.keys().all(|partition| ours(*partition)) {
            return false;
        }
        (self.asking, self.asked_at) = (true, Some(now));
        true
    }

    /// What is waited for, if anything is.
    pub(super) fn unread(&self) -> Option<Unread> {
        match &self.state {
            State::Done => None,
            State::Wanted(_) | State::Looking => Some(Unread::default()),
            State::Reading(unread) => Some(Unread {
                partitions: unread.keys().copied().collect(),
                events: unread.values().map(|(end, known)| end - known).sum(),
            }),
        }
    }
}
