//! Figures for the metrics: counts of runs, and the frontiers. Each is read for all flows at once.

use usher_engine::RunState;
use usher_proto::{Offset, Partition, Timestamp};
use usher_sql::{Database, query_as};

use super::StoreError;

/// The runs of one flow in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunCount {
    /// Name of the flow.
    pub flow: String,
    /// The state.
    pub state: RunState,
    /// Number of the runs.
    pub runs: i64,
    /// Receipt of the oldest run's event; of dead runs, the earliest time at which one was given up.
    pub oldest: Timestamp,
}

/// The frontier of one partition of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFrontier {
    /// Name of the flow.
    pub flow: String,
    /// The partition.
    pub partition: Partition,
    /// Offset below which every event is admitted.
    pub offset: Offset,
}

/// Counts the runs that have not ended well. Dead runs are counted in their index. Open runs are counted in one pass over their
/// table, because an index by state would be written with every change of a run.
pub(super) async fn run_counts(database: &Database) -> Result<Vec<RunCount>, StoreError> {
    let sql = "SELECT flow, state, count(*), min(received_at) FROM usher_open_run GROUP BY flow, state \
               UNION ALL SELECT flow, 'dead', count(*), min(ended_at) FROM usher_ended_run WHERE state = 'dead' GROUP BY flow";
    let rows: Vec<(String, String, i64, i64)> = query_as(sql).fetch_all(database).await?;
    let count = |(flow, state, runs, oldest): (String, String, i64, i64)| {
        let state = state.parse().map_err(|_| StoreError::Unreadable("state".into()))?;
        Ok(RunCount { flow, state, runs, oldest: Timestamp::from_millis(oldest) })
    };
    rows.into_iter().map(count).collect()
}

/// Returns the frontiers of all flows. Partitions in which nothing was admitted are left out.
pub(super) async fn stored_frontiers(database: &Database) -> Result<Vec<StoredFrontier>, StoreError> {
    let sql = "SELECT flow, partition, frontier FROM usher_ownership WHERE frontier IS NOT NULL";
    let rows: Vec<(String, i64, i64)> = query_as(sql).fetch_all(database).await?;
    let frontier = |(flow, partition, offset): (String, i64, i64)| {
        let partition = i32::try_from(partition).map_err(|_| StoreError::Unreadable("partition".into()))?;
        Ok(StoredFrontier { flow, partition: Partition(partition), offset: Offset(offset) })
    };
    rows.into_iter().map(frontier).collect()
}
