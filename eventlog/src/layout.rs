//! Layout of the topics. Processes that write the log and those that read it must be configured alike.

use usher_proto::Topics;
use usher_service::ConfigError;
use usher_service::options::Environment;

use crate::{Creation, DEAD_LETTER_RETENTION, Retention, TopicSpec};

/// Options for the topics of the log, common to all processes.
#[derive(Debug, Clone, clap::Args)]
pub struct LogLayout {
    /// Prefix of the names of topics and consumer groups.
    #[arg(long = "topic-prefix", env = "USHER_TOPIC_PREFIX", default_value = "usher")]
    pub topics: Topics,
    /// Number of partitions written to; fixed once the topics exist.
    #[arg(long, env = "USHER_PARTITIONS", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1024))]
    pub partitions: i32,
}

impl LogLayout {
    /// Returns the specification of the topic that holds all events.
    pub fn events(&self) -> TopicSpec {
        TopicSpec {
            name: self.topics.events(),
            partitions: self.partitions,
            retention: Retention::Time,
            creation: Creation::FirstStart { groups: self.topics.group("") },
        }
    }

    /// Returns the specification of the topic that holds the dead letters of `flow`.
    pub fn dead_letters(&self, flow: &str) -> TopicSpec {
        TopicSpec {
            name: self.topics.dead_letters(flow),
            partitions: self.partitions,
            retention: Retention::Compact(DEAD_LETTER_RETENTION),
            // The store is the authority on dead letters, so a topic that is created again hides no loss.
            creation: Creation::Always,
        }
    }
}

/// Returns the librdkafka properties that are set as `USHER_KAFKA_<PROPERTY>`, with dots written as underscores.
///
/// # Errors
///
/// A variable is set both directly and as `<name>_FILE`, or a file cannot be read.
pub fn kafka_properties(environment: &Environment) -> Result<Vec<(String, String)>, ConfigError> {
    let found = environment.with_prefix("USHER_KAFKA_")?;
    Ok(found.into_iter().map(|(name, value)| (name.to_lowercase().replace('_', "."), value)).collect())
}
