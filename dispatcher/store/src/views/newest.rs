//! The newest runs of a flow in short, for programs that look again and again at what has changed.

use usher_proto::EventRef;
use usher_sql::query;

use super::bound;
use crate::rows::Named;
use crate::{RunRecord, SqlStore, StoreError};

/// A run with what changes of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunMark {
    /// Name of the flow.
    pub flow: String,
    /// The run's event.
    pub reference: EventRef,
    /// State of the run, as a label.
    pub state: String,
    /// Index, from 0, of its step.
    pub step: i64,
    /// Attempts made of that step.
    pub attempts: i64,
    /// Number of times it was run again after its end.
    pub pass: i64,
    /// Number of times it has become dead.
    pub deaths: i64,
}

impl From<&RunRecord> for RunMark {
    fn from(run: &RunRecord) -> Self {
        Self {
            flow: run.flow.clone(),
            reference: run.reference.clone(),
            state: run.state.clone(),
            step: run.step,
            attempts: run.attempts,
            pass: run.pass,
            deaths: run.deaths,
        }
    }
}

impl SqlStore {
    /// Returns the runs of a flow whose events were received last: of those that have not ended, and of those that have, the
    /// newest `limit` each.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn newest_marks(&self, flow: &str, limit: usize) -> Result<Vec<RunMark>, StoreError> {
        // Each names the expression of its index.
        let open = "SELECT event_ref, state, step, attempts, pass, deaths FROM usher_open_run WHERE flow || '/' = $1 \
                    ORDER BY received_at DESC LIMIT $2";
        let ended = "SELECT event_ref, state, step, attempts, pass, deaths FROM usher_ended_run WHERE flow || '' = $1 \
                     ORDER BY received_at DESC LIMIT $2";
        let mut marks = Vec::new();
        for (sql, of) in [(open, format!("{flow}/")), (ended, flow.to_owned())] {
            for row in &query(sql).bind(of).bind(bound(limit)).fetch_all(&self.database).await? {
                let row = Named(row);
                marks.push(RunMark {
                    flow: flow.to_owned(),
                    reference: row.parsed("event_ref")?,
                    state: row.get("state")?,
                    step: row.get("step")?,
                    attempts: row.get("attempts")?,
                    pass: row.get("pass")?,
                    deaths: row.get("deaths")?,
                });
            }
        }
        Ok(marks)
    }
}
