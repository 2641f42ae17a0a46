//! Views of many rows at once, for operators. Every statement reads a bounded number of rows by an index, whatever the
//! tables hold; where that bound cuts something off, the answer says so.

mod actions;
mod content;
mod counts;
mod dead_letters;
mod events;
mod newest;
mod people;
mod replay;
mod standing;
mod status;
mod targets;

pub use content::RunContent;
pub use counts::{FlowCounts, FlowVersion, PauseRecord, RecentRuns};
pub use dead_letters::{DeadLetterCursor, DeadLetterQuery, DeadLetterRow};
pub use events::{EventCursor, EventPage, EventQuery, EventRow, RunCell};
pub use newest::RunMark;
pub use people::SubjectRow;
use serde::Serialize;
pub use standing::StandingRuns;
pub use status::{AccountShares, FlowPosition, QuotaUse};
pub use targets::{CommandRow, MovableRow, RunTargetRow};

/// Largest number of rows of one flow that a statement reads.
pub const SCAN: usize = 10_000;

/// A number that was counted up to a bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BoundedCount {
    /// The number, or the bound if there are more.
    pub count: u64,
    /// True if there are more.
    pub more: bool,
}

impl BoundedCount {
    /// Adds another number of the same kind of things.
    pub fn add(&mut self, of: Self) {
        self.count += of.count;
        self.more |= of.more;
    }
}

impl std::fmt::Display for BoundedCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.count.to_string();
        let head = digits.len() % 3;
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && at % 3 == head {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        f.write_str(if self.more { "+" } else { "" })
    }
}

/// Returns the bound as a parameter.
fn bound(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_groups_of_digits_and_a_sign_where_there_are_more() {
        let text = |count, more| BoundedCount { count, more }.to_string();
        for (count, shown) in
            [(0, "0"), (12, "12"), (123, "123"), (1234, "1,234"), (123_456, "123,456"), (1_234_567, "1,234,567")]
        {
            assert_eq!(text(count, false), shown);
        }
        assert_eq!(text(10_000, true), "10,000+");
    }
}
