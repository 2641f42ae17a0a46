//! The two numbers that tell owners of a partition apart: one counted by the log, one by the store.

use std::fmt;

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
