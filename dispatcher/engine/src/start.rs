//! The offset at which a flow begins to read a partition.

use std::fmt;

use usher_proto::Offset;

/// The starting point of a flow that has never read the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// The oldest event in the log.
    Beginning,
    /// The first event that arrives after the start.
    Now,
}

/// The known positions of a flow in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// The group's committed offset; absent if nothing was committed.
    pub committed: Option<Offset>,
    /// The store's frontier; absent if the flow never read the partition.
    pub stored: Option<Offset>,
    /// The offset that an operator has chosen, which takes precedence over both; absent if there is none.
    pub operator_offset: Option<Offset>,
}

/// A partition cannot be started without losing or inventing events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotStart {
    /// The flow is new and the log already holds events; only the flow's owner knows if those concern it.
    FromRequired,
    /// Events between the flow's position and the oldest one in the log are gone.
    Gone {
        /// The offset at which the flow must continue.
        at: Offset,
        /// The oldest offset in the log.
        low: Offset,
    },
    /// The flow's position is beyond the end of the log: the log was reset or restored.
    Ahead {
        /// The offset at which the flow must continue.
        at: Offset,
        /// The offset that the next record will get.
        end: Offset,
    },
    /// The group has read events, but the store has no record of the flow: the store was lost, or is another one.
    StoreEmpty {
        /// The group's committed offset.
        committed: Offset,
    },
}

impl fmt::Display for CannotStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromRequired => f.write_str(
                "the flow is new and the log already holds events: say from = \"beginning\" or from = \"now\" in its file",
            ),
            Self::Gone { at, low } => write!(
                f,
                "the flow must go on at offset {at} but the log begins at {low}: events it had not read are gone, by \
                 retention or by a restore. Restore the log, or accept that they are lost: usher seek FLOW --to beginning"
            ),
            Self::Ahead { at, end } => write!(
                f,
                "the flow must go on at offset {at} but the log ends at {end}: the log was reset or restored, or USHER_LOG \
                 names another one. Restore the log that belongs to the store; or go on with this one, usher seek FLOW --to \
                 beginning (what it holds and the store knows is not done again) or --to end (what it holds is passed over)"
            ),
            Self::StoreEmpty { committed } => write!(
                f,
                "the group has read up to offset {committed} and the store knows nothing of the flow: its database was lost, \
                 or USHER_STORE names another one. Restore the store; or go on without it: usher seek FLOW --to committed \
                 (what was under way is gone), or --to beginning or a time (what was done since may be done again: \
                 destinations recognise it for a day or so)"
            ),
        }
    }
}

/// Returns the offset to begin at: the smaller of the group's committed offset and the store's frontier, so that
/// neither a lost commit nor a restored store skips anything. `low` is the oldest offset, `end` the next one.
///
/// # Errors
///
/// If starting would lose or invent events, which only an operator may accept.
pub fn start_offset(known: Known, low: Offset, end: Offset, from: Option<StartFrom>) -> Result<Offset, CannotStart> {
    let at = match known {
        // Retention may have removed the chosen offset since.
        Known { operator_offset: Some(operator_offset), .. } => return Ok(operator_offset.clamp(low, end.max(low))),
        Known { committed: Some(committed), stored: Some(stored), .. } => committed.min(stored),
        Known { committed: None, stored: Some(at), .. } => at,
        // A frontier is stored before anything is committed.
        Known { committed: Some(committed), stored: None, .. } if committed > Offset::ZERO => {
            return Err(CannotStart::StoreEmpty { committed });
        }
        Known { stored: None, .. } => {
            return match from {
                Some(StartFrom::Beginning) => Ok(low),
                Some(StartFrom::Now) => Ok(end),
                None if low == end => Ok(end),
                None => Err(CannotStart::FromRequired),
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

    fn known(committed: Option<i64>, stored: Option<i64>) -> Known {
        Known { committed: committed.map(Offset), stored: stored.map(Offset), operator_offset: None }
    }

    fn start(known: Known, low: i64, end: i64, from: Option<StartFrom>) -> Result<i64, CannotStart> {
        start_offset(known, Offset(low), Offset(end), from).map(|at| at.0)
    }

    #[test]
    fn the_smaller_of_both_memories_counts() {
        assert_eq!(start(known(Some(7), Some(5)), 0, 9, None), Ok(5));
        assert_eq!(start(known(Some(4), Some(5)), 0, 9, None), Ok(4));
        assert_eq!(start(known(None, Some(5)), 0, 9, None), Ok(5));
    }

    #[test]
    fn a_new_flow_on_a_log_with_events_must_say_from_where() {
        let new = known(None, None);
        assert_eq!(start(new, 0, 9, None), Err(CannotStart::FromRequired));
        assert_eq!(start(new, 2, 9, Some(StartFrom::Beginning)), Ok(2));
        assert_eq!(start(new, 2, 9, Some(StartFrom::Now)), Ok(9));
        assert_eq!(start(new, 3, 3, None), Ok(3));
        assert_eq!(start(known(Some(0), None), 0, 0, None), Ok(0), "a commit of nothing says nothing");
    }

    #[test]
    fn lost_events_and_a_lost_store_are_reported_and_never_skipped() {
        assert_eq!(
            start(known(Some(1), Some(1)), 4, 9, None),
            Err(CannotStart::Gone { at: Offset(1), low: Offset(4) })
        );
        assert_eq!(
            start(known(Some(12), Some(12)), 0, 9, None),
            Err(CannotStart::Ahead { at: Offset(12), end: Offset(9) })
        );
        for from in [None, Some(StartFrom::Now), Some(StartFrom::Beginning)] {
            let found = start(known(Some(7), None), 0, 9, from);
            assert_eq!(found, Err(CannotStart::StoreEmpty { committed: Offset(7) }), "{from:?}");
        }
    }

    #[test]
    fn an_operators_word_counts_more_than_what_is_known_and_stays_within_the_log() {
        for (operator_offset, expected) in [(5, 5), (0, 2), (99, 9)] {
            for of in [known(Some(12), Some(12)), known(Some(7), None), known(Some(1), Some(1)), known(None, None)] {
                let of = Known { operator_offset: Some(Offset(operator_offset)), ..of };
                assert_eq!(start(of, 2, 9, None), Ok(expected), "{of:?}");
            }
        }
    }
}
