//! Judges if the clock that the engine's decisions rely on can be trusted. A wrong clock must not end anything that
//! ends by time: a wait, a run's life, the record of what was done.

use std::time::Duration;

use usher_proto::Timestamp;

/// Largest accepted difference between two clocks.
pub const MAX_SKEW: Duration = Duration::from_secs(2);
/// A store that was not used for longer than this gives no evidence that the machine's clock has not been set since.
const LONG_UNUSED: Duration = Duration::from_secs(24 * 3600);
/// Time after a start during which an unproven clock ends nothing.
const DISTRUSTED_FOR: Duration = Duration::from_secs(10 * 60);
/// Maximum age of a webhook that proves a clock: ingest rejects webhooks whose signed time differs more than this from
/// its own clock.
const PROOF_AGE: Duration = Duration::from_secs(5 * 60);

/// The state of a process's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// It is right, as far as can be determined.
    Right,
    /// There is no evidence that it is right: the store has no clock of its own, and was not used for long. Work
    /// continues; nothing ends by time.
    Unproven,
    /// It is wrong. Nothing is begun.
    Wrong,
}

/// The times that a store provides as evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// The store's own clock; absent if it has none apart from this machine's.
    pub own: Option<Timestamp>,
    /// The time of the store's last use by any process before this one; absent if it was never used, or has a clock of
    /// its own.
    pub last_used: Option<Timestamp>,
    /// The time at which the newest webhook in the store was received; absent if there is none.
    pub newest: Option<Timestamp>,
}

/// Judges a clock by a store's evidence. `now` is the process's clock, `running` the time since the
/// process was started.
pub fn judge(witness: &Witness, now: Timestamp, running: Duration) -> ClockState {
    if let Some(own) = witness.own {
        let close = now.since(own).max(own.since(now)) <= MAX_SKEW;
        return if close { ClockState::Right } else { ClockState::Wrong };
    }
    // A webhook's time is signed, and was close to the clock of the ingest process that accepted it.
    if witness.newest.is_some_and(|newest| newest.since(now) > PROOF_AGE) {
        return ClockState::Wrong;
    }
    let proven = witness.newest.is_some_and(|newest| now.since(newest) <= PROOF_AGE);
    let long_unused = witness.last_used.is_some_and(|used| now.since(used) > LONG_UNUSED);
    if long_unused && !proven && running < DISTRUSTED_FOR { ClockState::Unproven } else { ClockState::Right }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_767_261_600);
    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn of(witness: Witness, running: Duration) -> ClockState {
        judge(&witness, NOW, running)
    }

    #[test]
    fn a_store_with_a_clock_of_its_own_decides() {
        let own = |own| Witness { own: Some(own), last_used: None, newest: None };
        for (there, expected) in [
            (NOW, ClockState::Right),
            (NOW.plus(2 * SECOND), ClockState::Right),
            (NOW.minus(2 * SECOND), ClockState::Right),
            (NOW.plus(3 * SECOND), ClockState::Wrong),
            (NOW.minus(40 * DAY), ClockState::Wrong),
            (NOW.plus(40 * DAY), ClockState::Wrong),
        ] {
            assert_eq!(of(own(there), DAY), expected, "{there}");
        }
    }

    #[test]
    fn a_file_is_believed_where_it_was_used_of_late_or_a_webhook_is_new() {
        let file = |last_used, newest| Witness { own: None, last_used, newest };
        assert_eq!(of(file(None, None), SECOND), ClockState::Right, "a first start");
        assert_eq!(of(file(Some(NOW.minus(DAY)), None), SECOND), ClockState::Right);
        let long_ago = Some(NOW.minus(40 * DAY));
        assert_eq!(of(file(long_ago, None), SECOND), ClockState::Unproven);
        assert_eq!(of(file(long_ago, long_ago), SECOND), ClockState::Unproven);
        assert_eq!(of(file(long_ago, Some(NOW.minus(SECOND))), SECOND), ClockState::Right, "a webhook has come");
        assert_eq!(of(file(long_ago, None), 600 * SECOND), ClockState::Right, "it is believed in the end");
        assert_eq!(of(file(Some(NOW.plus(40 * DAY)), None), SECOND), ClockState::Right, "it was ahead before");
        let ahead = Some(NOW.plus(40 * DAY));
        assert_eq!(of(file(ahead, ahead), DAY), ClockState::Wrong, "a webhook was taken later than now");
    }
}
