//! Topics are made or checked before anything is read or written.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::QUESTION_DEADLINE;
use super::config::Settings;
use crate::{Kept, LogError, MAX_RECORD, TopicSpec};

/// Kafka's word for "as many replicas as the cluster's default says".
const CLUSTER_DEFAULT: TopicReplication<'static> = TopicReplication::Fixed(-1);

pub(super) async fn ensure(settings: &Settings, topics: &[TopicSpec]) -> Result<(), LogError> {
    let unavailable = |error: rdkafka::error::KafkaError| LogError::Unavailable(error.to_string());
    let admin: AdminClient<DefaultClientContext> = settings.admin().create().map_err(unavailable)?;
    // The limit is on the stored batch, so it stands above the largest record.
    let largest = (MAX_RECORD + 64 * 1024).to_string();
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let made = NewTopic::new(&topic.name, topic.partitions, CLUSTER_DEFAULT).set("max.message.bytes", &largest);
            match topic.kept {
                Kept::ForRetention => made,
                Kept::NewestOfKey => made.set("cleanup.policy", "compact"),
            }
        })
        .collect();
    let options =
        AdminOptions::new().request_timeout(Some(QUESTION_DEADLINE)).operation_timeout(Some(QUESTION_DEADLINE));
    let results = admin.create_topics(&new, &options).await.map_err(unavailable)?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(LogError::Unavailable(format!("topic {topic} cannot be made: {code}"))),
        }
    }
    let wanted = topics.to_vec();
    tokio::task::spawn_blocking(move || check(&admin, &wanted))
        .await
        .map_err(|error| LogError::Unavailable(error.to_string()))?
}

fn check(admin: &AdminClient<DefaultClientContext>, topics: &[TopicSpec]) -> Result<(), LogError> {
    for topic in topics {
        let metadata = admin
            .inner()
            .fetch_metadata(Some(&topic.name), QUESTION_DEADLINE)
            .map_err(|error| LogError::Unavailable(error.to_string()))?;
        let partitions = metadata.topics().first().map_or(0, |found| found.partitions().len());
        let found = i32::try_from(partitions).unwrap_or(i32::MAX);
        if found == 0 {
            // Made a moment ago and not known to this broker yet; whoever asked will ask again.
            return Err(LogError::Unavailable(format!("topic {} has no leader yet", topic.name)));
        }
        if found != topic.partitions {
            return Err(LogError::PartitionCount { topic: topic.name.clone(), found, wanted: topic.partitions });
        }
    }
    Ok(())
}
