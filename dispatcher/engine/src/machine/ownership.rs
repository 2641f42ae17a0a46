//! Ownership of partitions: taking a partition over, reading it, handing it back.

use std::time::Duration;

use usher_proto::{Assignment, Epoch, Offset, Partition, SubjectId, Timestamp};

use super::{Decision, DueQuery, Engine};
use crate::arrival::{Admission, Arrival, Batch, Ownership, RefusedRecord};
use crate::partitions::{Owned, OwnershipPhase, Queue, Search};
use crate::start::{CannotStart, Known, StartFrom, start_offset};
use crate::{Given, LogCommand, Run, Step, StoreRequest, StoreWrite};

/// Time that steps in flight in a revoked partition may take before it is handed back. Shorter than the
/// log's own deadline.
const DRAIN: Duration = Duration::from_secs(4);
/// Maximum number of records admitted in one batch.
const BATCH: usize = 256;

/// Records by their meaning.
#[derive(Default)]
pub(super) struct Records {
    /// Events for the flow.
    pub(super) arrivals: Vec<Arrival>,
    /// Records that no flow can process.
    pub(super) refused: Vec<RefusedRecord>,
}

impl Engine {
    pub(super) fn given(&mut self, assignment: Assignment, partitions: Vec<Given>, decision: &mut Decision<'_>) {
        if partitions.is_empty() {
            return;
        }
        self.catch_up.start();
        let names = partitions.iter().map(|given| given.partition).collect();
        self.acquiring.extend(partitions.into_iter().map(|given| (given.partition, (assignment, given))));
        decision.steps.push(Step::Store(StoreRequest::Write(StoreWrite::Acquire { assignment, partitions: names })));
    }

    pub(super) fn acquired(&mut self, assignment: Assignment, owned: Vec<Ownership>, decision: &mut Decision<'_>) {
        if let Some((partition, problem)) = self.cannot_start(assignment, &owned) {
            return decision.steps.push(Step::Fail(partition, problem));
        }
        let mut offsets = Vec::with_capacity(owned.len());
        for Ownership { partition, epoch, frontier, operator_offset, late } in owned {
            // A partition that was revoked and assigned again meanwhile is acquired again, under the later assignment.
            let asked = self.acquiring.get(&partition).filter(|(asked, _)| *asked == assignment);
            let Some((_, given)) = asked.copied() else { continue };
            self.acquiring.remove(&partition);
            // `cannot_start` has reported a problem already.
            let Ok(start) = self.start(&given, frontier, operator_offset, late) else { continue };
            offsets.push((partition, start));
            // The starting offset is stored before anything is read, so that the next start need not be configured again.
            let is_stored = frontier == Some(start) && operator_offset.is_none();
            let phase = if is_stored { OwnershipPhase::Active } else { OwnershipPhase::Starting };
            let mut owned = Owned {
                assignment,
                epoch,
                frontier: start,
                next: start,
                read_at: decision.now,
                phase,
                admitting: false,
                waiting: Queue::default(),
                search: Search::From(None),
            };
            if !is_stored {
                owned.waiting.push(self.batch(partition, epoch, start, Records::default()), BATCH);
            }
            self.forget(partition);
            self.partitions.0.insert(partition, owned);
        }
        if offsets.is_empty() {
            return; // all of it was revoked meanwhile
        }
        let paused = offsets
            .iter()
            .filter(|_| self.reading_paused)
            .map(|(partition, _)| Step::Log(LogCommand::Pause(*partition)));
        let paused: Vec<Step> = paused.collect();
        decision.steps.push(Step::Log(LogCommand::Start { assignment, offsets }));
        decision.steps.extend(paused);
    }

    fn start(
        &self,
        given: &Given,
        stored: Option<Offset>,
        operator_offset: Option<Offset>,
        late: bool,
    ) -> Result<Offset, CannotStart> {
        let from = if late { Some(StartFrom::Beginning) } else { self.limits.from };
        start_offset(Known { committed: given.committed, stored, operator_offset }, given.low, given.end, from)
    }

    /// Returns the problem because of which one of these partitions cannot be started, if there is one. An empty store
    /// shows only in some partitions: in others the group may have committed nothing yet, and there the flow looks new.
    fn cannot_start(&self, assignment: Assignment, owned: &[Ownership]) -> Option<(Partition, CannotStart)> {
        let problem = |of: &Ownership| {
            let (_, given) = self.acquiring.get(&of.partition).filter(|(asked, _)| *asked == assignment)?;
            Some((of.partition, self.start(given, of.frontier, of.operator_offset, of.late).err()?))
        };
        let problems: Vec<_> = owned.iter().filter_map(problem).collect();
        let is_of_the_store =
            |(_, problem): &&(Partition, CannotStart)| matches!(problem, CannotStart::StoreEmpty { .. });
        problems.iter().find(is_of_the_store).or(problems.first()).copied()
    }

    fn batch(&self, partition: Partition, epoch: Epoch, frontier: Offset, records: Records) -> Batch {
        let Records { arrivals, refused } = records;
        let (flow_version, connector) = self.first.clone();
        Batch { partition, epoch, frontier, arrivals, refused, flow_version, connector }
    }

    pub(super) fn read(
        &mut self,
        assignment: Assignment,
        partition: Partition,
        next: Offset,
        records: Records,
        now: Timestamp,
    ) {
        let ours = |owned: &&mut Owned| owned.assignment == assignment && !owned.is_leaving();
        let Some(owned) = self.partitions.0.get_mut(&partition).filter(ours) else { return };
        // The log may report late that it has reached an end.
        let next = next.max(owned.next);
        owned.next = next;
        owned.read_at = now;
        let epoch = owned.epoch;
        // Records that have to wait are admitted together.
        let batch = self.batch(partition, epoch, next, records);
        if let Some(owned) = self.partitions.0.get_mut(&partition) {
            owned.waiting.push(batch, BATCH);
        }
    }

    pub(super) fn admit_next(&mut self, decision: &mut Decision<'_>) {
        if self.stopping {
            return;
        }
        let partitions: Vec<Partition> = self.partitions.0.keys().copied().collect();
        decision.steps.extend(
            partitions
                .into_iter()
                .filter_map(|p| self.partitions.next_batch(p))
                .map(|batch| Step::Store(StoreRequest::Write(StoreWrite::Admit(batch)))),
        );
    }

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
        let Some(Admission { heads, woken, behind, cancelled, .. }) = admission else {
            return self.rejoin("the store says that a partition is somebody else's", decision);
        };
        owned.frontier = frontier;
        owned.started();
        if retried {
            owned.search_again();
        }
        let leaving = owned.is_leaving();
        decision.steps.push(Step::Log(LogCommand::Commit(partition, frontier)));
        for (key, event) in cancelled {
            if self.lanes.cancel(&key, &event) {
                self.load(&key, partition, decision);
            }
        }
        if !leaving && !self.stopping {
            heads.into_iter().for_each(|run| self.take_in(run, false));
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

    pub(super) fn due(&mut self, heads: Vec<Run>, behind: &[SubjectId], retried: bool) {
        if let DueQuery::Asked(at) = self.due {
            self.due = DueQuery::Answered(at);
        }
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

    pub(super) fn taken(&mut self, partitions: &[Partition], lost: bool, now: Timestamp) {
        for partition in partitions {
            self.acquiring.remove(partition);
            if lost {
                self.forget(*partition);
            } else if let Some(owned) = self.partitions.0.get_mut(partition) {
                owned.phase = OwnershipPhase::Leaving(now.plus(DRAIN));
                owned.waiting.clear();
                self.lanes.leave_partition(*partition);
            }
        }
        self.handing_back |= !lost;
    }

    /// Hands back the revoked partitions once nothing of them is in flight, or their deadline has passed.
    pub(super) fn hand_back(&mut self, decision: &mut Decision<'_>) {
        if !self.handing_back {
            return;
        }
        let leaving = self.partitions.leaving();
        let settled = |partition: &Partition| {
            let owned = &self.partitions.0[partition];
            let idle = !owned.admitting && !self.lanes.is_busy(*partition);
            idle || owned.drain_deadline().is_some_and(|by| decision.now >= by)
        };
        if leaving.iter().all(settled) {
            leaving.into_iter().for_each(|partition| self.forget(partition));
            self.handing_back = false;
            decision.steps.push(Step::Log(LogCommand::Release));
        }
    }

    pub(super) fn forget(&mut self, partition: Partition) {
        self.partitions.0.remove(&partition);
        self.lanes.drop_partition(partition);
    }

    /// Rejoins the group if a partition has records to read, is not paused, and delivers nothing: the client is stuck.
    pub(super) fn ends(&mut self, ends: &[(Partition, Offset)], decision: &mut Decision<'_>) {
        let mut silent = false;
        for (partition, end) in ends {
            let Some(owned) = self.partitions.0.get_mut(partition) else { continue };
            let unread = *end > owned.next && !self.reading_paused && owned.waiting.is_empty() && !owned.admitting;
            if !unread || owned.is_leaving() {
                owned.read_at = decision.now;
            }
            silent |= decision.now.since(owned.read_at) > self.limits.stall;
        }
        if silent {
            self.rejoin("a partition has events and delivers none", decision);
        }
    }

    /// Forgets everything and requests a rejoin of the group, which then assigns partitions again.
    pub(super) fn rejoin(&mut self, why: &'static str, decision: &mut Decision<'_>) {
        self.acquiring.clear();
        let ours: Vec<Partition> = self.partitions.0.keys().copied().collect();
        ours.into_iter().for_each(|partition| self.forget(partition));
        self.handing_back = false;
        decision.steps.push(Step::Log(LogCommand::Rejoin(why)));
    }
}
