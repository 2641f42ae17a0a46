//! The waits and pauses in the store, and the time of the first one that ends.
//!
//! Nothing is asked regularly: each answer of the store names the next end, and later ones are known from the changes that the
//! engine has written itself. Only this process writes runs of its partitions, so nothing else can shorten a wait, except for
//! the correction of a clock that was ahead, and a partition can be lost unnoticed. For these there is [`LOOK_EVERY`].

use std::time::Duration;

use usher_proto::{SubjectId, Timestamp};

use super::{Decision, Engine};
use crate::partitions::Owned;
use crate::{ChangeKind, Changed, Run, Step, StoreRequest, StoreWrite};

/// Longest interval between queries, whatever is known.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Queries are made at multiples of this time, in ms. Waits that end within it are ended together, whosever they are: so the
/// waits of one user move the time of no other's.
const TICK: i64 = 100;

/// The query for waits and pauses that are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Query {
    /// None was made.
    NotYet,
    /// One was made at this time, and is not answered.
    Asked(Timestamp),
    /// The last one was made at this time, and is answered.
    Answered(Timestamp),
}

/// The time of the next end of a wait or pause, as far as known, and the query for those that are over.
#[derive(Debug)]
pub(super) struct DueWatch {
    query: Query,
    /// The first end that is known; absent if no run waits in the store.
    next: Option<Timestamp>,
}

impl DueWatch {
    pub(super) fn new() -> Self {
        Self { query: Query::NotYet, next: None }
    }

    /// Takes in that a wait or a pause may end at this time, or that one may be over already.
    pub(super) fn learn(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |known| known.min(at)));
    }

    /// Takes in what the store's answer to a change tells of waits and pauses.
    pub(super) fn written(&mut self, kind: &ChangeKind, changed: Changed) {
        let (ChangeKind::Wait { until, .. } | ChangeKind::Park { until, .. }) = kind else { return };
        if changed == Changed::Written {
            self.learn(*until);
        }
    }

    fn asked(&mut self, now: Timestamp) {
        // The answer tells of everything that is written before it is given, and the answers to later changes come later.
        *self = Self { query: Query::Asked(now), next: None };
    }

    fn answered(&mut self, next: Option<Timestamp>) {
        if let Query::Asked(at) = self.query {
            self.query = Query::Answered(at);
        }
        next.into_iter().for_each(|at| self.learn(at));
    }

    /// Returns the time of the next query; absent while one is not answered.
    fn next_query(&self, now: Timestamp) -> Option<Timestamp> {
        match self.query {
            Query::NotYet => Some(now),
            Query::Asked(_) => None,
            // The clock was set back: how long ago that was is not known.
            Query::Answered(at) if at > now => Some(now),
            Query::Answered(at) => {
                let latest = at.plus(LOOK_EVERY);
                Some(tick_from(
                    self.next.map_or(latest, |next| next.min(latest)).max(at.plus(Duration::from_millis(1))),
                ))
            }
        }
    }
}

/// Returns the first tick at this time or later.
fn tick_from(at: Timestamp) -> Timestamp {
    let since = at.millis().rem_euclid(TICK);
    if since == 0 { at } else { Timestamp::from_millis(at.millis().saturating_add(TICK - since)) }
}

impl Engine {
    /// Takes the runs whose waits and pauses the store has ended, and the time at which the next one ends.
    pub(super) fn due(&mut self, heads: Vec<Run>, behind: &[SubjectId], next: Option<Timestamp>, retried: bool) {
        self.due.answered(next);
        for run in heads {
            let staying = self.partitions.0.get(&run.partition).is_some_and(|owned| !owned.is_leaving());
            if staying && !self.stopping {
                self.take_in(run, true);
            }
        }
        behind.iter().for_each(|key| self.lanes.behind(key));
        if retried {
            self.partitions.0.values_mut().for_each(Owned::search_again);
        }
    }

    /// Returns the time from which the store is to be asked for waits and pauses that are over; `None` while it must not
    /// be, or has not answered.
    pub(super) fn next_due_query(&self, now: Timestamp) -> Option<Timestamp> {
        // Not while the log may hold unread records that would cancel a waiting run.
        let may_ask = !self.is_holding() && !self.stopping && self.has_room() && self.time_ends();
        self.due.next_query(now).filter(|_| may_ask && !self.partitions.staying().is_empty())
    }

    pub(super) fn ask_due(&mut self, decision: &mut Decision<'_>) {
        if self.next_due_query(decision.now).is_some_and(|at| decision.now >= at) {
            self.due.asked(decision.now);
            decision.steps.push(Step::Store(StoreRequest::Write(StoreWrite::Due(self.partitions.staying()))));
        }
    }
}
