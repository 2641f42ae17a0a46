//! Assignment and revocation of partitions, and the leave of the group.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use usher_proto::{AssignedPartition, Assignment, Offset, Partition};

use super::{Owned, Reader};
use crate::LogError;
use crate::kafka::query::offsets;
use crate::kafka::rebalance::{self, RebalanceEvent};
use crate::kafka::{QUESTION_DEADLINE, unavailable};
use crate::subscription::LogEvent;

/// Interval between attempts to query the offsets of an assignment.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Time for which a revoked partition may be kept to finish what is in flight. It is below the session timeout of ten
/// seconds, so that the group does not take this member for dead meanwhile.
const RELEASE_DEADLINE: Duration = Duration::from_secs(6);

/// The latest assignment in this process.
static LATEST_ASSIGNMENT: AtomicU64 = AtomicU64::new(0);

impl Reader {
    pub(super) fn assigned(&mut self, partitions: Vec<Partition>) {
        match self.fetch_positions(&partitions) {
            Ok(assigned) => {
                let assignment = Assignment(LATEST_ASSIGNMENT.fetch_add(1, Ordering::SeqCst) + 1);
                self.pending_rebalances.assigned(assignment, &partitions);
                self.ends.extend(assigned.iter().map(|found| (found.partition, found.end)));
                self.pending.push_back(LogEvent::Assigned { assignment, partitions: assigned });
            }
            Err(error) => {
                tracing::warn!(group = self.group, %error, "fetching committed offsets failed; retrying");
                self.unasked.extend(partitions);
                self.ask_at = Instant::now() + ASK_AGAIN;
            }
        }
    }

    fn fetch_positions(&self, partitions: &[Partition]) -> Result<Vec<AssignedPartition>, LogError> {
        let list = self.list(partitions, KafkaOffset::Invalid).map_err(unavailable)?;
        let committed = self.consumer.committed_offsets(list.clone(), QUESTION_DEADLINE).map_err(unavailable)?;
        // The low watermarks are queried before the ends, so that none is above its end.
        let low = offsets(&self.consumer, list.clone(), KafkaOffset::Beginning)?;
        let end = offsets(&self.consumer, list, KafkaOffset::End)?;
        let mut assigned = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let (Some(&low), Some(&end)) = (low.get(partition), end.get(partition)) else {
                return Err(unavailable(format!("nothing was said of partition {partition}")));
            };
            let committed = match committed.find_partition(&self.topic, partition.0) {
                Some(found) => {
                    found.error().map_err(unavailable)?;
                    found.offset()
                }
                None => KafkaOffset::Invalid,
            };
            let committed = if let KafkaOffset::Offset(offset) = committed { Some(Offset(offset)) } else { None };
            assigned.push(AssignedPartition { partition: *partition, committed, low, end });
        }
        Ok(assigned)
    }

    pub(super) fn start(&mut self, assignment: Assignment, offsets: &[(Partition, Offset)]) {
        let awaited = self.pending_rebalances.start(assignment);
        if awaited.is_empty() {
            return; // revoked before the start
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets.iter().filter(|(partition, _)| awaited.contains(partition)) {
            let end = self.ends.remove(partition);
            self.partitions.insert(*partition, Owned { assignment, frontier: None, end, next: *offset });
            if let Err(error) = list.add_partition_offset(&self.topic, partition.0, KafkaOffset::Offset(offset.0)) {
                tracing::error!(group = self.group, %error, %offset, "offset out of range");
            }
        }
        if let Err(error) = self.consumer.incremental_assign(&list) {
            tracing::error!(group = self.group, %error, "assigning partitions failed");
        }
        // Commits made during the rebalance were refused.
        self.commit_again();
        // librdkafka keeps a partition paused if it was paused when it was last revoked.
        self.set_paused(&awaited, false);
    }

    pub(super) fn revoked(&mut self, partitions: Vec<Partition>) {
        self.forget(&partitions);
        self.pending_rebalances.revoked(&partitions, Instant::now() + RELEASE_DEADLINE);
        self.pending.push_back(LogEvent::Revoked { partitions, lost: false });
    }

    pub(super) fn lost(&mut self, partitions: Vec<Partition>) {
        self.forget(&partitions);
        self.pending_rebalances.lost(&partitions);
        self.partitions.retain(|partition, _| !partitions.contains(partition));
        self.backpressure.forget(&partitions);
        self.pending.push_back(LogEvent::Revoked { partitions, lost: true });
    }

    /// Drops what was read of these partitions and not delivered. Their next owner reads it again.
    fn forget(&mut self, partitions: &[Partition]) {
        self.unasked.retain(|partition| !partitions.contains(partition));
        self.pending.retain(|event| match event {
            LogEvent::Records { partition, .. } | LogEvent::Reached { partition, .. } => {
                !partitions.contains(partition)
            }
            LogEvent::Assigned { .. } | LogEvent::Revoked { .. } | LogEvent::Failed(_) => true,
        });
    }

    /// Hands revoked partitions back. Their last commit is not waited for: librdkafka answers the group after it.
    pub(super) fn hand_back(&mut self, partitions: &BTreeSet<Partition>) {
        self.commit(|partition| partitions.contains(partition));
        self.partitions.retain(|partition, _| !partitions.contains(partition));
        self.backpressure.forget(partitions);
        let handed_back =
            self.list(partitions, KafkaOffset::Invalid).and_then(|list| rebalance::hand_back(&self.consumer, &list));
        if let Err(error) = handed_back {
            tracing::warn!(group = self.group, %error, "releasing revoked partitions failed");
        }
    }

    /// Writes the last commits and answers every pending rebalance. The close that follows waits for the commits, and
    /// would wait for those answers without limit.
    pub(super) fn leave(&mut self) {
        self.commit(|_| true);
        self.consumer.context().close();
        let mut untaken: BTreeSet<Partition> =
            self.pending_rebalances.starts().chain(std::mem::take(&mut self.unasked)).collect();
        while let Some(change) = self.consumer.context().take() {
            match change {
                RebalanceEvent::Assigned(partitions) => untaken.extend(partitions),
                RebalanceEvent::Revoked(partitions) => self.pending_rebalances.revoked(&partitions, Instant::now()),
                RebalanceEvent::Lost(_) | RebalanceEvent::Unchanged => {}
            }
        }
        if !untaken.is_empty() {
            let taken = self.list(&untaken, KafkaOffset::End).and_then(|list| self.consumer.incremental_assign(&list));
            if let Err(error) = taken {
                tracing::warn!(group = self.group, %error, "answering an assignment while leaving the group failed");
            }
        }
        while let Some(partitions) = self.pending_rebalances.next_release() {
            self.hand_back(&partitions);
        }
    }
}
