//! What is to be done, as the engine says.

use usher_proto::{EventRef, Partition, Reason, SubjectId, Timestamp};

use super::Run;
use super::arrival::Batch;
use super::breaker::Permit;
use super::change::Change;
use super::start::CannotStart;

/// What is to be done. What goes to the store goes there in this order.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Store: take these partitions over.
    Acquire {
        /// The assignment that gave them.
        assignment: u64,
        /// The partitions.
        partitions: Vec<Partition>,
    },
    /// Store: admit a batch.
    Admit(Batch),
    /// Store: find heads of lanes that are queued or under way.
    Find {
        /// The partition.
        partition: Partition,
        /// Its epoch.
        epoch: i64,
        /// After this place.
        after: Option<(i64, EventRef)>,
        /// Leaving out those that ask these destinations.
        without: Vec<String>,
    },
    /// Store: read more of a lane.
    Load {
        /// The lane.
        key: SubjectId,
        /// Its partition.
        partition: Partition,
        /// Its epoch.
        epoch: i64,
        /// At most so many runs.
        limit: usize,
    },
    /// Store: end the waits and pauses that are over, in these partitions, with their epochs.
    Due(Vec<(Partition, i64)>),
    /// Store: write this.
    Write(Change),
    /// Publish the run's dead letter, then write that it is dead.
    DeadLetter {
        /// The run.
        run: Box<Run>,
        /// Its partition's epoch.
        epoch: i64,
        /// Why.
        reason: Reason,
        /// In the destination's words.
        error: String,
    },
    /// Work on the run's present step, and report.
    Work {
        /// The run.
        run: Box<Run>,
        /// Its partition's epoch.
        epoch: i64,
        /// The leave to ask its destination, if it asks one.
        permit: Option<Permit>,
    },
    /// Log and store: look how far every partition of the topic reaches, and whether the flow is paused. Nothing is begun
    /// before everything below those ends is admitted. Answered by [`super::Input::Looked`], whatever comes of it.
    Look(u64),
    /// Store: say how far the partitions of the flow are admitted. Answered by [`super::Input::Frontiers`], whatever comes
    /// of it.
    AskFrontiers,
    /// Store: write that this replica begins nothing since it has seen the flow paused.
    ConfirmPause {
        /// Since when the flow is paused.
        since: Timestamp,
        /// Steps that had been begun before and are under way.
        under_way: usize,
    },
    /// Log: start the partitions of an assignment, all of them.
    Start {
        /// The assignment.
        assignment: u64,
        /// Where each begins.
        offsets: Vec<(Partition, i64)>,
    },
    /// Log: everything below is accounted for.
    Commit(Partition, i64),
    /// Log: deliver nothing of this partition until resumed.
    Pause(Partition),
    /// Log: go on with it.
    Resume(Partition),
    /// Log: hand back what was taken.
    Release,
    /// Log: leave the group and join it anew, for it and the store disagree, or it has gone silent.
    Rejoin(&'static str),
    /// A partition cannot be started without losing or inventing something: the flow cannot go on.
    Fail(Partition, CannotStart),
}
