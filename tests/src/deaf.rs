//! A log that hides revocations from its subscriber, which continues to work on partitions that others own by then.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use usher_eventlog::{
    AppendError, Log, LogError, LogEvent, Position, Scanner, Subscription, TopicSpec, TopicState, Watermarks,
};
use usher_proto::{Key, Offset, Partition, Record, Timestamp};

/// A log that hides revocations. Holds the wrapped log.
pub struct RevocationHidingLog(pub Arc<dyn Log>);

#[async_trait]
impl Log for RevocationHidingLog {
    async fn subscribe(&self, group: &str, topic: &str) -> Result<Subscription, LogError> {
        let Subscription { mut events, control } = self.0.subscribe(group, topic).await?;
        // The smallest capacity: the wrapped log already bounds the number of waiting events.
        let (heard, hears) = mpsc::channel(1);
        let answers = control.clone();
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.recv() => event,
                    () = heard.closed() => None,
                };
                match event {
                    None => return,
                    Some(LogEvent::Revoked { lost: false, .. }) => answers.release(),
                    Some(LogEvent::Revoked { lost: true, .. }) => {}
                    Some(event) => {
                        if heard.send(event).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Subscription { events: hears, control })
    }

    async fn ensure(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.0.ensure(topics).await
    }

    async fn append(&self, topic: &TopicSpec, record: Record) -> Result<Position, AppendError> {
        self.0.append(topic, record).await
    }

    async fn erase(&self, topic: &TopicSpec, key: &Key) -> Result<Position, AppendError> {
        self.0.erase(topic, key).await
    }

    fn state(&self, topic: &str) -> TopicState {
        self.0.state(topic)
    }

    async fn watermarks(&self, topic: &str) -> Result<BTreeMap<Partition, Watermarks>, LogError> {
        self.0.watermarks(topic).await
    }

    async fn offsets_at(&self, topic: &str, at: Timestamp) -> Result<BTreeMap<Partition, Offset>, LogError> {
        self.0.offsets_at(topic, at).await
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<Partition, Offset>, LogError> {
        self.0.committed(group, topic).await
    }

    async fn read(&self, topic: &str, partition: Partition, offset: Offset) -> Result<Option<Record>, LogError> {
        self.0.read(topic, partition, offset).await
    }

    fn scan(&self, topic: &str) -> Result<Box<dyn Scanner>, LogError> {
        self.0.scan(topic)
    }

    async fn check(&self) -> Result<(), LogError> {
        self.0.check().await
    }

    async fn flush(&self) {
        self.0.flush().await;
    }
}
