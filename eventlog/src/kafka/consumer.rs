//! The consumer: a thread of its own, because librdkafka's calls may block. It sleeps until there is something to do: a
//! command, space in the subscriber's queue, news of librdkafka, or a tick: twice a second while something changes by time
//! alone, and once a second otherwise.
//!
//! While the subscriber is busy, nothing is polled; what librdkafka fetches ahead is bounded. If that lasts, the
//! partitions are paused and polling continues, so that the group coordinator does not take the member for dead: see
//! `backpressure`. The thread owns the consumer and all its state; other code reaches it through channels only.
//! `rebalancing` takes assigned partitions over and hands revoked ones back.

mod backpressure;
mod rebalancing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::{Notify, oneshot};
use usher_proto::{Assignment, Offset, Partition, Record};

use self::backpressure::Backpressure;
use super::config::Settings;
use super::pending_rebalances::PendingRebalances;
use super::rebalance::{RebalanceEvent, Rebalances};
use super::record::record;
use super::unavailable;
use crate::LogError;
use crate::subscription::{BATCH, BATCH_BYTES, LogEvent, SubscriptionCommand, SubscriptionDriver};

/// Interval of what is done by time alone: commits, repeated questions, overdue releases, lasting pauses.
const TICK: Duration = Duration::from_millis(500);
/// The same while there is nothing of that kind. Only polling is repeated then, which shows the group coordinator a living member.
const REST: Duration = Duration::from_secs(1);
/// Interval between the first repeats of an unchanged commit. rdkafka reports no result for asynchronous commits, and the group
/// rejects those that arrive during a rebalance. Without a repeat, the committed offset could fall below what retention
/// has left. librdkafka logs the reason of a failed commit.
const COMMIT_AGAIN: Duration = Duration::from_secs(5);
/// Number of these repeats. A rebalance is over by then.
const FIRST_REPEATS: u32 = 4;
/// Interval between all further repeats.
const COMMIT_RARELY: Duration = Duration::from_secs(60);

/// Creates the consumer, subscribes it to `topic` and starts its thread.
pub(super) fn spawn(settings: &Settings, group: &str, topic: &str, side: SubscriptionDriver) -> Result<(), LogError> {
    let mut consumer: BaseConsumer<Rebalances> = settings
        .consumer(group)
        .create_with_context(Rebalances::new(settings.logger()))
        .map_err(|error| LogError::configuration(&error))?;
    let news = Arc::new(Notify::new());
    let ring = news.clone();
    consumer.set_nonempty_callback(move || ring.notify_one());
    consumer.subscribe(&[topic]).map_err(unavailable)?;
    let reader = Reader {
        consumer,
        group: group.to_owned(),
        topic: topic.to_owned(),
        side,
        news,
        pending: VecDeque::new(),
        backpressure: Backpressure::default(),
        partitions: BTreeMap::new(),
        pending_rebalances: PendingRebalances::default(),
        ends: BTreeMap::new(),
        unasked: BTreeSet::new(),
        ask_at: Instant::now(),
        committed_again_at: Instant::now(),
        repeats: 0,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(unavailable)?;
    let thread = std::thread::Builder::new().name(format!("log-{group}"));
    thread.spawn(move || runtime.block_on(reader.run())).map(drop).map_err(unavailable)
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
}

struct Reader {
    consumer: BaseConsumer<Rebalances>,
    group: String,
    topic: String,
    side: SubscriptionDriver,
    /// Rings when librdkafka's queue is no longer empty.
    news: Arc<Notify>,
    /// Events for which the subscriber's queue had no space yet.
    pending: VecDeque<LogEvent>,
    backpressure: Backpressure,
    partitions: BTreeMap<Partition, Owned>,
    pending_rebalances: PendingRebalances,
    /// Ends of partitions that are assigned and not started yet.
    ends: BTreeMap<Partition, Offset>,
    /// Assigned partitions whose offsets could not be queried yet. `ask_at` is the time of the next attempt.
    unasked: BTreeSet<Partition>,
    ask_at: Instant,
    committed_again_at: Instant,
    /// Number of times that the commits were repeated.
    repeats: u32,
}

/// End of the thread. It holds the sender to notify if the subscriber requested a close, and nothing if it was dropped.
struct Ended(Option<oneshot::Sender<()>>);

impl Reader {
    async fn run(mut self) {
        let mut ticked_at = tokio::time::Instant::now();
        let events = self.side.events.clone();
        let Ended(closed) = loop {
            let tick_at = ticked_at + self.tick();
            // Commands come first: they may say that nothing more is to be read.
            tokio::select! {
                biased;
                command = self.side.commands.recv() => {
                    let Some(command) = command else { break Ended(None) };
                    if let Some(ended) = self.apply(command) {
                        break ended;
                    }
                }
                // The subscriber was dropped without a close, though a `Control` may outlive it: leave the group, so
                // that other members may continue.
                () = events.closed() => break Ended(None),
                Ok(space) = events.reserve(), if !self.pending.is_empty() => {
                    if let Some(event) = self.pending.pop_front() {
                        space.send(event);
                    }
                }
                () = self.news.notified(), if self.backpressure.lets_read(Instant::now()) => self.turn(),
                () = tokio::time::sleep_until(tick_at) => {
                    ticked_at = tokio::time::Instant::now();
                    self.on_tick();
                }
            }
            self.settle_pauses();
        };
        // Dropped first, because that leaves the group.
        drop(self);
        if let Some(closed) = closed {
            // Ignored: the caller may have stopped waiting.
            let _ = closed.send(());
        }
    }

    /// Reads a batch, and takes in the rebalances that the polls have shown.
    fn turn(&mut self) {
        if let Err(error) = self.read() {
            tracing::error!(group = self.group, %error, "subscription failed");
            self.pending.push_back(LogEvent::Failed(error));
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
    }

    /// Returns the interval until the next tick.
    fn tick(&self) -> Duration {
        let uncommitted = |owned: &Owned| matches!(owned.frontier, Some((_, false)));
        let by_time = !self.unasked.is_empty()
            || !self.pending_rebalances.is_empty()
            || self.backpressure.is_any()
            || self.partitions.values().any(uncommitted);
        if by_time { TICK } else { REST }
    }

    /// Does what is due by time alone.
    fn on_tick(&mut self) {
        if !self.unasked.is_empty() && Instant::now() >= self.ask_at {
            let partitions = std::mem::take(&mut self.unasked).into_iter().collect();
            self.assigned(partitions);
        }
        while let Some(partitions) = self.pending_rebalances.overdue(Instant::now()) {
            tracing::warn!(group = self.group, "releasing revoked partitions before their work is finished");
            self.hand_back(&partitions);
        }
        let repeat_after = if self.repeats < FIRST_REPEATS { COMMIT_AGAIN } else { COMMIT_RARELY };
        if self.committed_again_at.elapsed() >= repeat_after {
            self.commit_again();
            self.repeats += 1;
        }
        self.commit(|_| true);
        // Polled even without news: that shows the group coordinator a living member.
        self.news.notify_one();
    }

    /// Reads the available records, up to a batch, into `pending`.
    fn read(&mut self) -> Result<(), LogError> {
        let mut batches: BTreeMap<Partition, Vec<(Offset, Record)>> = BTreeMap::new();
        let mut at_end = BTreeSet::new();
        let mut count = 0;
        let mut bytes = 0;
        loop {
            if count >= BATCH || bytes >= BATCH_BYTES {
                // librdkafka rings only when its queue was empty before.
                self.news.notify_one();
                break;
            }
            match self.consumer.poll(Duration::ZERO) {
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

    /// Executes a command. Returns the end if it is one.
    fn apply(&mut self, command: SubscriptionCommand) -> Option<Ended> {
        match command {
            SubscriptionCommand::Close(closed) => return Some(Ended(Some(closed))),
            SubscriptionCommand::Start { assignment, offsets } => self.start(assignment, &offsets),
            SubscriptionCommand::Commit { partition, offset } => {
                if let Some(owned) = self.partitions.get_mut(&partition) {
                    owned.frontier = Some((offset, false));
                    self.repeats = 0;
                }
            }
            SubscriptionCommand::Pause(partition) => {
                if self.partitions.contains_key(&partition) {
                    self.backpressure.pause(partition, Instant::now());
                }
            }
            SubscriptionCommand::Resume(partition) => self.backpressure.resume(partition),
            SubscriptionCommand::Release => {
                if let Some(partitions) = self.pending_rebalances.release() {
                    self.hand_back(&partitions);
                }
            }
        }
        None
    }

    /// Takes in that events wait for the subscriber or do not, and pauses in librdkafka what is held up for long.
    fn settle_pauses(&mut self) {
        let now = Instant::now();
        self.backpressure.pending(!self.pending.is_empty(), now);
        let changes = self.backpressure.changes(self.partitions.keys().copied(), now);
        if !changes.pause.is_empty() {
            self.set_paused(&changes.pause, true);
        }
        if !changes.resume.is_empty() {
            self.set_paused(&changes.resume, false);
        }
    }

    fn set_paused(&self, partitions: &BTreeSet<Partition>, paused: bool) {
        let done = self
            .list(partitions, KafkaOffset::Invalid)
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
