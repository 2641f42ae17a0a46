//! The one place that reads the system's clock. Everything that decides takes the time as a parameter instead.

use std::time::{SystemTime, UNIX_EPOCH};

use usher_proto::Timestamp;

/// Now, to the millisecond.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
