//! Where a flow begins to read a partition.

use std::fmt;

/// Where a flow that has never read the log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At the oldest event there is.
    Beginning,
    /// With what comes from now on.
    Now,
}

/// A partition cannot be started without losing or inventing something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotStart {
    /// The flow is new and the log already holds events; only its owner knows whether those concern it.
    SayFrom,
    /// Events between where the flow stands and the oldest one kept are gone.
    Gone {
        /// Where the flow must go on.
        at: i64,
        /// The oldest offset there is.
        low: i64,
    },
    /// The flow has been further than the log now reaches: the log was reset or restored.
    Ahead {
        /// Where the flow must go on.
        at: i64,
        /// The offset the next record will get.
        end: i64,
    },
}

impl fmt::Display for CannotStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SayFrom => f.write_str(
                "the flow is new and the log already holds events: say from = \"beginning\" or from = \"now\" in its file",
            ),
            Self::Gone { at, low } => write!(
                f,
                "the flow must go on at offset {at} but the log begins at {low}: events it had not read are gone"
            ),
            Self::Ahead { at, end } => write!(
                f,
                "the flow must go on at offset {at} but the log ends at {end}: the log was reset or restored"
            ),
        }
    }
}

/// The offset to begin at: the smaller of what the group committed and what the store holds, so that neither a lost
/// commit nor a restored store skips anything. `low` and `end` are the oldest offset and the next one.
pub fn start_offset(
    committed: Option<i64>,
    stored: Option<i64>,
    low: i64,
    end: i64,
    from: Option<From>,
) -> Result<i64, CannotStart> {
    let at = match (committed, stored) {
        (Some(committed), Some(stored)) => committed.min(stored),
        (Some(at), None) | (None, Some(at)) => at,
        (None, None) => {
            return match from {
                Some(From::Beginning) => Ok(low),
                Some(From::Now) => Ok(end),
                None if low == end => Ok(end),
                None => Err(CannotStart::SayFrom),
            };
        }
    };
    if at < low {
        Err(CannotStart::Gone { at, low })
    } else if at > end {
        Err(CannotStart::Ahead { at, end })
    } else {
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_both_memories_counts() {
        assert_eq!(start_offset(Some(7), Some(5), 0, 9, None), Ok(5));
        assert_eq!(start_offset(Some(4), Some(5), 0, 9, None), Ok(4));
        assert_eq!(start_offset(None, Some(5), 0, 9, None), Ok(5));
    }

    #[test]
    fn a_new_flow_on_a_log_with_events_must_say_from_where() {
        assert_eq!(start_offset(None, None, 0, 9, None), Err(CannotStart::SayFrom));
        assert_eq!(start_offset(None, None, 2, 9, Some(From::Beginning)), Ok(2));
        assert_eq!(start_offset(None, None, 2, 9, Some(From::Now)), Ok(9));
        assert_eq!(start_offset(None, None, 3, 3, None), Ok(3));
    }

    #[test]
    fn lost_events_are_reported_and_never_skipped() {
        assert_eq!(start_offset(Some(1), None, 4, 9, None), Err(CannotStart::Gone { at: 1, low: 4 }));
        assert_eq!(start_offset(Some(12), Some(12), 0, 9, None), Err(CannotStart::Ahead { at: 12, end: 9 }));
    }
}
