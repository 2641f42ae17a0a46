//! The log: topics of partitions, keyed, ordered, durable when acknowledged, with a committed offset for each group.
//!
//! One narrow trait and two implementations, Apache Kafka and a SQLite file of the same shape, which pass the same
//! conformance suite. Nothing outside this room names rdkafka. It gives records no meaning and decides nothing: where a
//! partition starts, what is committed and when to pause are the subscriber's words.

pub mod address;
pub mod error;
pub mod layout;
pub mod subscription;
pub mod topic;
pub mod watch;

mod embedded;
mod kafka;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use usher_proto::{Key, Partition, Record, Timestamp};

pub use address::LogAddress;
pub use embedded::{EmbeddedLog, LogRetention};
pub use error::{AppendError, LogError};
pub use kafka::KafkaLog;
pub use layout::{LogLayout, kafka_properties};
pub use subscription::{Assigned, Control, LogEvent, Subscription};
pub use topic::{Creation, DEAD_LETTER_RETENTION, RETENTION, Retention, Severity, TopicProblem, TopicSpec, TopicState};
pub use watch::LogWatch;

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
pub struct Watermarks {
    /// The oldest offset there is.
    pub low: i64,
    /// The offset the next record will get.
    pub high: i64,
}

/// The log.
#[async_trait]
pub trait Log: Send + Sync {
    /// Makes the topics that are missing, as far as each says, and checks those that exist. The first of them is the one
    /// that [`check`](Log::check) answers for.
    ///
    /// # Errors
    /// [`LogError::is_lasting`] tells those that waiting does not mend.
    async fn ensure(&self, topics: &[TopicSpec]) -> Result<(), LogError>;

    /// Appends to the partition that the key decides among those of the layout, however many the topic has. Resolves when
    /// the record is durable (Kafka: on all in-sync replicas; embedded: synced to the disk), or after eight seconds in
    /// which that could not be had.
    ///
    /// # Errors
    /// Nothing is known to be kept; see [`AppendError`].
    async fn append(&self, topic: &TopicSpec, record: Record) -> Result<Position, AppendError>;

    /// Appends a tombstone: of a topic that keeps the newest of each key, nothing of `key` stays that came before. Whoever
    /// reads the tombstone gets a record without headers and with an empty body.
    ///
    /// # Errors
    /// As those of [`append`](Log::append).
    async fn erase(&self, topic: &TopicSpec, key: &Key) -> Result<Position, AppendError>;

    /// Joins `group` and reads `topic`. See [`Subscription`] for the conversation that follows.
    async fn subscribe(&self, group: &str, topic: &str) -> Result<Subscription, LogError>;

    /// How far every partition of `topic` reaches, for whoever watches how far its readers are behind. Joins nothing and
    /// disturbs no subscription.
    async fn watermarks(&self, topic: &str) -> Result<BTreeMap<Partition, Watermarks>, LogError>;

    /// The first offset of each partition of `topic` whose record came at `at` or later, or the partition's end.
    ///
    /// # Errors
    /// The log does not answer.
    async fn offsets_at(&self, topic: &str, at: Timestamp) -> Result<BTreeMap<Partition, i64>, LogError>;

    /// Where `group` has committed that it goes on in each partition of `topic`; nothing of those without a commit. Joins
    /// nothing and disturbs no subscription.
    ///
    /// # Errors
    /// The log does not answer.
    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<Partition, i64>, LogError>;

    /// The record that stands at `offset`. None where it is gone, has not come yet, or the offset holds no record.
    async fn read(&self, topic: &str, partition: Partition, offset: i64) -> Result<Option<Record>, LogError>;

    /// Looks whether the log can be written to and the topics that were [`ensured`](Log::ensure) are still as they were.
    ///
    /// # Errors
    /// Nothing can be accepted now, and appends fail.
    async fn check(&self) -> Result<(), LogError>;

    /// How a topic was found when it was last looked at. Asks nobody.
    fn state(&self, _topic: &str) -> TopicState {
        TopicState::default()
    }

    /// Waits for what has been appended and is not acknowledged yet.
    async fn flush(&self);
}

/// Opens the log at `address`; `properties` are librdkafka's and mean nothing to an embedded log.
pub async fn open(address: &LogAddress, properties: &[(String, String)]) -> Result<Arc<dyn Log>, LogError> {
    Ok(match address {
        LogAddress::Kafka { brokers } => Arc::new(KafkaLog::open(brokers, properties)?),
        LogAddress::Sqlite { path } => Arc::new(EmbeddedLog::open(path, LogRetention::default()).await?),
    })
}
