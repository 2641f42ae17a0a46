//! Changes of runs, in order, many in one transaction.

use std::collections::BTreeMap;

use sqlx::{AnyConnection, AssertSqlSafe};
use usher_proto::{EventId, Partition};
use usher_service::clock;

use super::{Change, ChangeKind, Changed, StepEffect, StoreError};
use crate::engine::RunState;
use crate::sql::{Database, Dialect};

pub(super) async fn change(database: &Database, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
    let mut writing = database.write().await?;
    let connection = writing.connection();
    // In one order everywhere, for the rows are locked.
    let mut epochs: BTreeMap<Partition, Option<i64>> = changes.iter().map(|change| (change.partition, None)).collect();
    for (partition, epoch) in &mut epochs {
        *epoch = current_epoch(connection, database.dialect, flow, *partition).await?;
    }
    let mut changed = Vec::with_capacity(changes.len());
    for change in changes {
        let ours = epochs.get(&change.partition).copied().flatten() == Some(change.epoch);
        changed.push(if ours { write(connection, flow, change).await? } else { Changed::Fenced });
    }
    writing.commit().await?;
    Ok(changed)
}

pub(super) async fn current_epoch(
    connection: &mut AnyConnection,
    dialect: Dialect,
    flow: &str,
    partition: Partition,
) -> Result<Option<i64>, StoreError> {
    let sql = format!("SELECT epoch FROM usher_ownership WHERE flow = $1 AND partition = $2{}", dialect.for_share());
    let row: Option<(i64,)> =
        sqlx::query_as(AssertSqlSafe(sql)).bind(flow).bind(i64::from(partition.0)).fetch_optional(connection).await?;
    Ok(row.map(|(epoch,)| epoch))
}

async fn write(connection: &mut AnyConnection, flow: &str, change: &Change) -> Result<Changed, StoreError> {
    let event = change.event.as_str();
    match &change.kind {
        ChangeKind::Claim { attempts, generation, request, until } => {
            let sql = "UPDATE usher_run SET state = 'running', attempts = $1, generation = $2, request = $3, \
                       claimed_at = $4, claimed_until = $5 WHERE flow = $6 AND event = $7 AND ended_at IS NULL";
            let claimed = sqlx::query(sql)
                .bind(i64::from(*attempts))
                .bind(i64::from(*generation))
                .bind(request.as_slice())
                .bind(clock::now().millis())
                .bind(until.millis())
                .bind(flow)
                .bind(event)
                .execute(connection)
                .await?;
            if claimed.rows_affected() == 0 {
                return Ok(Changed::Ended);
            }
        }
        ChangeKind::Advance { to, effect, results } => {
            keep_effect(connection, flow, &change.event, effect.as_ref()).await?;
            let sql = "UPDATE usher_run SET state = 'queued', step = $4, attempts = 0, generation = 0, \
                       request = NULL, claimed_at = NULL, claimed_until = NULL, due_at = NULL, awaits_news = 0, \
                       results = $1 WHERE flow = $2 AND event = $3 AND ended_at IS NULL";
            let to = i64::try_from(*to).unwrap_or(i64::MAX);
            sqlx::query(sql).bind(results).bind(flow).bind(event).bind(to).execute(connection).await?;
        }
        ChangeKind::Wait { until, news_after } => {
            // News that were applied after the look that found them missing would otherwise be missed for good.
            let sql = "UPDATE usher_run SET due_at = $1, awaits_news = $2, state = CASE WHEN $2 = 1 AND EXISTS ( \
                         SELECT 1 FROM usher_subject s WHERE s.key = usher_run.key AND s.revision > $3) \
                       THEN 'queued' ELSE 'waiting' END \
                       WHERE flow = $4 AND event = $5 AND ended_at IS NULL RETURNING state";
            let row: Option<(String,)> = sqlx::query_as(sql)
                .bind(until.millis())
                .bind(i64::from(news_after.is_some()))
                .bind(news_after.unwrap_or_default())
                .bind(flow)
                .bind(event)
                .fetch_optional(connection)
                .await?;
            if row.is_some_and(|(state,)| state == RunState::Queued.label()) {
                return Ok(Changed::Awake);
            }
        }
        ChangeKind::End { state, effect, note, verdict } => {
            keep_effect(connection, flow, &change.event, effect.as_ref()).await?;
            // A dead run keeps its body, for it may be redriven.
            let sql = "UPDATE usher_run SET state = $1, note = $2, reason = $3, error = $4, ended_at = $5, \
                       body = CASE WHEN $1 = 'dead' THEN body END, request = NULL, claimed_at = NULL, \
                       claimed_until = NULL, due_at = NULL, awaits_news = 0, \
                       deaths = deaths + CASE WHEN $1 = 'dead' THEN 1 ELSE 0 END \
                       WHERE flow = $6 AND event = $7 AND ended_at IS NULL";
            sqlx::query(sql)
                .bind(state.label())
                .bind(*note)
                .bind(verdict.as_ref().map(|(reason, _)| reason.label()))
                .bind(verdict.as_ref().map(|(_, error)| error.as_str()))
                .bind(clock::now().millis())
                .bind(flow)
                .bind(event)
                .execute(connection)
                .await?;
        }
    }
    Ok(Changed::Written)
}

async fn keep_effect(
    connection: &mut AnyConnection,
    flow: &str,
    event: &EventId,
    effect: Option<&StepEffect>,
) -> Result<(), StoreError> {
    let Some(StepEffect { step, name, connector, effect }) = effect else { return Ok(()) };
    let sql = "INSERT INTO usher_effect (flow, event, step, step_name, connector, id, at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (flow, event, step) DO NOTHING";
    sqlx::query(sql)
        .bind(flow)
        .bind(event.as_str())
        .bind(i64::try_from(*step).unwrap_or(i64::MAX))
        .bind(name)
        .bind(connector)
        .bind(&effect.id)
        .bind(clock::now().millis())
        .execute(connection)
        .await?;
    Ok(())
}
