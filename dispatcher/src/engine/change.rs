//! Changes of runs, as the store is told of them.

use std::collections::BTreeMap;

use serde_json::Value;
use usher_proto::{EventRef, Partition, Reason, SubjectId, Timestamp};

use super::run::AttemptState;
use super::{Effect, RunState};

/// A change of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The run.
    pub event: EventRef,
    /// Its lane.
    pub key: SubjectId,
    /// Its partition.
    pub partition: Partition,
    /// The partition's epoch.
    pub epoch: i64,
    /// What changes.
    pub kind: ChangeKind,
}

/// What changes about a run.
#[derive(Debug, Clone, PartialEq)]
pub enum ChangeKind {
    /// An attempt is about to be made.
    Claim {
        /// What has been tried, this attempt included, and until when it may be under way.
        tries: AttemptState,
        /// The exact request.
        request: Vec<u8>,
    },
    /// A step is done or skipped, and more follow.
    Advance {
        /// The index of the next step.
        to: usize,
        /// Whom that one asks.
        destination: Option<String>,
        /// What the step did.
        effect: Option<StepEffect>,
        /// The results of all steps done.
        results: BTreeMap<usize, Value>,
    },
    /// The run waits, and leaves its lane to others.
    Wait {
        /// Until when at most.
        until: Timestamp,
        /// The subject's revision after which it need not.
        news_after: Option<i64>,
    },
    /// The run is to be attempted again later, and its lane waits for it.
    Park {
        /// When.
        until: Timestamp,
        /// What has been tried.
        tries: AttemptState,
        /// The request whose outcome is not known.
        request: Option<Vec<u8>>,
    },
    /// The run has ended.
    End {
        /// How.
        state: RunState,
        /// What its last step did.
        effect: Option<StepEffect>,
        /// In a word why.
        note: Option<&'static str>,
        /// For a dead one: the reason and the destination's words.
        verdict: Option<(Reason, String)>,
        /// Whether it is not known what came of an attempt: then its request is kept, for a redrive.
        in_doubt: bool,
    },
}

/// An effect and the step that had it.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEffect {
    /// The step's index.
    pub step: usize,
    /// Its name.
    pub name: String,
    /// The connector.
    pub connector: String,
    /// What it did.
    pub effect: Effect,
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is written.
    Written,
    /// It was to wait, but news have come meanwhile.
    Awake,
    /// The run has ended already, or ends now because somebody asked for it; of the change only its effect is written.
    Ended,
    /// Somebody else owns the partition now; nothing was written.
    Fenced,
    /// The store will never take it; nothing was written.
    Refused,
}
