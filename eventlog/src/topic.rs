//! Required and observed properties of topics. People who operate a broker grow, delete, compact and shorten
//! topics, so each topic is checked when a process starts and while it runs. Each possible problem is one
//! variant of [`TopicProblem`].

use std::fmt;
use std::time::Duration;

use crate::{MAX_EVENT, MAX_RECORD};

/// Retention of records in a topic with [`Retention::Time`]. The store must remember events for longer, so that an
/// event that is read again is recognised.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Retention of published dead letters: the time for which a store keeps ended runs.
pub const DEAD_LETTER_RETENTION: Duration = Duration::from_secs(35 * 24 * 3600);

/// Retention below which a topic is reported: an outage of that length loses acknowledged events.
pub(crate) const SHORT_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Time for which the store is guaranteed to remember events.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// The retention of a topic's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Each record is kept for [`RETENTION`], if the log creates the topic.
    Time,
    /// The newest record of each key is kept, for at most this time.
    Compact(Duration),
}

/// Conditions under which a missing topic is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// The topic is created whenever it is missing.
    Always,
    /// The topic is created at the first start of an installation: not if the log has a consumer group whose name is
    /// `groups` followed by a name without a dot. Such a group has read the topic before, and an empty topic in its
    /// place would hide the loss.
    FirstStart {
        /// Prefix of the names of the groups that read the topic.
        groups: String,
    },
    /// The topic is never created, because it is known to have existed.
    Never,
}

/// Specification of a topic that must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Full name of the topic.
    pub name: String,
    /// Number of partitions written to. A topic with fewer is refused; additional partitions are only read.
    pub partitions: i32,
    /// Retention of the topic's records.
    pub retention: Retention,
    /// Conditions under which the topic is created.
    pub creation: Creation,
}

impl TopicSpec {
    /// Returns the size of the largest record written to the topic, in bytes.
    pub(crate) const fn largest(&self) -> usize {
        match self.retention {
            Retention::Time => MAX_EVENT,
            Retention::Compact(_) => MAX_RECORD,
        }
    }
}

/// Consequence of a topic problem, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The problem is logged.
    Warn,
    /// No events are accepted while the problem lasts.
    NotReady,
    /// No events are accepted while the problem lasts, and a process that starts exits, because waiting does
    /// not fix it.
    Refuse,
}

/// A difference between a topic and its specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicProblem {
    /// The topic existed and no longer does.
    Missing,
    /// The topic holds less than before: it was deleted and created again, or has lost acknowledged records.
    Replaced,
    /// The topic has more partitions than the layout.
    MorePartitions {
        /// Number of partitions of the topic.
        found: i32,
        /// Number of partitions in the layout.
        wanted: i32,
    },
    /// Compaction removes events that no group has read.
    Compacted {
        /// The topic's `cleanup.policy`.
        policy: String,
    },
    /// Records are kept for less than a day. Holds the retention.
    ShortRetention(Duration),
    /// Records are kept for longer than the store remembers them. Holds the retention; `None` if it is unlimited.
    LongRetention(Option<Duration>),
    /// Records are deleted when a partition has this many bytes, even if they have not been read.
    SizeRetention(u64),
    /// The topic takes only smaller records than are accepted otherwise.
    SmallRecords {
        /// The topic's `max.message.bytes`.
        limit: usize,
        /// Size of the largest record that is accepted otherwise, in bytes.
        wanted: usize,
    },
    /// Dead letters are kept without limit, and Usher may not set a limit.
    UnlimitedDeadLetters,
    /// The settings of the topic cannot be read.
    SettingsHidden,
}

impl TopicProblem {
    /// Labels of all problems.
    pub const LABELS: [&'static str; 10] = [
        "missing",
        "replaced",
        "more_partitions",
        "compacted",
        "short_retention",
        "long_retention",
        "size_retention",
        "small_records",
        "unlimited_dead_letters",
        "settings_hidden",
    ];

    /// Returns the label of the problem in metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Replaced => "replaced",
            Self::MorePartitions { .. } => "more_partitions",
            Self::Compacted { .. } => "compacted",
            Self::ShortRetention(_) => "short_retention",
            Self::LongRetention(_) => "long_retention",
            Self::SizeRetention(_) => "size_retention",
            Self::SmallRecords { .. } => "small_records",
            Self::UnlimitedDeadLetters => "unlimited_dead_letters",
            Self::SettingsHidden => "settings_hidden",
        }
    }

    /// Returns the readiness condition that fails while the problem lasts. `None` if the topic can still be written to.
    pub const fn need(&self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("log: topic deleted"),
            Self::Replaced => Some("log: topic made again"),
            Self::Compacted { .. } => Some("log: topic compacted"),
            Self::MorePartitions { .. }
            | Self::ShortRetention(_)
            | Self::LongRetention(_)
            | Self::SizeRetention(_)
            | Self::SmallRecords { .. }
            | Self::UnlimitedDeadLetters
            | Self::SettingsHidden => None,
        }
    }

    /// Returns the consequence of the problem.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Compacted { .. } => Severity::Refuse,
            Self::Missing | Self::Replaced => Severity::NotReady,
            Self::MorePartitions { .. }
            | Self::ShortRetention(_)
            | Self::LongRetention(_)
            | Self::SizeRetention(_)
            | Self::SmallRecords { .. }
            | Self::UnlimitedDeadLetters
            | Self::SettingsHidden => Severity::Warn,
        }
    }
}

/// Formats the problem as the continuation of a sentence that begins with the topic's name.
impl fmt::Display for TopicProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "is missing and is not made again, because its events have been read before: restore it; to start with an empty topic, \
                 make it yourself or set another USHER_TOPIC_PREFIX, and use an empty store",
            ),
            Self::Replaced => f.write_str(
                "holds less than it did: it was deleted and made again, or has lost events that were acknowledged; restore \
                 it, or restart to accept events for the topic as it is now",
            ),
            Self::MorePartitions { found, wanted } => write!(
                f,
                "has {found} partitions and USHER_PARTITIONS is {wanted}: the {} further ones are read and never written \
                 to, so that users keep their partitions; leave USHER_PARTITIONS as it is",
                found - wanted
            ),
            Self::Compacted { policy } => write!(
                f,
                "has cleanup.policy={policy}, which removes events that nobody has read: set cleanup.policy=delete"
            ),
            Self::ShortRetention(retention) => write!(
                f,
                "keeps its events for {}: a flow that is away for longer loses what was acknowledged; set retention.ms to \
                 {} or so",
                words(*retention),
                RETENTION.as_millis()
            ),
            Self::LongRetention(retention) => write!(
                f,
                "keeps its events {}, longer than the {} days that the store remembers what was done: an event that is \
                 read again after that is given up as too old; set retention.ms to {} or less",
                retention.map_or_else(|| "for ever".to_owned(), |time| format!("for {}", words(time))),
                REMEMBERED.as_secs() / 86_400,
                REMEMBERED.as_millis()
            ),
            Self::SizeRetention(bytes) => write!(
                f,
                "has retention.bytes={bytes}: a partition that grows beyond it loses its oldest events, read or not; set \
                 retention.bytes=-1"
            ),
            Self::SmallRecords { limit, wanted } => write!(
                f,
                "takes records of {limit} bytes (max.message.bytes), and records of {wanted} bytes are to be accepted: \
                 larger ones than it takes are refused; set max.message.bytes to {} or more",
                MAX_RECORD + BATCH_ROOM
            ),
            Self::UnlimitedDeadLetters => write!(
                f,
                "keeps dead letters for ever: set cleanup.policy=compact,delete and retention.ms={}",
                DEAD_LETTER_RETENTION.as_millis()
            ),
            Self::SettingsHidden => f.write_str(
                "does not show its settings, so they are not checked: allow DescribeConfigs on it to have them checked",
            ),
        }
    }
}

/// Margin of `max.message.bytes` above the largest record, in bytes. Kafka applies that limit to the stored batch, so
/// topics are created with this much more.
pub(crate) const BATCH_ROOM: usize = 64 * 1024;

fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// State of a topic as of its last check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicState {
    /// Problems of the topic.
    pub problems: Vec<TopicProblem>,
    /// Retention of the topic's records. `None` if it is unlimited or unknown.
    pub retention: Option<Duration>,
    /// Size of the largest record that the topic takes, in bytes. `None` if it is unknown.
    pub largest: Option<usize>,
}

impl TopicState {
    /// Returns the most severe problem, if it blocks writes to the topic.
    pub fn blocked(&self) -> Option<&TopicProblem> {
        let worst = self.problems.iter().max_by_key(|problem| problem.severity());
        worst.filter(|problem| problem.severity() >= Severity::NotReady)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_problem_decides() {
        let warned = TopicState { problems: vec![TopicProblem::UnlimitedDeadLetters], ..TopicState::default() };
        assert_eq!(warned.blocked(), None);
        let compacted = TopicProblem::Compacted { policy: "compact".into() };
        let problems = vec![TopicProblem::Missing, TopicProblem::SettingsHidden, compacted.clone()];
        assert_eq!(TopicState { problems, ..TopicState::default() }.blocked(), Some(&compacted));
    }
}
