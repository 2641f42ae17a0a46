//! Periodic tasks of a flow: checks if it is paused, reads the log's watermarks, counts runs, erases dead letters, and
//! deletes what is old enough.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use usher_engine::clock::ClockState;
use usher_engine::{Input, RunState};
use usher_eventlog::{Log, TopicSpec};
use usher_proto::{Key, Offset, Partition, Timestamp};
use usher_service::clock;
use usher_store::{Store, StoreError};

use crate::metrics::DispatcherMetrics;

/// Interval between checks for a pause by an operator.
const PAUSED_EVERY: Duration = Duration::from_secs(2);
/// Number of runs that have ended after which the space of their rows is to be used again. A table of as many rows is small.
const ENDED_BEFORE_REUSE: u64 = 8_192;
/// Interval between counts of runs and reads of the log's watermarks.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// Interval between deletions of old data.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Largest number of runs deleted at once. Small batches hold locks for a short time.
const PRUNE_BATCH: usize = 500;

/// The periodic tasks of one flow.
pub(super) struct Housekeeper {
    pub(super) flow: String,
    pub(super) topic: String,
    /// The topic of its dead letters.
    pub(super) dead_letters: TopicSpec,
    pub(super) store: Arc<dyn Store>,
    pub(super) log: Arc<dyn Log>,
    pub(super) metrics: DispatcherMetrics,
    /// Retention of ended runs, counted from the receipt of their events; see [`Store::prune`].
    pub(super) keep: Duration,
    pub(super) consumer: mpsc::UnboundedSender<Input>,
    pub(super) half_retention_offsets: HalfRetentionOffsets,
    /// Nothing is deleted while the clock is not right.
    pub(super) clock: watch::Receiver<ClockState>,
}

/// Offset of each partition below which records are older than half of the topic's retention. Empty if the topic has no
/// known retention, and so no record is removed unread. Used by the consumer, which has the offsets read so far.
pub(super) type HalfRetentionOffsets = Arc<Mutex<Vec<(Partition, Offset)>>>;

impl Housekeeper {
    /// Runs until it is dropped. A task that fails is repeated at its next interval.
    pub(super) async fn run(self) {
        let every = |period| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let mut paused = every(PAUSED_EVERY);
        let mut count = every(COUNT_EVERY);
        let mut prune = tokio::time::interval_at(Instant::now() + PRUNE_EVERY, PRUNE_EVERY);
        let mut reused_at = self.ended();
        loop {
            let done = tokio::select! {
                _ = paused.tick() => {
                    let looked = self.look_whether_paused().await;
                    if self.ended() - reused_at >= ENDED_BEFORE_REUSE {
                        reused_at = self.ended();
                        self.reuse_space().await;
                    }
                    looked
                }
                _ = count.tick() => {
                    self.look_at_the_log().await;
                    self.look_at_the_retention().await;
                    match self.erase_dead_letters().await {
                        Ok(()) => self.count().await,
                        error => error,
                    }
                }
                _ = prune.tick() => self.forget().await,
            };
            if let Err(error) = done {
                tracing::debug!(flow = self.flow, %error, "housekeeping failed; retrying");
            }
        }
    }

    /// Returns the number of runs that this process has ended.
    fn ended(&self) -> u64 {
        let of = |state: &RunState| self.metrics.runs.with_label_values(&[self.flow.as_str(), state.label()]).get();
        RunState::ALL.iter().filter(|state| state.is_terminal()).map(of).sum()
    }

    async fn reuse_space(&self) {
        if let Err(error) = self.store.reuse_space().await {
            tracing::debug!(flow = self.flow, %error, "vacuuming the table of open runs failed; autovacuum does it");
        }
    }

    fn tell(&self, input: Input) {
        // The consumer is gone only after a stop, which also stops this task.
        let _ = self.consumer.send(input);
    }

    async fn look_whether_paused(&self) -> Result<(), StoreError> {
        self.tell(Input::Paused(self.store.paused(&self.flow).await?));
        Ok(())
    }

    async fn look_at_the_log(&self) {
        match self.log.watermarks(&self.topic).await {
            Ok(watermarks) => {
                let ends: Vec<(Partition, Offset)> =
                    watermarks.into_iter().map(|(partition, marks)| (partition, marks.high)).collect();
                self.tell(Input::Ends(ends));
            }
            Err(error) => tracing::debug!(flow = self.flow, %error, "reading the log's watermarks failed; retrying"),
        }
    }

    async fn look_at_the_retention(&self) {
        let Some(retention) = self.log.state(&self.topic).retention else { return };
        let half = i64::try_from(retention.as_millis() / 2).unwrap_or(i64::MAX);
        let at = Timestamp::from_millis(clock::now().millis().saturating_sub(half));
        match self.log.offsets_at(&self.topic, at).await {
            Ok(offsets) => {
                *self.half_retention_offsets.lock().unwrap_or_else(PoisonError::into_inner) =
                    offsets.into_iter().collect();
            }
            Err(error) => tracing::debug!(flow = self.flow, %error, "reading the age of the log's records failed"),
        }
    }

    /// Erases the dead letters of runs that are no longer dead, each with a tombstone. Erasing one twice does no harm.
    async fn erase_dead_letters(&self) -> Result<(), StoreError> {
        loop {
            let runs = self.store.dead_letters_to_erase(&self.flow, PRUNE_BATCH).await?;
            for run in &runs {
                if let Err(error) = self.log.erase(&self.dead_letters, &Key::new(run.as_str())).await {
                    tracing::debug!(flow = self.flow, %error, "erasing dead letters failed; retrying");
                    return Ok(());
                }
            }
            if !runs.is_empty() {
                self.store.dead_letters_erased(&self.flow, &runs).await?;
            }
            if runs.len() < PRUNE_BATCH {
                return Ok(());
            }
        }
    }

    async fn count(&self) -> Result<(), StoreError> {
        let counts = self.store.counts(&self.flow).await?;
        for state in RunState::ALL {
            let found = counts.iter().find(|(counted, _)| *counted == state).map_or(0, |(_, count)| *count);
            if !state.is_terminal() || state == RunState::Dead {
                self.metrics.stored.with_label_values(&[self.flow.as_str(), state.label()]).set(found);
            }
        }
        Ok(())
    }

    async fn forget(&self) -> Result<(), StoreError> {
        if *self.clock.borrow() != ClockState::Right {
            return Ok(());
        }
        while self.store.drop_spent(&self.flow, clock::now(), PRUNE_BATCH).await? >= PRUNE_BATCH as u64 {}
        while self.store.prune(&self.flow, self.keep, PRUNE_BATCH).await? >= PRUNE_BATCH as u64 {}
        Ok(())
    }
}
