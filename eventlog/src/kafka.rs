//! Apache Kafka, through librdkafka.

mod audit;
mod config;
mod consumer;
mod news;
mod pending_rebalances;
mod producer;
mod query;
mod rebalance;
mod record;
mod topics;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::producer::Producer as _;
use usher_proto::{Key, Partition, Record, Timestamp};

use crate::subscription::{self, Subscription};
use crate::{AppendError, Log, LogError, MAX_RECORD, Position, TopicSpec, TopicState, Watermarks};
use config::Settings;
use producer::{Appender, Contents};
use query::WatermarkQuery;
use topics::Topics;

/// How long an append may take. Below ingest's own deadline of ten seconds, which is below the sender's of fifteen.
pub(crate) const APPEND_DEADLINE: Duration = Duration::from_secs(8);

/// How long a question to the cluster may take.
const QUESTION_DEADLINE: Duration = Duration::from_secs(5);

/// A Kafka cluster as the log.
pub struct KafkaLog {
    settings: Settings,
    appender: Appender,
    topics: Topics,
    watermarks: WatermarkQuery,
    /// For what has been acknowledged: somebody's open transaction does not take it away.
    written: WatermarkQuery,
}

impl KafkaLog {
    /// Prepares clients for the cluster; connects lazily, so this works while it is away. `properties` are librdkafka's,
    /// by their own names; those that Usher's promises hang on are refused.
    pub fn open(brokers: &str, properties: &[(String, String)]) -> Result<Self, LogError> {
        let settings = Settings::new(brokers, properties)?;
        let appender = Appender::new(settings.clone())?;
        Ok(Self {
            appender,
            settings,
            topics: Topics::default(),
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
            // The topic takes less than it did a moment ago; the next look tells how much.
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

/// Carries out what waits for the cluster where it keeps nobody from working.
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
        ensured
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

    async fn offsets_at(&self, topic: &str, at: Timestamp) -> Result<BTreeMap<Partition, i64>, LogError> {
        self.watermarks.at(&self.settings, topic, at).await
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<Partition, i64>, LogError> {
        query::committed(&self.settings, group, topic).await
    }

    async fn read(&self, topic: &str, partition: Partition, offset: i64) -> Result<Option<Record>, LogError> {
        query::read(&self.settings, topic, partition, offset).await
    }

    async fn check(&self) -> Result<(), LogError> {
        let checked = self.topics.check(&self.settings, &self.written).await;
        self.appender.limit_batches(self.topics.smallest_limit());
        checked
    }

    fn state(&self, topic: &str) -> TopicState {
        self.topics.state(topic)
    }

    async fn flush(&self) {
        let producer = self.appender.client();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(APPEND_DEADLINE)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "not everything was acknowledged before the stop; its senders were told so");
        }
    }
}
