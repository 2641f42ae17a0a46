//! What can go wrong with the log, told apart by what must follow from it.

use rdkafka::error::KafkaError;
use usher_service::ConfigError;

use crate::{Severity, TopicProblem};

/// A record could not be appended, or it is not known whether it was. It may be in the log all the same, so whoever
/// repeats it must recognise the repetition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// There is no room now: too much is waiting for an acknowledgement, the disk is full, or readers are too far behind.
    #[error("the log has no room: {0}")]
    Full(String),
    /// The log does not take such a large record.
    #[error("the record is larger than the log takes")]
    TooLarge,
    /// The log did not acknowledge in time, or cannot be reached.
    #[error("the log did not acknowledge: {0}")]
    Unavailable(String),
}

/// The log cannot be used as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A topic has fewer partitions than configured.
    #[error(
        "topic {topic} has {found} partitions but USHER_PARTITIONS says {wanted}: changing the number moves users to \
         other partitions and breaks their order; set USHER_PARTITIONS={found}, or use another USHER_TOPIC_PREFIX"
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// What it has.
        found: i32,
        /// What was configured.
        wanted: i32,
    },
    /// A topic is not as it must be.
    #[error("topic {topic} {problem}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        problem: TopicProblem,
    },
    /// A setting of the log is not allowed or not known.
    #[error("{0}")]
    Setting(#[source] ConfigError),
    /// Records that a group has not read are gone: the offset it must go on from does not exist any more.
    #[error(
        "partition {partition} of {topic} no longer holds offset {offset}, where {group} must go on: retention or a \
         restored log has removed events it had not read"
    )]
    OffsetGone {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The group.
        group: String,
        /// Where the group was to go on.
        offset: i64,
    },
    /// The log cannot be reached or answers with an error.
    #[error("the log is not available: {0}")]
    Unavailable(String),
}

impl LogError {
    /// Whether a process that meets it at its start ends, because waiting does not mend it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::PartitionCount { .. } | Self::Setting(_) => true,
            Self::Topic { problem, .. } => problem.severity() == Severity::Refuse,
            Self::OffsetGone { .. } | Self::Unavailable(_) => false,
        }
    }

    /// librdkafka does not take its configuration. Its own text would repeat the value, which may be a password.
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

impl From<sqlx::Error> for LogError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}
