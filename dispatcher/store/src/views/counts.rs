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
        let add = |sum: BoundedCount, of: &BoundedCount| BoundedCount {
            count: sum.count + of.count,
            more: sum.more | of.more,
        };
        self.open.values().fold(BoundedCount::default(), add)
    }
}

/// A column of a flow's open runs by which they are counted.
const STATE: &str = "state";
const VERSION: &str = "flow_version";

impl SqlStore {
    /// Counts a flow's open runs by a column, in [`SCAN`] of them. If there are more, every count says so.
    /// Without an order, because to sort them a database may read all of them first.
    async fn open_by(&self, flow: &str, column: &'static str) -> Result<BTreeMap<String, BoundedCount>, StoreError> {
        let sql = format!(
            "SELECT q.{column}, COUNT(*) FROM (SELECT {column} FROM usher_open_run WHERE flow || '/' = $1 \
             LIMIT $2) q GROUP BY q.{column}"
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
            flows.push(FlowCounts {
                open: self.open_by(&flow, STATE).await?,
                oldest: self.end_of(oldest, format!("{flow}/")).await?,
                newest_ended: self.end_of(newest, flow.clone()).await?,
                paused: paused.remove(&flow),
                worked: worked.contains(&flow),
                flow,
            });
        }
        Ok(flows)
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
