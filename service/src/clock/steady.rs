//! A time of day that does not jump.
//!
//! A machine's clock may be set while a process runs: by hand, by a time service after a start with a wrong clock, or
//! by a host that resumes a virtual machine. Without this clock, waits would end, requests would expire and pauses
//! until a given time would change with it.

use std::time::Duration;

use usher_proto::Timestamp;

/// Largest difference from the machine's clock, in ms, that is followed at once. Time services correct a clock
/// in small steps.
const FOLLOWED: i64 = 2_000;
/// Time after which a lasting difference of the machine's clock is adopted: the clock was then set on purpose.
const BELIEVED_AFTER: Duration = Duration::from_secs(15 * 60);

/// A clock that follows the machine's clock except for jumps. After a jump it continues with the time since boot, and
/// it adopts the new time after a quarter of an hour.
#[derive(Debug, Clone, Copy)]
pub struct SteadyClock {
    /// Difference between the time of day and the time since boot, in ms.
    offset: i64,
    /// Time since boot at which the machine's clock jumped. `None` while the two clocks agree.
    strayed_since: Option<Duration>,
}

impl SteadyClock {
    /// Creates a clock that starts with the time of the machine's clock.
    pub fn new(wall: Timestamp, boot: Duration) -> Self {
        Self { offset: wall.millis().saturating_sub(millis(boot)), strayed_since: None }
    }

    /// Returns the time of day, given the machine's clock and the time since boot.
    pub fn now(&mut self, wall: Timestamp, boot: Duration) -> Timestamp {
        let steady = millis(boot).saturating_add(self.offset);
        if wall.millis().abs_diff(steady) <= FOLLOWED.unsigned_abs() {
            self.adopt(wall, boot);
            return wall;
        }
        let since = *self.strayed_since.get_or_insert(boot);
        if boot.saturating_sub(since) >= BELIEVED_AFTER {
            self.adopt(wall, boot);
            return wall;
        }
        Timestamp::from_millis(steady)
    }

    /// Adopts the time of the machine's clock.
    pub fn adopt(&mut self, wall: Timestamp, boot: Duration) {
        *self = Self::new(wall, boot);
    }
}

fn millis(boot: Duration) -> i64 {
    i64::try_from(boot.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_seconds(1_767_261_600);
    const DAY: i64 = 24 * 3_600_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(START.millis() + millis)
    }

    #[test]
    fn a_jump_either_way_and_back_is_not_seen() {
        for jump in [40 * DAY, -40 * DAY, 3_600_000, -60_000, 2_001] {
            let mut clock = SteadyClock::new(START, Duration::from_secs(100));
            for second in 1..=800_u32 {
                let passed = i64::from(second) * 1_000;
                let wall = if (100..700).contains(&second) { at(passed + jump) } else { at(passed) };
                let now = clock.now(wall, Duration::from_secs(100 + u64::from(second)));
                assert_eq!(now, at(passed), "{jump} ms, after {second} s");
            }
        }
    }

    #[test]
    fn small_corrections_are_followed_and_a_lasting_change_is_believed() {
        let mut clock = SteadyClock::new(START, Duration::ZERO);
        assert_eq!(clock.now(at(2_900), Duration::from_secs(1)), at(2_900));
        assert_eq!(clock.now(at(2_000), Duration::from_secs(2)), at(2_000));
        let set = |second: i64| at(second * 1_000 + 40 * DAY);
        assert_eq!(clock.now(set(3), Duration::from_secs(3)), at(3_000));
        assert_eq!(clock.now(set(902), Duration::from_secs(902)), at(902_000));
        assert_eq!(clock.now(set(903), Duration::from_secs(903)), set(903));
        assert_eq!(clock.now(set(904), Duration::from_secs(904)), set(904));
    }

    #[test]
    fn what_another_clock_agrees_with_is_believed_at_once() {
        let mut clock = SteadyClock::new(START, Duration::ZERO);
        let later = at(3_600_000);
        assert_eq!(clock.now(later, Duration::from_secs(1)), at(1_000));
        clock.adopt(later, Duration::from_secs(1));
        assert_eq!(clock.now(at(3_601_000), Duration::from_secs(2)), at(3_601_000));
    }
}
