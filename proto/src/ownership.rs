//! The ownership of partitions: what the log says of an assigned one, and the two numbers that tell owners apart, one
//! counted by the log, one by the store.

use std::fmt;

use crate::{Offset, Partition};

/// A partition that the log has assigned to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignedPartition {
    /// The partition.
    pub partition: Partition,
    /// Offset that the group has committed: the next one to read. `None` if the group never committed.
    pub committed: Option<Offset>,
    /// Oldest offset that the log still holds.
    pub low: Offset,
    /// Offset that the next record will get.
    pub end: Offset,
}

/// The number of an assignment of partitions by the consumer group, ascending within one subscription. Messages carry it,
/// so that late ones about an earlier assignment are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment(pub u64);

impl Assignment {
    /// The assignment before the first one.
    pub const NONE: Self = Self(0);

    /// Returns the number of the next assignment.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The fencing token of a partition's owner: the store gives each new owner a higher one, and accepts no write with an
/// earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
