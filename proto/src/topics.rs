//! Names of topics and consumer groups.

use std::str::FromStr;

/// Topic and group names with a common prefix (`usher` unless configured), so that several installations can
/// share a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
}

/// The prefix cannot be part of a topic name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot begin a topic's name: use 1 to 100 of the characters a-z, A-Z, 0-9, '.', '_' and '-'")]
pub struct InvalidPrefix(String);

impl FromStr for Topics {
    type Err = InvalidPrefix;

    fn from_str(prefix: &str) -> Result<Self, Self::Err> {
        Self::new(prefix)
    }
}

impl Topics {
    /// Creates the names with `prefix`. Kafka allows 249 characters in a topic name; the limit on the prefix leaves
    /// space for the name of a flow.
    ///
    /// # Errors
    ///
    /// The prefix is empty, longer than 100 characters, or has a character other than `a-z`, `A-Z`, `0-9`, `.`,
    /// `_` and `-`.
    pub fn new(prefix: &str) -> Result<Self, InvalidPrefix> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if prefix.is_empty() || prefix.len() > 100 || !prefix.chars().all(allowed) {
            return Err(InvalidPrefix(prefix.to_owned()));
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    /// The prefix of all names.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The topic of the events of all sources.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The topic of a flow's dead letters.
    pub fn dead_letters(&self, flow: &str) -> String {
        format!("{}.dlq.{flow}", self.prefix)
    }

    /// The consumer group of a flow.
    pub fn group(&self, flow: &str) -> String {
        format!("{}.{flow}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_prefix() {
        let topics = Topics::new("usher").expect("a plain word");
        assert_eq!(topics.events(), "usher.events");
        assert_eq!(topics.dead_letters("email"), "usher.dlq.email");
        assert_eq!(topics.group("email"), "usher.email");
    }

    #[test]
    fn a_prefix_that_kafka_would_refuse_is_refused_first() {
        for bad in ["", "a b", "ü", &"x".repeat(101)] {
            assert!(Topics::new(bad).is_err(), "{bad}");
        }
    }
}
