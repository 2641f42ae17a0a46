//! The conversation between a log and one subscriber, the same for both implementations.
//!
//! The log says [`LogEvent::Assigned`]; the subscriber decides where each partition starts and answers
//! [`Control::start`]; records flow; the subscriber says what may be committed. When partitions are taken away, the log
//! says [`LogEvent::Revoked`]; the subscriber finishes what it can and answers [`Control::release`]. Every assignment has
//! an epoch, and everything that belongs to it carries it, so that a late word about an old assignment is recognised.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use usher_proto::{Partition, Record};

use crate::LogError;

/// How many events of the log may wait for the subscriber: at most this many batches are in memory.
const BACKLOG: usize = 4;
/// How long a close may take. A healthy log needs milliseconds.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// How many records a batch may hold.
pub(crate) const BATCH: usize = 256;
/// How many bytes of records a batch may hold, roughly.
pub(crate) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// One partition that has just been given to the subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// Which.
    pub partition: Partition,
    /// Where the group's commit says to go on; none if it never committed.
    pub committed: Option<i64>,
    /// The oldest offset there is.
    pub low: i64,
    /// The offset the next record will get.
    pub end: i64,
}

/// What the log tells its subscriber.
#[derive(Debug)]
pub enum LogEvent {
    /// Partitions to work on. Nothing of them is delivered before [`Control::start`].
    Assigned {
        /// The assignment's number; higher than every earlier one of this process.
        epoch: u64,
        /// The partitions. None where others have them all for now: the subscriber stands by, and answers nothing.
        partitions: Vec<Assigned>,
    },
    /// Records of one partition, in order, each with its offset.
    Records {
        /// The assignment under which they were read.
        epoch: u64,
        /// Their partition.
        partition: Partition,
        /// Offset and record, ascending.
        records: Vec<(i64, Record)>,
    },
    /// Everything of a partition below `next` has been delivered, though the last record is not the last offset: what a
    /// producer's transactions leave behind takes offsets and holds no record.
    Reached {
        /// The assignment under which it was read.
        epoch: u64,
        /// The partition.
        partition: Partition,
        /// The offset that is read next.
        next: i64,
    },
    /// Partitions that are being taken away. The log waits a bounded time for [`Control::release`] unless they are lost.
    Revoked {
        /// The partitions.
        partitions: Vec<Partition>,
        /// Whether somebody else may work on them already, so that nothing can be committed any more.
        lost: bool,
    },
    /// The subscription cannot go on.
    Failed(LogError),
}

/// What the subscriber tells the log.
#[derive(Debug)]
pub(crate) enum Command {
    Start { epoch: u64, offsets: Vec<(Partition, i64)> },
    Commit { partition: Partition, offset: i64 },
    Pause(Partition),
    Resume(Partition),
    Release,
    Close(oneshot::Sender<()>),
}

/// The subscriber's side of the conversation.
pub struct Subscription {
    /// What the log says, in order.
    pub events: mpsc::Receiver<LogEvent>,
    /// How to answer.
    pub control: Control,
}

/// Answers to the log. None of them waits; all are carried out in the order given.
#[derive(Clone)]
pub struct Control {
    commands: mpsc::UnboundedSender<Command>,
}

impl Control {
    /// Starts the partitions of assignment `epoch` at these offsets. All of the assignment, at once.
    pub fn start(&self, epoch: u64, offsets: Vec<(Partition, i64)>) {
        self.tell(Command::Start { epoch, offsets });
    }

    /// Everything below `offset` is accounted for. Written to the log a few times a second and when the partition goes.
    pub fn commit(&self, partition: Partition, offset: i64) {
        self.tell(Command::Commit { partition, offset });
    }

    /// Delivers nothing of `partition` until resumed; what is on its way already still comes.
    pub fn pause(&self, partition: Partition) {
        self.tell(Command::Pause(partition));
    }

    /// Goes on with a paused partition, without a gap and without a repetition.
    pub fn resume(&self, partition: Partition) {
        self.tell(Command::Resume(partition));
    }

    /// Hands the revoked partitions back: their last commit is written first.
    pub fn release(&self) {
        self.tell(Command::Release);
    }

    /// Writes the last commits, leaves the group, and ends the subscription. A log that cannot be reached is waited for
    /// a few seconds only; it learns by itself that we are gone.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        self.tell(Command::Close(done));
        // If the log's side is gone already, it has left.
        if tokio::time::timeout(CLOSE_DEADLINE, closed).await.is_err() {
            tracing::warn!("the log did not confirm in time that the subscription has ended");
        }
    }

    fn tell(&self, command: Command) {
        // A log whose side has ended said Failed before; the subscriber learns of it there.
        let _ = self.commands.send(command);
    }
}

/// The log's ends of a new subscription's channels.
pub(crate) struct SubscriptionDriver {
    pub(crate) events: mpsc::Sender<LogEvent>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
}

pub(crate) fn channels() -> (Subscription, SubscriptionDriver) {
    let (event_sender, events) = mpsc::channel(BACKLOG);
    let (commands, command_receiver) = mpsc::unbounded_channel();
    let subscription = Subscription { events, control: Control { commands } };
    (subscription, SubscriptionDriver { events: event_sender, commands: command_receiver })
}
