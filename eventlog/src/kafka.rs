//! The log on Apache Kafka, through librdkafka.

mod audit;
mod config;
mod consumer;
mod librdkafka_log;
mod pending_rebalances;
mod producer;
mod query;
mod rebalance;
mod record;
mod reports;
mod scan;
mod topics;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use async_trait::async_trait;
use config::Settings;
use producer::{Appender, Contents};
use query::WatermarkQuery;
use rdkafka::producer::Producer as _;
use topics::TopicWatch;
use usher_proto::{Key, Offset, Partition, Record, Timestamp};

use crate::scan::Scanner;
use crate::subscription::{self, Subscription};
use crate::{AppendError, Log, LogError, MAX_RECORD, Position, TopicSpec, TopicState, Watermarks};

/// Time limit for an append. Below ingest's own deadline of ten seconds, which is below the sender's of fifteen.
pub(crate) const APPEND_DEADLINE: Duration = Duration::from_secs(8);

/// Time limit for a request to the cluster.
const QUESTION_DEADLINE: Duration = Duration::from_secs(5);

/// A log in a Kafka cluster.
pub struct KafkaLog {
    settings: Settings,
    appender: Appender,
    topics: TopicWatch,
    watermarks: WatermarkQuery,
    /// Watermarks that count records of open transactions, so that another producer's open transaction does not hide
    /// records that were acknowledged.
    written: WatermarkQuery,
}

impl KafkaLog {
    /// Creates clients for the cluster. They connect lazily, so this succeeds while the cluster is unreachable.
    /// `properties` are librdkafka properties by their own names; those on which Usher's guarantees depend are refused.
    ///
    /// # Errors
    ///
    /// A property is refused, needs TLS in a build without it, or is not valid for librdkafka.
    pub fn open(brokers: &str, properties: &[(String, String)]) -> Result<Self, LogError> {
        let settings = Settings::new(brokers, properties)?;
        let appender = Appender::new(settings.clone())?;
        Ok(Self {
            appender,
            settings,
            topics: TopicWatch::default(),
            watermarks: WatermarkQuery::default(),
            written: WatermarkQuery::with_open_transactions(),
        })
    }

    async fn write(
        &self,
        topic: &TopicSpec,
        key: &Key,
        size: usize,
        contents: Contents<'_>,
    ) -> Result<Position, AppendError> {
        let state = self.topics.state(&topic.name);
        if let Some(problem) = state.blocked() {
            return Err(AppendError::Unavailable(format!("topic {} {problem}", topic.name)));
        }
        if state.largest.is_some_and(|largest| size > largest) {
            return Err(AppendError::TooLarge);
        }
        let partition = Partition::of(key, topic.partitions);
        match self.appender.append(&topic.name, partition, key, contents).await {
            // The topic takes smaller records than a moment ago. The next check reads the new limit.
            Err(AppendError::TooLarge) if state.largest.is_some() && size <= MAX_RECORD => {
                let why = format!("topic {} takes only smaller records since a short while", topic.name);
                Err(AppendError::Unavailable(why))
            }
            result => {
                if let Ok(position) = result {
                    self.topics.appended(&topic.name, position);
                }
                result
            }
        }
    }
}

fn unavailable(error: impl Display) -> LogError {
    LogError::Unavailable(error.to_string())
}

/// Runs `work`, which waits for the cluster, on a thread where it blocks no other task.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.map_err(unavailable)?
}

#[async_trait]
impl Log for KafkaLog {
    async fn ensure(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let ensured = self.topics.ensure(&self.settings, topics).await;
        self.appender.limit_batches(self.topics.smallest_limit());
        self.settings.logger().explained(ensured)
    }

    async fn append(&self, topic: &TopicSpec, record: Record) -> Result<Position, AppendError> {
        self.write(topic, &record.key, record.size(), Some((&record.headers, &record.body))).await
    }

    async fn erase(&self, topic: &TopicSpec, key: &Key) -> Result<Position, AppendError> {
        self.write(topic, key, key.as_str().len(), None).await
    }

    async fn subscribe(&self, group: &str, topic: &str) -> Result<Subscription, LogError> {
        let (subscription, side) = subscription::channels();
        consumer::spawn(&self.settings, group, topic, side)?;
        Ok(subscription)
    }

    async fn watermarks(&self, topic: &str) -> Result<BTreeMap<Partition, Watermarks>, LogError> {
        self.watermarks.of(&self.settings, topic).await
    }

    async fn offsets_at(&self, topic: &str, at: Timestamp) -> Result<BTreeMap<Partition, Offset>, LogError> {
        self.watermarks.at(&self.settings, topic, at).await
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<Partition, Offset>, LogError> {
        query::committed(&self.settings, group, topic).await
    }

    async fn read(&self, topic: &str, partition: Partition, offset: Offset) -> Result<Option<Record>, LogError> {
        query::read(&self.settings, topic, partition, offset).await
    }

    fn scan(&self, topic: &str) -> Result<Box<dyn Scanner>, LogError> {
        Ok(Box::new(scan::TopicScanner::open(&self.settings, topic)?))
    }

    async fn check(&self) -> Result<(), LogError> {
        let checked = self.topics.check(&self.settings, &self.written).await;
        self.appender.limit_batches(self.topics.smallest_limit());
        self.settings.logger().explained(checked)
    }

    fn state(&self, topic: &str) -> TopicState {
        self.topics.state(topic)
    }

    async fn flush(&self) {
        let producer = self.appender.client();
        let flushed = tokio::task::spawn_blocking(move || producer.get().flush(APPEND_DEADLINE)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "producer stopped with unacknowledged records; their senders got an error");
        }
    }
}
