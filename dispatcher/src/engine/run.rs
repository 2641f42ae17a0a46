//! A run: one flow's work on one event.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use usher_proto::{AddressDigest, Event, Partition, Reason, Timestamp};

use crate::field_diff::{EMAIL, PreviousFields};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunState {
    /// Admitted; its turn has not come.
    Queued,
    /// A step is being attempted, or is to be attempted again shortly.
    Running,
    /// It is to be attempted again later; its lane waits for it.
    Parked,
    /// Waiting for a time or for news of its subject; others of its key go on meanwhile.
    Waiting,
    /// All steps are done, or there was nothing to do.
    Done,
    /// Given up; its dead letter is published.
    Dead,
    /// Ended by an event that its flow names.
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

    /// The word for it.
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

    /// Whether nothing more will happen by itself.
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

/// No state has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such state; it may be one of: {}", RunState::ALL.map(RunState::label).join(", "))]
pub struct UnknownState;

impl FromStr for RunState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.label() == text).ok_or(UnknownState)
    }
}

/// One flow's work on one event, with all it needs to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What it is about. Its id identifies the run within the flow.
    pub event: Event,
    /// The partition of its key.
    pub partition: Partition,
    /// Its place in its lane: the offset of what queued it.
    pub position: i64,
    /// The version of the flow it began with.
    pub flow_version: String,
    /// The index of the step it is at.
    pub step: usize,
    /// Whom that step asks: a connector's name. None for a wait.
    pub destination: Option<String>,
    /// Whether it has begun and not left its lane since: then nothing of its key goes before it.
    pub begun: bool,
    /// How often it was run again after it had ended well; distinguishes the requests of those times.
    pub rerun: u32,
    /// What has been tried of the present step.
    pub tries: AttemptState,
    /// The exact request of an attempt whose outcome is not known; it must be repeated as it is.
    pub request: Option<Vec<u8>>,
    /// The results of the steps done, by index.
    pub results: BTreeMap<usize, Value>,
    /// Until when the present step may wait, once it has begun to.
    pub wait_until: Option<Timestamp>,
    /// From when on it is worth nothing.
    pub expires_at: Option<Timestamp>,
    /// What the flow knew of its subject before the event, where it remembers that.
    pub before: Option<PreviousFields>,
    /// Why it is to be given up, once that is decided.
    pub verdict: Option<(Reason, String)>,
    /// Whether this process has kept it back for a while, because it may have ended others. No store holds it.
    pub quarantined: bool,
}

impl Run {
    /// Roughly how many bytes it takes in memory: the body, and as much again for the request that is made of it.
    pub fn weight(&self) -> usize {
        /// What a run takes beside its texts.
        const FIXED: usize = 512;
        FIXED + 2 * self.event.body.len()
    }

    /// The address that its event says the subject has no longer, where its flow knows that.
    pub fn left_address(&self) -> Option<AddressDigest> {
        let before = self.before.as_ref()?;
        let left = before.changed.iter().any(|field| field == EMAIL) || self.event.kind == "user.deleted";
        before.fields.get(EMAIL).and_then(Value::as_str).filter(|_| left).map(AddressDigest::of)
    }
}

/// What has been tried of a step so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttemptState {
    /// Attempts made.
    pub attempts: u32,
    /// Those of them that count against the flow's bound: the destination served others before the next one was made.
    pub counted: u32,
    /// Attempts in a row of which nothing was ever heard, because the process ended.
    pub unanswered: u32,
    /// Distinguishes requests whose predecessors certainly had no effect.
    pub generation: u32,
    /// When the first attempt was made.
    pub first_at: Option<Timestamp>,
    /// When the kept request was sent first.
    pub first_sent_at: Option<Timestamp>,
    /// When the last attempt failed, if its failure may count.
    pub failed_at: Option<Timestamp>,
    /// Until when an attempt of somebody else may still be under way.
    pub claimed_until: Option<Timestamp>,
}
