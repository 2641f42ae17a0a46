//! The log: partitions of records with gaps between their offsets, and what the group has committed.

/// One partition.
#[derive(Debug, Default)]
pub(super) struct PartitionLog {
    /// Offset and number of the event, in order.
    pub(super) records: Vec<(i64, u32)>,
    /// The offset that the next record gets.
    pub(super) end: i64,
    pub(super) committed: Option<i64>,
}

impl PartitionLog {
    /// Where an event stands that may have come more than once: the first time.
    pub(super) fn first(&self, event: u32) -> Option<i64> {
        self.records.iter().find(|(_, other)| *other == event).map(|(offset, _)| *offset)
    }
}

/// All partitions.
#[derive(Debug, Default)]
pub(super) struct Log(pub(super) Vec<PartitionLog>);

impl Log {
    pub(super) fn new(partitions: usize) -> Self {
        Self((0..partitions).map(|_| PartitionLog::default()).collect())
    }

    /// Appends an event after `gap` offsets that hold nothing.
    pub(super) fn append(&mut self, partition: usize, event: u32, gap: i64) {
        let log = &mut self.0[partition];
        let offset = log.end + gap;
        log.records.push((offset, event));
        log.end = offset + 1;
    }

    /// The records from this offset on, at most so many, and the offset after them.
    pub(super) fn read(&self, partition: usize, from: i64, most: usize) -> (&[(i64, u32)], i64) {
        let log = &self.0[partition];
        let first = log.records.partition_point(|(offset, _)| *offset < from);
        let last = (first + most).min(log.records.len());
        let next = if last == log.records.len() { log.end } else { log.records[last - 1].0 + 1 };
        (&log.records[first..last], next)
    }
}
