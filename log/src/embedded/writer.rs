//! The one writer: takes what has gathered, writes it in one transaction, syncs once, answers everybody.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;
use tokio::sync::{mpsc, oneshot, watch};
use usher_proto::{Partition, Record};
use usher_service::clock;

use super::transaction::Transaction;
use crate::{AppendError, Position};

/// How many writes share a transaction at most.
const GROUP: usize = 256;

/// Something to be written.
pub(super) enum Write {
    Append {
        topic: String,
        record: Record,
        answer: oneshot::Sender<Result<Position, AppendError>>,
    },
    /// How far a group has come; answered with whether it is written.
    Commit {
        group: String,
        topic: String,
        offsets: Vec<(Partition, i64)>,
        answer: oneshot::Sender<bool>,
    },
    /// Answered when everything before it has been.
    Flush(oneshot::Sender<()>),
}

/// Writes until the last sender is gone.
pub(super) async fn run(
    pool: SqlitePool,
    mut queue: mpsc::Receiver<Write>,
    appended: watch::Sender<u64>,
    max_bytes: u64,
) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut group, GROUP).await > 0 {
        let written = write(&pool, &group, max_bytes).await;
        if written.is_ok() {
            appended.send_modify(|count| *count += 1);
        }
        answer(group.drain(..), written);
    }
}

/// Tells everybody what came of it. Whoever asked may have stopped waiting.
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

/// Writes a group, all of it or nothing; the positions are those of its appends, in order, or none if there is no room
/// for them.
async fn write(pool: &SqlitePool, group: &[Write], max_bytes: u64) -> Result<Vec<Position>, AppendError> {
    if group.iter().all(|write| matches!(write, Write::Flush(_))) {
        return Ok(Vec::new());
    }
    let mut transaction = Transaction::begin(pool).await.map_err(classify)?;
    let connection = transaction.connection();
    let appends = group.iter().any(|write| matches!(write, Write::Append { .. }));
    // Without room for more, how far groups have come is still written: that is what makes room.
    let room = !appends || size(connection).await.map_err(classify)? < max_bytes;
    let mut positions = Vec::with_capacity(group.len());
    for write in group {
        match write {
            Write::Append { topic, record, .. } if room => positions.push(insert(connection, topic, record).await?),
            Write::Commit { group, topic, offsets, .. } => {
                for (partition, offset) in offsets {
                    commit(connection, group, topic, *partition, *offset).await.map_err(classify)?;
                }
            }
            Write::Append { .. } | Write::Flush(_) => {}
        }
    }
    transaction.commit().await.map_err(classify)?;
    Ok(positions)
}

async fn commit(
    connection: &mut SqliteConnection,
    group: &str,
    topic: &str,
    partition: Partition,
    offset: i64,
) -> Result<(), sqlx::Error> {
    let sql = "UPDATE cursor SET committed = $1 WHERE \"group\" = $2 AND topic = $3 AND partition = $4";
    sqlx::query(sql).bind(offset).bind(group).bind(topic).bind(partition.0).execute(connection).await?;
    Ok(())
}

/// The bytes in use: what retention has freed and SQLite will fill again does not count.
pub(super) async fn size(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let sql = "SELECT (page_count - freelist_count) * page_size \
               FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    let (bytes,): (i64,) = sqlx::query_as(sql).fetch_one(connection).await?;
    Ok(bytes.unsigned_abs())
}

async fn insert(connection: &mut SqliteConnection, topic: &str, record: &Record) -> Result<Position, AppendError> {
    let count: Option<(i32,)> = sqlx::query_as("SELECT count(*) FROM partition WHERE topic = $1 HAVING count(*) > 0")
        .bind(topic)
        .fetch_optional(&mut *connection)
        .await
        .map_err(classify)?;
    let Some((count,)) = count else {
        return Err(AppendError::Unavailable(format!("there is no topic {topic}")));
    };
    let partition = Partition::of(&record.key, count);
    let taken = "UPDATE partition SET next = next + 1 WHERE topic = $1 AND partition = $2 RETURNING next - 1";
    let (offset,): (i64,) =
        sqlx::query_as(taken).bind(topic).bind(partition.0).fetch_one(&mut *connection).await.map_err(classify)?;
    let headers =
        serde_json::to_string(&record.headers).map_err(|error| AppendError::Unavailable(error.to_string()))?;
    let inserted = "INSERT INTO record (topic, partition, \"offset\", key, headers, body, appended_at) \
                    VALUES ($1, $2, $3, $4, $5, $6, $7)";
    sqlx::query(inserted)
        .bind(topic)
        .bind(partition.0)
        .bind(offset)
        .bind(record.key.as_str())
        .bind(headers)
        .bind(record.body.as_ref())
        .bind(clock::now().millis())
        .execute(connection)
        .await
        .map_err(classify)?;
    Ok(Position { partition, offset })
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
