//! The offset of a record within its partition.

use std::fmt;
use std::ops::Sub;

use serde::Serialize;

/// The offset of a record within its partition, or the end of a range of offsets. Offsets start at 0, ascend and may have
/// gaps.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Offset(pub i64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// Returns the next offset.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Sub for Offset {
    type Output = i64;

    /// Returns the number of offsets from `earlier` to this one.
    fn sub(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
