//! Apache Kafka, through librdkafka.

mod config;
mod consumer;
mod look;
mod producer;
mod rebalance;
mod record;
mod retention;
mod topics;
mod unanswered;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::producer::Producer as _;
use usher_proto::{Partition, Record};

use crate::subscription::{self, Subscription};
use crate::{AppendError, Extent, Log, LogError, Position, TopicSpec};
use config::Settings;
use look::Extents;
use producer::Appender;

/// How long an append may take. Below ingest's own deadline of ten seconds, which is below the sender's of fifteen.
pub(crate) const APPEND_DEADLINE: Duration = Duration::from_secs(8);

/// How long a question to the cluster may take.
const QUESTION_DEADLINE: Duration = Duration::from_secs(5);

/// A Kafka cluster as the log.
pub struct KafkaLog {
    settings: Settings,
    appender: Appender,
    /// A topic that is known to exist: asking a cluster about one that does not may create it.
    known: OnceLock<String>,
    extents: Extents,
}

impl KafkaLog {
    /// Prepares clients for the cluster; connects lazily, so this works while it is away. `properties` are librdkafka's,
    /// by their own names; those that Usher's promises hang on are refused.
    pub fn open(brokers: &str, properties: &[(String, String)]) -> Result<Self, LogError> {
        let settings = Settings::new(brokers, properties)?;
        let appender = Appender::new(settings.producer())?;
        Ok(Self { appender, settings, known: OnceLock::new(), extents: Extents::default() })
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
        topics::ensure(&self.settings, topics).await?;
        if let Some(topic) = topics.first() {
            self.known.get_or_init(|| topic.name.clone());
        }
        Ok(())
    }

    async fn append(&self, topic: &str, record: Record) -> Result<Position, AppendError> {
        self.appender.append(topic, record).await
    }

    async fn subscribe(&self, group: &str, topic: &str) -> Result<Subscription, LogError> {
        let (subscription, side) = subscription::channels();
        consumer::spawn(&self.settings, group, topic, side)?;
        Ok(subscription)
    }

    async fn extents(&self, topic: &str) -> Result<BTreeMap<Partition, Extent>, LogError> {
        self.extents.of(&self.settings, topic).await
    }

    async fn read(&self, topic: &str, partition: Partition, offset: i64) -> Result<Option<Record>, LogError> {
        look::read(&self.settings, topic, partition, offset).await
    }

    async fn check(&self) -> Result<(), LogError> {
        let (producer, topic) = (self.appender.client(), self.known.get().cloned());
        blocking(move || {
            producer.client().fetch_metadata(topic.as_deref(), QUESTION_DEADLINE).map(drop).map_err(unavailable)
        })
        .await
    }

    async fn flush(&self) {
        let producer = self.appender.client();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(APPEND_DEADLINE)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "not everything was acknowledged before the stop; its senders were told so");
        }
    }
}
