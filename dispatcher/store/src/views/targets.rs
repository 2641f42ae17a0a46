//! Runs in short, as an operator's action on many of them needs them.

use usher_engine::RunState;
use usher_proto::{EventId, EventRef, Offset, SubjectId};
use usher_sql::query;

use super::bound;
use crate::rows::Named;
use crate::{RunFilter, SqlStore, StoreError};

/// Number of commands whose results one statement reads.
const COMMANDS: usize = 500;

/// One run, without its event and its story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunTargetRow {
    /// Name of the flow.
    pub flow: String,
    /// The run's event.
    pub reference: EventRef,
    /// The event's subject.
    pub subject: SubjectId,
    /// The run's partition.
    pub partition: i64,
    /// The offset of the event.
    pub offset: Offset,
    /// Index, from 0, of the step at which the run stands or has ended.
    pub step: i64,
    /// State of the run.
    pub state: RunState,
    /// Number of times it has become dead.
    pub deaths: i64,
    /// Reason for giving it up, as a label; `None` if it is not dead.
    pub reason: Option<String>,
}

/// One run that may go on in another flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovableRow {
    /// The run.
    pub run: RunTargetRow,
    /// The version of its flow.
    pub version: String,
    /// True if no request of it may have taken effect without its outcome being known.
    pub is_free: bool,
}

/// The result of an operator's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRow {
    /// Id of the command's event.
    pub id: EventId,
    /// The result, as a label.
    pub came: String,
}

impl SqlStore {
    /// Returns runs that match the filter, in the order in which their events arrived: the first `limit` of each partition's
    /// order.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn targets(&self, filter: &RunFilter, limit: usize) -> Result<Vec<RunTargetRow>, StoreError> {
        Ok(self.movable(filter, limit).await?.into_iter().map(|row| row.run).collect())
    }

    /// Returns the same runs as [`Self::targets`], with what decides if they may go on in another flow.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn movable(&self, filter: &RunFilter, limit: usize) -> Result<Vec<MovableRow>, StoreError> {
        let Some(conditions) = self.conditions(filter).await? else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT r.flow, r.event_ref, r.subject, r.partition, r.origin, r.step, r.state, r.deaths, r.reason, r.flow_version, \
               CASE WHEN r.request IS NULL AND r.claimed_at IS NULL AND r.letter = 0 THEN CAST(1 AS BIGINT) ELSE 0 END AS is_free \
             FROM usher_run r \
             WHERE {} ORDER BY r.partition, r.origin, r.flow, r.event_ref LIMIT ${}",
            conditions.sql,
            conditions.values.len() + 1
        );
        let read = |row| {
            let row = Named(row);
            let run = RunTargetRow {
                flow: row.get("flow")?,
                reference: row.parsed("event_ref")?,
                subject: row.parsed("subject")?,
                partition: row.get("partition")?,
                offset: Offset(row.get("origin")?),
                step: row.get("step")?,
                state: row.parsed("state")?,
                deaths: row.get("deaths")?,
                reason: row.get("reason")?,
            };
            Ok(MovableRow { run, version: row.get("flow_version")?, is_free: row.get::<i64>("is_free")? == 1 })
        };
        conditions.bind(sql).bind(bound(limit)).fetch_all(&self.database).await?.iter().map(read).collect()
    }

    /// Returns the results of those of these commands that were executed.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn command_results(&self, commands: &[EventId]) -> Result<Vec<CommandRow>, StoreError> {
        let mut results = Vec::new();
        for commands in commands.chunks(COMMANDS) {
            let numbers: Vec<String> = (1..=commands.len()).map(|number| format!("${number}")).collect();
            let sql = format!("SELECT id, came FROM usher_action WHERE id IN ({})", numbers.join(", "));
            let statement = commands.iter().fold(query(sql), |statement, command| statement.bind(command.as_str()));
            for row in &statement.fetch_all(&self.database).await? {
                let row = Named(row);
                results.push(CommandRow { id: EventId::new(row.get::<String>("id")?), came: row.get("came")? });
            }
        }
        Ok(results)
    }
}
