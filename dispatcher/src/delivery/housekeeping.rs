//! Periodic work for the flows of a process. What can be read for all flows at once is read once: pauses, the log's
//! watermarks, dead letters to erase. Runs are counted when the metrics are read. Only the deletion of what is old enough is a
//! task of each flow.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use usher_engine::clock::ClockState;
use usher_engine::{Input, RunState};
use usher_eventlog::{Log, LogError, TopicSpec};
use usher_proto::{Key, Offset, Partition, Timestamp};
use usher_service::{Scrapes, clock};
use usher_sql::Outage;
use usher_store::{RunCount, Store, StoreError};

use crate::metrics::{DispatcherMetrics, is_counted};

/// Interval between checks for pauses by an operator.
const PAUSED_EVERY: Duration = Duration::from_secs(2);
/// Number of runs that have ended after which the space of their rows is to be used again. A table of as many rows is small.
const ENDED_BEFORE_REUSE: u64 = 8_192;
/// Interval between reads of the log's watermarks, and of dead letters to erase.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Interval between checks of how many runs have ended. At ten thousand runs a second their rows take some 30 MB until then.
const REUSE_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Interval between reads of the offsets at half of the log's retention, which is a day at least.
const RETENTION_EVERY: Duration = Duration::from_secs(60);
/// Minimum age of counts of runs before they are counted again, however often the metrics are read.
const COUNT_AT_MOST_EVERY: Duration = Duration::from_secs(5);
/// Counting takes at most one part in this many of the time: it reads all open runs, which may be a million.
const COUNTING_SHARE: u32 = 20;
/// Interval between deletions of old data.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Largest number of runs deleted at once. Small batches hold locks for a short time.
const PRUNE_BATCH: usize = 500;

/// Offset of each partition below which records are older than half of the topic's retention. Empty if the topic has no
/// known retention, and so no record is removed unread. Used by the consumer, which has the offsets read so far.
pub(super) type HalfRetentionOffsets = Arc<Mutex<Vec<(Partition, Offset)>>>;

/// A flow, as its process's housekeeping knows it.
pub(super) struct KeptFlow {
    pub(super) name: String,
    /// The topic of its dead letters.
    pub(super) dead_letters: TopicSpec,
    pub(super) consumer: mpsc::UnboundedSender<Input>,
    pub(super) half_retention_offsets: HalfRetentionOffsets,
}

impl KeptFlow {
    fn tell(&self, input: Input) {
        // The consumer is gone only after a stop, which also stops the housekeeping.
        let _ = self.consumer.send(input);
    }
}

/// The housekeeping that the flows of a process share.
pub(super) struct SharedHousekeeper {
    pub(super) flows: Vec<KeptFlow>,
    /// Names of all flows that have a file, also of those that other processes run.
    pub(super) known_flows: Vec<String>,
    pub(super) topic: String,
    pub(super) store: Arc<dyn Store>,
    pub(super) log: Arc<dyn Log>,
    pub(super) metrics: DispatcherMetrics,
    pub(super) outage: Outage,
    pub(super) scrapes: Scrapes,
}

impl SharedHousekeeper {
    /// Runs until it is dropped. Work that fails is repeated at its next interval. None waits for the other: the log may be
    /// slow while a flow is to be paused.
    pub(super) async fn run(self) {
        tokio::join!(self.watch_pauses(), self.look_at_the_log(), self.count_when_read(), self.reuse_space());
    }

    async fn watch_pauses(&self) {
        let mut due = every(PAUSED_EVERY);
        loop {
            due.tick().await;
            // An idle flow may not use the store for half a minute, so this also finds that it is away.
            match self.store.pauses().await {
                Ok(pauses) => {
                    self.outage.record_success();
                    self.flows.iter().for_each(|flow| flow.tell(Input::Paused(pauses.get(&flow.name).copied())));
                }
                Err(error) => self.outage.record_failure(error.fault(), &error.to_string()).await,
            }
        }
    }

    async fn look_at_the_log(&self) {
        let mut due = every(LOOK_EVERY);
        let mut aged_at: Option<Instant> = None;
        loop {
            due.tick().await;
            if aged_at.is_none_or(|at| at.elapsed() >= RETENTION_EVERY) {
                match self.read_half_retention().await {
                    Ok(()) => aged_at = Some(Instant::now()),
                    Err(error) => tracing::debug!(%error, "reading the age of the log's records failed; retrying"),
                }
            }
            match self.log.watermarks(&self.topic).await {
                Ok(watermarks) => {
                    let ends: Vec<(Partition, Offset)> =
                        watermarks.into_iter().map(|(partition, marks)| (partition, marks.high)).collect();
                    self.flows.iter().for_each(|flow| flow.tell(Input::Ends(ends.clone())));
                }
                Err(error) => tracing::debug!(%error, "reading the log's watermarks failed; retrying"),
            }
            if let Err(error) = self.erase_dead_letters().await {
                tracing::debug!(%error, "reading dead letters to erase failed; retrying");
            }
        }
    }

    async fn read_half_retention(&self) -> Result<(), LogError> {
        let Some(retention) = self.log.state(&self.topic).retention else { return Ok(()) };
        let half = i64::try_from(retention.as_millis() / 2).unwrap_or(i64::MAX);
        let at = Timestamp::from_millis(clock::now().millis().saturating_sub(half));
        let offsets: Vec<(Partition, Offset)> = self.log.offsets_at(&self.topic, at).await?.into_iter().collect();
        for flow in &self.flows {
            flow.half_retention_offsets.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&offsets);
        }
        Ok(())
    }

    async fn erase_dead_letters(&self) -> Result<(), StoreError> {
        let with_some = self.store.flows_to_erase().await?;
        for flow in self.flows.iter().filter(|flow| with_some.contains(&flow.name)) {
            self.erase_dead_letters_of(flow).await?;
        }
        Ok(())
    }

    /// Erases the dead letters of runs that are no longer dead, each with a tombstone. Erasing one twice does no harm.
    async fn erase_dead_letters_of(&self, flow: &KeptFlow) -> Result<(), StoreError> {
        loop {
            let runs = self.store.dead_letters_to_erase(&flow.name, PRUNE_BATCH).await?;
            for run in &runs {
                if let Err(error) = self.log.erase(&flow.dead_letters, &Key::new(run.as_str())).await {
                    tracing::debug!(flow = flow.name, %error, "erasing dead letters failed; retrying");
                    return Ok(());
                }
            }
            if !runs.is_empty() {
                self.store.dead_letters_erased(&flow.name, &runs).await?;
            }
            if runs.len() < PRUNE_BATCH {
                return Ok(());
            }
        }
    }

    /// Counts the runs when the metrics are read, so that nobody counts what nobody reads.
    async fn count_when_read(&self) {
        let mut reads = self.scrapes.subscribe();
        let mut count_from = Instant::now();
        while let Some(read) = reads.next().await {
            let begun = Instant::now();
            if begun >= count_from {
                if let Err(error) = self.count().await {
                    tracing::debug!(%error, "counting runs failed");
                }
                count_from = Instant::now() + COUNT_AT_MOST_EVERY.max(begun.elapsed() * COUNTING_SHARE);
            }
            drop(read);
        }
    }

    async fn count(&self) -> Result<(), StoreError> {
        let counts = self.store.run_counts().await?;
        let now = clock::now();
        for flow in &self.flows {
            for state in RunState::ALL.into_iter().filter(|state| is_counted(*state)) {
                let found = counts.iter().find(|count| count.flow == flow.name && count.state == state);
                let age = found.map_or(0, |count| now.since(count.oldest).as_secs());
                let labels = [flow.name.as_str(), state.label()];
                self.metrics.stored.with_label_values(&labels).set(found.map_or(0, |count| count.runs));
                self.metrics.oldest.with_label_values(&labels).set(i64::try_from(age).unwrap_or(i64::MAX));
            }
        }
        self.metrics.without_flow.reset();
        let is_orphaned = |count: &&RunCount| !count.state.is_terminal() && !self.known_flows.contains(&count.flow);
        for count in counts.iter().filter(is_orphaned) {
            self.metrics.without_flow.with_label_values(&[&count.flow]).add(count.runs);
        }
        Ok(())
    }

    /// Makes the space of ended runs available again, once there are enough of them.
    async fn reuse_space(&self) {
        let mut due = every(REUSE_AT_MOST_EVERY);
        let mut reused_at = self.ended();
        loop {
            due.tick().await;
            if self.ended() - reused_at >= ENDED_BEFORE_REUSE {
                reused_at = self.ended();
                if let Err(error) = self.store.reuse_space().await {
                    tracing::debug!(%error, "vacuuming the table of open runs failed; autovacuum does it");
                }
            }
        }
    }

    /// Returns the number of runs that this process has ended.
    fn ended(&self) -> u64 {
        let of = |flow: &KeptFlow, state: &RunState| {
            self.metrics.runs.with_label_values(&[flow.name.as_str(), state.label()]).get()
        };
        let ended = RunState::ALL.iter().filter(|state| state.is_terminal());
        ended.flat_map(|state| self.flows.iter().map(move |flow| of(flow, state))).sum()
    }
}

/// The deletion of a flow's old data.
pub(super) struct Pruner {
    pub(super) flow: String,
    pub(super) store: Arc<dyn Store>,
    /// Retention of ended runs, counted from the receipt of their events; see [`Store::prune`].
    pub(super) keep: Duration,
    /// Nothing is deleted while the clock is not right.
    pub(super) clock: watch::Receiver<ClockState>,
}

impl Pruner {
    /// Runs until it is dropped. What fails is repeated at the next interval.
    pub(super) async fn run(self) {
        loop {
            tokio::time::sleep(PRUNE_EVERY).await;
            if let Err(error) = self.prune().await {
                tracing::debug!(flow = self.flow, %error, "deleting old data failed; retrying");
            }
        }
    }

    async fn prune(&self) -> Result<(), StoreError> {
        if *self.clock.borrow() != ClockState::Right {
            return Ok(());
        }
        while self.store.drop_spent(&self.flow, clock::now(), PRUNE_BATCH).await? >= PRUNE_BATCH as u64 {}
        while self.store.prune(&self.flow, self.keep, PRUNE_BATCH).await? >= PRUNE_BATCH as u64 {}
        Ok(())
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
