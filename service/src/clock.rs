//! The one place that reads the system's clock. Everything that decides takes the time as a parameter instead.

mod steady;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use usher_proto::Timestamp;

pub use steady::SteadyClock;

/// This process's time of day. None until it is asked for first.
static STEADY: Mutex<Option<SteadyClock>> = Mutex::new(None);

/// Now, to the millisecond, by a clock that does not jump when the machine's clock is set; see [`SteadyClock`]. For all that
/// is compared with what this process, or the store, has written.
pub fn now() -> Timestamp {
    steady(|clock, wall, boot| clock.now(wall, boot))
}

/// Now, by the machine's clock, however it was set: for what others say that is true just now, a signature's time say.
pub fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Takes the machine's clock for right at once, where it had been set: another clock agrees with it.
pub fn adopt_wall() {
    steady(SteadyClock::adopt);
}

fn steady<T>(ask: impl FnOnce(&mut SteadyClock, Timestamp, Duration) -> T) -> T {
    let (wall, boot) = (wall(), since_boot());
    let mut clock = STEADY.lock().unwrap_or_else(PoisonError::into_inner);
    ask(clock.get_or_insert_with(|| SteadyClock::new(wall, boot)), wall, boot)
}

/// Time since the machine was started, counting what it slept. What was asked before a long sleep is old by it, also where
/// the time of day was set meanwhile.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
