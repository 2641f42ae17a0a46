//! The single writer: writes all queued requests in one transaction, syncs once and replies to every caller. It is a
//! thread with a connection of its own, so that a record costs no switch between threads.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use tokio::sync::{mpsc, oneshot, watch};
use usher_proto::{Offset, Partition, Record};
use usher_service::clock;

use super::file::{File, primary_code};
use super::transaction::in_transaction;
use crate::{AppendError, LogError, Position};

/// Maximum number of writes in one transaction.
const MAX_WRITE_BATCH: usize = 256;

/// SQLite's primary result code for "the disk is full".
const SQLITE_FULL: i32 = 13;
/// SQLite's primary result codes for data that it never accepts: too large (18), against a constraint (19), of another
/// type (20). They undo the statement and leave the transaction as it was.
const REFUSED: [i32; 3] = [18, 19, 20];

/// Topic and partition of a new record.
pub(super) struct AppendTarget {
    pub(super) topic: String,
    pub(super) partition: Partition,
}

/// Requests to the writer.
pub(super) enum Write {
    Append {
        place: AppendTarget,
        record: Record,
        /// True if the record is a tombstone, which removes the earlier records of its key.
        erases: bool,
        answer: oneshot::Sender<Result<Position, AppendError>>,
    },
    /// Stores committed offsets of a group. The reply is true if they are written.
    Commit { group: String, topic: String, offsets: Vec<(Partition, Offset)>, answer: oneshot::Sender<bool> },
    /// Answered when all earlier requests have been answered.
    Flush(oneshot::Sender<()>),
}

/// Results of the appends of a batch, in order.
type Results = Vec<Result<Position, AppendError>>;

/// Writes the batches.
pub(super) struct Writer {
    file: File,
    /// Absent until the first batch, and after an error: the connection's state is unknown then.
    connection: Option<Connection>,
    appended: watch::Sender<u64>,
    max_bytes: u64,
}

impl Writer {
    pub(super) fn new(file: File, appended: watch::Sender<u64>, max_bytes: u64) -> Self {
        Self { file, connection: None, appended, max_bytes }
    }

    /// Executes requests until the last sender is dropped.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Write>) {
        let mut batch = Vec::with_capacity(MAX_WRITE_BATCH);
        while queue.blocking_recv_many(&mut batch, MAX_WRITE_BATCH) > 0 {
            let written = self.write(&batch);
            if written.is_ok() {
                self.appended.send_modify(|count| *count += 1);
            }
            answer(batch.drain(..), written);
        }
    }

    /// Writes a batch, in one transaction. After an error nothing of it is written.
    fn write(&mut self, batch: &[Write]) -> Result<Results, AppendError> {
        if batch.iter().all(|write| matches!(write, Write::Flush(_))) {
            return Ok(Vec::new());
        }
        self.file.check().map_err(unavailable)?;
        let written = self.write_batch(batch).map_err(|error| {
            self.file.note(&error);
            classify(&error)
        });
        // Records written to a file that was moved away meanwhile are not acknowledged.
        self.file.check().map_err(unavailable)?;
        written
    }

    fn write_batch(&mut self, batch: &[Write]) -> rusqlite::Result<Results> {
        let connection = self.connection.take().map_or_else(|| self.file.connect(), Ok)?;
        let results = in_transaction(&connection, |connection| write_into(connection, batch, self.max_bytes))?;
        self.connection = Some(connection);
        Ok(results)
    }
}

/// Replies to every caller of the batch. A failed reply is ignored, because the caller may have stopped waiting.
fn answer(batch: impl Iterator<Item = Write>, written: Result<Results, AppendError>) {
    let is_written = written.is_ok();
    let mut results = written.map(Vec::into_iter);
    for write in batch {
        match write {
            Write::Append { answer, .. } => {
                let result = match &mut results {
                    Ok(results) => results.next().unwrap_or_else(|| Err(no_room())),
                    Err(error) => Err(error.clone()),
                };
                let _ = answer.send(result);
            }
            Write::Commit { answer, .. } => drop(answer.send(is_written)),
            Write::Flush(done) => drop(done.send(())),
        }
    }
}

fn no_room() -> AppendError {
    AppendError::Full("it has reached its size and holds events that a flow has not read".into())
}

/// Returns the results of the appends; none if there is no room for them.
fn write_into(connection: &Connection, batch: &[Write], max_bytes: u64) -> rusqlite::Result<Results> {
    let appends = batch.iter().any(|write| matches!(write, Write::Append { .. }));
    // Commits are written even without room for appends, because they are what allows retention to free space.
    let room = !appends || size(connection)? < max_bytes;
    let mut results = Vec::with_capacity(batch.len());
    let mut inserts = Inserts::new(connection)?;
    for write in batch {
        match write {
            Write::Append { place, record, erases, .. } if room => {
                results.push(inserts.insert(place, record, *erases)?);
            }
            Write::Commit { group, topic, offsets, .. } => commit(connection, group, topic, offsets)?,
            Write::Append { .. } | Write::Flush(_) => {}
        }
    }
    inserts.finish()?;
    Ok(results)
}

fn commit(connection: &Connection, group: &str, topic: &str, offsets: &[(Partition, Offset)]) -> rusqlite::Result<()> {
    let sql = "UPDATE cursor SET committed = ?1 WHERE \"group\" = ?2 AND topic = ?3 AND partition = ?4";
    let mut update = connection.prepare_cached(sql)?;
    for (partition, offset) in offsets {
        update.execute(params![offset.0, group, topic, partition.0])?;
    }
    Ok(())
}

/// Returns the bytes in use. Pages that retention has freed and SQLite will reuse do not count.
pub(super) fn size(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT (page_count - freelist_count) * page_size \
               FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    let bytes: i64 = connection.prepare_cached(sql)?.query_row((), |row| row.get(0))?;
    Ok(bytes.unsigned_abs())
}

/// The records that a transaction inserts. The offsets of a partition are counted here and written once.
struct Inserts<'a> {
    connection: &'a Connection,
    insert: CachedStatement<'a>,
    /// Offset of the next record of each partition; `None` if there is no such partition.
    next: BTreeMap<(&'a str, Partition), Option<Offset>>,
    appended_at_ms: i64,
    headers: Vec<u8>,
}

impl<'a> Inserts<'a> {
    fn new(connection: &'a Connection) -> rusqlite::Result<Self> {
        let sql = "INSERT INTO record (topic, partition, \"offset\", key, headers, body, appended_at, erases) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let insert = connection.prepare_cached(sql)?;
        let appended_at_ms = clock::now().millis();
        Ok(Self { connection, insert, next: BTreeMap::new(), appended_at_ms, headers: Vec::new() })
    }

    /// Inserts a record. The inner error concerns this record alone.
    fn insert(
        &mut self,
        AppendTarget { topic, partition }: &'a AppendTarget,
        record: &Record,
        erases: bool,
    ) -> rusqlite::Result<Result<Position, AppendError>> {
        let next = match self.next.entry((topic, *partition)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let sql = "SELECT next FROM partition WHERE topic = ?1 AND partition = ?2";
                let mut select = self.connection.prepare_cached(sql)?;
                let found = select.query_row(params![topic, partition.0], |row| row.get(0)).optional()?;
                unknown.insert(found.map(Offset))
            }
        };
        let Some(offset) = *next else {
            let why = format!("there is no partition {partition} of topic {topic}");
            return Ok(Err(AppendError::Unavailable(why)));
        };
        self.headers.clear();
        if let Err(error) = serde_json::to_writer(&mut self.headers, &record.headers) {
            return Ok(Err(AppendError::Unavailable(error.to_string())));
        }
        let headers = rusqlite::types::ValueRef::Text(&self.headers);
        let values = params![
            topic,
            partition.0,
            offset.0,
            record.key.as_str(),
            rusqlite::types::ToSqlOutput::Borrowed(headers),
            record.body.as_ref(),
            self.appended_at_ms,
            erases,
        ];
        match self.insert.execute(values) {
            Ok(_) => {
                *next = Some(offset.next());
                Ok(Ok(Position { partition: *partition, offset }))
            }
            Err(error) if primary_code(&error).is_some_and(|code| REFUSED.contains(&code)) => Ok(Err(classify(&error))),
            Err(error) => Err(error),
        }
    }

    /// Writes the offsets of the next records.
    fn finish(self) -> rusqlite::Result<()> {
        let sql = "UPDATE partition SET next = ?1 WHERE topic = ?2 AND partition = ?3";
        let mut update = self.connection.prepare_cached(sql)?;
        for ((topic, partition), next) in self.next {
            if let Some(next) = next {
                update.execute(params![next.0, topic, partition.0])?;
            }
        }
        Ok(())
    }
}

fn unavailable(error: LogError) -> AppendError {
    AppendError::Unavailable(match error {
        LogError::Unavailable(why) => why,
        other => other.to_string(),
    })
}

fn classify(error: &rusqlite::Error) -> AppendError {
    match primary_code(error) {
        Some(SQLITE_FULL) => AppendError::Full("the disk is full".into()),
        _ => AppendError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use usher_proto::Key;

    use super::*;
    use crate::{Creation, EmbeddedLog, Log as _, LogRetention, Retention, TopicSpec};

    type Answered = oneshot::Receiver<Result<Position, AppendError>>;

    async fn log() -> (tempfile::TempDir, EmbeddedLog) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = EmbeddedLog::open(&folder.path().join("log.db"), LogRetention::default()).await.expect("it opens");
        let topic =
            TopicSpec { name: "t".into(), partitions: 2, retention: Retention::Time, creation: Creation::Always };
        log.ensure(&[topic]).await.expect("a topic");
        (folder, log)
    }

    fn append(topic: &str, partition: i32, key: &str) -> (Write, Answered) {
        let (answer, answered) = oneshot::channel();
        let record = Record { key: Key::new(key), headers: Vec::new(), body: vec![1].into() };
        let place = AppendTarget { topic: topic.into(), partition: Partition(partition) };
        (Write::Append { place, record, erases: false, answer }, answered)
    }

    fn batch(records: &[(&str, i32, &str)]) -> Vec<Write> {
        records.iter().map(|(topic, partition, key)| append(topic, *partition, key).0).collect()
    }

    fn at(partition: i32, offset: i64) -> Result<Position, AppendError> {
        Ok(Position { partition: Partition(partition), offset: Offset(offset) })
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_written_fails_alone() {
        let (_folder, log) = log().await;
        let mut writer = Writer::new(log.file.clone(), watch::channel(0).0, u64::MAX);
        let written =
            writer.write(&batch(&[("t", 0, "a"), ("none", 0, "b"), ("t", 1, "c"), ("t", 7, "d"), ("t", 0, "e")]));
        let written = written.expect("a batch");
        assert_eq!([&written[0], &written[2], &written[4]], [&at(0, 0), &at(1, 0), &at(0, 1)]);
        assert!(matches!(&written[1], Err(AppendError::Unavailable(why)) if why.contains("topic none")), "{written:?}");
        assert!(
            matches!(&written[3], Err(AppendError::Unavailable(why)) if why.contains("partition 7")),
            "{written:?}"
        );
        let last = log.read("t", Partition(0), Offset(1)).await.expect("read").expect("it is there");
        assert_eq!(last.key.as_str(), "e");
        assert_eq!(log.watermarks("t").await.expect("a topic")[&Partition(0)].high, Offset(2));
    }

    #[tokio::test]
    async fn a_batch_that_fails_leaves_nothing_behind_and_the_next_one_is_written() {
        let (_folder, log) = log().await;
        let mut writer = Writer::new(log.file.clone(), watch::channel(0).0, u64::MAX);
        // Fails at the end, after all records were inserted.
        let change = async |sql: &'static str| log.file.call(|connection| connection.execute_batch(sql)).await;
        change("CREATE TRIGGER fails BEFORE UPDATE ON partition BEGIN SELECT RAISE(ABORT, 'no'); END")
            .await
            .expect("made");
        let failed = writer.write(&batch(&[("t", 0, "a"), ("t", 1, "b")]));
        assert!(matches!(&failed, Err(AppendError::Unavailable(_))), "{failed:?}");
        assert_eq!(log.read("t", Partition(0), Offset(0)).await.expect("read"), None);
        change("DROP TRIGGER fails").await.expect("gone");
        let written = writer.write(&batch(&[("t", 0, "c"), ("t", 1, "d")]));
        assert_eq!(written, Ok(vec![at(0, 0), at(1, 0)]));
    }

    #[tokio::test]
    async fn requests_of_a_batch_are_answered_in_order_and_commits_also_without_room() {
        let (_folder, log) = log().await;
        let _registered = log.subscribe("g", "t").await.expect("subscribed");
        let mut writer = Writer::new(log.file.clone(), watch::channel(0).0, 1);
        let (committed, mut is_committed) = oneshot::channel();
        let (flushed, mut is_flushed) = oneshot::channel();
        let (first, mut first_answer) = append("t", 0, "a");
        let offsets = vec![(Partition(1), Offset(5))];
        let batch = vec![
            first,
            Write::Commit { group: "g".into(), topic: "t".into(), offsets, answer: committed },
            Write::Flush(flushed),
        ];
        let written = writer.write(&batch);
        answer(batch.into_iter(), written);
        assert!(matches!(first_answer.try_recv(), Ok(Err(AppendError::Full(_)))));
        assert_eq!((is_committed.try_recv(), is_flushed.try_recv()), (Ok(true), Ok(())));
        assert_eq!(log.committed("g", "t").await.expect("read")[&Partition(1)], Offset(5));
    }
}
