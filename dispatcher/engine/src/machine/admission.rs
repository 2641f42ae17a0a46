//! From records to admissions: what was read waits here, and is admitted in batches, one at a time for each partition.

use std::collections::BTreeSet;
use std::time::Duration;

use usher_proto::{Assignment, Epoch, Offset, Partition, SubjectId, Timestamp};

use super::{Decision, Engine};
use crate::arrival::{Arrival, Batch, RefusedRecord};
use crate::partitions::{Beginning, Owned};
use crate::{Step, StoreRequest, StoreWrite};

/// Maximum number of records admitted in one batch.
pub(super) const BATCH: usize = 256;

/// Part of the slots that must be free before events are admitted for them: few transactions with many events cost less than
/// many with few.
const FREE_PART: usize = 4;
/// Interval at which events are admitted while no slot is free: commands, news and cancellations do not wait for slots.
const ADMITS_EVERY: Duration = Duration::from_millis(50);

/// The pace at which steps end and so make slots free.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    /// Number of steps that have ended.
    pub(super) ended: usize,
    /// Number of steps that ended during the last admission.
    during_admission: usize,
}

impl Turnover {
    /// Learns from an admission that began when so many steps had ended.
    pub(super) fn learn(&mut self, ended_before: usize) {
        self.during_admission = self.ended.wrapping_sub(ended_before);
    }
}

/// Records by their meaning.
#[derive(Default)]
pub(super) struct Records {
    /// Events for the flow.
    pub(super) arrivals: Vec<Arrival>,
    /// Records that no flow can process.
    pub(super) refused: Vec<RefusedRecord>,
}

impl Engine {
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
        let arrivals = records.arrivals.into_iter().map(|arrival| owned.ahead.without_news(arrival)).collect();
        let records = Records { arrivals, ..records };
        // Records that have to wait are admitted together.
        let batch = self.batch(partition, epoch, next, records);
        if let Some(owned) = self.partitions.0.get_mut(&partition) {
            owned.waiting.push(batch, BATCH);
        }
    }

    pub(super) fn admit_next(&mut self, decision: &mut Decision<'_>) {
        let partitions = self.partitions.admissible();
        if self.stopping || partitions.is_empty() || self.admits_from().is_some_and(|at| decision.now < at) {
            return;
        }
        self.admitted_at = decision.now;
        let few = if self.has_free_slots() { self.free_slots() } else { self.slots() };
        let most = if self.is_holding() { BATCH } else { few.div_ceil(partitions.len()) };
        let ahead = self.soon_free();
        for partition in partitions {
            // A key that has a lane waits for it and takes no slot, so that the events of a busy key keep nobody else's back.
            let needs_slot = |key: &SubjectId| !self.lanes.has(key);
            let Some(mut batch) = self.partitions.next_batch(partition, most, needs_slot) else { continue };
            batch.begins = self.may_begin(&batch, decision);
            if let Some(owned) = self.partitions.0.get_mut(&partition) {
                let (runs, catch_up) = (batch.begins.len(), self.catch_up.number());
                owned.beginning = Beginning { runs, catch_up, ended: self.turnover.ended, ahead };
            }
            decision.steps.push(Step::Store(StoreRequest::Write(StoreWrite::Admit(batch))));
        }
    }

    /// Returns the time from which events are admitted although their runs cannot begin; `None` if some could. Until then
    /// they wait here: runs that are admitted when there is a slot for them need no claim of their own.
    pub(super) fn admits_from(&self) -> Option<Timestamp> {
        (!self.has_free_slots() && !self.is_holding()).then(|| self.admitted_at.plus(ADMITS_EVERY))
    }

    /// Returns true if there are enough free slots to admit events for them.
    fn has_free_slots(&self) -> bool {
        self.free_slots() >= (self.slots() / FREE_PART).max(1)
    }

    /// Returns the number of steps that may be in flight at one destination.
    pub(super) fn slots(&self) -> usize {
        self.limits.slots_of_each()
    }

    /// Returns the number of slots that no run is about to take, with those that are free soon.
    fn free_slots(&self) -> usize {
        let free = self.slots_of(self.slots(), self.soon_free());
        free.saturating_sub(self.lanes.ready() + self.partitions.keys_in_admission())
    }

    /// Returns the number of slots that should become free while events are admitted: as many as during the last admission.
    pub(super) fn soon_free(&self) -> usize {
        self.turnover.during_admission.min(self.slots())
    }

    /// Returns a batch for admission that begins runs with the present version of the flow.
    pub(super) fn batch(&self, partition: Partition, epoch: Epoch, frontier: Offset, records: Records) -> Batch {
        let Records { arrivals, refused } = records;
        let (flow_version, connector) = self.first.clone();
        Batch { partition, epoch, frontier, arrivals, refused, flow_version, connector, begins: BTreeSet::new() }
    }
}
