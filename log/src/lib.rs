//! The log: topics of partitions, keyed, ordered, durable when acknowledged, with a committed offset for each group.
//!
//! One narrow trait and two implementations, Apache Kafka and a SQLite file of the same shape, which pass the same
//! conformance suite. Nothing outside this room names rdkafka. It gives records no meaning and decides nothing: where a
//! partition starts, what is committed and when to pause are the subscriber's words.

pub mod address;
pub mod error;
pub mod layout;
pub mod subscription;

mod embedded;
mod kafka;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use usher_proto::{Partition, Record};

pub use address::LogAddress;
pub use embedded::{EmbeddedLog, Retention};
pub use error::{AppendError, LogError};
pub use kafka::KafkaLog;
pub use layout::{LogLayout, kafka_properties};
pub use subscription::{Assigned, Control, LogEvent, Subscription};

/// The largest body that is accepted from a sender, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// The largest event that is accepted, as a record: a body and ample room for key and headers.
pub const MAX_EVENT: usize = MAX_BODY + 64 * 1024;

/// The largest record the log takes: an event and what its dead letter adds to it.
pub(crate) const MAX_RECORD: usize = MAX_EVENT + 64 * 1024;

/// Where a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition its key decided.
    pub partition: Partition,
    /// Its place in it, from 0, with gaps allowed.
    pub offset: i64,
}

/// How far a partition reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The oldest offset there is.
    pub low: i64,
    /// The offset the next record will get.
    pub end: i64,
}

/// How long records stay in a topic that keeps each for the log's retention. What the store remembers of events must
/// outlive it, so that an event that is read again is recognised.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a topic's records stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Each for [`RETENTION`], where the log makes the topic.
    ForRetention,
    /// The newest of each key, until it is erased.
    NewestOfKey,
}

/// A topic that must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its full name.
    pub name: String,
    /// How many partitions it has. A topic that exists with another number is refused: the order of keys hangs on it.
    pub partitions: i32,
    /// How long its records stay.
    pub kept: Kept,
}

/// The log.
#[async_trait]
pub trait Log: Send + Sync {
    /// Creates the topics that are missing and checks those that exist.
    async fn ensure(&self, topics: &[TopicSpec]) -> Result<(), LogError>;

    /// Appends to the partition that the key decides. Resolves when the record is durable (Kafka: on all in-sync
    /// replicas; embedded: synced to the disk), or after eight seconds in which that could not be had.
    async fn append(&self, topic: &str, record: Record) -> Result<Position, AppendError>;

    /// Joins `group` and reads `topic`. See [`Subscription`] for the conversation that follows.
    async fn subscribe(&self, group: &str, topic: &str) -> Result<Subscription, LogError>;

    /// How far every partition of `topic` reaches, for whoever watches how far its readers are behind. Joins nothing and
    /// disturbs no subscription.
    async fn extents(&self, topic: &str) -> Result<BTreeMap<Partition, Extent>, LogError>;

    /// The record that stands at `offset`. None where it is gone, has not come yet, or the offset holds no record.
    async fn read(&self, topic: &str, partition: Partition, offset: i64) -> Result<Option<Record>, LogError>;

    /// Whether the log answers at all.
    async fn check(&self) -> Result<(), LogError>;

    /// Waits for what has been appended and is not acknowledged yet.
    async fn flush(&self);
}

/// Opens the log at `address`; `properties` are librdkafka's and mean nothing to an embedded log.
pub async fn open(address: &LogAddress, properties: &[(String, String)]) -> Result<Arc<dyn Log>, LogError> {
    Ok(match address {
        LogAddress::Kafka { brokers } => Arc::new(KafkaLog::open(brokers, properties)?),
        LogAddress::Sqlite { path } => Arc::new(EmbeddedLog::open(path, Retention::default()).await?),
    })
}
