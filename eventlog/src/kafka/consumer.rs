//! The consumer: a dedicated thread that never stops polling, so that the group coordinator does not take the
//! member for dead.
//!
//! While the subscriber is busy, the records that were read wait here and the partitions are paused; polling
//! continues. Commits are written twice a second. The thread owns the consumer and all its state; other code reaches
//! it through channels only. `rebalancing` takes assigned partitions over and hands revoked ones back.

mod rebalancing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::oneshot;
use usher_proto::{Assignment, Offset, Partition, Record};

use super::config::Settings;
use super::pending_rebalances::PendingRebalances;
use super::rebalance::{RebalanceEvent, Rebalances};
use super::record::record;
use super::unavailable;
use crate::LogError;
use crate::subscription::{BATCH, BATCH_BYTES, LogEvent, SubscriptionCommand, SubscriptionDriver};

/// Time that a poll waits for a record, and so the longest time that a command waits.
const POLL: Duration = Duration::from_millis(20);
/// Interval between writes of commits.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// Interval between repeats of unchanged commits. rdkafka reports no result for asynchronous commits, and the group
/// rejects those that arrive during a rebalance. Without a repeat, the committed offset could fall below what retention
/// has left. librdkafka logs the reason of a failed commit.
const COMMIT_AGAIN: Duration = Duration::from_secs(5);

/// Creates the consumer, subscribes it to `topic` and starts its thread.
pub(super) fn spawn(settings: &Settings, group: &str, topic: &str, side: SubscriptionDriver) -> Result<(), LogError> {
    let consumer: BaseConsumer<Rebalances> = settings
        .consumer(group)
        .create_with_context(Rebalances::new(settings.logger()))
        .map_err(|error| LogError::configuration(&error))?;
    consumer.subscribe(&[topic]).map_err(unavailable)?;
    let reader = Reader {
        consumer,
        group: group.to_owned(),
        topic: topic.to_owned(),
        side,
        pending: VecDeque::new(),
        held_back: false,
        partitions: BTreeMap::new(),
        pending_rebalances: PendingRebalances::default(),
        ends: BTreeMap::new(),
        unasked: BTreeSet::new(),
        ask_at: Instant::now(),
        committed_at: Instant::now(),
        committed_again_at: Instant::now(),
    };
    let thread = std::thread::Builder::new().name(format!("log-{group}"));
    thread.spawn(move || reader.run()).map(drop).map_err(unavailable)
}

/// State of a partition that this member reads.
struct Owned {
    assignment: Assignment,
    /// Offset that may be committed, and true if it has been written.
    frontier: Option<(Offset, bool)>,
    /// End of the partition at its assignment. `None` once everything below it has been delivered.
    end: Option<Offset>,
    /// Offset after the last record that was read.
    next: Offset,
    /// True if the subscriber has paused the partition.
    paused: bool,
}

struct Reader {
    consumer: BaseConsumer<Rebalances>,
    group: String,
    topic: String,
    side: SubscriptionDriver,
    /// Events for which the subscriber's queue had no space yet.
    pending: VecDeque<LogEvent>,
    /// True if all partitions are paused because events are pending.
    held_back: bool,
    partitions: BTreeMap<Partition, Owned>,
    pending_rebalances: PendingRebalances,
    /// Ends of partitions that are assigned and not started yet.
    ends: BTreeMap<Partition, Offset>,
    /// Assigned partitions whose offsets could not be queried yet. `ask_at` is the time of the next attempt.
    unasked: BTreeSet<Partition>,
    ask_at: Instant,
    committed_at: Instant,
    committed_again_at: Instant,
}

impl Reader {
    fn run(mut self) {
        let closed = loop {
            match self.apply_commands() {
                Ok(None) => {}
                Ok(Some(closed)) => break Some(closed),
                // The subscriber was dropped without a close: leave the group, so that other members may continue.
                Err(()) => break None,
            }
            if let Err(error) = self.turn() {
                tracing::error!(group = self.group, %error, "subscription failed");
                self.pending.push_back(LogEvent::Failed(error));
            }
            self.hand_over();
        };
        // Dropped first, because that leaves the group.
        drop(self);
        if let Some(closed) = closed {
            // Ignored: the caller may have stopped waiting.
            let _ = closed.send(());
        }
    }

    /// Polls once, then processes rebalances, overdue releases and commits.
    fn turn(&mut self) -> Result<(), LogError> {
        self.read()?;
        if !self.unasked.is_empty() && Instant::now() >= self.ask_at {
            let partitions = std::mem::take(&mut self.unasked).into_iter().collect();
            self.assigned(partitions);
        }
        while let Some(change) = self.consumer.context().take() {
            match change {
                RebalanceEvent::Assigned(partitions) => self.assigned(partitions),
                RebalanceEvent::Revoked(partitions) => self.revoked(partitions),
                RebalanceEvent::Lost(partitions) => self.lost(partitions),
                RebalanceEvent::Unchanged => {
                    self.pending.push_back(LogEvent::Assigned { assignment: Assignment::NONE, partitions: Vec::new() })
                }
            }
        }
        while let Some(partitions) = self.pending_rebalances.overdue(Instant::now()) {
            tracing::warn!(group = self.group, "releasing revoked partitions before their work is finished");
            self.hand_back(&partitions);
        }
        if self.committed_again_at.elapsed() >= COMMIT_AGAIN {
            self.commit_again();
        }
        if self.committed_at.elapsed() >= COMMIT_EVERY {
            self.commit(|_| true);
            self.committed_at = Instant::now();
        }
        Ok(())
    }

    /// Reads the available records, up to a batch, into `pending`.
    fn read(&mut self) -> Result<(), LogError> {
        let mut batches: BTreeMap<Partition, Vec<(Offset, Record)>> = BTreeMap::new();
        let mut at_end = BTreeSet::new();
        let mut count = 0;
        let mut bytes = 0;
        let mut wait = POLL;
        while count < BATCH && bytes < BATCH_BYTES {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let record = record(&message);
                    count += 1;
                    bytes += record.size();
                    batches.entry(Partition(message.partition())).or_default().push((Offset(message.offset()), record));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(at_end.insert(Partition(partition))),
                Some(Err(error)) => self.poll_error(&error)?,
            }
            wait = Duration::ZERO;
        }
        for (partition, records) in batches {
            if let Some(owned) = self.partitions.get_mut(&partition) {
                owned.next = records.last().map_or(owned.next, |(last, _)| last.next());
                self.pending.push_back(LogEvent::Records { assignment: owned.assignment, partition, records });
            }
        }
        at_end.into_iter().for_each(|partition| self.reached_the_end(partition));
        Ok(())
    }

    /// Reports the end of a partition after all its records have been delivered. librdkafka does not state which end it
    /// reached; it is not below the end that was queried before the first fetch.
    fn reached_the_end(&mut self, partition: Partition) {
        if let Some(owned) = self.partitions.get_mut(&partition)
            && let Some(next) = owned.end.take()
            && next > owned.next
        {
            self.pending.push_back(LogEvent::Reached { assignment: owned.assignment, partition, next });
        }
    }

    fn poll_error(&self, error: &KafkaError) -> Result<(), LogError> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                // rdkafka's error contains neither partition nor offset.
                Err(LogError::Unavailable(format!(
                    "{} has lost events that {} had not read: {error}",
                    self.topic, self.group
                )))
            }
            Some(RDKafkaErrorCode::Fatal) => Err(LogError::Unavailable(error.to_string())),
            // All other errors pass by themselves (a broker restarts, a leader moves); librdkafka keeps retrying.
            _ => {
                self.consumer.context().logger().error(error, &format!("group {} reads", self.group));
                Ok(())
            }
        }
    }

    /// Commits the unwritten offsets of the partitions for which `which` is true.
    fn commit(&mut self, which: impl Fn(&Partition) -> bool) {
        let mut list = TopicPartitionList::new();
        for (partition, owned) in self.partitions.iter_mut().filter(|(partition, _)| which(partition)) {
            if let Some((offset, written @ false)) = &mut owned.frontier {
                *written = list.add_partition_offset(&self.topic, partition.0, KafkaOffset::Offset(offset.0)).is_ok();
            }
        }
        if list.count() == 0 {
            return;
        }
        match self.consumer.commit(&list, CommitMode::Async) {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(group = self.group, %error, "writing a commit failed; retrying");
                self.commit_again();
            }
        }
    }

    /// Marks all offsets as unwritten, so that the next commit includes them.
    fn commit_again(&mut self) {
        self.committed_again_at = Instant::now();
        for owned in self.partitions.values_mut() {
            if let Some((_, written)) = &mut owned.frontier {
                *written = false;
            }
        }
    }

    /// Executes all queued commands. Returns the sender to notify if the subscriber requested a close, and an error if
    /// the subscriber was dropped.
    fn apply_commands(&mut self) -> Result<Option<oneshot::Sender<()>>, ()> {
        loop {
            match self.side.commands.try_recv() {
                // A `Control` may outlive the receiver of events.
                Err(TryRecvError::Empty) if self.side.events.is_closed() => return Err(()),
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(()),
                Ok(SubscriptionCommand::Close(closed)) => return Ok(Some(closed)),
                Ok(SubscriptionCommand::Start { assignment, offsets }) => self.start(assignment, &offsets),
                Ok(SubscriptionCommand::Commit { partition, offset }) => {
                    if let Some(owned) = self.partitions.get_mut(&partition) {
                        owned.frontier = Some((offset, false));
                    }
                }
                Ok(SubscriptionCommand::Pause(partition)) => self.pause(partition, true),
                Ok(SubscriptionCommand::Resume(partition)) => self.pause(partition, false),
                Ok(SubscriptionCommand::Release) => {
                    if let Some(partitions) = self.pending_rebalances.release() {
                        self.hand_back(&partitions);
                    }
                }
            }
        }
    }

    fn pause(&mut self, partition: Partition, paused: bool) {
        let Some(owned) = self.partitions.get_mut(&partition) else { return };
        if owned.paused != paused {
            owned.paused = paused;
            if !self.held_back {
                self.set_paused(BTreeSet::from([partition]), paused);
            }
        }
    }

    /// Sends pending events while the subscriber's queue has space. Pauses all partitions while events remain, and
    /// then resumes them.
    fn hand_over(&mut self) {
        while let Some(event) = self.pending.pop_front() {
            match self.side.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event) | TrySendError::Closed(event)) => {
                    self.pending.push_front(event);
                    break;
                }
            }
        }
        let held_back = !self.pending.is_empty();
        if held_back != self.held_back {
            self.held_back = held_back;
            let unpaused = self.partitions.iter().filter(|(_, owned)| !owned.paused).map(|(partition, _)| *partition);
            self.set_paused(unpaused.collect(), held_back);
        }
    }

    fn set_paused(&self, partitions: BTreeSet<Partition>, paused: bool) {
        let done = self
            .list(&partitions, KafkaOffset::Invalid)
            .and_then(|list| if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) });
        if let Err(error) = done {
            tracing::warn!(group = self.group, %error, paused, "pausing or resuming partitions failed");
        }
    }

    fn list<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a Partition>,
        offset: KafkaOffset,
    ) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&self.topic, partition.0, offset)?;
        }
        Ok(list)
    }
}

/// Leaves the group however the thread ends, a panic included. Otherwise the drop of the consumer that follows would
/// wait for answers that never come, and keep its partitions from other members.
impl Drop for Reader {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;
