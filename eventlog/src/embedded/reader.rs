//! Reads one topic for one group. All partitions are assigned at once and for good, because there is only one process.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use usher_proto::{AssignedPartition, Assignment, Offset, Partition, Record};

use super::file::File;
use super::query::{self, PageLimits};
use super::writer::Write;
use crate::LogError;
use crate::subscription::{BATCH, BATCH_BYTES, LogEvent, SubscriptionCommand, SubscriptionDriver};

/// Time from the first offset that may be committed to the write of it, with all that may be committed by then.
const COMMIT_AFTER: Duration = Duration::from_millis(500);
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
    /// True if nothing was left to read, until the next append or command.
    at_end: bool,
    /// Time of the next write of commits, if there is one to write.
    commit_at: Option<Instant>,
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
        Self { file, writes, group, topic, appended, positions: BTreeMap::new(), at_end: false, commit_at: None }
    }

    /// Registers the group, so that no record is deleted before the group has read it.
    pub(super) async fn register(&self) -> Result<(), LogError> {
        let sql = "INSERT INTO cursor (\"group\", topic, partition) \
                   SELECT ?1, topic, partition FROM partition WHERE topic = ?2 ON CONFLICT DO NOTHING";
        let group = self.group.clone();
        let topic = self.topic.clone();
        let insert = move |connection: &mut Connection| connection.execute(sql, params![group, topic]).map(drop);
        self.file.call(insert).await
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
        let closed = loop {
            // Commands first: they are few, and a close must not wait until the end of the log is reached.
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(SubscriptionCommand::Close(done)) => break Some(done),
                    Some(command) => self.apply_command(command),
                    None => break None,
                },
                () = reached(self.commit_at) => self.commit().await,
                // The sender of this channel lives as long as the log; without the log there are no appends.
                Ok(()) = self.appended.changed(), if self.at_end => self.at_end = false,
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
        !self.at_end && self.positions.values().any(|place| !place.paused)
    }

    async fn fetch_positions(&self) -> Result<Vec<AssignedPartition>, LogError> {
        let group = self.group.clone();
        let topic = self.topic.clone();
        let read = move |connection: &mut Connection| {
            let sql = "SELECT p.partition, c.committed, p.low, p.next FROM partition p \
                       LEFT JOIN cursor c ON c.topic = p.topic AND c.partition = p.partition AND c.\"group\" = ?1 \
                       WHERE p.topic = ?2 ORDER BY p.partition";
            let assigned = |row: &rusqlite::Row<'_>| {
                Ok(AssignedPartition {
                    partition: Partition(row.get(0)?),
                    committed: row.get::<_, Option<i64>>(1)?.map(Offset),
                    low: Offset(row.get(2)?),
                    end: Offset(row.get(3)?),
                })
            };
            connection.prepare(sql)?.query_map(params![group, topic], assigned)?.collect()
        };
        self.file.call(read).await
    }

    fn apply_command(&mut self, command: SubscriptionCommand) {
        let place = |places: &mut BTreeMap<Partition, ReadPosition>, partition, change: &dyn Fn(&mut ReadPosition)| {
            if let Some(place) = places.get_mut(&partition) {
                change(place);
            }
        };
        self.at_end = false;
        match command {
            SubscriptionCommand::Start { offsets, .. } => {
                let start = |(partition, next)| (partition, ReadPosition { next, paused: false, frontier: None });
                self.positions = offsets.into_iter().map(start).collect();
            }
            SubscriptionCommand::Commit { partition, offset } => {
                place(&mut self.positions, partition, &|place| place.frontier = Some((offset, false)));
                self.commit_at.get_or_insert_with(|| Instant::now() + COMMIT_AFTER);
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

    /// Fills the slot with the next batch, if there is one.
    async fn read_into(&mut self, slot: mpsc::Permit<'_, LogEvent>) {
        // Marked as seen before the read, so that an append during the read wakes this reader.
        self.appended.mark_unchanged();
        match self.next_batch().await {
            Ok(Some(batch)) => slot.send(batch),
            Ok(None) => self.at_end = true,
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
        let unpaused = self.positions.iter().filter(|(_, place)| !place.paused);
        let wanted: BTreeMap<Partition, Offset> = unpaused.map(|(partition, place)| (*partition, place.next)).collect();
        let topic = self.topic.clone();
        let page = match self.file.call(move |connection| next_page(connection, &topic, &wanted)).await? {
            NextPage::Records(page) => page,
            NextPage::AtEnd => return Ok(None),
            NextPage::Gone(partition, offset) => {
                let topic = self.topic.clone();
                let group = self.group.clone();
                return Err(LogError::OffsetGone { topic, partition: partition.0, group, offset });
            }
        };
        let Page { partition, records, next } = page;
        if let Some(place) = self.positions.get_mut(&partition) {
            place.next = next;
        }
        Ok(Some(LogEvent::Records { assignment: ASSIGNMENT, partition, records }))
    }

    /// Asks the writer to store the offsets that may be committed. The store is authoritative, so a late or lost commit
    /// costs only a repeated read.
    async fn commit(&mut self) {
        self.commit_at = None;
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
            tracing::warn!(group = self.group, "writing a commit failed; retrying");
            self.commit_at = Some(Instant::now() + COMMIT_AFTER);
            return;
        }
        for place in self.positions.values_mut() {
            if let Some((_, written)) = &mut place.frontier {
                *written = true;
            }
        }
    }
}

/// The next read.
enum NextPage {
    Records(Page),
    /// All partitions are read to their ends.
    AtEnd,
    /// The log no longer holds this offset.
    Gone(Partition, Offset),
}

struct Page {
    partition: Partition,
    records: Vec<(Offset, Record)>,
    /// Offset after the last of the records.
    next: Offset,
}

/// Reads a page of the partition that is furthest behind, so that none starves. `wanted` is the offset at which each
/// partition continues.
fn next_page(connection: &Connection, topic: &str, wanted: &BTreeMap<Partition, Offset>) -> rusqlite::Result<NextPage> {
    let watermarks = query::read_watermarks(connection, topic)?;
    let behind = wanted.iter().filter_map(|(partition, next)| {
        let watermarks = watermarks.get(partition)?;
        let behind = watermarks.high - *next;
        (behind > 0).then_some((behind, *partition, watermarks.low, *next))
    });
    let Some((_, partition, low, next)) = behind.max() else { return Ok(NextPage::AtEnd) };
    if next < low {
        return Ok(NextPage::Gone(partition, next));
    }
    let limits = PageLimits { records: BATCH, bytes: BATCH_BYTES };
    let records = query::read_records(connection, topic, partition, next, limits)?;
    Ok(match records.last() {
        None => NextPage::AtEnd,
        Some((last, _)) => NextPage::Records(Page { partition, next: last.next(), records }),
    })
}

/// Waits until a time; for ever without one.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn acknowledge(done: oneshot::Sender<()>) {
    // Ignored: the caller may have stopped waiting.
    let _ = done.send(());
}
