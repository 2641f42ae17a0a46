//! The steps that the engine requests from `delivery`.

use usher_proto::{Assignment, Epoch, EventRef, Offset, Partition, Reason, SubjectId, Timestamp};

use super::Run;
use super::arrival::Batch;
use super::breaker::Permit;
use super::change::Change;
use super::start::CannotStart;

/// A step to carry out. Requests to the store are handed over in the order of the steps; of those that have gathered, changes
/// go before other writes, and writes before reads.
#[derive(Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most steps are changes, and a box would be one more allocation for each"
)]
pub enum Step {
    /// Send this request to the store.
    Store(StoreRequest),
    /// Send this command to the log.
    Log(LogCommand),
    /// Work on the run's present step, and report the result.
    Execute {
        /// The run.
        run: Box<Run>,
        /// The epoch of the run's partition.
        epoch: Epoch,
        /// The breaker's permit for its destination; absent if the step calls none.
        permit: Option<Permit>,
    },
    /// Publish the run's dead letter, then write that the run is dead.
    DeadLetter {
        /// The run.
        run: Box<Run>,
        /// The epoch of the run's partition.
        epoch: Epoch,
        /// The reason.
        reason: Reason,
        /// The error as the destination reported it.
        error: String,
    },
    /// Read the first records of one of these ranges outside the subscription. Always answered by [`super::Input::Ahead`],
    /// after a pause if they cannot be read.
    ReadAhead(Vec<AheadRange>),
    /// Read the ends of all partitions of the topic and the flow's pause. Nothing begins before everything below those
    /// ends is known. Always answered by [`super::Input::Looked`], even on failure.
    Look(u64),
    /// Read the frontiers of the flow's partitions. Always answered by [`super::Input::Frontiers`], even on failure.
    AskFrontiers,
    /// The flow cannot continue: this partition cannot be started without losing or inventing events.
    Fail(Partition, CannotStart),
}

/// Records to be read ahead: those of a partition that are not below `from`, and are below `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AheadRange {
    /// The partition.
    pub partition: Partition,
    /// The partition's epoch.
    pub epoch: Epoch,
    /// The offset of the first record.
    pub from: Offset,
    /// The offset after the last record.
    pub end: Offset,
}

/// A request to the store. Answers arrive as inputs, in the order in which the requests were carried out. A request is
/// repeated until the store answers.
#[derive(Debug, PartialEq)]
pub enum StoreRequest {
    /// Write a change of one run. Answered by [`super::Input::Written`].
    Change(Change),
    /// Write something else.
    Write(StoreWrite),
    /// Read something. Reads of one batch are carried out after its writes.
    Read(StoreRead),
}

/// A write that concerns more than one run.
#[derive(Debug, PartialEq)]
pub enum StoreWrite {
    /// Take these partitions over. Answered by [`super::Input::Acquired`].
    Acquire {
        /// The assignment that contained them.
        assignment: Assignment,
        /// The partitions.
        partitions: Vec<Partition>,
    },
    /// Admit a batch. Answered by [`super::Input::Admitted`].
    Admit(Batch),
    /// Take only the news of a batch, which is not admitted yet: subjects, suppression changes and wake-ups. Its frontier is
    /// the offset below which everything is told. Answered by [`super::Input::Told`].
    Tell(Batch),
    /// End the waits and pauses that are over, in these partitions, given with their epochs. Answered by
    /// [`super::Input::Due`].
    Due(Vec<(Partition, Epoch)>),
    /// Record that this replica begins nothing since it has seen the flow's pause. Not answered.
    ConfirmPause {
        /// The time since which the flow is paused.
        since: Timestamp,
        /// Steps that were begun before and are in flight.
        under_way: usize,
    },
}

/// A read that changes nothing.
#[derive(Debug, PartialEq)]
pub enum StoreRead {
    /// Find heads of lanes that are queued or in flight. Answered by [`super::Input::Found`].
    Find {
        /// The partition.
        partition: Partition,
        /// The partition's epoch.
        epoch: Epoch,
        /// The place after which the search begins; absent for the beginning.
        after: Option<(i64, EventRef)>,
        /// Destinations whose runs are left out.
        without: Vec<String>,
    },
    /// Read further runs of a lane. Answered by [`super::Input::Loaded`].
    Load {
        /// The lane.
        key: SubjectId,
        /// The lane's partition.
        partition: Partition,
        /// The partition's epoch.
        epoch: Epoch,
        /// Maximum number of runs.
        limit: usize,
    },
}

/// A command to the log's side of the subscription.
#[derive(Debug, PartialEq)]
pub enum LogCommand {
    /// Start all partitions of an assignment.
    Start {
        /// The assignment.
        assignment: Assignment,
        /// The offset at which each partition begins.
        offsets: Vec<(Partition, Offset)>,
    },
    /// Commit this offset; every record below it is accounted for.
    Commit(Partition, Offset),
    /// Deliver nothing of this partition until it is resumed.
    Pause(Partition),
    /// Resume delivery of this partition.
    Resume(Partition),
    /// Hand back the revoked partitions.
    Release,
    /// Leave the consumer group and join it again, because its assignment contradicts the store's, or because it
    /// delivers nothing. Holds the reason.
    Rejoin(&'static str),
}
