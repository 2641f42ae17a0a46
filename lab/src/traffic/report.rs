//! The result of a run of traffic: each delivery, counts by reply, and latencies. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The result of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reply {
    /// A response with this status.
    Status(u16),
    /// No response within the timeout of Svix.
    TimedOut,
    /// No connection, or a broken one.
    Unreachable,
}

impl Reply {
    /// Returns true if Svix would count the event as delivered.
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

/// One delivery and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentEvent {
    /// Number of the event, counted from 0.
    pub number: u64,
    /// The value of the `svix-id` header.
    pub id: String,
    /// Id of the Clerk user that the event is about. `None` if it is about no user.
    pub user: Option<String>,
    /// The receiver's reply, or the reason why there was none.
    pub reply: Reply,
    /// The receiver's reason for a refusal, if it stated one.
    pub why: Option<String>,
    /// Time from sending the request to the end of the response.
    pub took: Duration,
}

/// Latency percentiles of deliveries, by the nearest-rank method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// 50th percentile.
    pub p50: Duration,
    /// 90th percentile.
    pub p90: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// The slowest delivery.
    pub max: Duration,
}

/// The result of a run of traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficReport {
    /// The deliveries, ordered by number.
    pub sent: Vec<SentEvent>,
    /// Time from the start of the first delivery to the end of the last.
    pub elapsed: Duration,
}

impl TrafficReport {
    /// Counts the deliveries by reply.
    pub fn replies(&self) -> BTreeMap<Reply, u64> {
        let mut replies = BTreeMap::new();
        for sent in &self.sent {
            *replies.entry(sent.reply).or_default() += 1;
        }
        replies
    }

    /// Counts the refusals that stated a reason, by reason.
    pub fn reasons(&self) -> BTreeMap<&str, u64> {
        let mut reasons = BTreeMap::new();
        for why in self.sent.iter().filter_map(|sent| sent.why.as_deref()) {
            *reasons.entry(why).or_default() += 1;
        }
        reasons
    }

    /// Counts the accepted deliveries.
    pub fn accepted(&self) -> u64 {
        self.sent.iter().filter(|sent| sent.reply.is_accepted()).count() as u64
    }

    /// Returns the latencies of the deliveries that were answered. Returns `None` if there were none.
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

    fn report(replies: impl IntoIterator<Item = (Reply, u64)>) -> TrafficReport {
        let sent = replies.into_iter().enumerate().map(|(number, (reply, millis))| SentEvent {
            number: number as u64,
            id: format!("msg_{number}"),
            user: None,
            reply,
            why: None,
            took: Duration::from_millis(millis),
        });
        TrafficReport { sent: sent.collect(), elapsed: Duration::from_secs(1) }
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
