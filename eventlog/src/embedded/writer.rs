//! The single writer: writes all queued requests in one transaction, syncs once and replies to every caller.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;
use tokio::sync::{mpsc, oneshot, watch};
use usher_proto::{Offset, Partition, Record};
use usher_service::clock;

use super::file::File;
use super::transaction::Transaction;
use crate::{AppendError, LogError, Position};

/// Maximum number of writes in one transaction.
const MAX_WRITE_BATCH: usize = 256;

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

/// Executes requests until the last sender is dropped.
pub(super) async fn run(file: File, mut queue: mpsc::Receiver<Write>, appended: watch::Sender<u64>, max_bytes: u64) {
    let mut group = Vec::with_capacity(MAX_WRITE_BATCH);
    while queue.recv_many(&mut group, MAX_WRITE_BATCH).await > 0 {
        let written = write(&file, &group, max_bytes).await;
        if written.is_ok() {
            appended.send_modify(|count| *count += 1);
        }
        answer(group.drain(..), written);
    }
}

/// Replies to every caller of the batch. A failed reply is ignored, because the caller may have stopped waiting.
fn answer(group: impl Iterator<Item = Write>, written: Result<Vec<Position>, AppendError>) {
    let mut positions = written.as_ref().map(|positions| positions.iter()).map_err(Clone::clone);
    for write in group {
        match write {
            Write::Append { answer, .. } => {
                let result = match &mut positions {
                    Ok(positions) => positions.next().copied().ok_or_else(no_room),
                    Err(error) => Err(error.clone()),
                };
                let _ = answer.send(result);
            }
            Write::Commit { answer, .. } => drop(answer.send(positions.is_ok())),
            Write::Flush(done) => drop(done.send(())),
        }
    }
}

fn no_room() -> AppendError {
    AppendError::Full("it has reached its size and holds events that a flow has not read".into())
}

/// Writes a batch, all of it or nothing. Returns the positions of its appends, in order; none if there is no room
/// for the appends.
async fn write(file: &File, group: &[Write], max_bytes: u64) -> Result<Vec<Position>, AppendError> {
    if group.iter().all(|write| matches!(write, Write::Flush(_))) {
        return Ok(Vec::new());
    }
    let pool = file.pool().map_err(unavailable)?;
    let written = write_into(pool, group, max_bytes).await.map_err(|failure| match failure {
        Failure::Refused(error) => error,
        Failure::Database(error) => {
            file.note(&error);
            classify(error)
        }
    });
    // Records written to a file that was moved away meanwhile are not acknowledged.
    file.check().map_err(unavailable)?;
    written
}

/// Reasons for which a batch was not written.
enum Failure {
    Database(sqlx::Error),
    Refused(AppendError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

async fn write_into(pool: &SqlitePool, group: &[Write], max_bytes: u64) -> Result<Vec<Position>, Failure> {
    let mut transaction = Transaction::begin(pool).await?;
    let connection = transaction.connection();
    let appends = group.iter().any(|write| matches!(write, Write::Append { .. }));
    // Commits are written even without room for appends, because they are what allows retention to free space.
    let room = !appends || size(connection).await? < max_bytes;
    let mut positions = Vec::with_capacity(group.len());
    for write in group {
        match write {
            Write::Append { place, record, erases, .. } if room => {
                positions.push(insert(connection, place, record, *erases).await?);
            }
            Write::Commit { group, topic, offsets, .. } => {
                for (partition, offset) in offsets {
                    commit(connection, group, topic, *partition, *offset).await?;
                }
            }
            Write::Append { .. } | Write::Flush(_) => {}
        }
    }
    transaction.commit().await?;
    Ok(positions)
}

async fn commit(
    connection: &mut SqliteConnection,
    group: &str,
    topic: &str,
    partition: Partition,
    offset: Offset,
) -> Result<(), sqlx::Error> {
    let sql = "UPDATE cursor SET committed = $1 WHERE \"group\" = $2 AND topic = $3 AND partition = $4";
    sqlx::query(sql).bind(offset.0).bind(group).bind(topic).bind(partition.0).execute(connection).await?;
    Ok(())
}

/// Returns the bytes in use. Pages that retention has freed and SQLite will reuse do not count.
pub(super) async fn size(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let sql = "SELECT (page_count - freelist_count) * page_size \
               FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    let (bytes,): (i64,) = sqlx::query_as(sql).fetch_one(connection).await?;
    Ok(bytes.unsigned_abs())
}

async fn insert(
    connection: &mut SqliteConnection,
    place: &AppendTarget,
    record: &Record,
    erases: bool,
) -> Result<Position, Failure> {
    let AppendTarget { topic, partition } = place;
    let taken = "UPDATE partition SET next = next + 1 WHERE topic = $1 AND partition = $2 RETURNING next - 1";
    let offset: Option<(i64,)> =
        sqlx::query_as(taken).bind(topic).bind(partition.0).fetch_optional(&mut *connection).await?;
    let Some((offset,)) = offset else {
        let why = format!("there is no partition {partition} of topic {topic}");
        return Err(Failure::Refused(AppendError::Unavailable(why)));
    };
    let headers = serde_json::to_string(&record.headers)
        .map_err(|error| Failure::Refused(AppendError::Unavailable(error.to_string())))?;
    let inserted = "INSERT INTO record (topic, partition, \"offset\", key, headers, body, appended_at, erases) \
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    sqlx::query(inserted)
        .bind(topic)
        .bind(partition.0)
        .bind(offset)
        .bind(record.key.as_str())
        .bind(headers)
        .bind(record.body.as_ref())
        .bind(clock::now().millis())
        .bind(erases)
        .execute(connection)
        .await?;
    Ok(Position { partition: *partition, offset: Offset(offset) })
}

fn unavailable(error: LogError) -> AppendError {
    AppendError::Unavailable(match error {
        LogError::Unavailable(why) => why,
        other => other.to_string(),
    })
}

/// SQLite's primary result code for "the disk is full".
const SQLITE_FULL: i32 = 13;

fn classify(error: sqlx::Error) -> AppendError {
    let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<i32>().ok());
    match code.map(|code| code & 0xff) {
        Some(SQLITE_FULL) => AppendError::Full("the disk is full".into()),
        _ => AppendError::Unavailable(error.to_string()),
    }
}
