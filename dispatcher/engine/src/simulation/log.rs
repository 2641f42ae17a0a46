//! The log: partitions of records with gaps between their offsets, and the offsets that the group has committed.

use std::collections::HashMap;

use super::happening::EventPlan;

/// One partition of the log.
#[derive(Debug, Default)]
pub(super) struct PartitionLog {
    /// The offset of each record and the number of its event, in order.
    pub(super) records: Vec<(i64, u32)>,
    /// The offset that the next record gets.
    pub(super) end: i64,
    pub(super) committed: Option<i64>,
    /// For each user, the offset of the last record that cancels runs.
    pub(super) cancels: HashMap<u32, i64>,
}

impl PartitionLog {
    /// Returns the first offset of an event, which may be in the log several times.
    pub(super) fn first(&self, event: u32) -> Option<i64> {
        self.records.iter().find(|(_, other)| *other == event).map(|(offset, _)| *offset)
    }
}

/// All partitions of the log.
#[derive(Debug, Default)]
pub(super) struct SimulatedLog(pub(super) Vec<PartitionLog>);

impl SimulatedLog {
    pub(super) fn new(partitions: usize) -> Self {
        Self((0..partitions).map(|_| PartitionLog::default()).collect())
    }

    /// Appends an event after `gap` unused offsets.
    pub(super) fn append(&mut self, partition: usize, event: u32, of: &EventPlan, gap: i64) {
        let log = &mut self.0[partition];
        let offset = log.end + gap;
        if of.cancels {
            log.cancels.insert(of.user, offset);
        }
        log.records.push((offset, event));
        log.end = offset + 1;
    }

    /// Returns at most `most` records from this offset on, and the offset after them.
    pub(super) fn read(&self, partition: usize, from: i64, most: usize) -> (&[(i64, u32)], i64) {
        let log = &self.0[partition];
        let first = log.records.partition_point(|(offset, _)| *offset < from);
        let last = (first + most).min(log.records.len());
        let next = if last == log.records.len() { log.end } else { log.records[last - 1].0 + 1 };
        (&log.records[first..last], next)
    }
}
