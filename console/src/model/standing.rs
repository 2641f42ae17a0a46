//! Figures beside the counts of the overview: lag, the runs of the last hour, and the accounts of destinations.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use usher_dispatcher::operator::{AccountStatus, FlowLag, Status};
use usher_proto::Timestamp;
use usher_store::{BoundedCount, RecentRuns};

use super::Moment;
use crate::Console;
use crate::problem::ConsoleError;

/// Number and length of the parts of the last hour.
const PARTS: usize = 60;
const PART: Duration = Duration::from_secs(60);

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

/// Returns the runs of the last hour of each flow, by its name.
pub(super) async fn recent_runs(
    console: &Console,
    status: &Status,
    now: Timestamp,
) -> Result<BTreeMap<String, RecentRuns>, ConsoleError> {
    let mut recent = BTreeMap::new();
    for flow in &status.flows {
        recent.insert(flow.flow.clone(), console.store().recent_runs(&flow.flow, begin(now), PART, PARTS).await?);
    }
    Ok(recent)
}

/// Returns the begin of the hour in which runs are counted.
fn begin(now: Timestamp) -> Timestamp {
    now.minus(PART.saturating_mul(u32::try_from(PARTS).unwrap_or(u32::MAX)))
}

/// Returns the figures of all flows together. `dead` are the times at which dead letters were given up.
pub(super) fn all(
    recent: &BTreeMap<String, RecentRuns>,
    status: &Status,
    dead: impl Iterator<Item = Timestamp>,
    more: bool,
    now: Timestamp,
) -> OverviewFigures {
    let mut sum = RecentRuns { parts: vec![0; PARTS], ..RecentRuns::default() };
    for of in recent.values() {
        sum.count.add(of.count);
        sum.parts.iter_mut().zip(&of.parts).for_each(|(sum, of)| *sum += of);
    }
    let lags = status.flows.iter().filter_map(|flow| Some((flow.flow.clone(), flow.lag()?)));
    let largest = lags.max_by_key(|(_, lag)| (lag.seconds, lag.events));
    OverviewFigures { since: begin(now), recent: sum, lag: largest, dead: by_hour(dead, more, now) }
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
pub(super) fn accounts(status: &Status, now: Timestamp) -> Vec<AccountLine> {
    let mut waiting: BTreeMap<&str, BoundedCount> = BTreeMap::new();
    for (account, count) in status.flows.iter().flat_map(|flow| &flow.at_accounts) {
        waiting.entry(account).or_default().add(*count);
    }
    let line = |status: AccountStatus, waiting: BoundedCount| AccountLine {
        since: status.trouble_since.map(|at| Moment::new(at, now)),
        probe: status.next_probe.map(|at| Moment::new(at, now)),
        status,
        waiting,
    };
    let mut lines: Vec<AccountLine> = Vec::new();
    for known in &status.accounts {
        let of = waiting.remove(known.account.as_str()).unwrap_or_default();
        lines.push(line(known.clone(), of));
    }
    lines.extend(waiting.into_iter().map(|(account, of)| line(AccountStatus::of(account), of)));
    lines.sort_by(|a, b| a.status.account.cmp(&b.status.account));
    lines
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
