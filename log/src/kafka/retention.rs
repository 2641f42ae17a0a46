//! How long a topic that somebody else made keeps its records, and a warning where that is longer than the store remembers.

use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, ConfigResourceResult, OwnedResourceSpecifier, ResourceSpecifier,
};
use rdkafka::client::DefaultClientContext;

use super::QUESTION_DEADLINE;

/// What the store can be relied upon to remember.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a topic keeps its records.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    For(Duration),
    Forever,
}

/// Warns of each of these topics that keeps its records for too long. It is advice, so not being told harms nothing.
pub(super) async fn check(admin: &AdminClient<DefaultClientContext>, topics: impl Iterator<Item = &str>) {
    let topics: Vec<ResourceSpecifier<'_>> = topics.map(ResourceSpecifier::Topic).collect();
    for answer in describe(admin, &topics).await {
        match answer {
            Ok(config) => {
                let OwnedResourceSpecifier::Topic(topic) = &config.specifier else { continue };
                match kept(&config) {
                    Some(Kept::For(time)) if time > REMEMBERED => {
                        warn(topic, &format!("for {} days", time.as_secs() / 86_400));
                    }
                    Some(Kept::Forever) => warn(topic, "for ever"),
                    Some(Kept::For(_)) | None => {}
                }
            }
            // TopicAuthorizationFailed, for one: describing topics is a right of its own.
            Err(error) => tracing::debug!(%error, "how long a topic keeps its events is not told"),
        }
    }
}

fn warn(topic: &str, kept: &str) {
    tracing::warn!(
        topic,
        "the topic keeps its events {kept}, longer than the {} days that the store remembers what was done: an event that is \
         read again after that is given up as too old; set the topic's retention.ms to {} or less, with cleanup.policy=delete",
        REMEMBERED.as_secs() / 86_400,
        REMEMBERED.as_millis(),
    );
}

/// Asks about each of the topics.
async fn describe(
    admin: &AdminClient<DefaultClientContext>,
    topics: &[ResourceSpecifier<'_>],
) -> Vec<ConfigResourceResult> {
    if topics.is_empty() {
        return Vec::new();
    }
    let options = AdminOptions::new().request_timeout(Some(QUESTION_DEADLINE));
    match admin.describe_configs(topics, &options).await {
        Ok(answers) => answers,
        Err(error) => {
            tracing::debug!(%error, "how long topics keep their events is not told");
            Vec::new()
        }
    }
}

/// What a topic's settings say; none if they do not say.
fn kept(config: &ConfigResource) -> Option<Kept> {
    let value = |name| config.get(name).and_then(|entry| entry.value.as_deref());
    if !value("cleanup.policy")?.contains("delete") {
        return Some(Kept::Forever);
    }
    let milliseconds = value("retention.ms")?.parse::<i64>().ok()?;
    // A negative one means no limit.
    Some(u64::try_from(milliseconds).map_or(Kept::Forever, |time| Kept::For(Duration::from_millis(time))))
}

#[cfg(test)]
mod tests {
    use rdkafka::admin::{ConfigEntry, ConfigSource};

    use super::*;
    use crate::kafka::KafkaLog;
    use crate::{Log as _, RETENTION, TopicSpec};

    fn config(entries: &[(&str, &str)]) -> ConfigResource {
        let entry = |(name, value): &(&str, &str)| ConfigEntry {
            name: (*name).into(),
            value: Some((*value).into()),
            source: ConfigSource::Default,
            is_read_only: false,
            is_default: true,
            is_sensitive: false,
        };
        let specifier = OwnedResourceSpecifier::Topic("t".into());
        ConfigResource { specifier, entries: entries.iter().map(entry).collect() }
    }

    #[test]
    fn the_settings_say_how_long_records_are_kept() {
        let week = Some(Kept::For(Duration::from_secs(604_800)));
        assert_eq!(kept(&config(&[("cleanup.policy", "delete"), ("retention.ms", "604800000")])), week);
        assert_eq!(kept(&config(&[("cleanup.policy", "compact,delete"), ("retention.ms", "604800000")])), week);
        assert_eq!(kept(&config(&[("cleanup.policy", "delete"), ("retention.ms", "-1")])), Some(Kept::Forever));
        assert_eq!(kept(&config(&[("cleanup.policy", "compact"), ("retention.ms", "1")])), Some(Kept::Forever));
        assert_eq!(kept(&config(&[])), None);
    }

    #[tokio::test]
    async fn a_topic_that_is_made_keeps_its_records_for_the_retention() {
        let Some(brokers) = std::env::var("USHER_TEST_KAFKA").ok().filter(|value| !value.is_empty()) else {
            assert!(std::env::var_os("CI").is_none(), "CI is set, so USHER_TEST_KAFKA must say where Kafka is");
            return;
        };
        let log = KafkaLog::open(&brokers, &[]).expect("a client");
        let name = format!("retention{}", usher_service::clock::now().millis());
        let topic = TopicSpec { name: name.clone(), partitions: 1, kept: crate::Kept::ForRetention };
        log.ensure(std::slice::from_ref(&topic)).await.expect("made");
        log.ensure(&[topic]).await.expect("and looked at, now that it exists");
        let admin = log.settings.admin().create().expect("a client");
        let answers = describe(&admin, &[ResourceSpecifier::Topic(&name)]).await;
        let found = answers[0].as_ref().expect("its settings");
        assert_eq!(kept(found), Some(Kept::For(RETENTION)));
    }
}
