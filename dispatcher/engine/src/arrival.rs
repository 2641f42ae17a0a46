//! Events on their way into the store, and the results of their admission.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use usher_proto::suppression::SuppressionChange;
use usher_proto::{Epoch, Event, EventRef, Key, Offset, Partition, Reason, Snapshot, SubjectId, Timestamp};

use super::{AttemptState, Change, ChangeKind, Run, account};
use crate::field_diff::Fields;

/// An event on its way into the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// The event's offset.
    pub offset: Offset,
    /// The event.
    pub event: Event,
    /// True if the event starts a run.
    pub starts: bool,
    /// True if the event ends the earlier runs of its key.
    pub cancels: bool,
    /// The state of its subject that the event carries, if any.
    pub snapshot: Option<Snapshot>,
    /// The fields of its subject that the flow remembers, with the event's values; absent if the flow remembers none.
    pub remember: Option<Fields>,
    /// Expiry of its run, which is not executed after this time; absent if it never expires.
    pub expires_at: Option<Timestamp>,
    /// The operator's command that the event carries, if any.
    pub command: Option<Command>,
    /// The suppression change that the event carries, if any.
    pub suppression: Option<SuppressionChange>,
    /// The reason and the error for which its run is given up at once; absent if the run is to be worked on.
    pub verdict: Option<(Reason, String)>,
}

impl Arrival {
    /// Returns an arrival that starts a run and has no other meaning.
    pub fn starting(offset: Offset, event: Event) -> Self {
        Self {
            offset,
            event,
            starts: true,
            cancels: false,
            snapshot: None,
            remember: None,
            expires_at: None,
            command: None,
            suppression: None,
            verdict: None,
        }
    }
}

/// An operator's command about one run of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The event of the run.
    pub run: EventRef,
    /// The operator, by the name that they gave.
    pub by: String,
    /// The time of the command.
    pub at: Timestamp,
    /// The action.
    pub order: CommandKind,
}

/// The actions that an operator can command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandKind {
    /// Takes up a dead run again, at the tail of its lane.
    Redrive {
        /// Number of times the run had died at the time of the command. A repetition of the same command finds another
        /// number and has no effect.
        deaths: u32,
    },
    /// Ends the run, after the attempt that may be in flight.
    Cancel,
    /// Ends the wait or the pause of a run, which goes on at once.
    Wake,
    /// Takes over a run of another flow that is not under way.
    TakeOver(Box<TakeOver>),
    /// Runs a finished run again.
    Rerun {
        /// The event's body, unchanged: the store has dropped it.
        body: String,
    },
}

/// A run of another flow that goes on in this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeOver {
    /// The flow that it leaves.
    pub from: String,
    /// The version with which it began. A run of another version is left alone.
    pub version: String,
    /// Index, from 0, of its step in that version. A run that has gone on is left alone.
    pub at: usize,
    /// The names of the steps of that version.
    pub steps: Vec<String>,
    /// The step of this flow at which it goes on; absent if the flow has none of that name, or is not known yet.
    pub to: Option<TakenOverStep>,
}

/// The step at which a run goes on that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOverStep {
    /// Index of the step, from 0.
    pub step: usize,
    /// The connector that the step calls; absent if it calls none.
    pub connector: Option<String>,
    /// Indexes of steps of the same names: those of the former flow with those of this one.
    pub results: BTreeMap<usize, usize>,
}

impl CommandKind {
    /// Returns the action's name.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Redrive { .. } => "redrive",
            Self::Cancel => "cancel",
            Self::Wake => "wake",
            Self::TakeOver(_) => "move",
            Self::Rerun { .. } => "rerun",
        }
    }
}

/// A record that no flow can process. It is stored once for all flows, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecord {
    /// The record's offset.
    pub offset: Offset,
    /// The reason, from the same list as the reasons of dead runs.
    pub reason: Reason,
    /// The reason as a sentence.
    pub error: String,
    /// The event's id, as far as it can be read.
    pub event: String,
    /// The record's key.
    pub key: Key,
    /// The record's value, byte for byte.
    pub body: Bytes,
}

/// Consecutive events of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The partition.
    pub partition: Partition,
    /// The partition's epoch.
    pub epoch: Epoch,
    /// The offset below which every record is accounted for once this batch is written. Offsets may have gaps.
    pub frontier: Offset,
    /// The events that concern the flow.
    pub arrivals: Vec<Arrival>,
    /// The records that are not events.
    pub refused: Vec<RefusedRecord>,
    /// The flow's present version, with which new runs begin.
    pub flow_version: String,
    /// The connector of the flow's first step; absent if that step has none.
    pub connector: Option<String>,
    /// Offsets of events whose runs may begin with their admission: the first claim of such a run is written with it, if no
    /// other run of its key is open.
    pub begins: BTreeSet<Offset>,
}

/// The claim of a run's first attempt, made before the run is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstClaim {
    /// The exact request.
    pub request: Vec<u8>,
    /// The time of the attempt.
    pub at: Timestamp,
    /// The time until which the attempt may be in flight; absent if its destination recognises a repetition.
    pub until: Option<Timestamp>,
    /// The time since boot at which the claim was requested.
    pub since_boot: Duration,
}

impl FirstClaim {
    /// Returns the attempts with this one.
    pub fn tries(&self) -> AttemptState {
        AttemptState {
            attempts: 1,
            unanswered: 1,
            first_at: Some(self.at),
            first_sent_at: Some(self.at),
            claimed_until: self.until,
            ..AttemptState::default()
        }
    }

    /// Returns the change that gives a claim back of which nothing was sent. The run is found again with those whose time has
    /// come.
    pub fn give_back(
        event: EventRef,
        key: SubjectId,
        (partition, epoch): (Partition, Epoch),
        now: Timestamp,
    ) -> Change {
        let kind = ChangeKind::Park { until: now, tries: AttemptState::default(), request: None };
        Change { event, key, partition, epoch, kind, story: Box::default() }
    }

    /// Returns the run as it is admitted with this claim.
    #[must_use]
    pub fn begin(self, run: Run) -> Run {
        let tries = self.tries();
        Run { begun: true, tries, request: Some(self.request), claimed: Some(self.since_boot), ..run }
    }
}

impl Batch {
    /// Returns the destination of the first step of a new run of this event.
    pub fn destination(&self, event: &Event) -> Option<String> {
        self.connector.as_deref().map(|connector| account(connector, event.instance()))
    }

    /// Returns the number of records in the batch.
    pub fn len(&self) -> usize {
        self.arrivals.len() + self.refused.len()
    }

    /// Returns true if the batch only moves the frontier.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the approximate size in memory, in bytes.
    pub fn weight(&self) -> usize {
        let arrivals = self.arrivals.iter().map(|arrival| arrival.event.body.len() + 512);
        arrivals.chain(self.refused.iter().map(|refused| refused.body.len() + 512)).sum()
    }
}

/// The result of admitting a batch.
#[derive(Debug, Default)]
pub struct Admission {
    /// New runs that no earlier run of their key precedes. Those with a first claim are to be begun, or their claims given
    /// back.
    pub heads: Vec<Run>,
    /// New runs that another run of their key precedes, ordered by position.
    pub followers: Vec<Run>,
    /// Known runs that no earlier run of their key precedes: their wait is over, or an operator has taken
    /// them up again.
    pub woken: Vec<Run>,
    /// Keys of known runs that another run of their key precedes.
    pub behind: Vec<SubjectId>,
    /// Runs that the batch has cancelled.
    pub cancelled: Vec<(SubjectId, EventRef)>,
    /// Number of events that were known already: none of their effects happens again.
    pub repeated: usize,
    /// Number of records that no flow can process and that were not stored before.
    pub refused: usize,
}

/// A partition that this process has taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The partition.
    pub partition: Partition,
    /// The fencing token that every write must carry from now on.
    pub epoch: Epoch,
    /// The offset below which every event is accounted for; absent if the flow never read the partition.
    pub frontier: Option<Offset>,
    /// The offset below which the store was told the news, and the version of the flow that told them; absent if nothing
    /// was read ahead.
    pub told: Option<(Offset, String)>,
    /// The offset from which an operator has told the flow to continue, regardless of all other positions; absent if
    /// there is no such command.
    pub operator_offset: Option<Offset>,
    /// True if the partition was added to the topic after the flow had begun: it is read from its first record.
    pub late: bool,
}
