//! A run: one flow's work on one event.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;
use usher_proto::{AddressDigest, Event, Partition, Reason, Timestamp};

use crate::StoryEntry;
use crate::field_diff::{EMAIL, PreviousFields};

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunState {
    /// In its lane and not begun since it joined it; the head of a lane can be queued too.
    Queued,
    /// A step is in flight, or is to be attempted again shortly.
    Running,
    /// It is to be attempted again later, and blocks its lane until then.
    Parked,
    /// Waiting for a time or for a newer revision of its subject; other runs of its key continue meanwhile.
    Waiting,
    /// All steps are done, or there was nothing to do.
    Done,
    /// Given up; its dead letter has been published.
    Dead,
    /// Ended by an event that its flow names as cancelling.
    Cancelled,
    /// Ended because something newer has taken effect.
    Superseded,
}

impl RunState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Running,
        Self::Parked,
        Self::Waiting,
        Self::Done,
        Self::Dead,
        Self::Cancelled,
        Self::Superseded,
    ];

    /// Returns the state's name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Parked => "parked",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }

    /// Returns true if the run does not continue unless an operator takes it up again.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Parked | Self::Waiting => false,
            Self::Done | Self::Dead | Self::Cancelled | Self::Superseded => true,
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such state; it may be one of: {}", RunState::ALL.map(RunState::label).join(", "))]
pub struct UnknownState;

impl FromStr for RunState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.label() == text).ok_or(UnknownState)
    }
}

/// One flow's work on one event, with everything that is needed to continue it.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The event. Its id identifies the run within the flow.
    pub event: Event,
    /// The partition of its key.
    pub partition: Partition,
    /// The run's place in its lane: the offset of the record that queued it.
    pub position: i64,
    /// The version of the flow with which the run began.
    pub flow_version: String,
    /// The index of the run's present step.
    pub step: usize,
    /// The destination of the present step: a connector's account. Absent for a wait.
    pub destination: Option<String>,
    /// True if the run has begun and has not left its lane since: then no other run of its key precedes it.
    pub begun: bool,
    /// Number of times the run was run again after it had ended well; distinguishes the requests of those repetitions.
    pub rerun: u32,
    /// The attempts at the present step.
    pub tries: AttemptState,
    /// The exact request of an attempt whose outcome is unknown; it must be repeated unchanged. Absent if
    /// there is none.
    pub request: Option<Vec<u8>>,
    /// The results of the steps done, by index.
    pub results: BTreeMap<usize, Value>,
    /// The latest end of the present step's wait; absent if the step has not begun to wait.
    pub wait_until: Option<Timestamp>,
    /// Expiry: the run is not executed after this time. Absent if it never expires.
    pub expires_at: Option<Timestamp>,
    /// The fields of the subject as the flow knew them before the event; absent if the flow does not remember them.
    pub before: Option<PreviousFields>,
    /// The reason and the error for which the run is to be given up; absent until that is decided.
    pub verdict: Option<(Reason, String)>,
    /// True if this process has delayed the run once because it may have crashed other processes. No store holds this.
    pub quarantined: bool,
    /// The attempts and passed-over steps that are not written yet, in order. No store holds this.
    pub untold: Vec<StoryEntry>,
    /// The time since boot at which this process requested the claim of the next attempt, if the run was admitted with it;
    /// absent if an attempt must be claimed first. No store holds this.
    pub claimed: Option<Duration>,
}

impl Run {
    /// Returns the approximate size in memory, in bytes: the body, and as much again for the request made from it.
    pub fn weight(&self) -> usize {
        /// Size of a run apart from its texts, in bytes.
        const FIXED: usize = 512;
        FIXED + 2 * self.event.body.len()
    }

    /// Adds an entry that is to be written with the run's next change.
    pub(crate) fn tell(&mut self, entry: StoryEntry) {
        // Nearly always it is the only one.
        self.untold.reserve_exact(1);
        self.untold.push(entry);
    }

    /// Returns the address that the subject no longer has according to its event; absent if its flow does not know it.
    pub fn left_address(&self) -> Option<AddressDigest> {
        let before = self.before.as_ref()?;
        let left = before.changed.iter().any(|field| field == EMAIL) || self.event.kind == "user.deleted";
        before.fields.get(EMAIL).and_then(Value::as_str).filter(|_| left).map(AddressDigest::of)
    }
}

/// The attempts at a step so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttemptState {
    /// Attempts made.
    pub attempts: u32,
    /// Attempts that count against the flow's limit: the destination served others before the next attempt was made.
    pub counted: u32,
    /// Consecutive attempts without a result, because the process ended.
    pub unanswered: u32,
    /// Number of the request: a new one is used once all requests before it certainly had no effect.
    pub generation: u32,
    /// The time of the first attempt.
    pub first_at: Option<Timestamp>,
    /// The time at which the stored request was first sent.
    pub first_sent_at: Option<Timestamp>,
    /// The time at which the last attempt failed; absent if its failure cannot count.
    pub failed_at: Option<Timestamp>,
    /// The time until which an attempt of another process may be in flight.
    pub claimed_until: Option<Timestamp>,
}
