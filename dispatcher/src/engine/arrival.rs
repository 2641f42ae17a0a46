//! Events on their way into the store, and what the store makes of them.

use bytes::Bytes;
use usher_proto::suppression::SuppressionChange;
use usher_proto::{Event, EventRef, Key, Partition, Reason, SubjectId, Timestamp};

use super::{Run, account};
use crate::field_diff::Fields;
use crate::subject::Snapshot;

/// An event on its way into the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// Its offset.
    pub offset: i64,
    /// The event.
    pub event: Event,
    /// Whether it starts a run.
    pub starts: bool,
    /// Whether it ends the runs of its key that came before it.
    pub cancels: bool,
    /// What it says of its subject.
    pub snapshot: Option<Snapshot>,
    /// Those fields of its subject that the flow remembers, as it says them; none where the flow remembers nothing.
    pub remember: Option<Fields>,
    /// From when on its run is worth nothing.
    pub expires_at: Option<Timestamp>,
    /// What it orders, if it is an operator's.
    pub command: Option<Command>,
    /// What it says of who may be written to.
    pub suppression: Option<SuppressionChange>,
    /// Why its run is to be given up at once.
    pub verdict: Option<(Reason, String)>,
}

impl Arrival {
    /// One that starts a run, and means nothing else.
    pub fn starting(offset: i64, event: Event) -> Self {
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

/// What an operator orders about one run of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The run's event.
    pub run: EventRef,
    /// Who orders it, as they name themselves.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// What.
    pub order: Order,
}

/// What can be ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// To take up a dead run again, at the tail of its lane.
    Redrive {
        /// How often it had died when that was ordered: the same order a second time finds another number.
        deaths: u32,
    },
    /// To end it, after the attempt that may be under way.
    Cancel,
    /// To do once more what is done.
    Rerun {
        /// The event's body, as it came: the store has dropped it.
        body: String,
    },
}

impl Order {
    /// The word for it.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Redrive { .. } => "redrive",
            Self::Cancel => "cancel",
            Self::Rerun { .. } => "rerun",
        }
    }
}

/// A record that no flow can take. It is kept once for all of them, with why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Its offset.
    pub offset: i64,
    /// Why, in one of the words that dead runs have, too.
    pub reason: Reason,
    /// The same in a sentence.
    pub error: String,
    /// The event's id, as far as there is one.
    pub event: String,
    /// The record's key.
    pub key: Key,
    /// Its value, byte for byte.
    pub body: Bytes,
}

/// Consecutive events of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The partition.
    pub partition: Partition,
    /// Its epoch.
    pub epoch: i64,
    /// The offset below which everything is accounted for once this is written. Offsets may have gaps.
    pub frontier: i64,
    /// Those of the events that mean something to the flow.
    pub arrivals: Vec<Arrival>,
    /// Those of the records that are no events.
    pub refused: Vec<RefusedRecord>,
    /// The flow's present version, which new runs begin with.
    pub flow_version: String,
    /// The connector of its first step.
    pub connector: Option<String>,
}

impl Batch {
    /// Whom a new run of this event asks first.
    pub fn destination(&self, event: &Event) -> Option<String> {
        self.connector.as_deref().map(|connector| account(connector, event.instance()))
    }

    /// Number of records in it.
    pub fn len(&self) -> usize {
        self.arrivals.len() + self.refused.len()
    }

    /// Whether it only moves the frontier.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Roughly how many bytes it takes in memory.
    pub fn weight(&self) -> usize {
        let arrivals = self.arrivals.iter().map(|arrival| arrival.event.body.len() + 512);
        arrivals.chain(self.refused.iter().map(|refused| refused.body.len() + 512)).sum()
    }
}

/// What came of a batch.
#[derive(Debug, Default)]
pub struct Admission {
    /// New runs that nothing of their key goes before.
    pub heads: Vec<Run>,
    /// The same of runs that were known: their wait is over, or an operator has taken them up again.
    pub woken: Vec<Run>,
    /// Keys that have got something behind what is under way already.
    pub behind: Vec<SubjectId>,
    /// Runs that it has cancelled.
    pub cancelled: Vec<(SubjectId, EventRef)>,
    /// Events that were known already: none of their effects happens again.
    pub repeated: usize,
    /// Records that no flow can take and that nobody had kept before.
    pub refused: usize,
}

/// A partition that has been taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// Which.
    pub partition: Partition,
    /// What every write must carry from now on.
    pub epoch: i64,
    /// The offset below which every event is accounted for; none if the flow never read it.
    pub frontier: Option<i64>,
    /// Where an operator demand the flow to go on, whatever else is known.
    pub sought: Option<i64>,
    /// Whether the topic has grown by it after the flow had begun: it is read from its first record.
    pub late: bool,
}
