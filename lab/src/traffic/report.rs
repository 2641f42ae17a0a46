//! What came of a sending: each delivery, how often which answer, how long they took. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What a delivery met with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reply {
    /// An answer with this status.
    Status(u16),
    /// No answer in the time that Svix waits.
    TimedOut,
    /// No connection, or one that broke.
    Unreachable,
}

impl Reply {
    /// Whether Svix would count it as delivered.
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Status(200..=299))
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unreachable => f.write_str("unreachable"),
        }
    }
}

/// One delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Which one it was, counted from 0.
    pub number: u64,
    /// Its `svix-id`.
    pub id: String,
    /// The Clerk user whom it was about.
    pub user: Option<String>,
    /// What came of it.
    pub reply: Reply,
    /// The receiver's reason for a refusal, if it gave one.
    pub why: Option<String>,
    /// From sending to the end of the answer.
    pub took: Duration,
}

/// How long deliveries took, by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Half of them were this fast.
    pub p50: Duration,
    /// 90 of 100.
    pub p90: Duration,
    /// 99 of 100.
    pub p99: Duration,
    /// All.
    pub max: Duration,
}

/// A whole sending, in order of the deliveries' numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Each delivery.
    pub sent: Vec<Sent>,
    /// From the first to the last.
    pub elapsed: Duration,
}

impl Report {
    /// How many met with which reply.
    pub fn replies(&self) -> BTreeMap<Reply, u64> {
        let mut replies = BTreeMap::new();
        for sent in &self.sent {
            *replies.entry(sent.reply).or_default() += 1;
        }
        replies
    }

    /// Refusals by reason, of those that came with one.
    pub fn reasons(&self) -> BTreeMap<&str, u64> {
        let mut reasons = BTreeMap::new();
        for why in self.sent.iter().filter_map(|sent| sent.why.as_deref()) {
            *reasons.entry(why).or_default() += 1;
        }
        reasons
    }

    /// How many were accepted.
    pub fn accepted(&self) -> u64 {
        self.sent.iter().filter(|sent| sent.reply.is_accepted()).count() as u64
    }

    /// How long those took that were answered. None where none was.
    pub fn latency(&self) -> Option<Latency> {
        let answered = self.sent.iter().filter(|sent| matches!(sent.reply, Reply::Status(_)));
        let mut took: Vec<Duration> = answered.map(|sent| sent.took).collect();
        took.sort_unstable();
        let max = *took.last()?;
        let rank = |percent: usize| took[(took.len() * percent).div_ceil(100).max(1) - 1];
        Some(Latency { p50: rank(50), p90: rank(90), p99: rank(99), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(replies: impl IntoIterator<Item = (Reply, u64)>) -> Report {
        let sent = replies.into_iter().enumerate().map(|(number, (reply, millis))| Sent {
            number: number as u64,
            id: format!("msg_{number}"),
            user: None,
            reply,
            why: None,
            took: Duration::from_millis(millis),
        });
        Report { sent: sent.collect(), elapsed: Duration::from_secs(1) }
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let report = report((1..=200).rev().map(|millis| (Reply::Status(204), millis)));
        let millis = Duration::from_millis;
        let expected = Latency { p50: millis(100), p90: millis(180), p99: millis(198), max: millis(200) };
        assert_eq!(report.latency(), Some(expected));
    }

    #[test]
    fn what_was_never_answered_has_no_latency() {
        assert_eq!(report([(Reply::TimedOut, 15_000)]).latency(), None);
        let one = report([(Reply::TimedOut, 15_000), (Reply::Status(503), 4)]).latency().expect("one answer");
        assert_eq!((one.p50, one.max), (Duration::from_millis(4), Duration::from_millis(4)));
    }

    #[test]
    fn only_2xx_is_accepted() {
        let replies = [200, 204, 302, 401, 503].map(|status| (Reply::Status(status), 1));
        let report = report(replies.into_iter().chain([(Reply::Unreachable, 1)]));
        assert_eq!(report.accepted(), 2);
        assert_eq!(report.replies().len(), 6);
    }
}
