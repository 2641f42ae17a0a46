//! The part of the store that is in memory. Reading pauses while there is enough to work on; what must be known of the rest
//! before the next step is read ahead. Heads that find no room, or may not begin, are left to the store and found there
//! when there is room.

use usher_proto::{Epoch, Offset, Partition, SubjectId};

use super::begin::HELD_KEPT;
use super::{Decision, Engine, FOUND_AT_ONCE};
use crate::arrival::Admission;
use crate::lanes::WINDOW;
use crate::partitions::{Owned, Search};
use crate::{LogCommand, Run, Step, StoreRead, StoreRequest};

/// Number of runs in memory above which heads are left to the store.
pub(super) const MAX_RUNS: usize = 3072;
/// Size of the runs in memory above which heads are left to the store, in bytes.
const MAX_RUNS_WEIGHT: usize = 48 * 1024 * 1024;
/// Number of events waiting for admission above which reading pauses; it resumes at half of it.
const MAX_WAITING: usize = 1024;
/// Size of the events waiting for admission above which reading pauses, in bytes; it resumes at half of it.
const MAX_WAITING_WEIGHT: usize = 16 * 1024 * 1024;
/// Number of heads left to the store, for lack of room or because their destinations take no calls, above which reading
/// pauses. Otherwise a backlog, or a destination that is down for long, would fill the store.
const MAX_LEFT_OUT: usize = 1_000_000;
/// Number of runs in memory that can be worked on, and of events about to become runs, above which reading pauses; it resumes
/// at three quarters of it. What is read sooner would have to be read back from the store. Below [`MAX_RUNS`] by what is
/// admitted meanwhile.
const MAX_COMING: usize = 2048;

impl Engine {
    pub(super) fn admitted(
        &mut self,
        partition: Partition,
        epoch: Epoch,
        frontier: Offset,
        admission: Option<Admission>,
        retried: bool,
        decision: &mut Decision<'_>,
    ) {
        let Some(owned) = self.partitions.current(partition, epoch) else { return };
        owned.admitting = false;
        owned.in_admission = 0;
        owned.keys_in_admission = 0;
        let beginning = std::mem::take(&mut owned.beginning);
        let Some(Admission { heads, followers, woken, behind, cancelled, .. }) = admission else {
            return self.rejoin("the store says that a partition is somebody else's", decision);
        };
        owned.frontier = frontier;
        owned.ahead.admitted(frontier);
        owned.started();
        let leaving = owned.is_leaving();
        if retried {
            // What the answer that was lost has told is not known.
            owned.search_again();
            self.lanes.unsure(partition);
            // Claims of runs that it has told of are given back, which the store does by pausing them.
            self.due.learn(decision.now);
        }
        decision.steps.push(Step::Log(LogCommand::Commit(partition, frontier)));
        for (key, event) in cancelled {
            if self.lanes.cancel(&key, &event) {
                self.load(&key, partition, decision);
            }
        }
        let (begun, heads): (Vec<Run>, Vec<Run>) = heads.into_iter().partition(|run| run.claimed.is_some());
        self.turnover.learn(beginning.ended);
        let current = !leaving && !self.stopping && beginning.catch_up == self.catch_up.number();
        let ahead = current.then_some(beginning.ahead);
        begun.into_iter().for_each(|run| self.begin_admitted(run, epoch, ahead, decision));
        if !leaving && !self.stopping {
            heads.into_iter().for_each(|run| self.take_in(run, false));
            for run in followers {
                let keep = !self.is_holding() && self.has_room();
                self.lanes.follow(run, keep);
            }
            woken.into_iter().for_each(|run| self.take_in(run, true));
        }
        behind.iter().for_each(|key| self.lanes.behind(key));
    }

    pub(super) fn found(&mut self, partition: Partition, epoch: Epoch, heads: Vec<Run>, all: bool) {
        let Some(owned) = self.partitions.current(partition, epoch) else { return };
        owned.searched(heads.last().map(|run| (run.position, run.event.reference())), all);
        if !owned.is_leaving() && !self.stopping {
            heads.into_iter().for_each(|run| self.take_in(run, true));
        }
    }

    /// Returns true if one more head may enter memory.
    pub(super) fn has_room(&self) -> bool {
        self.lanes.loaded() < MAX_RUNS && self.lanes.weight() < MAX_RUNS_WEIGHT
    }

    /// Takes a head from the store into memory, or leaves it to the store. `more`: there may be further runs
    /// of its key.
    pub(super) fn take_in(&mut self, run: Run, more: bool) {
        if !self.is_holding() && self.has_room() {
            return self.lanes.head(run, more);
        }
        if !self.is_holding() {
            self.deferred_heads += 1;
        }
        self.lanes.behind(&run.event.subject);
        if let Some(owned) = self.partitions.0.get_mut(&run.partition) {
            owned.search_from(&run);
        }
    }

    /// Searches the store for lanes that are not in memory, while there is room for them.
    pub(super) fn search(&mut self, decision: &mut Decision<'_>) {
        let urgent = self.limits.urgent;
        let back = |name: &String| {
            decision.destinations.is_closed(name, urgent, decision.now)
                || decision.destinations.admits(name, urgent, decision.now)
        };
        let few = |name: &String| self.lanes.held_for(name) < HELD_KEPT / 4;
        if self.deferred_destinations.iter().any(|name| back(name) && few(name)) {
            self.deferred_destinations.clear();
            self.deferred_heads = 0;
            self.partitions.0.values_mut().for_each(Owned::search_again);
        }
        if self.deferred_heads > 0
            && self.deferred_destinations.is_empty()
            && self.partitions.0.values().all(Owned::is_searched)
        {
            self.deferred_heads = 0;
        }
        if self.is_holding() || self.stopping {
            return;
        }
        let mut without = decision.destinations.held(urgent, decision.now);
        let full = |name: &String| self.lanes.held_for(name) >= HELD_KEPT && decision.destinations.has_quota(name);
        without.extend(self.lanes.held_destinations().into_iter().filter(full));
        without.dedup();
        // Heads that have been requested are about to enter memory, too.
        let mut coming = FOUND_AT_ONCE * self.partitions.asked();
        for (partition, owned) in &mut self.partitions.0 {
            let full = self.lanes.loaded() + coming + FOUND_AT_ONCE > MAX_RUNS;
            let room = !full && self.lanes.weight() < MAX_RUNS_WEIGHT;
            let Search::From(after) = &owned.search else { continue };
            if !room || owned.is_leaving() {
                continue;
            }
            self.deferred_destinations.extend(without.iter().cloned());
            let partition = *partition;
            let epoch = owned.epoch;
            let after = after.clone();
            let without = without.clone();
            decision.steps.push(Step::Store(StoreRequest::Read(StoreRead::Find { partition, epoch, after, without })));
            owned.search = Search::Asked;
            coming += FOUND_AT_ONCE;
        }
    }

    /// Pauses reading while too much waits for admission, and resumes it when half of that is admitted.
    pub(super) fn apply_backpressure(&mut self, decision: &mut Decision<'_>) {
        let (events, bytes) = self.partitions.waiting();
        let part = if self.reading_paused { 2 } else { 1 };
        let filling = self.deferred_heads > MAX_LEFT_OUT && !self.is_holding();
        let working = self.lanes.loaded().saturating_sub(self.lanes.resting() + self.lanes.held());
        let coming = working + events + self.partitions.in_admission();
        let most = if self.reading_paused { MAX_COMING / 4 * 3 } else { MAX_COMING };
        let enough = working > 0 && coming > most;
        // The same records would be read ahead, and those already admitted would have to be read back from the store.
        let ahead = self.is_catching_up_ahead();
        let pause = events > MAX_WAITING / part || bytes > MAX_WAITING_WEIGHT / part || filling || enough || ahead;
        if pause != self.reading_paused {
            self.reading_paused = pause;
            let command = if pause { LogCommand::Pause } else { LogCommand::Resume };
            decision.steps.extend(self.partitions.0.keys().map(|partition| Step::Log(command(*partition))));
        }
    }

    /// Requests more runs of a lane from the store.
    pub(super) fn load(&self, key: &SubjectId, partition: Partition, decision: &mut Decision<'_>) {
        if let Some(epoch) = self.partitions.epoch(partition) {
            let limit = if self.has_room() { WINDOW } else { 1 };
            decision.steps.push(Step::Store(StoreRequest::Read(StoreRead::Load {
                key: key.clone(),
                partition,
                epoch,
                limit,
            })));
        }
    }
}
