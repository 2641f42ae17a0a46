//! The protocol between a log and one subscriber, the same for both implementations.
//!
//! The log sends [`LogEvent::Assigned`]; the subscriber decides where each partition starts and answers with
//! [`Control::start`]. Then the log sends records, and the subscriber reports the offsets that may be committed. If
//! partitions are revoked, the log sends [`LogEvent::Revoked`]; the subscriber finishes what it can and answers with
//! [`Control::release`]. Every assignment has a number, and every message that belongs to the assignment carries it,
//! so that late messages about an old assignment are recognised.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use usher_proto::{AssignedPartition, Assignment, Offset, Partition, Record};

use crate::LogError;

/// Maximum number of events that wait for the subscriber; bounds the batches in memory.
const BACKLOG: usize = 4;
/// Time limit for a close. A healthy log needs milliseconds.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// Maximum number of records in a batch.
pub(crate) const BATCH: usize = 256;
/// Approximate maximum size of a batch, in bytes of records.
pub(crate) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Events sent from the log to its subscriber.
#[derive(Debug)]
pub enum LogEvent {
    /// Partitions were assigned. None of their records is delivered before [`Control::start`].
    Assigned {
        /// Higher than those of earlier assignments of this subscription. It has no meaning if
        /// `partitions` is empty.
        assignment: Assignment,
        /// The assigned partitions. Empty if other members have all partitions at present: the subscriber is on standby
        /// and does not answer.
        partitions: Vec<AssignedPartition>,
    },
    /// Records of one partition were read.
    Records {
        /// The assignment under which they were read.
        assignment: Assignment,
        /// Partition of the records.
        partition: Partition,
        /// Offsets and records, in ascending order of offset.
        records: Vec<(Offset, Record)>,
    },
    /// Every record of a partition below `next` has been delivered, although the last record does not have the last
    /// offset: the control records of a producer's transactions take offsets and hold no record.
    Reached {
        /// The assignment under which the partition was read.
        assignment: Assignment,
        /// The partition.
        partition: Partition,
        /// Offset that is read next.
        next: Offset,
    },
    /// Partitions are being revoked. The log waits a bounded time for [`Control::release`], unless they are lost.
    Revoked {
        /// The revoked partitions.
        partitions: Vec<Partition>,
        /// True if another member may already own the partitions. Their offsets can then no longer be committed.
        lost: bool,
    },
    /// The subscription cannot continue.
    Failed(LogError),
}

/// Commands sent from the subscriber to the log.
#[derive(Debug)]
pub(crate) enum SubscriptionCommand {
    Start { assignment: Assignment, offsets: Vec<(Partition, Offset)> },
    Commit { partition: Partition, offset: Offset },
    Pause(Partition),
    Resume(Partition),
    Release,
    Close(oneshot::Sender<()>),
}

/// The subscriber's side of a subscription.
pub struct Subscription {
    /// Events of the log, in order.
    pub events: mpsc::Receiver<LogEvent>,
    /// Handle for answering the log.
    pub control: Control,
}

/// Handle for sending commands to the log. The log executes them in the order given; only `close` waits for that.
#[derive(Clone)]
pub struct Control {
    commands: mpsc::UnboundedSender<SubscriptionCommand>,
}

impl Control {
    /// Starts all partitions of an assignment at these offsets, in one call.
    pub fn start(&self, assignment: Assignment, offsets: Vec<(Partition, Offset)>) {
        self.tell(SubscriptionCommand::Start { assignment, offsets });
    }

    /// Reports that all records below `offset` are accounted for. The log writes the commit about every half second,
    /// and when the partition is revoked.
    pub fn commit(&self, partition: Partition, offset: Offset) {
        self.tell(SubscriptionCommand::Commit { partition, offset });
    }

    /// Pauses the delivery of `partition` until it is resumed. Records that are already queued are still delivered.
    pub fn pause(&self, partition: Partition) {
        self.tell(SubscriptionCommand::Pause(partition));
    }

    /// Resumes a paused partition, without a gap and without repetition.
    pub fn resume(&self, partition: Partition) {
        self.tell(SubscriptionCommand::Resume(partition));
    }

    /// Releases the revoked partitions of the oldest unanswered revocation. The log writes their last commit first.
    pub fn release(&self) {
        self.tell(SubscriptionCommand::Release);
    }

    /// Writes the last commits, leaves the group and ends the subscription. Waits at most a few seconds for a log that
    /// cannot be reached; that log detects by itself that the member is gone.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        self.tell(SubscriptionCommand::Close(done));
        // An error of `closed` means that the log's side ended before; it has left the group then.
        if tokio::time::timeout(CLOSE_DEADLINE, closed).await.is_err() {
            tracing::warn!("ending the subscription timed out");
        }
    }

    fn tell(&self, command: SubscriptionCommand) {
        // Ignored: a log whose side has ended sent `Failed` before.
        let _ = self.commands.send(command);
    }
}

/// The log's ends of a new subscription's channels.
pub(crate) struct SubscriptionDriver {
    pub(crate) events: mpsc::Sender<LogEvent>,
    pub(crate) commands: mpsc::UnboundedReceiver<SubscriptionCommand>,
}

pub(crate) fn channels() -> (Subscription, SubscriptionDriver) {
    let (event_sender, events) = mpsc::channel(BACKLOG);
    let (commands, command_receiver) = mpsc::unbounded_channel();
    let subscription = Subscription { events, control: Control { commands } };
    (subscription, SubscriptionDriver { events: event_sender, commands: command_receiver })
}
