//! The inputs of the engine: everything that has happened.

use std::collections::BTreeMap;

use usher_proto::{AssignedPartition, Assignment, Epoch, EventRef, Offset, Partition, SubjectId, Timestamp};

use super::arrival::{Admission, Arrival, Ownership, RefusedRecord};
use super::breaker::Permit;
use super::change::{Change, Changed};
use super::clock::ClockState;
use super::{AttemptSeen, NotCalled, Outcome, Run, Seen, SkipReason};

/// The flow's pause and the log's ends, read after the flow's partitions were taken over in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchUpTarget {
    /// The time since which an operator has paused the flow; absent if it is not paused.
    pub paused: Option<Timestamp>,
    /// The end of every partition of the topic, including those that other replicas own.
    pub ends: Vec<Seen>,
}

/// Consecutive records of a partition that were read ahead.
#[derive(Debug, Clone, PartialEq)]
pub struct AheadPage {
    /// The partition.
    pub partition: Partition,
    /// The partition's epoch.
    pub epoch: Epoch,
    /// The offset at which the page begins.
    pub from: Offset,
    /// The offset at which the next page begins.
    pub next: Offset,
    /// Events among them that concern the flow.
    pub arrivals: Vec<Arrival>,
}

/// An event that the engine must react to. Answers of the store arrive in the order in which it
/// carried the requests out; [`super::StoreWrite::ConfirmPause`] has none.
#[derive(Debug)]
pub enum Input {
    /// The log assigns partitions to this process; none if other members have all of them for now.
    Assigned {
        /// The log's number of the assignment.
        assignment: Assignment,
        /// The partitions.
        partitions: Vec<AssignedPartition>,
    },
    /// The log has delivered records.
    Read {
        /// The assignment under which it was read.
        assignment: Assignment,
        /// The partition.
        partition: Partition,
        /// The offset after the last one read.
        next: Offset,
        /// Events among them that concern the flow.
        arrivals: Vec<Arrival>,
        /// Records among them that no flow can process.
        refused: Vec<RefusedRecord>,
    },
    /// The log revokes partitions.
    Revoked {
        /// The partitions.
        partitions: Vec<Partition>,
        /// True if another replica may work on them already.
        lost: bool,
    },
    /// The current ends of partitions in the log.
    Ends(Vec<(Partition, Offset)>),
    /// Store: the partitions are owned by this process, all that were requested.
    Acquired {
        /// The assignment that contained them.
        assignment: Assignment,
        /// The store's state of each partition.
        owned: Vec<Ownership>,
    },
    /// Store: a batch has been admitted.
    Admitted {
        /// The batch's partition.
        partition: Partition,
        /// The partition's epoch.
        epoch: Epoch,
        /// The frontier after the batch.
        frontier: Offset,
        /// The result; absent if another replica owns the partition now.
        admission: Option<Admission>,
        /// True if an earlier request may have been carried out and its answer lost.
        retried: bool,
    },
    /// The answer to [`super::Step::ReadAhead`]; absent if nothing could be read.
    Ahead(Option<AheadPage>),
    /// Store: the news of a batch has been taken.
    Told {
        /// The partition.
        partition: Partition,
        /// The partition's epoch.
        epoch: Epoch,
        /// The offset below which everything is told.
        below: Offset,
        /// The result, with woken runs only; absent if another replica owns the partition now.
        admission: Option<Admission>,
        /// True if an earlier request may have been carried out and its answer lost.
        retried: bool,
    },
    /// Store: heads of lanes, in answer to [`super::StoreRead::Find`].
    Found {
        /// The partition.
        partition: Partition,
        /// The partition's epoch.
        epoch: Epoch,
        /// The heads, ordered by position.
        heads: Vec<Run>,
        /// True if there are no further heads.
        all: bool,
    },
    /// Store: further runs of a lane, in answer to [`super::StoreRead::Load`].
    Loaded {
        /// The lane.
        key: SubjectId,
        /// The lane's partition.
        partition: Partition,
        /// The partition's epoch.
        epoch: Epoch,
        /// The lane's next runs, in order. Empty if the lane waits for a parked run.
        runs: Vec<Run>,
        /// True if the store holds further runs.
        more: bool,
    },
    /// Store: waits and pauses that are over.
    Due {
        /// Runs that no earlier run of their key precedes.
        heads: Vec<Run>,
        /// Keys of runs that another run of their key precedes.
        behind: Vec<SubjectId>,
        /// The time at which the next wait or pause ends, past if not all that are over were ended; absent if there is none.
        next: Option<Timestamp>,
        /// True if an earlier request may have been carried out and its answer lost.
        retried: bool,
    },
    /// Store: another replica owns a partition, as a query about it has shown. Without this, the engine would never
    /// detect it in a partition in which nothing is written.
    Fenced {
        /// The partition.
        partition: Partition,
        /// The epoch under which the store was queried.
        epoch: Epoch,
    },
    /// Store: the answer to a change, which was written or not.
    Written {
        /// The change.
        change: Change,
        /// The result.
        changed: Changed,
    },
    /// The result of [`super::Step::Execute`]. Arrives exactly once for each.
    Reported {
        /// The lane.
        key: SubjectId,
        /// The run.
        event: EventRef,
        /// The run's partition.
        partition: Partition,
        /// The partition's epoch.
        epoch: Epoch,
        /// The destination that was to be called and the breaker's permit; absent if the step calls none.
        asked: Option<(String, Permit)>,
        /// The result.
        report: StepReport,
    },
    /// The time since which an operator has paused the flow; absent if it is not paused.
    Paused(Option<Timestamp>),
    /// The answer to [`super::Step::Look`].
    Looked {
        /// The number of the request.
        look: u64,
        /// The result; absent if the log or the store could not be queried.
        seen: Option<CatchUpTarget>,
    },
    /// The answer to [`super::Step::AskFrontiers`]: for each partition that the flow has ever owned, the offset below which
    /// the store knows everything; absent if the store could not be queried.
    Frontiers(Option<BTreeMap<Partition, Option<Offset>>>),
    /// The state of the clock that supplies `now`.
    Clock(ClockState),
    /// The process is stopping: no new step may begin.
    Stop,
    /// Time has passed, or the state of a destination has changed.
    Wakeup,
}

/// The continuation after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    /// None: the step is the run's last.
    End,
    /// A further step, which calls this destination, or none.
    Step(Option<String>),
}

/// The result of working on a run's present step.
#[derive(Debug, Clone, PartialEq)]
pub enum StepReport {
    /// An attempt was made.
    Attempted {
        /// The attempt's outcome.
        outcome: Outcome,
        /// The request that was sent, which must be repeated unchanged while its outcome is unknown; absent if no
        /// request was made.
        request: Option<Vec<u8>>,
        /// The step's name.
        step: String,
        /// The continuation after the step.
        next: NextStep,
        /// The time and the answer of the attempt; absent if nothing was sent.
        seen: Option<AttemptSeen>,
    },
    /// The step does not apply; the run continues with the next one.
    Skipped {
        /// The step's name.
        step: String,
        /// The reason.
        why: NotCalled,
        /// The continuation after the step.
        next: NextStep,
    },
    /// The step would write to a recipient who must be skipped; the run continues with the next step.
    HeldBack {
        /// The step's name.
        step: String,
        /// The reason.
        held: SkipReason,
        /// The continuation after the step.
        next: NextStep,
    },
    /// The run waits for a time or for a newer revision of its subject.
    Wait {
        /// The latest end of the wait.
        until: Timestamp,
        /// The subject's revision that was examined: a later one ends the wait early. Absent if only time ends it.
        news_after: Option<i64>,
    },
    /// The revision that the run waited for did not arrive; there is nothing to do.
    NothingToDo,
    /// The run's subject is deleted, or something newer has taken effect.
    Superseded,
    /// The run has already ended in the store: there is nothing left to write.
    Ended,
    /// Another replica owns the run's partition now.
    Fenced,
    /// The step was not begun because the process is stopping.
    Stopped,
    /// The step was not begun because its account's calls are used up for a while.
    QuotaExhausted {
        /// The time at which calls are available again.
        until: Timestamp,
        /// True if the calls of the whole account are used up; false if only those of the part that this run uses.
        whole: bool,
    },
}
