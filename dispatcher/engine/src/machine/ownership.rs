//! Ownership of partitions: taking a partition over and handing it back.

use std::collections::BTreeSet;
use std::time::Duration;

use usher_proto::{AssignedPartition, Assignment, Offset, Partition, Timestamp};

use super::admission::{BATCH, Records};
use super::{Decision, Engine};
use crate::ahead::Ahead;
use crate::arrival::Ownership;
use crate::partitions::{Beginning, Owned, OwnershipPhase, Queue, Search};
use crate::start::{CannotStart, Known, StartFrom, start_offset};
use crate::{CatchUpTarget, LogCommand, Seen, Step, StoreRequest, StoreWrite};

/// Time that steps in flight in a revoked partition may take before it is handed back. Shorter than the
/// log's own deadline.
const DRAIN: Duration = Duration::from_secs(4);

/// Partitions that the store has given, and whose ends in the log are being read again.
#[derive(Debug)]
pub(super) struct Unchecked {
    /// The number of the read.
    look: u64,
    assignment: Assignment,
    owned: Vec<Ownership>,
}

impl Engine {
    pub(super) fn assigned(
        &mut self,
        assignment: Assignment,
        partitions: Vec<AssignedPartition>,
        decision: &mut Decision<'_>,
    ) {
        if partitions.is_empty() {
            return;
        }
        self.catch_up.start();
        // The answer may have been lost with the former subscription.
        self.awaits_page = false;
        let names = partitions.iter().map(|assigned| assigned.partition).collect();
        self.acquiring.extend(partitions.into_iter().map(|assigned| (assigned.partition, (assignment, assigned))));
        decision.steps.push(Step::Store(StoreRequest::Write(StoreWrite::Acquire { assignment, partitions: names })));
    }

    pub(super) fn acquired(&mut self, assignment: Assignment, owned: Vec<Ownership>, decision: &mut Decision<'_>) {
        match self.cannot_start(assignment, &owned) {
            // The log's ends were read before the partitions were taken over. Until then their former owner may have read
            // further, so the frontier is compared with ends that are read now.
            Some((_, CannotStart::Ahead { .. })) => {
                self.catch_up.start();
                let look = self.catch_up.number();
                self.unchecked.push(Unchecked { look, assignment, owned });
                decision.steps.push(Step::Look(look));
            }
            problem => self.take_over(assignment, owned, problem, decision),
        }
    }

    /// Takes ends that were read after partitions had been taken over, and begins those.
    pub(super) fn ends_read(&mut self, look: u64, seen: Option<&CatchUpTarget>, decision: &mut Decision<'_>) {
        let Some(at) = self.unchecked.iter().position(|unchecked| unchecked.look == look) else { return };
        let Unchecked { assignment, owned, .. } = self.unchecked.remove(at);
        let Some(CatchUpTarget { ends, .. }) = seen else {
            if owned.iter().any(|of| self.acquiring.contains_key(&of.partition)) {
                self.rejoin("the ends of partitions cannot be read", decision);
            }
            return;
        };
        let is_ahead = |of: &&Ownership| matches!(self.problem(assignment, of), Some(CannotStart::Ahead { .. }));
        let ahead: BTreeSet<Partition> = owned.iter().filter(is_ahead).map(|of| of.partition).collect();
        for Seen { partition, low, end } in ends.iter().filter(|seen| ahead.contains(&seen.partition)) {
            if let Some((_, assigned)) = self.acquiring.get_mut(partition) {
                (assigned.low, assigned.end) = (*low, *end);
            }
        }
        let problem = self.cannot_start(assignment, &owned);
        self.take_over(assignment, owned, problem, decision);
    }

    fn take_over(
        &mut self,
        assignment: Assignment,
        owned: Vec<Ownership>,
        problem: Option<(Partition, CannotStart)>,
        decision: &mut Decision<'_>,
    ) {
        if let Some((partition, problem)) = problem {
            return decision.steps.push(Step::Fail(partition, problem));
        }
        let mut offsets = Vec::with_capacity(owned.len());
        for Ownership { partition, epoch, frontier, told, operator_offset, late } in owned {
            // A partition that was revoked and assigned again meanwhile is acquired again, under the later assignment.
            let asked = self.acquiring.get(&partition).filter(|(asked, _)| *asked == assignment);
            let Some((_, assigned)) = asked.copied() else { continue };
            self.acquiring.remove(&partition);
            // `cannot_start` has reported a problem already.
            let Ok(start) = self.start(&assigned, frontier, operator_offset, late) else { continue };
            offsets.push((partition, start));
            // Another version may have understood the records otherwise.
            let told = told.filter(|(_, version)| *version == self.first.0).map_or(start, |(told, _)| told);
            // The starting offset is stored before anything is read, so that the next start need not be configured again.
            let is_stored = frontier == Some(start) && operator_offset.is_none();
            let phase = if is_stored { OwnershipPhase::Active } else { OwnershipPhase::Starting };
            let mut owned = Owned {
                assignment,
                epoch,
                frontier: start,
                next: start,
                end: assigned.end,
                ahead: Ahead::new(start, told),
                read_at: decision.now,
                phase,
                admitting: false,
                in_admission: 0,
                keys_in_admission: 0,
                beginning: Beginning::default(),
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
        // The waits of these partitions are not known yet.
        self.due.learn(decision.now);
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
        assigned: &AssignedPartition,
        stored: Option<Offset>,
        operator_offset: Option<Offset>,
        late: bool,
    ) -> Result<Offset, CannotStart> {
        let from = if late { Some(StartFrom::Beginning) } else { self.limits.from };
        start_offset(Known { committed: assigned.committed, stored, operator_offset }, assigned.low, assigned.end, from)
    }

    /// Returns the problem because of which one of these partitions cannot be started, if there is one. An empty store
    /// shows only in some partitions: in others the group may have committed nothing yet, and there the flow looks new.
    fn cannot_start(&self, assignment: Assignment, owned: &[Ownership]) -> Option<(Partition, CannotStart)> {
        let problem = |of: &Ownership| Some((of.partition, self.problem(assignment, of)?));
        let problems: Vec<_> = owned.iter().filter_map(problem).collect();
        let is_of_the_store =
            |(_, problem): &&(Partition, CannotStart)| matches!(problem, CannotStart::StoreEmpty { .. });
        problems.iter().find(is_of_the_store).or(problems.first()).copied()
    }

    /// Returns the problem because of which this partition cannot be started, if there is one and it is still assigned.
    fn problem(&self, assignment: Assignment, of: &Ownership) -> Option<CannotStart> {
        let (_, assigned) = self.acquiring.get(&of.partition).filter(|(asked, _)| *asked == assignment)?;
        self.start(assigned, of.frontier, of.operator_offset, of.late).err()
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
            self.partitions.ends(*partition, *end);
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
        self.unchecked.clear();
        let ours: Vec<Partition> = self.partitions.0.keys().copied().collect();
        ours.into_iter().for_each(|partition| self.forget(partition));
        self.handing_back = false;
        decision.steps.push(Step::Log(LogCommand::Rejoin(why)));
    }
}
