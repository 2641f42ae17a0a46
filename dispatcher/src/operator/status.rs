//! The state of everything at once: flows, accounts, and what needs somebody. The command line, the console and its API show
//! the same.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use usher_engine::RunState;
use usher_eventlog::{Log, LogError, Watermarks};
use usher_proto::{Offset, Partition, Timestamp};
use usher_store::{BoundedCount, FlowCounts, FlowPosition, PauseRecord, QuotaUse, SqlStore, StoredFrontier};

use super::{OperatorCommands, OperatorError};
use crate::lag::{self, Backlogs};

/// Lag from which on a flow needs somebody.
const LATE: Duration = Duration::from_secs(60);

/// Longest time for which a page waits for the log.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

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
    /// The receipt of the newest event whose run has ended.
    pub newest_ended: Option<Timestamp>,
    /// The next time of the flow's schedule, which is past while a firing is due or under way; `None` if the flow has no
    /// schedule, or no time follows.
    pub next_firing: Option<Timestamp>,
    /// Runs whose step calls an account and is in flight, tried again or not begun, by account.
    pub at_accounts: BTreeMap<String, BoundedCount>,
    /// The partitions, by number.
    pub partitions: Vec<PartitionStatus>,
}

impl FlowStatus {
    /// Returns the number of its runs that have not ended.
    pub fn open(&self) -> BoundedCount {
        let counts = [self.queued, self.running, self.parked, self.waiting];
        let more = counts.iter().any(|count| count.more);
        BoundedCount { count: counts.iter().map(|count| count.count).sum(), more }
    }

    /// Returns its lag; `None` if the log was not asked.
    pub fn lag(&self) -> Option<FlowLag> {
        Some(FlowLag { events: self.lag_events?, seconds: self.lag_seconds? })
    }

    /// Returns its state in a word: `paused`, `working` or `no process`.
    pub fn standing(&self) -> &'static str {
        match (&self.paused, self.worked) {
            (Some(_), _) => "paused",
            (None, true) => "working",
            (None, false) => "no process",
        }
    }
}

/// The lag of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FlowLag {
    /// Events in the log that are not admitted yet.
    pub events: i64,
    /// Time since the receipt of the oldest of these events, in seconds; 0 if there are none.
    pub seconds: u64,
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
    /// Number of processes that hold back from it.
    pub held_by: i64,
    /// The time of the next call that tries it, as last told; `None` while calls are let through one by one.
    pub next_probe: Option<Timestamp>,
    /// Number of processes that share its quota.
    pub processes: i64,
    /// Number of them that want calls now.
    pub wanting: i64,
    /// Its calls in the present month, day and hour.
    pub quotas: Vec<QuotaUse>,
}

impl AccountStatus {
    /// Returns the state of an account of which nothing is known.
    pub fn of(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            trouble_since: None,
            held_by: 0,
            next_probe: None,
            processes: 0,
            wanting: 0,
            quotas: Vec::new(),
        }
    }
}

/// Returns the state of everything. Without a log, lag is not known.
///
/// # Errors
///
/// The store or the log does not answer.
pub async fn status(store: &SqlStore, log: Option<(&dyn Log, &str)>, now: Timestamp) -> Result<Status, OperatorError> {
    // The ends of the log first: what is admitted meanwhile does not count as a lag.
    let watermarks = match log {
        Some((log, topic)) => log.watermarks(topic).await?,
        None => BTreeMap::new(),
    };
    let stored = store.positions().await?;
    let view = match log {
        Some((log, topic)) => Some(LogView::read(log, topic, watermarks, &stored, now).await?),
        None => None,
    };
    let mut positions: BTreeMap<String, Vec<PartitionStatus>> = BTreeMap::new();
    for position in stored {
        let partition = PartitionStatus { partition: position.partition, frontier: position.frontier, end: None };
        positions.entry(position.flow).or_default().push(partition);
    }
    let dead: BTreeMap<String, BoundedCount> = store.dead_counts().await?.into_iter().collect();
    let next = store.next_firings().await?.into_iter().map(|next| (next.flow, next.under_way.or(next.at)));
    let mut next_firings: BTreeMap<String, Option<Timestamp>> = next.collect();
    let mut flows = Vec::new();
    for counts in store.flow_counts().await? {
        let mut partitions = positions.remove(&counts.flow).unwrap_or_default();
        let lag = view.as_ref().map(|view| view.lag(&counts.flow, &mut partitions, now));
        let dead = dead.get(&counts.flow).copied().unwrap_or_default();
        let next_firing = next_firings.remove(&counts.flow).flatten();
        flows.push(FlowStatus { next_firing, ..flow_status(counts, lag, dead, partitions) });
    }
    let accounts = accounts(store, now).await?;
    let needs = needs(&flows, &accounts, now);
    Ok(Status { at: now, needs, flows, accounts })
}

impl OperatorCommands {
    /// Returns the state of everything, as [`status`] does, with the lag in the log to which commands are sent. If the log does
    /// not answer within two seconds, without it.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn status(&self, now: Timestamp) -> Result<Status, OperatorError> {
        let topic = self.layout.topics.events();
        let whole = status(&self.store, Some((&*self.log, &topic)), now);
        match tokio::time::timeout(LOG_PATIENCE, whole).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(OperatorError::Log(error))) => {
                tracing::debug!(%error, "determining the lag failed; the state is told without it");
                status(&self.store, None, now).await
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                tracing::debug!("determining the lag timed out; the state is told without it");
                status(&self.store, None, now).await
            }
        }
    }
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
        newest_ended: counts.newest_ended,
        next_firing: None,
        at_accounts: counts.at_accounts,
        partitions,
        paused: counts.paused,
        flow: counts.flow,
    }
}

/// The ends of the log, and the backlogs that flows have there.
struct LogView {
    watermarks: BTreeMap<Partition, Watermarks>,
    backlogs: Backlogs,
}

impl LogView {
    /// Compares the positions of flows with the ends of the log.
    async fn read(
        log: &dyn Log,
        topic: &str,
        watermarks: BTreeMap<Partition, Watermarks>,
        positions: &[FlowPosition],
        now: Timestamp,
    ) -> Result<Self, LogError> {
        let frontier = |position: &FlowPosition| {
            let (flow, partition) = (position.flow.clone(), Partition(position.partition));
            position.frontier.map(|offset| StoredFrontier { flow, partition, offset })
        };
        let mut backlogs = Backlogs::default();
        let unread = backlogs.update(positions.iter().filter_map(frontier), &watermarks, now);
        let learn = |first, received_at| backlogs.learn(first, received_at);
        lag::read_first_records(log, topic, unread, &watermarks, learn).await?;
        Ok(Self { watermarks, backlogs })
    }

    /// Returns the lag of a flow, and adds the ends of the log to its partitions.
    fn lag(&self, flow: &str, partitions: &mut [PartitionStatus], now: Timestamp) -> FlowLag {
        let mut events = 0;
        for status in partitions {
            let Some(marks) = self.watermarks.get(&Partition(status.partition)) else { continue };
            status.end = Some(marks.high);
            events += status.frontier.map_or(0, |frontier| (marks.high.0 - frontier.max(marks.low).0).max(0));
        }
        FlowLag { events, seconds: self.backlogs.age(flow, now).as_secs() }
    }
}

async fn accounts(store: &SqlStore, now: Timestamp) -> Result<Vec<AccountStatus>, OperatorError> {
    let mut accounts: BTreeMap<String, AccountStatus> = BTreeMap::new();
    for shares in store.account_shares(now).await? {
        let account = accounts.entry(shares.account.clone()).or_insert_with(|| AccountStatus::of(&shares.account));
        (account.processes, account.wanting) = (shares.processes, shares.wanting);
    }
    for used in store.quota_uses(now).await? {
        accounts.entry(used.account.clone()).or_insert_with(|| AccountStatus::of(&used.account)).quotas.push(used);
    }
    for trouble in store.troubles(now).await? {
        let account = accounts.entry(trouble.account.clone()).or_insert_with(|| AccountStatus::of(&trouble.account));
        account.trouble_since = Some(trouble.since);
        account.next_probe = trouble.next_probe;
        account.held_by = trouble.processes;
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
        let open = status.open().count > 0;
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
            newest_ended: None,
            next_firing: None,
            at_accounts: BTreeMap::new(),
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
            held_by: 1,
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
