//! The one writer: takes what has gathered, writes it in one transaction, syncs once, answers everybody.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;
use tokio::sync::{mpsc, oneshot, watch};
use usher_proto::{Partition, Record};
use usher_service::clock;

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
        let (mut appends, mut flushes) = (Vec::new(), Vec::new());
        for write in group.drain(..) {
            match write {
                Write::Append { topic, record, answer } => appends.push((topic, record, answer)),
                Write::Flush(done) => flushes.push(done),
            }
        }
        if !appends.is_empty() {
            let written = write(&pool, &appends, max_bytes).await;
            if written.is_ok() {
                appended.send_modify(|count| *count += 1);
            }
            answer(appends, written);
        }
        for done in flushes {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}

type Append = (String, Record, oneshot::Sender<Result<Position, AppendError>>);

fn answer(appends: Vec<Append>, written: Result<Vec<Position>, AppendError>) {
    match written {
        Ok(positions) => {
            for ((_, _, answer), position) in appends.into_iter().zip(positions) {
                let _ = answer.send(Ok(position));
            }
        }
        Err(error) => {
            for (_, _, answer) in appends {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

async fn write(pool: &SqlitePool, appends: &[Append], max_bytes: u64) -> Result<Vec<Position>, AppendError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(classify)?;
    if size(&mut transaction).await.map_err(classify)? >= max_bytes {
        return Err(AppendError::Full("it has reached its size and holds events that a flow has not read".into()));
    }
    let mut positions = Vec::with_capacity(appends.len());
    for (topic, record, _) in appends {
        positions.push(insert(&mut transaction, topic, record).await?);
    }
    transaction.commit().await.map_err(classify)?;
    Ok(positions)
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
