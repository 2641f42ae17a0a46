//! Retention of an embedded log: deletes records that every group has read, once they are old or the file is large.

use std::time::Duration;

use rusqlite::{Connection, params};
use tokio_util::sync::CancellationToken;
use usher_service::clock;

use super::file::File;
use super::transaction::in_transaction;
use super::writer;
use crate::LogError;

/// Interval between retention runs.
const EVERY: Duration = Duration::from_secs(30);
/// Maximum number of records deleted in one transaction, small enough that other writers do not wait long for the file.
const PRUNE_BATCH: u32 = 1000;

/// Retention limits of an embedded log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRetention {
    /// Age after which a record is deleted, once every group has read it.
    pub age: Duration,
    /// Maximum size of the file, in bytes. Above three quarters of it, records that every group has read are deleted
    /// before they reach `age`. Once the maximum is reached, appends fail.
    pub max_bytes: u64,
}

impl Default for LogRetention {
    /// Returns the retention that Kafka topics are created with, and 8 GiB.
    fn default() -> Self {
        Self { age: crate::RETENTION, max_bytes: 8 << 30 }
    }
}

pub(super) async fn run(file: File, retention: LogRetention, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if file.check().is_err() {
            continue; // logged by the check of the log
        }
        if let Err(error) = apply(&file, retention).await {
            tracing::warn!(%error, "deleting old records failed; retrying");
        }
    }
}

/// Deletes the records that retention and compaction allow to delete, and returns their number.
pub(super) async fn apply(file: &File, retention: LogRetention) -> Result<usize, LogError> {
    Ok(delete_read(file, retention).await? + compact(file).await?)
}

/// Deletes, in compacted topics, the records that a later record of the same key replaces or erases, and those that
/// have passed the topic's retention, tombstones included.
async fn compact(file: &File) -> Result<usize, LogError> {
    let mut deleted = 0;
    loop {
        let now = clock::now().millis();
        match file.call(move |connection| compact_batch(connection, now)).await? {
            0 => return Ok(deleted),
            some => deleted += some,
        }
    }
}

fn compact_batch(connection: &Connection, now: i64) -> rusqlite::Result<usize> {
    // Searches without the file's write lock, because usually there is nothing to delete. `CROSS JOIN`: otherwise
    // SQLite would start with all events. One pass over the records, because no index covers the keys.
    let sql = "SELECT id FROM ( \
                 SELECT r.rowid AS id, r.appended_at < ?1 - c.keeps_for AS old, \
                   lead(r.\"offset\") OVER (PARTITION BY r.topic, r.partition, r.key ORDER BY r.\"offset\") AS later \
                 FROM compacted c CROSS JOIN record r ON r.topic = c.topic) \
               WHERE old OR later IS NOT NULL LIMIT ?2";
    let mut search = connection.prepare_cached(sql)?;
    let found: Vec<i64> = search.query_map(params![now, PRUNE_BATCH], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Ok(0);
    }
    in_transaction(connection, |connection| {
        let mut delete = connection.prepare_cached("DELETE FROM record WHERE rowid = ?1")?;
        let mut deleted = 0;
        for row in &found {
            deleted += delete.execute([row])?;
        }
        raise_low(connection)?;
        Ok(deleted)
    })
}

fn raise_low(connection: &Connection) -> rusqlite::Result<()> {
    let low = "UPDATE partition SET low = coalesce( \
                 (SELECT min(\"offset\") FROM record r \
                  WHERE r.topic = partition.topic AND r.partition = partition.partition), next)";
    connection.prepare_cached(low)?.execute(()).map(drop)
}

/// Deletes the records that every group has read, if they are old or the file is crowded.
async fn delete_read(file: &File, retention: LogRetention) -> Result<usize, LogError> {
    let cutoff = clock::now().millis() - i64::try_from(retention.age.as_millis()).unwrap_or(i64::MAX);
    let mut deleted = 0;
    loop {
        match file.call(move |connection| delete_batch(connection, cutoff, retention.max_bytes)).await? {
            0 => return Ok(deleted),
            some => deleted += some,
        }
    }
}

fn delete_batch(connection: &Connection, cutoff: i64, max_bytes: u64) -> rusqlite::Result<usize> {
    in_transaction(connection, |connection| {
        let crowded = writer::size(connection)? > max_bytes / 4 * 3;
        // Topics that no group reads (dead letters) are left alone here.
        let sql = "DELETE FROM record WHERE rowid IN ( \
                     SELECT r.rowid FROM record r \
                     JOIN (SELECT topic, partition, min(coalesce(committed, 0)) AS read FROM cursor \
                           GROUP BY topic, partition) c \
                       ON c.topic = r.topic AND c.partition = r.partition AND r.\"offset\" < c.read \
                     WHERE r.appended_at < ?1 ORDER BY r.appended_at LIMIT ?2)";
        let older_than = if crowded { i64::MAX } else { cutoff };
        let deleted = connection.prepare_cached(sql)?.execute(params![older_than, PRUNE_BATCH])?;
        if deleted > 0 {
            raise_low(connection)?;
        }
        Ok(deleted)
    })
}

#[cfg(test)]
mod tests {
    use usher_proto::{Key, Offset, Record};

    use super::*;
    use crate::{AppendError, Creation, EmbeddedLog, Log as _, LogEvent, Retention, TopicSpec};

    fn topic(retention: Retention) -> TopicSpec {
        TopicSpec { name: "t".into(), partitions: 1, retention, creation: Creation::Always }
    }

    async fn log(retention: LogRetention) -> (tempfile::TempDir, EmbeddedLog) {
        let directory = tempfile::tempdir().expect("a directory");
        let log = EmbeddedLog::open(&directory.path().join("log.db"), retention).await.expect("it opens");
        log.ensure(&[topic(Retention::Time)]).await.expect("a topic");
        (directory, log)
    }

    fn record(size: usize) -> Record {
        Record { key: Key::new("k"), headers: Vec::new(), body: vec![b'x'; size].into() }
    }

    #[tokio::test]
    async fn what_a_group_has_not_read_is_never_deleted_and_appends_find_no_room_instead() {
        let retention = LogRetention { age: Duration::ZERO, max_bytes: 400_000 };
        let (_directory, log) = log(retention).await;
        let mut subscription = log.subscribe("g", "t").await.expect("subscribed");
        let full = loop {
            match log.append(&topic(Retention::Time), record(20_000)).await {
                Ok(_) => assert_eq!(apply(&log.file, retention).await.expect("it runs"), 0, "nothing is read yet"),
                Err(error) => break error,
            }
        };
        assert!(matches!(full, AppendError::Full(_)), "{full}");

        let Some(LogEvent::Assigned { assignment, partitions }) = subscription.events.recv().await else {
            panic!("an assignment comes first")
        };
        subscription.control.start(assignment, vec![(partitions[0].partition, Offset(0))]);
        subscription.control.commit(partitions[0].partition, Offset(i64::MAX));
        subscription.control.close().await;
        assert!(apply(&log.file, retention).await.expect("it runs") > 0, "all is read now");
        log.append(&topic(Retention::Time), record(20_000)).await.expect("there is room again");
    }

    #[tokio::test]
    async fn offsets_go_on_after_everything_was_deleted() {
        let retention = LogRetention { age: Duration::ZERO, max_bytes: 1 << 30 };
        let (_directory, log) = log(retention).await;
        let mut subscription = log.subscribe("g", "t").await.expect("subscribed");
        let first = log.append(&topic(Retention::Time), record(10)).await.expect("appended");
        let Some(LogEvent::Assigned { assignment, .. }) = subscription.events.recv().await else {
            panic!("assignment")
        };
        subscription.control.start(assignment, vec![(first.partition, Offset(0))]);
        subscription.control.commit(first.partition, first.offset.next());
        subscription.control.close().await;
        // The cutoff is exclusive, so the millisecond of the append must pass first.
        while apply(&log.file, retention).await.expect("it runs") == 0 {
            tokio::task::yield_now().await;
        }
        let second = log.append(&topic(Retention::Time), record(10)).await.expect("appended");
        assert_eq!(second.offset, first.offset.next());
    }

    #[tokio::test]
    async fn a_tombstone_removes_what_came_before_it_and_ends_itself() {
        let retention = LogRetention::default();
        let (_directory, log) = log(retention).await;
        let letters = |time| topic(Retention::Compact(time));
        let day = letters(Duration::from_secs(86_400));
        log.ensure(std::slice::from_ref(&day)).await.expect("kept otherwise from now on");
        let keyed = |key: &str| Record { key: Key::new(key), ..record(10) };
        for key in ["a", "b", "a", "c"] {
            log.append(&day, keyed(key)).await.expect("appended");
        }
        log.erase(&day, &Key::new("b")).await.expect("erased");
        let rows = |connection: &mut Connection| -> rusqlite::Result<Vec<(i64, String, bool)>> {
            let sql = "SELECT \"offset\", key, erases FROM record ORDER BY \"offset\"";
            let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            connection.prepare(sql)?.query_map((), columns)?.collect()
        };
        let left = async || log.file.call(rows).await.expect("rows");
        assert_eq!(apply(&log.file, retention).await.expect("it runs"), 2);
        assert_eq!(left().await, [(2, "a".into(), false), (3, "c".into(), false), (4, "b".into(), true)]);
        assert_eq!(apply(&log.file, retention).await.expect("it runs"), 0, "the newest of each key stays");

        log.ensure(&[letters(Duration::ZERO)]).await.expect("for no time from now on");
        while !left().await.is_empty() {
            apply(&log.file, retention).await.expect("it runs");
        }
        let next = log.append(&day, keyed("d")).await.expect("appended");
        assert_eq!(next.offset, Offset(5), "offsets go on");
    }
}
