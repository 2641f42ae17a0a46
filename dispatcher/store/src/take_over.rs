//! Runs that another flow takes over. A run is moved only while nothing of it is under way: then no effect of it is unknown, and
//! the keys of its next requests may have another name in them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use usher_engine::arrival::{Batch, Command, TakeOver, TakenOverStep};
use usher_proto::Offset;
use usher_service::clock;
use usher_sql::{Connection, Dialect, query, query_as};

use super::StoreError;
use super::command::{CommandResult, first_run};
use super::transitions::{self, Moved};

/// Result of a command for whose run the flow has no step.
pub(super) const NO_STEP: &str = "no_step";
/// Result of a command about an event of which the flow has a run.
pub(super) const HAS_RUN: &str = "has_run";

/// Moves a run to the flow of the batch, at a step of the same name, queued at the end of its lane. What it waited for goes on:
/// the step is looked at again, and keeps the end of its wait. The flow that it leaves remembers the event, so that a
/// repeated webhook starts nothing there.
pub(super) async fn take_over(
    connection: &mut Connection,
    dialect: Dialect,
    flow: &str,
    batch: &Batch,
    offset: Offset,
    (command, order): (&Command, &TakeOver),
) -> Result<(CommandResult, &'static str), StoreError> {
    let Some(to) = &order.to else { return Ok((CommandResult::Nothing, NO_STEP)) };
    let event = command.run.as_str();
    let own = "SELECT (SELECT count(*) FROM usher_open_run WHERE event_ref = $1 AND flow = $2) \
                 + (SELECT count(*) FROM usher_ended_run WHERE event_ref = $1 AND flow = $2)";
    let (own,): (i64,) = query_as(own).bind(event).bind(flow).fetch_one(&mut *connection).await?;
    if own > 0 {
        return Ok((CommandResult::Nothing, HAS_RUN));
    }
    // Locked, so that nobody claims it meanwhile.
    let lock = if dialect == Dialect::Postgres { " FOR UPDATE" } else { "" };
    let which = "o.event_ref = $3 AND o.flow_version = $4 AND o.step = $5 AND o.state IN ('queued', 'waiting', 'parked') \
                 AND o.request IS NULL AND o.claimed_at IS NULL AND o.cancel_asked = 0 AND o.letter = 0";
    let found = format!(
        "SELECT o.results FROM usher_open_run o WHERE o.flow = $1 AND CAST($2 AS BIGINT) > 0 AND {which}{lock}"
    );
    let now = clock::now();
    let at = i64::try_from(order.at).unwrap_or(i64::MAX);
    let found: Option<(String,)> = query_as(found)
        .bind(&order.from)
        .bind(now.millis())
        .bind(event)
        .bind(&order.version)
        .bind(at)
        .fetch_optional(&mut *connection)
        .await?;
    let Some((results,)) = found else { return Ok((CommandResult::Nothing, "nothing")) };
    let remembered = "INSERT INTO usher_event (flow, event_ref, digest, received_at) \
                      SELECT o.flow, o.event_ref, COALESCE(o.digest, ''), o.received_at FROM usher_open_run o \
                      WHERE o.flow = $1 AND o.event_ref = $2 ON CONFLICT (flow, event_ref) DO NOTHING";
    query(remembered).bind(&order.from).bind(event).execute(&mut *connection).await?;
    let TakenOverStep { step, connector, .. } = to;
    let destination = connector.as_deref().map(|connector| usher_engine::account(connector, command.run.instance()));
    let params = [
        event.into(),
        order.version.as_str().into(),
        at.into(),
        flow.into(),
        batch.flow_version.as_str().into(),
        i64::try_from(*step).unwrap_or(i64::MAX).into(),
        destination.into(),
        offset.0.into(),
        batch.partition.0.into(),
        renumbered(&results, to)?.into(),
    ];
    let moved = Moved {
        set: &[
            ("flow", "$6"),
            ("flow_version", "$7"),
            ("step", "CAST($8 AS BIGINT)"),
            ("destination", "$9"),
            ("position", "CAST($10 AS BIGINT)"),
            ("partition", "CAST($11 AS BIGINT)"),
            ("results", "$12"),
            ("due_at", "CASE WHEN o.state = 'waiting' THEN o.due_at END"),
        ],
        which,
    };
    let answers = connection.run_all(transitions::move_open(dialect, &order.from, now, &moved, &params)).await?;
    let run = first_run(&answers)?;
    Ok(run.map_or((CommandResult::Nothing, "nothing"), |run| (CommandResult::Queued(Box::new(run)), "moved")))
}

/// Gives the results of earlier steps the indexes that these steps have in the other flow. Those of other steps are dropped.
fn renumbered(results: &str, to: &TakenOverStep) -> Result<String, StoreError> {
    let unreadable = || StoreError::Unreadable("results".into());
    let results: BTreeMap<usize, Value> = serde_json::from_str(results).map_err(|_| unreadable())?;
    let renumbered = results.into_iter().filter_map(|(at, result)| Some((to.results.get(&at)?.to_string(), result)));
    Ok(Value::Object(renumbered.collect::<Map<String, Value>>()).to_string())
}
