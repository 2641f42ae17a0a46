//! Figures beside the counts of the overview: lag, the runs of the last hour, and the accounts of destinations.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use usher_dispatcher::operator::{AccountStatus, FlowLag, account_statuses};
use usher_proto::Timestamp;
use usher_store::{BoundedCount, FlowCounts, RecentRuns};

use super::Moment;
use crate::Console;
use crate::problem::ConsoleError;

/// Number and length of the parts of the last hour.
const PARTS: usize = 60;
const PART: Duration = Duration::from_secs(60);
/// Time limit for the log's answer about its ends. Without it, lag is not known.
const LOG_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// An account of a destination.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AccountLine {
    #[serde(flatten)]
    pub(crate) status: AccountStatus,
    /// Runs whose step calls it: in flight, tried again, or not begun.
    pub(crate) waiting: BoundedCount,
    #[serde(skip)]
    pub(crate) since: Option<Moment>,
    #[serde(skip)]
    pub(crate) probe: Option<Moment>,
}

impl AccountLine {
    /// Returns the standing of its breaker: open, half open or closed.
    pub(crate) fn breaker(&self) -> &'static str {
        match (&self.since, &self.probe) {
            (None, _) => "closed",
            (Some(_), Some(_)) => "open",
            (Some(_), None) => "half open",
        }
    }
}

/// Figures of all flows and accounts.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct OverviewFigures {
    /// Begin of the time in which recent runs are counted.
    pub(crate) since: Timestamp,
    /// Runs whose events were received in the last hour, by minute.
    pub(crate) recent: RecentRuns,
    /// Largest lag of a flow, with its name; `None` if the log was not asked, or does not answer.
    pub(crate) lag: Option<(String, FlowLag)>,
    /// Dead letters of the last 24 hours, by hour.
    pub(crate) dead: RecentRuns,
}

/// Figures of flows, by name.
pub(super) struct FlowFigures {
    pub(super) since: Timestamp,
    pub(super) recent: BTreeMap<String, RecentRuns>,
    /// `None` if the log was not asked, or does not answer.
    pub(super) lags: Option<BTreeMap<String, FlowLag>>,
}

impl FlowFigures {
    pub(super) async fn read(console: &Console, flows: &[FlowCounts], now: Timestamp) -> Result<Self, ConsoleError> {
        let hour = PART.saturating_mul(u32::try_from(PARTS).unwrap_or(u32::MAX));
        let since = now.minus(hour);
        let mut recent = BTreeMap::new();
        for flow in flows {
            recent.insert(flow.flow.clone(), console.store().recent_runs(&flow.flow, since, PART, PARTS).await?);
        }
        let lags = match console.commands() {
            None => None,
            Some(commands) => match tokio::time::timeout(LOG_ANSWERS_WITHIN, commands.lags(now)).await {
                Ok(Ok(lags)) => Some(lags),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "console cannot read the ends of the log");
                    None
                }
                Err(_) => {
                    tracing::warn!("the log does not tell its ends in time");
                    None
                }
            },
        };
        Ok(Self { since, recent, lags })
    }

    /// Returns the figures of all flows together. `dead` are the times at which dead letters were given up.
    pub(super) fn all(&self, dead: impl Iterator<Item = Timestamp>, more: bool, now: Timestamp) -> OverviewFigures {
        let mut recent = RecentRuns { parts: vec![0; PARTS], ..RecentRuns::default() };
        for of in self.recent.values() {
            recent.count.add(of.count);
            recent.parts.iter_mut().zip(&of.parts).for_each(|(sum, of)| *sum += of);
        }
        let largest = self.lags.as_ref().and_then(|lags| {
            let largest = lags.iter().max_by_key(|(_, lag)| (lag.seconds, lag.events));
            largest.map(|(flow, lag)| (flow.clone(), *lag))
        });
        OverviewFigures { since: self.since, recent, lag: largest, dead: by_hour(dead, more, now) }
    }
}

/// Counts times of the last 24 hours, by hour.
fn by_hour(times: impl Iterator<Item = Timestamp>, more: bool, now: Timestamp) -> RecentRuns {
    const HOURS: usize = 24;
    let mut recent = RecentRuns { parts: vec![0; HOURS], ..RecentRuns::default() };
    for at in times {
        let hours = usize::try_from(now.since(at).as_secs() / 3_600).unwrap_or(usize::MAX);
        if hours < HOURS {
            recent.parts[HOURS - 1 - hours] += 1;
            recent.count.count += 1;
        }
    }
    // Only if all that were looked at are that new, older ones may be, too.
    recent.count.more = more && recent.count.count as usize >= usher_store::SCAN;
    recent
}

/// Returns the accounts that have a quota, are in trouble, or have runs waiting for them.
pub(super) async fn accounts(
    console: &Console,
    flows: &[FlowCounts],
    now: Timestamp,
) -> Result<Vec<AccountLine>, ConsoleError> {
    let mut waiting: BTreeMap<String, BoundedCount> = BTreeMap::new();
    for (account, count) in flows.iter().flat_map(|flow| &flow.at_accounts) {
        waiting.entry(account.clone()).or_default().add(*count);
    }
    let mut lines: Vec<AccountLine> = Vec::new();
    let line = |status: AccountStatus, waiting: BoundedCount| AccountLine {
        since: status.trouble_since.map(|at| Moment::new(at, now)),
        probe: status.next_probe.map(|at| Moment::new(at, now)),
        status,
        waiting,
    };
    for status in account_statuses(console.store(), now).await? {
        let of = waiting.remove(&status.account).unwrap_or_default();
        lines.push(line(status, of));
    }
    for (account, of) in waiting {
        let status = AccountStatus {
            account,
            trouble_since: None,
            next_probe: None,
            processes: 0,
            wanting: 0,
            quotas: Vec::new(),
        };
        lines.push(line(status, of));
    }
    lines.sort_by(|a, b| a.status.account.cmp(&b.status.account));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_are_counted_by_the_hour_in_which_they_were_given_up() {
        let now = Timestamp::from_seconds(100 * 3_600);
        let ago = |seconds: i64| Timestamp::from_seconds(100 * 3_600 - seconds);
        let found = by_hour([ago(0), ago(3_599), ago(3_600), ago(86_399), ago(86_400)].into_iter(), true, now);
        assert_eq!((found.count.count, found.count.more), (4, false));
        assert_eq!((found.parts[23], found.parts[22], found.parts[0]), (2, 1, 1));
    }
}
