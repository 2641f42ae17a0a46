//! How the topics are laid out: what both sides of the log must be told alike.

use usher_proto::Topics;
use usher_service::ConfigError;
use usher_service::options::Environment;

use crate::{Creation, DEAD_LETTER_RETENTION, Retention, TopicSpec};

/// The options about topics that every process takes.
#[derive(Debug, Clone, clap::Args)]
pub struct LogLayout {
    /// What the topics' and groups' names begin with.
    #[arg(long = "topic-prefix", env = "USHER_TOPIC_PREFIX", default_value = "usher")]
    pub topics: Topics,
    /// Number of partitions written to; fixed once the topics exist.
    #[arg(long, env = "USHER_PARTITIONS", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1024))]
    pub partitions: i32,
}

impl LogLayout {
    /// The topic of all events.
    pub fn events(&self) -> TopicSpec {
        TopicSpec {
            name: self.topics.events(),
            partitions: self.partitions,
            retention: Retention::Time,
            creation: Creation::FirstStart { groups: self.topics.group("") },
        }
    }

    /// The topic of a flow's dead letters.
    pub fn dead_letters(&self, flow: &str) -> TopicSpec {
        TopicSpec {
            name: self.topics.dead_letters(flow),
            partitions: self.partitions,
            retention: Retention::Compact(DEAD_LETTER_RETENTION),
            // The store is the truth about dead letters, so a topic made again hides nothing.
            creation: Creation::Always,
        }
    }
}

/// librdkafka's properties from `USHER_KAFKA_<PROPERTY>`, dots written as underscores.
pub fn kafka_properties(environment: &Environment) -> Result<Vec<(String, String)>, ConfigError> {
    let found = environment.with_prefix("USHER_KAFKA_")?;
    Ok(found.into_iter().map(|(name, value)| (name.to_lowercase().replace('_', "."), value)).collect())
}
