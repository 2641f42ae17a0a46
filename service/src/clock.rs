//! The only place that reads the system clock. Code that makes decisions takes the time as a parameter instead.

mod steady;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use steady::SteadyClock;
use usher_proto::Timestamp;

/// The steady clock of this process. `None` until its first use.
static STEADY: Mutex<Option<SteadyClock>> = Mutex::new(None);

/// Returns the current time in milliseconds, from a clock that does not jump when the machine's clock is set; see
/// [`SteadyClock`]. Use it for every time that is compared with times written by this process or by the store.
pub fn now() -> Timestamp {
    steady(|clock, wall, boot| clock.now(wall, boot))
}

/// Returns the current time of the machine's clock, including any change of it. Use it for times that other systems
/// state about the present, such as the time of a signature.
pub fn wall() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this function is the owner")]
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Adopts the machine's clock at once, even after a jump. Call it if another clock agrees with the machine's.
pub fn adopt_wall() {
    steady(SteadyClock::adopt);
}

fn steady<T>(ask: impl FnOnce(&mut SteadyClock, Timestamp, Duration) -> T) -> T {
    let wall = wall();
    let boot = since_boot();
    let mut clock = STEADY.lock().unwrap_or_else(PoisonError::into_inner);
    ask(clock.get_or_insert_with(|| SteadyClock::new(wall, boot)), wall, boot)
}

/// Returns the time since the machine was started, including the time that it was suspended. A request made before a
/// long suspension is recognised as old by it, even if the time of day was set in the meantime.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
