//! Topics are made or checked before anything is read or written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;

use super::config::Settings;
use super::{QUESTION_DEADLINE, blocking, retention, unavailable};
use crate::{Kept, LogError, MAX_RECORD, RETENTION, TopicSpec};

/// Kafka's word for "as many replicas as the cluster's default says".
const CLUSTER_DEFAULT: TopicReplication<'static> = TopicReplication::Fixed(-1);

/// How often to look for topics that have been made.
const LOOKS: u32 = 50;
/// And how long to wait in between.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

pub(super) async fn ensure(settings: &Settings, topics: &[TopicSpec]) -> Result<(), LogError> {
    let admin: AdminClient<DefaultClientContext> =
        settings.admin().create().map_err(|error| LogError::configuration(&error))?;
    let admin = Arc::new(admin);
    // Looking comes first: where the topics exist already, Usher need not be allowed to make any.
    let missing = missing(&admin, topics).await?;
    let kept = topics.iter().filter(|topic| topic.kept == Kept::ForRetention && !missing.contains(topic));
    retention::check(&admin, kept.map(|topic| topic.name.as_str())).await;
    if missing.is_empty() {
        return Ok(());
    }
    make(&admin, &missing).await?;
    // Looked at again, for somebody else may have made them with another number of partitions; the brokers take a moment.
    for _ in 0..LOOKS {
        if self::missing(&admin, topics).await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    Err(LogError::Unavailable("topics have been made and do not show yet".into()))
}

async fn make(admin: &AdminClient<DefaultClientContext>, topics: &[TopicSpec]) -> Result<(), LogError> {
    // The limit is on the stored batch, so it stands above the largest record.
    let largest = (MAX_RECORD + 64 * 1024).to_string();
    let retention = RETENTION.as_millis().to_string();
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let made = NewTopic::new(&topic.name, topic.partitions, CLUSTER_DEFAULT).set("max.message.bytes", &largest);
            match topic.kept {
                // Both said, for a cluster may have other defaults.
                Kept::ForRetention => made.set("cleanup.policy", "delete").set("retention.ms", &retention),
                Kept::NewestOfKey => made.set("cleanup.policy", "compact"),
            }
        })
        .collect();
    let options =
        AdminOptions::new().request_timeout(Some(QUESTION_DEADLINE)).operation_timeout(Some(QUESTION_DEADLINE));
    let results = admin.create_topics(&new, &options).await;
    for result in results.map_err(unavailable)? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(LogError::Unavailable(format!("topic {topic} cannot be made: {code}"))),
        }
    }
    Ok(())
}

/// The topics that are missing; an error if one is not as it should be.
async fn missing(
    admin: &Arc<AdminClient<DefaultClientContext>>,
    topics: &[TopicSpec],
) -> Result<Vec<TopicSpec>, LogError> {
    let admin = admin.clone();
    let found: HashMap<String, usize> = blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, QUESTION_DEADLINE).map_err(unavailable)?;
        let count = |found: &MetadataTopic| (found.name().to_owned(), found.partitions().len());
        Ok(metadata.topics().iter().map(count).collect())
    })
    .await?;
    let mut missing = Vec::new();
    for topic in topics {
        match i32::try_from(found.get(&topic.name).copied().unwrap_or(0)).unwrap_or(i32::MAX) {
            0 => missing.push(topic.clone()),
            found if found == topic.partitions => {}
            found => {
                return Err(LogError::PartitionCount { topic: topic.name.clone(), found, wanted: topic.partitions });
            }
        }
    }
    Ok(missing)
}
