//! The flows with their open runs, counted by state, and their pauses.

use std::collections::BTreeMap;

use serde::Serialize;
use usher_engine::RunState;
use usher_proto::Timestamp;
use usher_sql::query_as;

use super::{BoundedCount, SCAN, bound};
use crate::{SqlStore, StoreError};

/// A pause of a flow, as its operator gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PauseRecord {
    /// The operator.
    pub who: String,
    /// Time of the pause.
    pub at: Timestamp,
    /// The operator's words about it.
    pub why: Option<String>,
}

/// A stored version of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowVersion {
    /// The digest of its file and templates.
    pub version: String,
    /// Number of open runs that continue with it.
    pub open_runs: BoundedCount,
}

/// One flow, with its open runs by state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowCounts {
    /// Name of the flow.
    pub flow: String,
    /// Number of open runs in each state that has some.
    pub open: BTreeMap<String, BoundedCount>,
    /// Number of open runs whose step calls an account, by account, without those that wait for a time or for news.
    pub at_accounts: BTreeMap<String, BoundedCount>,
    /// Time at which the event of the oldest open run was received.
    pub oldest: Option<Timestamp>,
    /// Time at which the event of the newest ended run was received.
    pub newest_ended: Option<Timestamp>,
    /// The pause; `None` if the flow is not paused.
    pub paused: Option<PauseRecord>,
    /// True if a process works on the flow, as far as the store knows.
    pub worked: bool,
}

impl FlowCounts {
    /// Returns the number of open runs in a state.
    pub fn of(&self, state: RunState) -> BoundedCount {
        self.open.get(state.label()).copied().unwrap_or_default()
    }

    /// Returns the number of all open runs.
    pub fn all_open(&self) -> BoundedCount {
        let mut sum = BoundedCount::default();
        self.open.values().for_each(|of| sum.add(*of));
        sum
    }
}

/// The newest runs of a flow, counted by the time at which their events were received.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RecentRuns {
    /// All of them.
    pub count: BoundedCount,
    /// Their number in each part of the time, the oldest part first.
    pub parts: Vec<u64>,
}

/// Columns of a flow's open runs by which they are counted.
const STATE_AND_ACCOUNT: &str =
    "state || '/' || CASE WHEN state = 'waiting' THEN '' ELSE COALESCE(destination, '') END";
const VERSION: &str = "flow_version";

impl SqlStore {
    /// Counts a flow's open runs by a column, in [`SCAN`] of them. If there are more, every count says so.
    /// Without an order, because to sort them a database may read all of them first.
    async fn open_by(&self, flow: &str, column: &'static str) -> Result<BTreeMap<String, BoundedCount>, StoreError> {
        let sql = format!(
            "SELECT q.value, COUNT(*) FROM (SELECT {column} AS value FROM usher_open_run WHERE flow || '/' = $1 \
             LIMIT $2) q GROUP BY q.value"
        );
        let rows: Vec<(String, i64)> =
            query_as(sql).bind(format!("{flow}/")).bind(bound(SCAN + 1)).fetch_all(&self.database).await?;
        let all: i64 = rows.iter().map(|(_, count)| count).sum();
        let more = all > bound(SCAN);
        let count = |count: i64| BoundedCount { count: u64::try_from(count).unwrap_or(0).min(SCAN as u64), more };
        Ok(rows.into_iter().map(|(value, of)| (value, count(of))).collect())
    }

    /// Returns the received time of a flow's first or last run of a table, by an index.
    async fn end_of(&self, sql: &'static str, flow: String) -> Result<Option<Timestamp>, StoreError> {
        let row: Option<(i64,)> = query_as(sql).bind(flow).fetch_optional(&self.database).await?;
        Ok(row.map(|(at,)| Timestamp::from_millis(at)))
    }

    /// Returns the pauses of all flows.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn pause_records(&self) -> Result<BTreeMap<String, PauseRecord>, StoreError> {
        let rows: Vec<(String, String, i64, Option<String>)> =
            query_as("SELECT flow, who, at, why FROM usher_pause").fetch_all(&self.database).await?;
        let record = |(flow, who, at, why)| (flow, PauseRecord { who, at: Timestamp::from_millis(at), why });
        Ok(rows.into_iter().map(record).collect())
    }

    /// Returns every flow that has ever run here, with its open runs by state.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn flow_counts(&self) -> Result<Vec<FlowCounts>, StoreError> {
        let mut paused = self.pause_records().await?;
        let worked = self.worked_flows().await?;
        let mut flows = Vec::new();
        for flow in self.flow_names().await? {
            let oldest = "SELECT received_at FROM usher_open_run WHERE flow || '/' = $1 ORDER BY received_at LIMIT 1";
            let newest =
                "SELECT received_at FROM usher_ended_run WHERE flow || '' = $1 ORDER BY received_at DESC LIMIT 1";
            let mut open: BTreeMap<String, BoundedCount> = BTreeMap::new();
            let mut at_accounts: BTreeMap<String, BoundedCount> = BTreeMap::new();
            for (value, of) in self.open_by(&flow, STATE_AND_ACCOUNT).await? {
                // The label of a state has no slash; the name of an account may have one.
                let (state, account) = value.split_once('/').unwrap_or((&value, ""));
                open.entry(state.to_owned()).or_default().add(of);
                if !account.is_empty() {
                    at_accounts.entry(account.to_owned()).or_default().add(of);
                }
            }
            flows.push(FlowCounts {
                open,
                at_accounts,
                oldest: self.end_of(oldest, format!("{flow}/")).await?,
                newest_ended: self.end_of(newest, flow.clone()).await?,
                paused: paused.remove(&flow),
                worked: worked.contains(&flow),
                flow,
            });
        }
        Ok(flows)
    }

    /// Counts the runs of a flow whose events were received at or after a time, among the newest [`SCAN`], in `parts` parts of
    /// this length.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn recent_runs(
        &self,
        flow: &str,
        since: Timestamp,
        part: std::time::Duration,
        parts: usize,
    ) -> Result<RecentRuns, StoreError> {
        let part = i64::try_from(part.as_millis()).unwrap_or(i64::MAX).max(1);
        let mut recent = RecentRuns { count: BoundedCount::default(), parts: vec![0; parts.max(1)] };
        for (table, by_flow, suffix) in [("usher_open_run", "flow || '/'", "/"), ("usher_ended_run", "flow || ''", "")]
        {
            let sql = format!(
                "SELECT q.part, COUNT(*) FROM (SELECT (received_at - $2) / $3 AS part FROM {table} \
                   WHERE {by_flow} = $1 AND received_at >= $2 ORDER BY received_at DESC LIMIT $4) q GROUP BY q.part"
            );
            let rows: Vec<(i64, i64)> = query_as(sql)
                .bind(format!("{flow}{suffix}"))
                .bind(since.millis())
                .bind(part)
                .bind(bound(SCAN + 1))
                .fetch_all(&self.database)
                .await?;
            for (part, count) in rows {
                let count = u64::try_from(count).unwrap_or(0);
                recent.count.count += count;
                // A clock that is ahead puts a run behind the last part.
                let part = usize::try_from(part).unwrap_or(0).min(recent.parts.len() - 1);
                recent.parts[part] += count;
            }
        }
        if recent.count.count > SCAN as u64 {
            recent.count = BoundedCount { count: SCAN as u64, more: true };
        }
        Ok(recent)
    }

    /// Returns the stored versions of a flow, those with open runs first.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn flow_versions(&self, flow: &str) -> Result<Vec<FlowVersion>, StoreError> {
        let mut open = self.open_by(flow, VERSION).await?;
        let rows: Vec<(String,)> = query_as("SELECT version FROM usher_flow WHERE flow = $1 ORDER BY version")
            .bind(flow)
            .fetch_all(&self.database)
            .await?;
        let version = |(version,)| FlowVersion { open_runs: open.remove(&version).unwrap_or_default(), version };
        let mut versions: Vec<FlowVersion> = rows.into_iter().map(version).collect();
        versions.sort_by_key(|version| std::cmp::Reverse(version.open_runs.count));
        Ok(versions)
    }
}
