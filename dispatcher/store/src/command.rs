//! Operators' commands about runs, executed at admission like every other event of their key. Each is stored with its
//! author and its result. A repeated command is not executed again.

use usher_engine::Run;
use usher_engine::arrival::{Arrival, Batch, Command, CommandKind};
use usher_proto::{EventRef, SubjectId};
use usher_service::clock;
use usher_sql::{Answer, Connection, Dialect, SqlParam, query};

use super::StoreError;
use super::rows::{Named, RUN_COLUMNS, run};
use super::take_over::{HAS_RUN, NO_STEP, take_over};
use super::transitions::{self, CancelEntry, NOT_UNDER_WAY, TakenUp};

/// Result of a command.
pub(super) enum CommandResult {
    /// The run is queued again.
    Queued(Box<Run>),
    /// The run has been ended.
    Cancelled(SubjectId, EventRef),
    /// No result to report.
    Nothing,
}

pub(super) async fn carry_out(
    connection: &mut Connection,
    dialect: Dialect,
    flow: &str,
    batch: &Batch,
    arrival: &Arrival,
    command: &Command,
) -> Result<CommandResult, StoreError> {
    let kept = query(
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
    if kept == 0 {
        return Ok(CommandResult::Nothing);
    }
    let taker = Taker { connection: &mut *connection, dialect, flow, batch, arrival, command };
    let (came, word) = match &command.order {
        CommandKind::Redrive { deaths } => (taker.redrive(*deaths).await?, "queued"),
        CommandKind::Rerun { body } => (taker.rerun(body).await?, "queued"),
        CommandKind::Wake => (wake(connection, flow, command).await?, "woken"),
        CommandKind::TakeOver(order) => {
            take_over(connection, dialect, flow, batch, arrival.offset, (command, order)).await?
        }
        CommandKind::Cancel => (cancel(connection, dialect, flow, command).await?, "cancelled"),
    };
    if !matches!(came, CommandResult::Nothing) || word == NO_STEP || word == HAS_RUN {
        query("UPDATE usher_action SET came = $1 WHERE id = $2")
            .bind(word)
            .bind(arrival.event.id.as_str())
            .execute(connection)
            .await?;
    }
    Ok(came)
}

/// Takes up ended runs: moves them to the tail of their lane, in the partition that their key has now.
struct Taker<'a> {
    connection: &'a mut Connection,
    dialect: Dialect,
    flow: &'a str,
    batch: &'a Batch,
    arrival: &'a Arrival,
    command: &'a Command,
}

/// The account that a run's first step calls, as [`usher_engine::account`] forms it.
fn account(batch: &Batch, run: &EventRef) -> Option<String> {
    batch.connector.as_deref().map(|connector| usher_engine::account(connector, run.instance()))
}

impl Taker<'_> {
    /// Takes up a dead run. Its effects stay done. If the outcome of its last attempt is unknown, exactly that request is
    /// repeated under its key. Otherwise the next request is a new one under a new key. A run that has done nothing yet
    /// continues with the current version of the flow, in which the operator may have fixed it; unless the key is to be kept
    /// and the flow has been renamed since, because the name in the key is that of the version.
    async fn redrive(self, deaths: u32) -> Result<CommandResult, StoreError> {
        let to_present =
            "o.step = 0 AND (o.request IS NULL OR NOT EXISTS (SELECT 1 FROM usher_renamed n WHERE n.flow = $1))";
        let how = TakenUp {
            set: &[
                ("letter", "2"),
                ("generation", "CASE WHEN o.request IS NULL THEN o.generation + 1 ELSE o.generation END"),
                ("flow_version", &format!("CASE WHEN {to_present} THEN $6 ELSE o.flow_version END")),
                ("destination", &format!("CASE WHEN {to_present} THEN $7 ELSE o.destination END")),
            ],
            which: "o.event_ref = $3 AND o.state = 'dead' AND o.deaths = $8",
        };
        self.take_up(how, i64::from(deaths).into()).await
    }

    /// Restarts a run that has ended, from its first step. Its effects are repeated.
    async fn rerun(self, body: &str) -> Result<CommandResult, StoreError> {
        let how = TakenUp {
            set: &[
                ("pass", "o.pass + 1"),
                ("step", "0"),
                ("results", "'{}'"),
                ("generation", "0"),
                ("asked_at", "CAST(NULL AS BIGINT)"),
                ("request", "CAST(NULL AS BYTEA)"),
                ("flow_version", "$6"),
                ("destination", "$7"),
                ("body", "$8"),
            ],
            which: "o.event_ref = $3",
        };
        self.take_up(how, body.into()).await
    }

    async fn take_up(self, mut how: TakenUp<'_>, last: SqlParam) -> Result<CommandResult, StoreError> {
        let set = [&[("partition", "$4"), ("position", "$5")], how.set].concat();
        how.set = &set;
        let params = [
            self.command.run.as_str().into(),
            self.batch.partition.0.into(),
            self.arrival.offset.0.into(),
            (&self.batch.flow_version).into(),
            account(self.batch, &self.command.run).into(),
            last,
        ];
        let queries = transitions::take_up(self.dialect, self.flow, clock::now(), &how, &params);
        let answers = self.connection.run_all(queries).await?;
        first_run(&answers).map(|run| run.map_or(CommandResult::Nothing, |run| CommandResult::Queued(Box::new(run))))
    }
}

pub(super) fn first_run(answers: &[Answer]) -> Result<Option<Run>, StoreError> {
    answers.first().and_then(|answer| answer.rows.first()).map(run).transpose()
}

/// Ends the wait or the pause of a run. A wait for a time is over then. A run that waits for a value looks for it again, and
/// waits on until the same time if it is still missing, so that nothing is given up.
async fn wake(connection: &mut Connection, flow: &str, command: &Command) -> Result<CommandResult, StoreError> {
    let sql = format!(
        "UPDATE usher_open_run SET state = CASE state WHEN 'parked' THEN 'running' ELSE 'queued' END, wakes_at = NULL, \
           due_at = CASE WHEN state = 'waiting' AND awaits_news = 0 AND due_at > $3 THEN $3 ELSE due_at END, changed_at = $3 \
         WHERE flow = $1 AND event_ref = $2 AND state IN ('waiting', 'parked') RETURNING {RUN_COLUMNS}"
    );
    let now = clock::now().millis();
    let answers = connection.run_all(vec![query(sql).bind(flow).bind(command.run.as_str()).bind(now)]).await?;
    first_run(&answers).map(|run| run.map_or(CommandResult::Nothing, |run| CommandResult::Queued(Box::new(run))))
}

async fn cancel(
    connection: &mut Connection,
    dialect: Dialect,
    flow: &str,
    command: &Command,
) -> Result<CommandResult, StoreError> {
    let which = format!("o.event_ref = $3 AND {NOT_UNDER_WAY}");
    let entry = CancelEntry::by_operator(&command.by, command.at);
    let params = [command.run.as_str().into()];
    let queries = transitions::cancel(dialect, flow, clock::now(), &which, &params, Some(&entry));
    let answers = connection.run_all(queries).await?;
    if let Some(row) = answers.first().and_then(|answer| answer.rows.first()) {
        return Ok(CommandResult::Cancelled(Named(row).parsed("subject")?, Named(row).parsed("event_ref")?));
    }
    let asked = transitions::ask_to_cancel(dialect, flow, clock::now(), "o.event_ref = $3", &params, &entry);
    asked.execute(connection).await?;
    Ok(CommandResult::Nothing)
}
