//! Topics: how they must be, and how they were found to be. People who run a broker grow, delete, compact and shorten
//! topics, so each is looked at when a process starts and while it runs; every problem is one variant here.

use std::fmt;
use std::time::Duration;

use crate::{MAX_EVENT, MAX_RECORD};

/// How long records stay in a topic that keeps each for the log's retention. What the store remembers of events must
/// outlive it, so that an event that is read again is recognised.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a dead letter stays published: as long as a store keeps the runs that ended.
pub const DEAD_LETTER_RETENTION: Duration = Duration::from_secs(35 * 24 * 3600);

/// A retention below this is warned of: an outage of that length loses what was acknowledged.
pub(crate) const SHORT_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// What the store can be relied upon to remember.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// The retention of a topic's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Each for [`RETENTION`], where the log makes the topic.
    Time,
    /// The newest of each key, for at most this long.
    Compact(Duration),
}

/// When a topic that does not exist is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// Whenever it is missing.
    Always,
    /// At the first start of an installation: not where the log knows a consumer group with this prefix and no further
    /// dot in its name. Somebody has read the topic then, and an empty one in its place would hide that it is gone.
    FirstStart {
        /// What the names of the groups that read the topic begin with.
        groups: String,
    },
    /// Not at all: it is known that the topic existed.
    Never,
}

/// A topic that must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its full name.
    pub name: String,
    /// Number of partitions written to. A topic with fewer is refused; those beyond are read only.
    pub partitions: i32,
    /// The retention of its records.
    pub retention: Retention,
    /// When it is made.
    pub creation: Creation,
}

impl TopicSpec {
    /// The size of the largest record that is written to it.
    pub(crate) const fn largest(&self) -> usize {
        match self.retention {
            Retention::Time => MAX_EVENT,
            Retention::Compact(_) => MAX_RECORD,
        }
    }
}

/// What follows from a problem of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It is told.
    Warn,
    /// Nothing is accepted while it lasts.
    NotReady,
    /// Nothing is accepted while it lasts, and a process that starts ends: waiting does not mend it.
    Refuse,
}

/// A topic is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicProblem {
    /// It does not exist, though it did.
    Missing,
    /// It holds less than it did: it was deleted and made again, or has lost acknowledged records.
    Replaced,
    /// It has more partitions than the layout.
    MorePartitions {
        /// What it has.
        found: i32,
        /// What the layout says.
        wanted: i32,
    },
    /// Compaction removes events that nobody has read.
    Compacted {
        /// Its `cleanup.policy`.
        policy: String,
    },
    /// Records stay for less than a day.
    ShortRetention(Duration),
    /// Records stay longer than the store remembers them; without a limit where none is given.
    LongRetention(Option<Duration>),
    /// Records go when a partition has this many bytes, read or not.
    SizeRetention(u64),
    /// It takes smaller records than are accepted.
    SmallRecords {
        /// Its `max.message.bytes`.
        limit: usize,
        /// The largest record that is accepted otherwise.
        wanted: usize,
    },
    /// Dead letters stay for ever, and may not be made to end.
    EndlessLetters,
    /// Its settings cannot be read.
    SettingsHidden,
}

impl TopicProblem {
    /// Every label.
    pub const LABELS: [&'static str; 10] = [
        "missing",
        "replaced",
        "more_partitions",
        "compacted",
        "short_retention",
        "long_retention",
        "size_retention",
        "small_records",
        "endless_letters",
        "settings_hidden",
    ];

    /// The word for it in metrics.
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
            Self::EndlessLetters => "endless_letters",
            Self::SettingsHidden => "settings_hidden",
        }
    }

    /// What readiness lacks while it lasts, if it keeps the topic from being written to.
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
            | Self::EndlessLetters
            | Self::SettingsHidden => None,
        }
    }

    /// What follows from it.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Compacted { .. } => Severity::Refuse,
            Self::Missing | Self::Replaced => Severity::NotReady,
            Self::MorePartitions { .. }
            | Self::ShortRetention(_)
            | Self::LongRetention(_)
            | Self::SizeRetention(_)
            | Self::SmallRecords { .. }
            | Self::EndlessLetters
            | Self::SettingsHidden => Severity::Warn,
        }
    }
}

/// Continues a sentence that begins with the topic's name.
impl fmt::Display for TopicProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "is missing and is not made again, because its events have been read before: restore it; to begin anew, \
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
            Self::EndlessLetters => write!(
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

/// The limit on records is on a stored batch, so topics are made with this much more.
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

/// How a topic was found when it was last looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicState {
    /// What is not as it should be.
    pub problems: Vec<TopicProblem>,
    /// The retention of its records; none if unlimited or unknown.
    pub retention: Option<Duration>,
    /// The size of the largest record it takes, where that is known.
    pub largest: Option<usize>,
}

impl TopicState {
    /// The worst of its problems, if one of them keeps it from being written to.
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
        let warned = TopicState { problems: vec![TopicProblem::EndlessLetters], ..TopicState::default() };
        assert_eq!(warned.blocked(), None);
        let compacted = TopicProblem::Compacted { policy: "compact".into() };
        let problems = vec![TopicProblem::Missing, TopicProblem::SettingsHidden, compacted.clone()];
        assert_eq!(TopicState { problems, ..TopicState::default() }.blocked(), Some(&compacted));
    }
}
