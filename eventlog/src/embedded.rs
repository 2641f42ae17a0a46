//! The log on one machine: a SQLite file with Kafka's model, for one process with several threads.
//!
//! Records are durable when acknowledged: WAL mode with `synchronous=FULL`, and one writer that commits the queued
//! writes in one transaction. Age and size are bounded, but records that a group has not read are never deleted. Once
//! the bound is reached, appends fail with [`AppendError::Full`].

mod connections;
mod file;
mod others;
mod query;
mod reader;
mod retention;
mod scan;
mod schema;
mod topics;
mod transaction;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use file::File;
pub use retention::LogRetention;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use usher_proto::{Key, Offset, Partition, Record, Timestamp};
use writer::{AppendTarget, Write, Writer};

use crate::scan::Scanner;
use crate::subscription::{self, Subscription};
use crate::{AppendError, Log, LogError, Position, TopicSpec, Watermarks};

/// Capacity of the writer's queue. Ingest's own limit on requests in flight is lower.
const WRITE_QUEUE: usize = 4096;

/// A log in a SQLite file.
pub struct EmbeddedLog {
    file: File,
    writes: mpsc::Sender<Write>,
    /// Changes after every append, to wake readers that have reached the end.
    appended: watch::Receiver<u64>,
    stop: CancellationToken,
}

impl EmbeddedLog {
    /// Opens the file, or creates it if missing. The caller must have exclusive use of the directory of the file.
    ///
    /// # Errors
    ///
    /// The file is damaged or is no database, which is a [lasting](LogError::is_lasting) error, or it cannot
    /// be opened now.
    pub async fn open(path: &Path, retention: LogRetention) -> Result<Self, LogError> {
        usher_service::files::tighten_database(path).map_err(|error| LogError::Unavailable(error.to_string()))?;
        let file = File::open(path).await?;
        let stop = CancellationToken::new();
        let (writes, write_queue) = mpsc::channel(WRITE_QUEUE);
        let (append_signal, appended) = watch::channel(0);
        tokio::spawn(others::run(file.clone(), append_signal.clone(), stop.clone()));
        let writer = Writer::new(file.clone(), append_signal, retention.max_bytes);
        std::thread::Builder::new()
            .name("log writer".to_owned())
            .spawn(move || writer.run(write_queue))
            .map_err(|error| LogError::Unavailable(error.to_string()))?;
        tokio::spawn(retention::run(file.clone(), retention, stop.clone()));
        Ok(Self { file, writes, appended, stop })
    }
}

impl EmbeddedLog {
    async fn write(&self, topic: &TopicSpec, record: Record, erases: bool) -> Result<Position, AppendError> {
        let (answer, answered) = oneshot::channel();
        let place = AppendTarget { topic: topic.name.clone(), partition: Partition::of(&record.key, topic.partitions) };
        self.writes
            .try_send(Write::Append { place, record, erases, answer })
            .map_err(|_| AppendError::Full("too many records wait to be written".into()))?;
        answered.await.unwrap_or_else(|_| Err(AppendError::Unavailable("the log was closed".into())))
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
        let topics = topics.to_vec();
        self.file.call(move |connection| topics::ensure(connection, &topics)).await?
    }

    async fn append(&self, topic: &TopicSpec, record: Record) -> Result<Position, AppendError> {
        if record.size() > crate::MAX_RECORD {
            return Err(AppendError::TooLarge);
        }
        self.write(topic, record, false).await
    }

    async fn erase(&self, topic: &TopicSpec, key: &Key) -> Result<Position, AppendError> {
        let tombstone = Record { key: key.clone(), headers: Vec::new(), body: Bytes::new() };
        self.write(topic, tombstone, true).await
    }

    async fn subscribe(&self, group: &str, topic: &str) -> Result<Subscription, LogError> {
        let (subscription, side) = subscription::channels();
        let reader = reader::Reader::new(self.file.clone(), self.writes.clone(), group, topic, self.appended.clone());
        reader.register().await?;
        tokio::spawn(reader.run(side));
        Ok(subscription)
    }

    async fn watermarks(&self, topic: &str) -> Result<BTreeMap<Partition, Watermarks>, LogError> {
        query::watermarks(&self.file, topic).await
    }

    async fn offsets_at(&self, topic: &str, at: Timestamp) -> Result<BTreeMap<Partition, Offset>, LogError> {
        query::offsets_at(&self.file, topic, at).await
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<Partition, Offset>, LogError> {
        query::committed(&self.file, group, topic).await
    }

    async fn read(&self, topic: &str, partition: Partition, offset: Offset) -> Result<Option<Record>, LogError> {
        query::read(&self.file, topic, partition, offset).await
    }

    fn scan(&self, topic: &str) -> Result<Box<dyn Scanner>, LogError> {
        Ok(Box::new(scan::FileScanner { file: self.file.clone(), topic: topic.to_owned() }))
    }

    async fn check(&self) -> Result<(), LogError> {
        self.file.check_thoroughly().await
    }

    async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.writes.send(Write::Flush(done)).await.is_ok() {
            // The writer ends only with the log itself.
            let _ = flushed.await;
        }
    }
}
