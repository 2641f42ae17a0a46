//! What has happened, as the engine is told.

use std::collections::BTreeMap;

use usher_proto::{EventRef, Partition, SubjectId, Timestamp};

use super::arrival::{Admission, Arrival, Ownership, RefusedRecord};
use super::breaker::Permit;
use super::change::{Change, Changed};
use super::clock::ClockState;
use super::{Outcome, Run, Seen, SkipReason};

/// A partition that the log has given us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Which.
    pub partition: Partition,
    /// Where the group's commit says to go on.
    pub committed: Option<i64>,
    /// The oldest offset there is.
    pub low: i64,
    /// The offset the next record will get.
    pub end: i64,
}

/// Where the flow stands, looked at after its partitions were taken over in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Since when an operator has paused the flow; none if it is not paused.
    pub paused: Option<Timestamp>,
    /// The end of every partition of the topic, whoever owns it.
    pub ends: Vec<Seen>,
}

/// What has happened. The store's answers come in the order in which it was asked, all of them.
#[derive(Debug)]
pub enum Input {
    /// The log gives us partitions; none where others have them all for now.
    Given {
        /// The log's number of the assignment.
        assignment: u64,
        /// The partitions.
        partitions: Vec<Given>,
    },
    /// The log has read on.
    Read {
        /// The assignment under which it was.
        assignment: u64,
        /// The partition.
        partition: Partition,
        /// The offset after the last one read.
        next: i64,
        /// What of it means something to the flow.
        arrivals: Vec<Arrival>,
        /// What of it no flow can take.
        refused: Vec<RefusedRecord>,
    },
    /// The log takes partitions away.
    Taken {
        /// The partitions.
        partitions: Vec<Partition>,
        /// Whether somebody else may work on them already.
        lost: bool,
    },
    /// Where a partition ends in the log.
    Ends(Vec<(Partition, i64)>),
    /// The store: partitions are ours, all that were asked for.
    Acquired {
        /// The assignment that gave them.
        assignment: u64,
        /// What the store knows of each.
        owned: Vec<Ownership>,
    },
    /// The store: a batch is in.
    Admitted {
        /// Its partition.
        partition: Partition,
        /// Its epoch.
        epoch: i64,
        /// Its frontier.
        frontier: i64,
        /// What came of it; none if somebody else owns the partition now.
        admission: Option<Admission>,
        /// Whether an earlier asking may have been carried out and its answer lost.
        asked_again: bool,
    },
    /// The store: heads of lanes, as [`super::Step::Find`] asked.
    Found {
        /// The partition.
        partition: Partition,
        /// Its epoch.
        epoch: i64,
        /// The heads, by position.
        heads: Vec<Run>,
        /// Whether these were the last.
        all: bool,
    },
    /// The store: more of a lane, as [`super::Step::Load`] asked.
    Loaded {
        /// The lane.
        key: SubjectId,
        /// Its partition.
        partition: Partition,
        /// Its epoch.
        epoch: i64,
        /// Its next runs, in order. None where the lane waits for a parked run.
        runs: Vec<Run>,
        /// Whether the store holds still more.
        more: bool,
    },
    /// The store: waits and pauses that are over.
    Due {
        /// Runs that nothing of their key goes before.
        heads: Vec<Run>,
        /// Keys that have got something behind what is under way already.
        behind: Vec<SubjectId>,
        /// Whether an earlier asking may have been carried out and its answer lost.
        asked_again: bool,
    },
    /// The store: a partition is somebody else's, as a question about it has shown. A partition in which nothing is
    /// written would never diff of it otherwise.
    Fenced {
        /// The partition.
        partition: Partition,
        /// The epoch under which the store was asked.
        epoch: i64,
    },
    /// The store: a change is written, or not.
    Written {
        /// The change.
        change: Change,
        /// What came of it.
        changed: Changed,
    },
    /// What came of [`super::Step::Work`]. Comes exactly once for each.
    Reported {
        /// The lane.
        key: SubjectId,
        /// The run.
        event: EventRef,
        /// The run's partition.
        partition: Partition,
        /// Its epoch.
        epoch: i64,
        /// Whom it was to ask, and the leave that was given.
        asked: Option<(String, Permit)>,
        /// What came of it.
        report: Report,
    },
    /// Since when an operator has paused the flow; none if it is not paused.
    Paused(Option<Timestamp>),
    /// The answer to [`super::Step::Look`].
    Looked {
        /// The look's number.
        look: u64,
        /// What was seen; none if the log or the store could not be asked.
        seen: Option<Looked>,
    },
    /// The answer to [`super::Step::AskFrontiers`]: how far each partition that the flow has ever owned is admitted; none if
    /// the store could not be asked.
    Frontiers(Option<BTreeMap<Partition, Option<i64>>>),
    /// What is known of the clock that the times given come from.
    Clock(ClockState),
    /// Nothing new is to be begun: the process stops.
    Stop,
    /// Time has passed.
    Tick,
}

/// What follows a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is the run's last.
    End,
    /// A step that asks this destination, or none.
    Step(Option<String>),
}

/// What came of working on a run's present step.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// The destination was asked.
    Attempted {
        /// What it came to.
        outcome: Outcome,
        /// What was sent, to be repeated as it is while its outcome is not known; none if it did not come to that.
        request: Option<Vec<u8>>,
        /// The step's name.
        step: String,
        /// What follows it.
        next: Next,
    },
    /// The step does not apply; the next one's turn comes.
    Skipped(Next),
    /// It would write to somebody who is not to be written to; the next one's turn comes.
    HeldBack {
        /// Why.
        held: SkipReason,
        /// What follows the step.
        next: Next,
    },
    /// The run waits: for the time, or for news of its subject.
    Wait {
        /// Until when at most.
        until: Timestamp,
        /// For news: the subject's revision that was looked at. None waits for the time alone.
        news_after: Option<i64>,
    },
    /// What it waited for did not come; there is nothing to do.
    NothingToDo,
    /// Its subject is gone, or something newer has taken effect.
    Superseded,
    /// It has ended meanwhile, in the store: there is nothing left to write.
    Ended,
    /// Somebody else owns its partition now.
    Fenced,
    /// The process stops, and it was not begun.
    Stopped,
    /// It was not begun: its account's calls are used up for a while.
    UsedUp {
        /// Until when.
        until: Timestamp,
        /// Whether those of the whole account are; else only of the part that this run goes through.
        whole: bool,
    },
}
