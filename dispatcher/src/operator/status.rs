//! The state of everything at once: flows, accounts, and what needs somebody. The command line, the console and its API show
//! the same.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use usher_engine::RunState;
use usher_eventlog::Log;
use usher_proto::{Offset, Timestamp};
use usher_store::{BoundedCount, FlowCounts, PauseRecord, QuotaUse, SqlStore};

use super::OperatorError;
use super::lag::{self, FlowLag};

/// Lag from which on a flow needs somebody.
const LATE: Duration = Duration::from_secs(60);

/// The state of all flows and accounts.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The time of this state.
    pub at: Timestamp,
    /// Matters that need somebody, the most urgent first.
    pub needs: Vec<Need>,
    /// The flows, by name.
    pub flows: Vec<FlowStatus>,
    /// The accounts of destinations that have a quota or are in trouble, by name.
    pub accounts: Vec<AccountStatus>,
}

/// Something that needs somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The kind of the matter.
    pub kind: NeedKind,
    /// The flow or the account that it is about.
    pub name: String,
    /// A sentence.
    pub text: String,
    /// A command that helps or shows more.
    pub command: String,
}

/// The kinds of [`Need`], the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NeedKind {
    /// A destination does not serve.
    Trouble,
    /// No process works on a flow that has work.
    NoProcess,
    /// A flow is late.
    Late,
    /// Runs were given up.
    Dead,
    /// A flow is paused.
    Paused,
}

/// The state of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowStatus {
    /// Its name.
    pub flow: String,
    /// True if a process works on it, as far as the store knows. A process that was killed is still counted.
    pub worked: bool,
    /// The pause; `None` if it is not paused.
    pub paused: Option<PauseRecord>,
    /// Events in the log that are not admitted yet; `None` if the log was not asked.
    pub lag_events: Option<i64>,
    /// Time since the receipt of the oldest of these events, in seconds; `None` if the log was not asked.
    pub lag_seconds: Option<u64>,
    /// Runs that have not begun.
    pub queued: BoundedCount,
    /// Runs with a step in flight or to be attempted again shortly.
    pub running: BoundedCount,
    /// Runs that are to be attempted again later.
    pub parked: BoundedCount,
    /// Runs that wait for a time or for news.
    pub waiting: BoundedCount,
    /// Runs that were given up.
    pub dead: BoundedCount,
    /// The receipt of the oldest event whose run has not ended.
    pub oldest: Option<Timestamp>,
    /// The partitions, by number.
    pub partitions: Vec<PartitionStatus>,
}

/// The state of a flow in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: i32,
    /// The offset below which every event is accounted for; `None` before the first.
    pub frontier: Option<Offset>,
    /// The offset after the last event of the log; `None` if the log was not asked.
    pub end: Option<Offset>,
}

/// The state of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountStatus {
    /// Its name.
    pub account: String,
    /// The time since which a process holds back from it; `None` if it serves.
    pub trouble_since: Option<Timestamp>,
    /// The time of the next call that tries it, as last told; `None` while calls are let through one by one.
    pub next_probe: Option<Timestamp>,
    /// Number of processes that share its quota.
    pub processes: i64,
    /// Number of them that want calls now.
    pub wanting: i64,
    /// Its calls in the present month, day and hour.
    pub quotas: Vec<QuotaUse>,
}

/// Returns the state of everything. Without a log, lag is not known.
///
/// # Errors
///
/// The store or the log does not answer.
pub async fn status(store: &SqlStore, log: Option<(&dyn Log, &str)>, now: Timestamp) -> Result<Status, OperatorError> {
    let mut positions: BTreeMap<String, Vec<PartitionStatus>> = BTreeMap::new();
    for position in store.positions().await? {
        let partition = PartitionStatus { partition: position.partition, frontier: position.frontier, end: None };
        positions.entry(position.flow).or_default().push(partition);
    }
    let watermarks = match log {
        Some((log, topic)) => log.watermarks(topic).await?,
        None => BTreeMap::new(),
    };
    let dead: BTreeMap<String, BoundedCount> = store.dead_counts().await?.into_iter().collect();
    let mut flows = Vec::new();
    for counts in store.flow_counts().await? {
        let mut partitions = positions.remove(&counts.flow).unwrap_or_default();
        let lag = match log {
            Some((log, topic)) => Some(lag::of_flow(log, topic, &watermarks, &mut partitions, now).await?),
            None => None,
        };
        let dead = dead.get(&counts.flow).copied().unwrap_or_default();
        flows.push(flow_status(counts, lag, dead, partitions));
    }
    let accounts = account_statuses(store, now).await?;
    let needs = needs(&flows, &accounts, now);
    Ok(Status { at: now, needs, flows, accounts })
}

fn flow_status(
    counts: FlowCounts,
    lag: Option<FlowLag>,
    dead: BoundedCount,
    partitions: Vec<PartitionStatus>,
) -> FlowStatus {
    FlowStatus {
        queued: counts.of(RunState::Queued),
        running: counts.of(RunState::Running),
        parked: counts.of(RunState::Parked),
        waiting: counts.of(RunState::Waiting),
        worked: counts.worked,
        lag_events: lag.as_ref().map(|lag| lag.events),
        lag_seconds: lag.map(|lag| lag.seconds),
        dead,
        oldest: counts.oldest,
        partitions,
        paused: counts.paused,
        flow: counts.flow,
    }
}

/// Returns the state of the accounts that have a quota or are in trouble, by name.
///
/// # Errors
///
/// The store does not answer.
pub async fn account_statuses(store: &SqlStore, now: Timestamp) -> Result<Vec<AccountStatus>, OperatorError> {
    let mut accounts: BTreeMap<String, AccountStatus> = BTreeMap::new();
    let empty = |account: &str| AccountStatus {
        account: account.to_owned(),
        trouble_since: None,
        next_probe: None,
        processes: 0,
        wanting: 0,
        quotas: Vec::new(),
    };
    for shares in store.account_shares(now).await? {
        let account = accounts.entry(shares.account.clone()).or_insert_with(|| empty(&shares.account));
        (account.processes, account.wanting) = (shares.processes, shares.wanting);
    }
    for used in store.quota_uses(now).await? {
        accounts.entry(used.account.clone()).or_insert_with(|| empty(&used.account)).quotas.push(used);
    }
    for trouble in store.troubles(now).await? {
        let account = accounts.entry(trouble.account.clone()).or_insert_with(|| empty(&trouble.account));
        (account.trouble_since, account.next_probe) = (Some(trouble.since), trouble.next_probe);
    }
    Ok(accounts.into_values().collect())
}

/// Returns what needs somebody, the most urgent first.
fn needs(flows: &[FlowStatus], accounts: &[AccountStatus], now: Timestamp) -> Vec<Need> {
    let mut needs = Vec::new();
    for account in accounts {
        // While calls are let through one by one, it serves as far as anybody knows.
        if let (Some(since), Some(next_probe)) = (account.trouble_since, account.next_probe) {
            let ago = duration(now.since(since).as_secs());
            let next = match next_probe > now {
                true => format!("; the next try is in {}", duration(next_probe.since(now).as_secs())),
                false => String::new(),
            };
            needs.push(Need {
                kind: NeedKind::Trouble,
                name: account.account.clone(),
                text: format!(
                    "{} has not served for {ago}: its runs are held, and no retries are spent{next}",
                    account.account
                ),
                command: "usher runs --state parked".to_owned(),
            });
        }
    }
    for status in flows {
        let flow = &status.flow;
        let open = [status.queued, status.running, status.parked, status.waiting].iter().any(|count| count.count > 0);
        let mut need = |kind, text, command| needs.push(Need { kind, name: flow.clone(), text, command });
        if !status.worked && open {
            let text = format!("no process works on {flow}, and its runs wait until one does");
            need(NeedKind::NoProcess, text, format!("usher runs --flow {flow}"));
        }
        if let Some(paused) = &status.paused {
            let why = paused.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let text = format!("{flow} is paused since {} by {}{why}", paused.at, paused.who);
            need(NeedKind::Paused, text, format!("usher resume {flow}"));
        } else if let Some(seconds) = status.lag_seconds.filter(|seconds| *seconds >= LATE.as_secs()) {
            let text = format!("{flow} is {} behind the log", duration(seconds));
            need(NeedKind::Late, text, format!("usher runs --flow {flow}"));
        }
        if status.dead.count > 0 {
            let text = format!("{} runs of {flow} were given up", status.dead);
            need(NeedKind::Dead, text, format!("usher dlq list --flow {flow}"));
        }
    }
    needs.sort_by_key(|need| need.kind);
    needs
}

/// Returns a duration in its two largest units.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(name: &str) -> FlowStatus {
        let none = BoundedCount::default();
        FlowStatus {
            flow: name.into(),
            worked: true,
            paused: None,
            lag_events: Some(0),
            lag_seconds: Some(0),
            queued: none,
            running: none,
            parked: none,
            waiting: none,
            dead: none,
            oldest: None,
            partitions: Vec::new(),
        }
    }

    #[test]
    fn what_is_well_needs_nobody_and_what_is_not_is_told_the_most_urgent_first() {
        let now = Timestamp::from_seconds(1_000);
        assert_eq!(needs(&[flow("email")], &[], now), []);
        let some = BoundedCount { count: 3, more: false };
        let paused = Some(PauseRecord { who: "ann".into(), at: now, why: Some("prices".into()) });
        let flows = [
            FlowStatus { dead: some, ..flow("dead") },
            FlowStatus { paused, lag_seconds: Some(600), ..flow("paused") },
            FlowStatus { lag_seconds: Some(61), ..flow("late") },
            FlowStatus { worked: false, waiting: some, ..flow("gone") },
        ];
        let account = AccountStatus {
            account: "resend".into(),
            trouble_since: Some(Timestamp::from_seconds(900)),
            next_probe: Some(Timestamp::from_seconds(1_018)),
            processes: 1,
            wanting: 0,
            quotas: Vec::new(),
        };
        let told = needs(&flows, &[account], now);
        let names: Vec<&str> = told.iter().map(|need| need.name.as_str()).collect();
        assert_eq!(names, ["resend", "gone", "late", "dead", "paused"]);
        assert!(told[0].text.contains("1 min 40 s") && told[0].text.contains("in 18 s"), "{}", told[0].text);
        assert!(told[4].text.ends_with("by ann: prices"), "{}", told[4].text);
    }

    #[test]
    fn a_duration_is_told_in_two_units() {
        let told = [59, 61, 3_660, 90_000].map(duration);
        assert_eq!(told, ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
