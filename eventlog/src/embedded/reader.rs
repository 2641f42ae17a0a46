//! Reads one topic for one group. All partitions are assigned at once and for good, because there is only one process.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use usher_proto::{AssignedPartition, Assignment, Offset, Partition};

use super::file::File;
use super::query;
use super::writer::Write;
use crate::LogError;
use crate::subscription::{BATCH, BATCH_BYTES, LogEvent, SubscriptionCommand, SubscriptionDriver};

/// Interval between writes of commits.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// Interval between reads at the end of the log without a signal of an append: another process may have appended.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Pause after a failed read of the file.
const AFTER_ERROR: Duration = Duration::from_millis(500);
/// The only assignment, which never changes.
const ASSIGNMENT: Assignment = Assignment(1);

pub(super) struct Reader {
    file: File,
    writes: mpsc::Sender<Write>,
    group: String,
    topic: String,
    appended: watch::Receiver<u64>,
    positions: BTreeMap<Partition, ReadPosition>,
}

/// State of reading one partition.
struct ReadPosition {
    next: Offset,
    paused: bool,
    /// Offset that may be committed, and true if it has been written.
    frontier: Option<(Offset, bool)>,
}

impl Reader {
    pub(super) fn new(
        file: File,
        writes: mpsc::Sender<Write>,
        group: &str,
        topic: &str,
        appended: watch::Receiver<u64>,
    ) -> Self {
        let group = group.to_owned();
        let topic = topic.to_owned();
        Self { file, writes, group, topic, appended, positions: BTreeMap::new() }
    }

    /// Registers the group, so that no record is deleted before the group has read it.
    pub(super) async fn register(&self) -> Result<(), LogError> {
        let sql = "INSERT INTO cursor (\"group\", topic, partition) \
                   SELECT $1, topic, partition FROM partition WHERE topic = $2 ON CONFLICT DO NOTHING";
        sqlx::query(sql).bind(&self.group).bind(&self.topic).execute(self.file.pool()?).await?;
        Ok(())
    }

    pub(super) async fn run(mut self, side: SubscriptionDriver) {
        let SubscriptionDriver { events, mut commands } = side;
        let assigned = match self.fetch_positions().await {
            Ok(partitions) => LogEvent::Assigned { assignment: ASSIGNMENT, partitions },
            Err(error) => LogEvent::Failed(error),
        };
        if events.send(assigned).await.is_err() {
            return;
        }
        let mut commit = tokio::time::interval(COMMIT_EVERY);
        commit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let closed = loop {
            // Commands first: they are few, and a close must not wait until the end of the log is reached.
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(SubscriptionCommand::Close(done)) => break Some(done),
                    Some(command) => self.apply_command(command),
                    None => break None,
                },
                _ = commit.tick() => self.commit().await,
                slot = events.reserve(), if self.reading() => match slot {
                    Ok(slot) => self.read_into(slot).await,
                    Err(_) => break None,
                },
            }
        };
        self.commit().await;
        if let Some(done) = closed {
            acknowledge(done);
        }
    }

    fn reading(&self) -> bool {
        self.positions.values().any(|place| !place.paused)
    }

    async fn fetch_positions(&self) -> Result<Vec<AssignedPartition>, LogError> {
        let sql = "SELECT p.partition, c.committed, p.low, p.next FROM partition p \
                   LEFT JOIN cursor c ON c.topic = p.topic AND c.partition = p.partition AND c.\"group\" = $1 \
                   WHERE p.topic = $2 ORDER BY p.partition";
        let rows: Vec<(i32, Option<i64>, i64, i64)> =
            sqlx::query_as(sql).bind(&self.group).bind(&self.topic).fetch_all(self.file.pool()?).await?;
        let assigned = |(partition, committed, low, end): (i32, Option<i64>, i64, i64)| AssignedPartition {
            partition: Partition(partition),
            committed: committed.map(Offset),
            low: Offset(low),
            end: Offset(end),
        };
        Ok(rows.into_iter().map(assigned).collect())
    }

    fn apply_command(&mut self, command: SubscriptionCommand) {
        let place = |places: &mut BTreeMap<Partition, ReadPosition>, partition, change: &dyn Fn(&mut ReadPosition)| {
            if let Some(place) = places.get_mut(&partition) {
                change(place);
            }
        };
        match command {
            SubscriptionCommand::Start { offsets, .. } => {
                let start = |(partition, next)| (partition, ReadPosition { next, paused: false, frontier: None });
                self.positions = offsets.into_iter().map(start).collect();
            }
            SubscriptionCommand::Commit { partition, offset } => {
                place(&mut self.positions, partition, &|place| place.frontier = Some((offset, false)));
            }
            SubscriptionCommand::Pause(partition) => {
                place(&mut self.positions, partition, &|place| place.paused = true)
            }
            SubscriptionCommand::Resume(partition) => {
                place(&mut self.positions, partition, &|place| place.paused = false)
            }
            // No other process can take a partition, so none is ever revoked. The loop handles `Close`.
            SubscriptionCommand::Release | SubscriptionCommand::Close(_) => {}
        }
    }

    /// Fills the slot with the next batch. If there is none, waits for an append or until [`LOOK_AGAIN`] has passed.
    async fn read_into(&mut self, slot: mpsc::Permit<'_, LogEvent>) {
        // Marked as seen before the read, so that an append during the read wakes this reader.
        self.appended.mark_unchanged();
        match self.next_batch().await {
            Ok(Some(batch)) => slot.send(batch),
            Ok(None) => {
                // The sender of this channel lives as long as the log; without the log there are no appends.
                let _ = tokio::time::timeout(LOOK_AGAIN, self.appended.changed()).await;
            }
            Err(error @ LogError::OffsetGone { .. }) => {
                self.positions.clear();
                slot.send(LogEvent::Failed(error));
            }
            Err(error) => {
                tracing::warn!(group = self.group, %error, "reading records failed; retrying");
                tokio::time::sleep_until(Instant::now() + AFTER_ERROR).await;
            }
        }
    }

    /// Returns the next batch of the partition that is furthest behind. `None` if all partitions are read or paused.
    async fn next_batch(&mut self) -> Result<Option<LogEvent>, LogError> {
        let ends: Vec<(i32, i64, i64)> = sqlx::query_as("SELECT partition, low, next FROM partition WHERE topic = $1")
            .bind(&self.topic)
            .fetch_all(self.file.pool()?)
            .await?;
        // The partition furthest behind comes first, so that none starves.
        let behind = ends
            .into_iter()
            .filter_map(|(partition, low, end)| {
                let place = self.positions.get(&Partition(partition)).filter(|place| !place.paused)?;
                let behind = Offset(end) - place.next;
                (behind > 0).then_some((behind, Partition(partition), Offset(low), place.next))
            })
            .max();
        let Some((_, partition, low, next)) = behind else { return Ok(None) };
        if next < low {
            let topic = self.topic.clone();
            let group = self.group.clone();
            return Err(LogError::OffsetGone { topic, partition: partition.0, group, offset: next });
        }
        let records = query::records(self.file.pool()?, &self.topic, partition, next, BATCH, BATCH_BYTES).await?;
        let Some((last, _)) = records.last() else { return Ok(None) };
        let after = last.next();
        if let Some(place) = self.positions.get_mut(&partition) {
            place.next = after;
        }
        Ok(Some(LogEvent::Records { assignment: ASSIGNMENT, partition, records }))
    }

    /// Asks the writer to store the offsets that may be committed. The store is authoritative, so a late or lost commit
    /// costs only a repeated read.
    async fn commit(&mut self) {
        let unwritten = self.positions.iter().filter_map(|(partition, place)| match place.frontier {
            Some((offset, false)) => Some((*partition, offset)),
            Some((_, true)) | None => None,
        });
        let offsets: Vec<(Partition, Offset)> = unwritten.collect();
        if offsets.is_empty() {
            return;
        }
        let (answer, answered) = oneshot::channel();
        let group = self.group.clone();
        let topic = self.topic.clone();
        let handed_over = self.writes.send(Write::Commit { group, topic, offsets, answer }).await;
        let written = handed_over.is_ok() && answered.await.unwrap_or(false);
        if !written {
            tracing::warn!(group = self.group, "writing a commit failed");
            return;
        }
        for place in self.positions.values_mut() {
            if let Some((_, written)) = &mut place.frontier {
                *written = true;
            }
        }
    }
}

fn acknowledge(done: oneshot::Sender<()>) {
    // Ignored: the caller may have stopped waiting.
    let _ = done.send(());
}
