//! Checks of a topic's settings against what the events in it need.

use std::time::Duration;

use rdkafka::admin::ConfigResource;
#[cfg(test)]
use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

use crate::topic::{REMEMBERED, SHORT_RETENTION};
use crate::{MAX_RECORD, Retention, TopicProblem, TopicSpec, TopicState};

/// Maximum overhead of a batch beside its records, in bytes.
const BATCH_OVERHEAD: usize = 512;

/// Returns the state of a topic by its settings. A setting that the broker does not return is assumed to be right.
pub(super) fn state(spec: &TopicSpec, config: &ConfigResource) -> TopicState {
    let value = |name| config.get(name).and_then(|entry| entry.value.as_deref());
    let policy = value("cleanup.policy").unwrap_or("delete");
    let compacts = policy.contains("compact");
    let deletes = policy.contains("delete");
    // A negative number means no limit.
    let milliseconds = value("retention.ms").and_then(|text| text.parse::<i64>().ok());
    let retention = milliseconds.filter(|_| deletes).and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let limit = value("max.message.bytes").and_then(|text| text.parse::<usize>().ok());
    let mut problems = Vec::new();
    match spec.retention {
        Retention::Time if compacts => problems.push(TopicProblem::Compacted { policy: policy.to_owned() }),
        Retention::Time => {
            match retention {
                Some(time) if time < SHORT_RETENTION => problems.push(TopicProblem::ShortRetention(time)),
                Some(time) if time > REMEMBERED => problems.push(TopicProblem::LongRetention(Some(time))),
                None if milliseconds.is_some() => problems.push(TopicProblem::LongRetention(None)),
                Some(_) | None => {}
            }
            let bytes = value("retention.bytes").and_then(|text| text.parse::<i64>().ok());
            if let Some(bytes) = bytes.and_then(|bytes| u64::try_from(bytes).ok()) {
                problems.push(TopicProblem::SizeRetention(bytes));
            }
        }
        Retention::Compact(_) if !deletes || milliseconds.is_some_and(|time| time < 0) => {
            problems.push(TopicProblem::UnlimitedDeadLetters);
        }
        Retention::Compact(_) => {}
    }
    let largest = limit.map(|limit| limit.saturating_sub(BATCH_OVERHEAD).min(MAX_RECORD));
    if let (Some(limit), Some(largest)) = (limit, largest)
        && largest < spec.largest()
    {
        problems.push(TopicProblem::SmallRecords { limit, wanted: spec.largest() });
    }
    TopicState { problems, retention, largest }
}

/// Builds settings as a broker returns them.
#[cfg(test)]
pub(super) fn config(entries: &[(&str, &str)]) -> ConfigResource {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Creation, DEAD_LETTER_RETENTION, MAX_EVENT, RETENTION};

    fn labels(retention: Retention, entries: &[(&str, &str)]) -> Vec<&'static str> {
        let spec = TopicSpec { name: "t".into(), partitions: 1, retention, creation: Creation::Always };
        state(&spec, &config(entries)).problems.iter().map(TopicProblem::label).collect()
    }

    #[test]
    fn a_topic_of_events_must_delete_by_age_alone_and_after_a_day_at_least() {
        let events = |policy, ms| labels(Retention::Time, &[("cleanup.policy", policy), ("retention.ms", ms)]);
        assert_eq!(events("delete", "604800000"), [""; 0]);
        assert_eq!(events("delete", "86400000"), [""; 0]);
        assert_eq!(events("compact", "604800000"), ["compacted"]);
        assert_eq!(events("compact,delete", "604800000"), ["compacted"]);
        assert_eq!(events("delete,compact", "-1"), ["compacted"]);
        assert_eq!(events("delete", "3600000"), ["short_retention"]);
        assert_eq!(events("delete", "-1"), ["long_retention"]);
        assert_eq!(events("delete", "3000000000"), ["long_retention"]);
        assert_eq!(labels(Retention::Time, &[]), [""; 0], "what is not told is not wrong");
        assert_eq!(labels(Retention::Time, &[("retention.bytes", "1000")]), ["size_retention"]);
        assert_eq!(labels(Retention::Time, &[("retention.bytes", "-1")]), [""; 0]);
    }

    #[test]
    fn dead_letters_must_end() {
        let letters = |policy, ms| {
            labels(Retention::Compact(DEAD_LETTER_RETENTION), &[("cleanup.policy", policy), ("retention.ms", ms)])
        };
        assert_eq!(letters("compact", "604800000"), ["unlimited_dead_letters"]);
        assert_eq!(letters("compact,delete", "-1"), ["unlimited_dead_letters"]);
        assert_eq!(letters("compact,delete", "604800000"), [""; 0]);
        assert_eq!(letters("delete", "604800000"), [""; 0]);
        assert_eq!(letters("delete", "-1"), ["unlimited_dead_letters"]);
    }

    #[test]
    fn the_largest_record_is_what_the_topic_takes() {
        let spec =
            TopicSpec { name: "t".into(), partitions: 1, retention: Retention::Time, creation: Creation::Always };
        let found = state(&spec, &config(&[("max.message.bytes", "20000")]));
        assert_eq!(found.problems, [TopicProblem::SmallRecords { limit: 20_000, wanted: MAX_EVENT }]);
        assert_eq!(found.largest, Some(20_000 - BATCH_OVERHEAD));
        assert!(found.problems[0].to_string().contains("20000 bytes"), "{}", found.problems[0]);
        let found = state(&spec, &config(&[("max.message.bytes", "100000000")]));
        assert_eq!((found.problems.len(), found.largest), (0, Some(MAX_RECORD)));
        assert!(RETENTION > SHORT_RETENTION && RETENTION < REMEMBERED);
    }
}
