//! The event log: topics divided into partitions. Records have a key, are ordered within a partition and are durable
//! once acknowledged. Each consumer group has a committed offset for each partition.
//!
//! The trait [`Log`] has two implementations, Apache Kafka and a SQLite file with the same model, and both pass the
//! same conformance suite. No other crate of the product uses rdkafka. The log gives records no meaning and makes no
//! decisions: the subscriber decides where a partition starts, what is committed and when to pause.

pub mod address;
pub mod error;
pub mod layout;
pub mod scan;
pub mod subscription;
pub mod topic;
pub mod watch;

mod embedded;
mod kafka;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use address::LogAddress;
use async_trait::async_trait;
pub use embedded::{EmbeddedLog, LogRetention};
pub use error::{AppendError, LogError};
pub use kafka::KafkaLog;
pub use layout::{LogLayout, kafka_properties};
pub use scan::{ScanPage, ScanRange, Scanner};
pub use subscription::{Control, LogEvent, Subscription};
pub use topic::{Creation, DEAD_LETTER_RETENTION, RETENTION, Retention, Severity, TopicProblem, TopicSpec, TopicState};
use usher_proto::{Key, Offset, Partition, Record, Timestamp};
pub use watch::{LogWatch, METRICS};

/// Maximum size of a request body accepted from a sender, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// Maximum size of an accepted event as a record, in bytes: a body plus 64 KiB for key and headers.
pub const MAX_EVENT: usize = MAX_BODY + 64 * 1024;

/// Maximum size of a record, in bytes: an event plus 64 KiB for what its dead letter adds.
pub(crate) const MAX_RECORD: usize = MAX_EVENT + 64 * 1024;

/// Position of a record in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Partition selected by the key of the record.
    pub partition: Partition,
    /// Offset within the partition, from 0. Offsets may have gaps.
    pub offset: Offset,
}

/// Low and high watermarks of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// Oldest offset that the log still holds.
    pub low: Offset,
    /// Offset that the next record will get.
    pub high: Offset,
}

/// An event log. [`open`] returns an implementation for an address.
#[async_trait]
pub trait Log: Send + Sync {
    /// Creates the missing topics, as far as the [`Creation`] of each permits, and checks the existing ones. The first
    /// topic is the one that [`check`](Log::check) reports on.
    ///
    /// # Errors
    ///
    /// A missing topic may not be created, a topic has too few partitions or a problem that blocks writes, or the log
    /// is unavailable. Waiting does not fix the errors for which [`LogError::is_lasting`] is true.
    async fn ensure(&self, topics: &[TopicSpec]) -> Result<(), LogError>;

    /// Appends a record to a partition. The key selects it among the partitions of the layout (`topic.partitions`),
    /// even if the topic has more. Resolves when the record is durable: on all in-sync replicas with Kafka, synced to
    /// the disk with an embedded log. Kafka appends fail after eight seconds without that.
    ///
    /// # Errors
    ///
    /// The record is not known to be stored, but it may be; see [`AppendError`].
    async fn append(&self, topic: &TopicSpec, record: Record) -> Result<Position, AppendError>;

    /// Appends a tombstone. A topic with [`Retention::Compact`] then removes all earlier records of `key`. A subscriber
    /// receives the tombstone as a record without headers and with an empty body.
    ///
    /// # Errors
    ///
    /// The same as for [`append`](Log::append).
    async fn erase(&self, topic: &TopicSpec, key: &Key) -> Result<Position, AppendError>;

    /// Joins `group` and reads `topic`. The module [`subscription`] describes the messages that follow.
    ///
    /// # Errors
    ///
    /// The consumer cannot be created or the log is unavailable. Later failures arrive as [`LogEvent::Failed`].
    async fn subscribe(&self, group: &str, topic: &str) -> Result<Subscription, LogError>;

    /// Returns the low and high watermarks of each partition of `topic`, for lag metrics. Joins no group and
    /// affects no subscription.
    ///
    /// # Errors
    ///
    /// The topic does not exist or the log is unavailable.
    async fn watermarks(&self, topic: &str) -> Result<BTreeMap<Partition, Watermarks>, LogError>;

    /// Returns for each partition of `topic` the first offset whose record has the time `at` or a later one, or the end
    /// of the partition if there is none.
    ///
    /// # Errors
    ///
    /// The log is unavailable.
    async fn offsets_at(&self, topic: &str, at: Timestamp) -> Result<BTreeMap<Partition, Offset>, LogError>;

    /// Returns for each partition of `topic` the offset that `group` has committed: the next one to read. Partitions
    /// without a commit are absent. Joins no group and affects no subscription.
    ///
    /// # Errors
    ///
    /// The log is unavailable.
    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<Partition, Offset>, LogError>;

    /// Returns the record at `offset`. `None` if the record is deleted, is not written yet, or the offset
    /// holds no record.
    ///
    /// # Errors
    ///
    /// The partition does not exist or the log is unavailable.
    async fn read(&self, topic: &str, partition: Partition, offset: Offset) -> Result<Option<Record>, LogError>;

    /// Returns a reader of `topic`, for many records in order. Joins no group and affects no subscription. It may hold
    /// a connection and a thread until it is dropped.
    ///
    /// # Errors
    ///
    /// The reader cannot be created.
    fn scan(&self, topic: &str) -> Result<Box<dyn Scanner>, LogError>;

    /// Checks that the log can be written to and that the topics passed to [`ensure`](Log::ensure) are unchanged.
    ///
    /// # Errors
    ///
    /// The log accepts no records now, and appends fail.
    async fn check(&self) -> Result<(), LogError>;

    /// Returns the state of a topic as of its last check. Sends no request.
    fn state(&self, _topic: &str) -> TopicState {
        TopicState::default()
    }

    /// Waits for the records that were appended and are not acknowledged yet.
    async fn flush(&self);
}

/// Opens the log at `address`. `properties` are librdkafka properties; an embedded log ignores them.
///
/// # Errors
///
/// A librdkafka property is not allowed or not valid, or the file of an embedded log is damaged or cannot be opened.
pub async fn open(address: &LogAddress, properties: &[(String, String)]) -> Result<Arc<dyn Log>, LogError> {
    Ok(match address {
        LogAddress::Kafka { brokers } => Arc::new(KafkaLog::open(brokers, properties)?),
        LogAddress::Sqlite { path } => Arc::new(EmbeddedLog::open(path, LogRetention::default()).await?),
    })
}
