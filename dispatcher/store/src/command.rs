//! Operators' commands about runs, executed at admission like every other event of their key. Each is stored with its
//! author and its result. A repeated command is not executed again.

use sqlx::{AnyConnection, AssertSqlSafe, Row as _};
use usher_engine::Run;
use usher_engine::arrival::{Arrival, Batch, Command, CommandKind};
use usher_proto::EventRef;
use usher_service::clock;

use super::StoreError;
use super::rows::{RUN_COLUMNS, run};
use super::transitions::{self, AWAITS_NOTHING, TAKEN_UP, UNCLAIMED, UNTRIED};

/// The account that a run's first step calls, as [`usher_engine::account`] forms it: `$3` is its connector.
const ACCOUNT: &str =
    "CASE WHEN instance = 'default' THEN CAST($3 AS TEXT) ELSE CAST($3 AS TEXT) || '@' || instance END";

/// Result of a command.
pub(super) enum CommandResult {
    /// The run is queued again.
    Queued(Box<Run>),
    /// The run has been ended.
    Cancelled(EventRef),
    /// No result to report.
    Nothing,
}

pub(super) async fn carry_out(
    connection: &mut AnyConnection,
    flow: &str,
    batch: &Batch,
    arrival: &Arrival,
    command: &Command,
) -> Result<CommandResult, StoreError> {
    let kept = sqlx::query(
        "INSERT INTO usher_action (id, at, who, what, flow, event_ref, came) VALUES ($1, $2, $3, $4, $5, $6, 'nothing') \
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(arrival.event.id.as_str())
    .bind(command.at.millis())
    .bind(&command.by)
    .bind(command.order.label())
    .bind(flow)
    .bind(command.run.as_str())
    .execute(&mut *connection)
    .await?;
    if kept.rows_affected() == 0 {
        return Ok(CommandResult::Nothing);
    }
    let (came, word) = match &command.order {
        CommandKind::Redrive { deaths } => {
            (redrive(connection, flow, batch, arrival, command, *deaths).await?, "queued")
        }
        CommandKind::Rerun { body } => (rerun(connection, flow, batch, arrival, command, body).await?, "queued"),
        CommandKind::Cancel => (cancel(connection, flow, command).await?, "cancelled"),
    };
    if !matches!(came, CommandResult::Nothing) {
        sqlx::query("UPDATE usher_action SET came = $1 WHERE id = $2")
            .bind(word)
            .bind(arrival.event.id.as_str())
            .execute(connection)
            .await?;
    }
    Ok(came)
}

/// Moves a dead run to the tail of its lane, in the partition that its key has now. Its effects stay done. If the
/// outcome of its last attempt is unknown, exactly that request is repeated under its key. Otherwise the next request
/// is a new one under a new key. A run that has done nothing yet continues with the current version of the flow, in
/// which the operator may have fixed it.
async fn redrive(
    connection: &mut AnyConnection,
    flow: &str,
    batch: &Batch,
    arrival: &Arrival,
    command: &Command,
    deaths: u32,
) -> Result<CommandResult, StoreError> {
    let sql = format!(
        "UPDATE usher_run SET {TAKEN_UP}, {UNTRIED}, {UNCLAIMED}, {AWAITS_NOTHING}, partition = $7, position = $1, letter = 2, \
           generation = CASE WHEN request IS NULL THEN generation + 1 ELSE generation END, \
           flow_version = CASE WHEN step = 0 THEN $2 ELSE flow_version END, \
           destination = CASE WHEN step = 0 THEN {ACCOUNT} ELSE destination END \
         WHERE flow = $4 AND event_ref = $5 AND state = 'dead' AND deaths = $6 RETURNING {RUN_COLUMNS}"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(arrival.offset.0)
        .bind(&batch.flow_version)
        .bind(batch.connector.as_deref())
        .bind(flow)
        .bind(command.run.as_str())
        .bind(i64::from(deaths))
        .bind(i64::from(batch.partition.0))
        .fetch_optional(connection)
        .await?;
    row.map_or(Ok(CommandResult::Nothing), |row| Ok(CommandResult::Queued(Box::new(run(&row)?))))
}

/// Restarts a run that has ended, from its first step. Its effects are repeated.
async fn rerun(
    connection: &mut AnyConnection,
    flow: &str,
    batch: &Batch,
    arrival: &Arrival,
    command: &Command,
    body: &str,
) -> Result<CommandResult, StoreError> {
    let sql = format!(
        "UPDATE usher_run SET {TAKEN_UP}, {}, partition = $7, position = $1, pass = pass + 1, step = 0, results = '{{}}', \
           body = $2, flow_version = $4, destination = {ACCOUNT} \
         WHERE flow = $5 AND event_ref = $6 AND ended_at IS NOT NULL RETURNING {RUN_COLUMNS}",
        transitions::fresh_step()
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(arrival.offset.0)
        .bind(body)
        .bind(batch.connector.as_deref())
        .bind(&batch.flow_version)
        .bind(flow)
        .bind(command.run.as_str())
        .bind(i64::from(batch.partition.0))
        .fetch_optional(connection)
        .await?;
    row.map_or(Ok(CommandResult::Nothing), |row| Ok(CommandResult::Queued(Box::new(run(&row)?))))
}

async fn cancel(connection: &mut AnyConnection, flow: &str, command: &Command) -> Result<CommandResult, StoreError> {
    let sql = format!("{} AND event_ref = $3 RETURNING event_ref", end_what_is_not_under_way());
    let ended = sqlx::query(AssertSqlSafe(sql))
        .bind(clock::now().millis())
        .bind(flow)
        .bind(command.run.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = ended {
        let found = row.try_get::<String, _>(0)?.parse();
        return Ok(CommandResult::Cancelled(found.map_err(|_| StoreError::Unreadable("event_ref".into()))?));
    }
    sqlx::query("UPDATE usher_run SET cancel_asked = 1 WHERE flow = $1 AND event_ref = $2 AND ended_at IS NULL")
        .bind(flow)
        .bind(command.run.as_str())
        .execute(connection)
        .await?;
    Ok(CommandResult::Nothing)
}

/// Ends the runs of flow `$2` at time `$1` that have no attempt in flight; more conditions follow. A run whose last
/// attempt may have taken effect gets the note `in_doubt`.
pub(super) fn end_what_is_not_under_way() -> String {
    format!(
        "UPDATE usher_run SET {} WHERE flow = $2 AND ended_at IS NULL \
         AND (state IN ('queued', 'waiting', 'parked') OR claimed_at IS NULL)",
        transitions::cancelled()
    )
}
