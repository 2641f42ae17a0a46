//! The log on one machine: a SQLite file with Kafka's shape, for one process with several threads.
//!
//! Durable when acknowledged: WAL with `synchronous=FULL`, one writer that commits what has gathered in one transaction.
//! Bounded by age and size, but what a group has not read is never deleted: then there is no room, and appends say so.

mod look;
mod reader;
mod retention;
mod transaction;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use usher_proto::{Partition, Record};

use crate::subscription::{self, Subscription};
use crate::{AppendError, Extent, Log, LogError, Position, TopicSpec};
pub use retention::Retention;
use transaction::Transaction;
use writer::Write;

/// How many writes may wait for the writer. Ingest's own limit on requests under way is below it.
const WRITE_QUEUE: usize = 4096;
/// Readers' connections. Each flow reads a page at a time.
const READERS: u32 = 4;

/// A SQLite file as the log.
pub struct EmbeddedLog {
    pool: SqlitePool,
    writes: mpsc::Sender<Write>,
    /// Changes whenever something was appended, for readers that have reached the end.
    appended: watch::Receiver<u64>,
    stop: CancellationToken,
}

impl EmbeddedLog {
    /// Opens or makes the file. Whoever opens it must hold its directory for itself.
    pub async fn open(path: &Path, retention: Retention) -> Result<Self, LogError> {
        usher_service::files::tighten_database(path).map_err(|error| LogError::Unavailable(error.to_string()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let unavailable = |error| LogError::Unavailable(format!("{}: {error}", path.display()));
        let pool =
            SqlitePoolOptions::new().max_connections(READERS + 2).connect_with(options).await.map_err(unavailable)?;
        sqlx::raw_sql(include_str!("embedded/schema.sql")).execute(&pool).await?;
        let stop = CancellationToken::new();
        let (writes, write_queue) = mpsc::channel(WRITE_QUEUE);
        let (append_signal, appended) = watch::channel(0);
        tokio::spawn(writer::run(pool.clone(), write_queue, append_signal, retention.max_bytes));
        tokio::spawn(retention::run(pool.clone(), retention, stop.clone()));
        Ok(Self { pool, writes, appended, stop })
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn ensure(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let mut transaction = Transaction::begin(&self.pool).await?;
        for topic in topics {
            let (found,): (i32,) = sqlx::query_as("SELECT count(*) FROM partition WHERE topic = $1")
                .bind(&topic.name)
                .fetch_one(transaction.connection())
                .await?;
            if found != 0 && found != topic.partitions {
                return Err(LogError::PartitionCount { topic: topic.name.clone(), found, wanted: topic.partitions });
            }
            for partition in found..topic.partitions {
                sqlx::query("INSERT INTO partition (topic, partition, low, next) VALUES ($1, $2, 0, 0)")
                    .bind(&topic.name)
                    .bind(partition)
                    .execute(transaction.connection())
                    .await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    async fn append(&self, topic: &str, record: Record) -> Result<Position, AppendError> {
        if record.size() > crate::MAX_RECORD {
            return Err(AppendError::TooLarge);
        }
        let (answer, answered) = oneshot::channel();
        self.writes
            .try_send(Write::Append { topic: topic.to_owned(), record, answer })
            .map_err(|_| AppendError::Full("too many records wait to be written".into()))?;
        answered.await.unwrap_or_else(|_| Err(AppendError::Unavailable("the log was closed".into())))
    }

    async fn subscribe(&self, group: &str, topic: &str) -> Result<Subscription, LogError> {
        let (subscription, side) = subscription::channels();
        let reader = reader::Reader::new(self.pool.clone(), self.writes.clone(), group, topic, self.appended.clone());
        reader.register().await?;
        tokio::spawn(reader.run(side));
        Ok(subscription)
    }

    async fn extents(&self, topic: &str) -> Result<BTreeMap<Partition, Extent>, LogError> {
        look::extents(&self.pool, topic).await
    }

    async fn read(&self, topic: &str, partition: Partition, offset: i64) -> Result<Option<Record>, LogError> {
        look::read(&self.pool, topic, partition, offset).await
    }

    async fn check(&self) -> Result<(), LogError> {
        sqlx::query("SELECT 1 FROM partition LIMIT 1").execute(&self.pool).await?;
        Ok(())
    }

    async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.writes.send(Write::Flush(done)).await.is_ok() {
            // The writer ends only with the log itself.
            let _ = flushed.await;
        }
    }
}
