//! Changes of runs, as they are written to the store.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use usher_proto::{Epoch, EventRef, Partition, Reason, SubjectId, Timestamp};

use super::run::AttemptState;
use super::story::StoryEntry;
use super::{Effect, RunState};

/// A change of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The run.
    pub event: EventRef,
    /// The run's lane.
    pub key: SubjectId,
    /// The run's partition.
    pub partition: Partition,
    /// The partition's epoch.
    pub epoch: Epoch,
    /// The kind of the change.
    pub kind: ChangeKind,
    /// The attempts and passed-over steps since the run's last change, in order.
    pub story: Box<[StoryEntry]>,
}

/// The kinds of changes of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum ChangeKind {
    /// An attempt is about to be made.
    Claim {
        /// The attempts so far, including this one, with the time until which it may be in flight.
        tries: AttemptState,
        /// The exact request.
        request: Vec<u8>,
    },
    /// A step is done or skipped, and more follow.
    Advance {
        /// The index of the next step.
        to: usize,
        /// The destination of the next step; absent if it calls none.
        destination: Option<String>,
        /// The effect of the finished step; absent if it had none.
        effect: Option<StepEffect>,
        /// The results of all finished steps, by index.
        results: BTreeMap<usize, Value>,
    },
    /// The run waits, and leaves its lane to other runs.
    Wait {
        /// The latest end of the wait.
        until: Timestamp,
        /// The subject's revision that was examined: a later one ends the wait early. Absent if only time ends it.
        news_after: Option<i64>,
    },
    /// An attempt has failed and is to be repeated shortly, or when its destination takes calls. The lane stays in memory.
    Retry {
        /// The time from which the next attempt may be made.
        at: Timestamp,
        /// The attempts so far.
        tries: AttemptState,
        /// The request whose outcome is unknown; absent if there is none.
        request: Option<Vec<u8>>,
    },
    /// The run is to be attempted again later, and blocks its lane until then.
    Park {
        /// The time of the next attempt.
        until: Timestamp,
        /// The attempts so far.
        tries: AttemptState,
        /// The request whose outcome is unknown; absent if there is none.
        request: Option<Vec<u8>>,
    },
    /// The run has ended.
    End {
        /// The final state.
        state: RunState,
        /// The effect of the run's last step; absent if it had none.
        effect: Option<StepEffect>,
        /// The reason of the end in one word; absent if there is none to report.
        note: Option<&'static str>,
        /// The reason and the error of a dead run.
        verdict: Option<(Reason, String)>,
        /// True if the outcome of an attempt is unknown: then its request is stored, for a redrive.
        in_doubt: bool,
    },
}

/// An effect and the step that had it.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEffect {
    /// The step's index.
    pub step: usize,
    /// The step's name.
    pub name: String,
    /// The connector.
    pub connector: String,
    /// The number of the attempt that had it, from 1.
    pub attempt: u32,
    /// The time that this attempt took; absent if nobody measured it.
    pub took: Option<Duration>,
    /// The effect.
    pub effect: Effect,
}

/// The result of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// The change is written.
    Written,
    /// The run was to wait, but the revision that it waits for has arrived meanwhile.
    Awake,
    /// The run has ended already, or ends now because an operator or an event has cancelled it; of the change only its
    /// effect is written.
    Ended,
    /// Another replica owns the partition now; nothing was written.
    Fenced,
    /// The store will never accept the change; nothing was written.
    Refused,
}
