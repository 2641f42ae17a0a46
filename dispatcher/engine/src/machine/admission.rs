//! From records to admissions: what was read waits here, and is admitted in batches, one at a time for each partition.

use std::collections::BTreeSet;

use usher_proto::{Assignment, Epoch, Offset, Partition, Timestamp};

use super::{Decision, Engine};
use crate::arrival::{Arrival, Batch, RefusedRecord};
use crate::partitions::{Beginning, Owned};
use crate::{Step, StoreRequest, StoreWrite};

/// Maximum number of records admitted in one batch.
pub(super) const BATCH: usize = 256;

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
        if self.stopping {
            return;
        }
        let partitions: Vec<Partition> = self.partitions.0.keys().copied().collect();
        for partition in partitions {
            let Some(mut batch) = self.partitions.next_batch(partition) else { continue };
            batch.begins = self.may_begin(&batch, decision);
            if let Some(owned) = self.partitions.0.get_mut(&partition) {
                owned.beginning = Beginning { runs: batch.begins.len(), catch_up: self.catch_up.number() };
            }
            decision.steps.push(Step::Store(StoreRequest::Write(StoreWrite::Admit(batch))));
        }
    }

    /// Returns a batch for admission that begins runs with the present version of the flow.
    pub(super) fn batch(&self, partition: Partition, epoch: Epoch, frontier: Offset, records: Records) -> Batch {
        let Records { arrivals, refused } = records;
        let (flow_version, connector) = self.first.clone();
        Batch { partition, epoch, frontier, arrivals, refused, flow_version, connector, begins: BTreeSet::new() }
    }
}
