//! The one place that reads the system's clock. Everything that decides takes the time as a parameter instead.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use usher_proto::Timestamp;

/// Now, to the millisecond.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Time since the machine was started, counting what it slept. What was asked before a long sleep is old by it, also where
/// the time of day was set meanwhile.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
