//! The steps at which the open runs of all flows stand, counted completely. It reads the whole table of open runs, so it is for commands that
//! somebody gives, and not for pages.

use usher_sql::query_as;

use crate::{SqlStore, StoreError};

/// The open runs of a version of a flow that stand at one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingRuns {
    /// Name of the flow.
    pub flow: String,
    /// The version with which they began.
    pub version: String,
    /// Index, from 0, of their present step.
    pub step: usize,
    /// Their number.
    pub runs: i64,
}

impl SqlStore {
    /// Counts all open runs by flow, version and step.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn standing_runs(&self) -> Result<Vec<StandingRuns>, StoreError> {
        let sql = "SELECT flow, flow_version, step, count(*) FROM usher_open_run GROUP BY flow, flow_version, step \
                   ORDER BY flow, flow_version, step";
        let rows: Vec<(String, String, i64, i64)> = query_as(sql).fetch_all(&self.database).await?;
        let read = |(flow, version, step, runs)| {
            let step = usize::try_from(step).map_err(|_| StoreError::Unreadable("step".into()))?;
            Ok(StandingRuns { flow, version, step, runs })
        };
        rows.into_iter().map(read).collect()
    }
}
