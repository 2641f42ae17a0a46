//! Changes of runs, in order, many in one transaction.

use std::collections::BTreeMap;

use sqlx::any::AnyArguments;
use sqlx::{AnyConnection, AssertSqlSafe};
use usher_engine::isolate::storable;
use usher_engine::{AttemptState, Change, ChangeKind, Changed, RunState, StepEffect};
use usher_proto::{Epoch, EventRef, Partition, Timestamp};
use usher_service::clock;
use usher_sql::{Database, Dialect};

use super::StoreError;
use super::transitions::{self, AWAITS_NOTHING, UNCLAIMED};

pub(super) async fn change(database: &Database, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
    let mut writing = database.write().await?;
    let connection = writing.connection();
    // In one order everywhere, because the rows are locked.
    let mut epochs: BTreeMap<Partition, Option<Epoch>> =
        changes.iter().map(|change| (change.partition, None)).collect();
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
) -> Result<Option<Epoch>, StoreError> {
    let sql = format!("SELECT epoch FROM usher_ownership WHERE flow = $1 AND partition = $2{}", dialect.for_share());
    let row: Option<(i64,)> =
        sqlx::query_as(AssertSqlSafe(sql)).bind(flow).bind(i64::from(partition.0)).fetch_optional(connection).await?;
    Ok(row.map(|(epoch,)| Epoch(epoch)))
}

async fn write(connection: &mut AnyConnection, flow: &str, change: &Change) -> Result<Changed, StoreError> {
    let event = change.event.as_str();
    // A run whose end was requested by an operator or an event does not continue.
    let goes_on = "ended_at IS NULL AND cancel_asked = 0";
    let written = match &change.kind {
        ChangeKind::Claim { tries, request } => {
            let sql = format!(
                "UPDATE usher_run SET state = 'running', claimed_at = $1, changed_at = $1, claimed_until = $2, request = $3, {TRIES} \
                 WHERE flow = $10 AND event_ref = $11 AND {goes_on}"
            );
            let query = sqlx::query(AssertSqlSafe(sql))
                .bind(clock::now().millis())
                .bind(tries.claimed_until.map(Timestamp::millis))
                .bind(request.as_slice());
            with_tries(query, tries)
                .bind(flow)
                .bind(event)
                .bind(tries.failed_at.map(Timestamp::millis))
                .execute(&mut *connection)
                .await?
                .rows_affected()
        }
        ChangeKind::Advance { to, destination, effect, results } => {
            keep_effect(connection, flow, &change.event, effect.as_ref()).await?;
            let sql = format!(
                "UPDATE usher_run SET state = 'running', step = $1, destination = $2, results = $3, {} \
                 WHERE flow = $4 AND event_ref = $5 AND {goes_on}",
                transitions::fresh_step()
            );
            sqlx::query(AssertSqlSafe(sql))
                .bind(i64::try_from(*to).unwrap_or(i64::MAX))
                .bind(destination.as_deref())
                // A map of numbers to JSON values is always JSON.
                .bind(serde_json::to_string(results).unwrap_or_default())
                .bind(flow)
                .bind(event)
                .execute(&mut *connection)
                .await?
                .rows_affected()
        }
        ChangeKind::Wait { until, news_after } => {
            // News that were applied after the run was found to lack them would otherwise be missed for good.
            let sql = format!(
                "UPDATE usher_run SET due_at = $1, changed_at = $6, awaits_news = $2, claimed_at = NULL, state = CASE WHEN $2 = 1 AND EXISTS ( \
                   SELECT 1 FROM usher_subject s WHERE s.subject = usher_run.subject AND s.revision > $3) \
                   THEN 'running' ELSE 'waiting' END \
                 WHERE flow = $4 AND event_ref = $5 AND {goes_on} RETURNING state"
            );
            let row: Option<(String,)> = sqlx::query_as(AssertSqlSafe(sql))
                .bind(until.millis())
                .bind(i64::from(news_after.is_some()))
                .bind(news_after.unwrap_or_default())
                .bind(flow)
                .bind(event)
                .bind(clock::now().millis())
                .fetch_optional(&mut *connection)
                .await?;
            if row.as_ref().is_some_and(|(state,)| state == RunState::Running.label()) {
                return Ok(Changed::Awake);
            }
            u64::from(row.is_some())
        }
        ChangeKind::Park { until, tries, request } => {
            let sql = format!(
                "UPDATE usher_run SET state = 'parked', due_at = $1, request = $2, claimed_until = $3, claimed_at = NULL, \
                   changed_at = $13, {TRIES} WHERE flow = $10 AND event_ref = $11 AND {goes_on}"
            );
            let query = sqlx::query(AssertSqlSafe(sql))
                .bind(until.millis())
                .bind(request.as_deref())
                .bind(tries.claimed_until.map(Timestamp::millis));
            with_tries(query, tries)
                .bind(flow)
                .bind(event)
                .bind(tries.failed_at.map(Timestamp::millis))
                .bind(clock::now().millis())
                .execute(&mut *connection)
                .await?
                .rows_affected()
        }
        ChangeKind::End { state, effect, note, verdict, in_doubt } => {
            keep_effect(connection, flow, &change.event, effect.as_ref()).await?;
            // A dead run keeps its body, because it may be redriven. An expired run would only expire again, so its
            // content, such as a one-time code, is deleted.
            let keeps = "$1 = 'dead' AND COALESCE($3, '') <> 'expired'";
            let sql = format!(
                "UPDATE usher_run SET state = $1, note = $2, reason = $3, error = $4, ended_at = $5, \
                       body = CASE WHEN {keeps} THEN body END, \
                       before_event = CASE WHEN {keeps} THEN before_event END, \
                       request = CASE WHEN $6 = 1 AND COALESCE($3, '') <> 'expired' THEN request END, \
                       {UNCLAIMED}, {AWAITS_NOTHING}, \
                       deaths = deaths + CASE WHEN $1 = 'dead' THEN 1 ELSE 0 END, \
                       letter = CASE WHEN $1 = 'dead' THEN 1 ELSE letter END \
                       WHERE flow = $7 AND event_ref = $8 AND ended_at IS NULL"
            );
            sqlx::query(AssertSqlSafe(sql))
                .bind(state.label())
                .bind(*note)
                .bind(verdict.as_ref().map(|(reason, _)| reason.label()))
                .bind(verdict.as_ref().map(|(_, error)| storable(error)))
                .bind(clock::now().millis())
                .bind(i64::from(*in_doubt))
                .bind(flow)
                .bind(event)
                .execute(&mut *connection)
                .await?;
            return Ok(Changed::Written);
        }
    };
    if written > 0 {
        return Ok(Changed::Written);
    }
    cancel_as_asked(connection, flow, event).await?;
    Ok(Changed::Ended)
}

/// The columns of [`AttemptState`], as parameters `$4` to `$9` and `$12`.
const TRIES: &str = "attempts = $4, spent = $5, unanswered = $6, generation = $7, tried_since = $8, asked_at = $9, \
                     failed_at = $12";

type AnyQuery<'q> = sqlx::query::Query<'q, sqlx::Any, AnyArguments>;

fn with_tries<'q>(query: AnyQuery<'q>, tries: &AttemptState) -> AnyQuery<'q> {
    let time = |time: Option<Timestamp>| time.map(Timestamp::millis);
    query
        .bind(i64::from(tries.attempts))
        .bind(i64::from(tries.counted))
        .bind(i64::from(tries.unanswered))
        .bind(i64::from(tries.generation))
        .bind(time(tries.first_at))
        .bind(time(tries.first_sent_at))
}

/// Ends a run whose end was requested while an attempt was in flight, now that the attempt is over.
async fn cancel_as_asked(connection: &mut AnyConnection, flow: &str, event: &str) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE usher_run SET {} WHERE flow = $2 AND event_ref = $3 AND ended_at IS NULL AND cancel_asked = 1",
        transitions::cancelled()
    );
    sqlx::query(AssertSqlSafe(sql)).bind(clock::now().millis()).bind(flow).bind(event).execute(connection).await?;
    Ok(())
}

async fn keep_effect(
    connection: &mut AnyConnection,
    flow: &str,
    event: &EventRef,
    effect: Option<&StepEffect>,
) -> Result<(), StoreError> {
    let Some(StepEffect { step, name, connector, effect }) = effect else { return Ok(()) };
    let sql = "INSERT INTO usher_effect (flow, event_ref, step, step_name, connector, id, at, pass) \
               SELECT flow, event_ref, $3, $4, $5, $6, $7, pass FROM usher_run WHERE flow = $1 AND event_ref = $2 \
               ON CONFLICT (flow, event_ref, pass, step) DO NOTHING";
    sqlx::query(sql)
        .bind(flow)
        .bind(event.as_str())
        .bind(i64::try_from(*step).unwrap_or(i64::MAX))
        .bind(name)
        .bind(connector)
        // The destination chooses this id. It was made storable with the outcome, because an effect must be recorded
        // however its id is spelt.
        .bind(&effect.id)
        .bind(clock::now().millis())
        .execute(connection)
        .await?;
    Ok(())
}
