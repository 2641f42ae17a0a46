//! The present for waits that begin or end, and the speed at which they pass.

use std::time::Duration;

use usher_flows::{Context, Unrenderable, Wait};
use usher_proto::Timestamp;

/// The present for waits. Only the length of a wait that begins is divided by the speed: its end is a real time, so nothing
/// that is stored depends on the speed.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitTime {
    pub(super) now: Timestamp,
    /// True if the clock is proven right. A wait ends by no other clock.
    pub(super) is_right: bool,
    /// The number of times as fast at which waits pass, from 1.
    pub(super) speed: u32,
}

impl WaitTime {
    /// Returns the end of a wait of this length that begins now.
    pub(super) fn after(self, wait: Duration) -> Timestamp {
        self.now.plus(wait / self.speed.max(1))
    }

    /// Returns the end of a step's wait that begins now. An end in the past stays as it is.
    ///
    /// # Errors
    ///
    /// The time that the step gives cannot be read, or is too far ahead.
    pub(super) fn end(self, wait: &Wait, context: &Context) -> Result<Timestamp, Unrenderable> {
        let end = wait.end(context, self.now)?;
        Ok(if end > self.now { self.after(end.since(self.now)) } else { end })
    }

    /// True if a wait with this end is over.
    pub(super) fn is_past(self, end: Timestamp) -> bool {
        self.is_right && self.now >= end
    }
}
