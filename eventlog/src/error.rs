//! Errors of the log, distinguished by how the caller must react.

use rdkafka::error::KafkaError;
use usher_proto::Offset;
use usher_service::ConfigError;

use crate::{Severity, TopicProblem};

/// A record could not be appended, or it is unknown if it was. The record may be in the log anyway, so a caller that
/// repeats the append must be able to recognise the duplicate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log has no capacity: too many records await an acknowledgement, the disk is full, or readers lag too far.
    #[error("the log has no room: {0}")]
    Full(String),
    /// The record is larger than the log accepts.
    #[error("the record is larger than the log takes")]
    TooLarge,
    /// The log did not acknowledge the record in time, or cannot be reached.
    #[error("the log did not acknowledge: {0}")]
    Unavailable(String),
}

/// The log cannot be used as requested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A topic has fewer partitions than configured.
    #[error(
        "topic {topic} has {found} partitions but USHER_PARTITIONS says {wanted}: changing the number moves users to \
         other partitions and breaks their order; set USHER_PARTITIONS={found}, or use another USHER_TOPIC_PREFIX"
    )]
    PartitionCount {
        /// Name of the topic.
        topic: String,
        /// Number of partitions of the topic.
        found: i32,
        /// Configured number of partitions.
        wanted: i32,
    },
    /// A topic has a problem that blocks writes.
    #[error("topic {topic} {problem}")]
    Topic {
        /// Name of the topic.
        topic: String,
        /// The problem that was found.
        problem: TopicProblem,
    },
    /// A setting of the log is not allowed or not known, or the file of an embedded log is damaged.
    #[error("{0}")]
    Setting(#[source] ConfigError),
    /// Records that a group has not read are deleted: the offset at which it must continue no longer exists.
    #[error(
        "partition {partition} of {topic} no longer holds offset {offset}, where {group} must go on: retention or a \
         restored log has removed events it had not read"
    )]
    OffsetGone {
        /// Name of the topic.
        topic: String,
        /// Number of the partition.
        partition: i32,
        /// Name of the consumer group.
        group: String,
        /// Offset at which the group was to continue.
        offset: Offset,
    },
    /// The log cannot be reached or returns an error.
    #[error("the log is not available: {0}")]
    Unavailable(String),
}

impl LogError {
    /// True if waiting does not fix the error. A process that gets such an error at startup exits.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::PartitionCount { .. } | Self::Setting(_) => true,
            Self::Topic { problem, .. } => problem.severity() == Severity::Refuse,
            Self::OffsetGone { .. } | Self::Unavailable(_) => false,
        }
    }

    /// Converts librdkafka's rejection of its configuration. Leaves out librdkafka's own text: it repeats the value,
    /// which may be a password.
    pub(crate) fn configuration(error: &KafkaError) -> Self {
        Self::Setting(match error {
            KafkaError::ClientConfig(_, description, key, _) => {
                let variable = format!("USHER_KAFKA_{}", key.replace('.', "_").to_uppercase());
                ConfigError::new(&variable, format!("{key}: {description}"))
            }
            other => ConfigError::new("USHER_KAFKA_*", other),
        })
    }
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}
