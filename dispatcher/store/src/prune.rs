//! Retention of what was done: the deletion of old runs.
//!
//! A deletion cannot be undone, so no single clock decides it. The horizon lies `keep` before the newest webhook that
//! the flow has seen, and before the store's own clock. So a clock that is ahead, or jumps, does not move it.

use std::collections::BTreeSet;
use std::time::Duration;

use usher_proto::{EventRef, Timestamp};
use usher_sql::{Answer, Connection, Database, SqlQuery, query, query_as};

use super::StoreError;

/// Returns the statement that reads the horizon of a flow.
pub(super) fn horizon(flow: &str) -> SqlQuery {
    query("SELECT older_than FROM usher_pruned WHERE flow = $1").prepared().bind(flow)
}

/// Reads the answer to [`horizon`]: what was received before this time may be deleted.
pub(super) fn read_horizon(answer: &Answer) -> Result<Timestamp, StoreError> {
    let row = answer.rows.first().map(|row| row.get("older_than")).transpose()?;
    Ok(Timestamp::from_millis(row.unwrap_or(0)))
}

/// Deletes old runs and events, and returns their number. The horizon is written first and in the same transaction, so
/// that nothing deleted is taken for new afterwards.
pub(super) async fn prune(database: &Database, flow: &str, keep: Duration, limit: usize) -> Result<u64, StoreError> {
    let there = database.now().await?;
    let mut writing = database.write().await?;
    let connection = writing.connection();
    let Some(newest) = newest(connection, flow).await? else { return Ok(0) };
    let older_than = newest.min(there).minus(keep);
    query(
        "INSERT INTO usher_pruned (flow, older_than) VALUES ($1, $2) ON CONFLICT (flow) DO UPDATE SET \
         older_than = excluded.older_than WHERE usher_pruned.older_than < excluded.older_than",
    )
    .bind(flow)
    .bind(older_than.millis())
    .execute(&mut *connection)
    .await?;
    // `flow || ''` is the expression of the index by age, which no other statement is to use.
    // A run whose dead letter is still published stays until the dead letter is erased.
    let old = "SELECT event_ref FROM usher_ended_run WHERE flow || '' = $1 AND received_at < $2 AND letter = 0 \
               ORDER BY received_at LIMIT $3";
    query("UPDATE usher_ended_run SET letter = 2 WHERE flow || '' = $1 AND received_at < $2 AND letter = 1")
        .bind(flow)
        .bind(older_than.millis())
        .execute(&mut *connection)
        .await?;
    let old_event =
        "SELECT event_ref FROM usher_event WHERE flow || '' = $1 AND received_at < $2 ORDER BY received_at LIMIT $3";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut forgotten = 0;
    for (table, which, counts) in
        [("usher_action", old, false), ("usher_ended_run", old, true), ("usher_event", old_event, true)]
    {
        let sql = format!("DELETE FROM {table} WHERE flow = $1 AND event_ref IN ({which})");
        let query = query(sql).bind(flow).bind(older_than.millis()).bind(limit);
        let deleted = query.execute(&mut *connection).await?;
        forgotten += if counts { deleted } else { 0 };
    }
    query("DELETE FROM usher_refused WHERE at < $1").bind(older_than.millis()).execute(&mut *connection).await?;
    writing.commit().await?;
    Ok(forgotten)
}

/// Returns the flows that have runs for [`dead_letters_to_erase`].
pub(super) async fn flows_to_erase(database: &Database) -> Result<BTreeSet<String>, StoreError> {
    let sql = "SELECT DISTINCT flow FROM usher_ended_run WHERE letter = 2";
    let rows: Vec<(String,)> = query_as(sql).fetch_all(database).await?;
    Ok(rows.into_iter().map(|(flow,)| flow).collect())
}

/// Returns runs whose dead letters are no longer to be published: the runs were redriven, or are about to be deleted. A
/// run that may still become dead again is left out, because the tombstone would come after its next dead letter.
pub(super) async fn dead_letters_to_erase(
    database: &Database,
    flow: &str,
    limit: usize,
) -> Result<Vec<EventRef>, StoreError> {
    let sql = "SELECT event_ref FROM usher_ended_run WHERE flow = $1 AND letter = 2 \
               ORDER BY event_ref LIMIT $2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows: Vec<(String,)> = query_as(sql).bind(flow).bind(limit).fetch_all(database).await?;
    let read = |(event,): (String,)| event.parse().map_err(|_| StoreError::Unreadable("event_ref".into()));
    rows.into_iter().map(read).collect()
}

/// Records that the dead letters of these runs are erased.
pub(super) async fn dead_letters_erased(database: &Database, flow: &str, runs: &[EventRef]) -> Result<(), StoreError> {
    let texts: Vec<&str> = runs.iter().map(EventRef::as_str).collect();
    let sql = format!(
        "UPDATE usher_ended_run SET letter = 0 WHERE flow = $1 AND letter = 2 AND event_ref IN ({})",
        database.dialect.texts()
    );
    let mut writing = database.write().await?;
    query(sql).bind(flow).bind(serde_json::json!(texts).to_string()).execute(writing.connection()).await?;
    Ok(writing.commit().await?)
}

/// Returns the receive time of the newest webhook that the flow has seen; `None` before the first.
async fn newest(connection: &mut Connection, flow: &str) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT max(newest_at) FROM usher_ownership WHERE flow = $1";
    let (newest,): (Option<i64>,) = query_as(sql).bind(flow).fetch_one(connection).await?;
    Ok(newest.filter(|millis| *millis > 0).map(Timestamp::from_millis))
}

/// Deletes the content of dead runs that have expired. Redriven, they would only become dead again, and the content may
/// be a one-time code.
pub(super) async fn drop_spent(
    database: &Database,
    flow: &str,
    now: Timestamp,
    limit: usize,
) -> Result<u64, StoreError> {
    let spent = "SELECT event_ref FROM usher_ended_run WHERE flow = $1 AND state = 'dead' AND body IS NOT NULL \
                   AND expires_at <= $2 ORDER BY expires_at LIMIT $3";
    let mut writing = database.write().await?;
    let dropped = query(format!(
        "UPDATE usher_ended_run SET body = NULL, before_event = NULL, request = NULL, answers = NULL, sent = NULL WHERE flow = $1 AND event_ref IN ({spent})"
    ))
    .bind(flow)
    .bind(now.millis())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .execute(writing.connection())
    .await?;
    writing.commit().await?;
    Ok(dropped)
}

/// A horizon that was set back, or that could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MendedHorizon {
    /// Name of the flow.
    pub flow: String,
    /// The horizon before.
    pub was: Timestamp,
    /// The horizon now. `None` if it was left unchanged, because the flow has seen no webhook that would show its right
    /// place.
    pub is: Option<Timestamp>,
}

/// Sets back every horizon that lies after the newest webhook that its flow has seen: an earlier version took the clock
/// of its process for the time of that webhook. Events received until then may have been deleted and are still not
/// taken for new; later ones are.
pub(super) async fn mend_horizons(database: &Database) -> Result<Vec<MendedHorizon>, StoreError> {
    let mut writing = database.write().await?;
    let connection = writing.connection();
    let flows: Vec<(String, i64)> =
        query_as("SELECT flow, older_than FROM usher_pruned ORDER BY flow").fetch_all(&mut *connection).await?;
    let mut moved = Vec::new();
    for (flow, was) in flows {
        let was = Timestamp::from_millis(was);
        let Some(is) = newest(connection, &flow).await? else {
            moved.push(MendedHorizon { flow, was, is: None });
            continue;
        };
        if was > is {
            query("UPDATE usher_pruned SET older_than = $1 WHERE flow = $2")
                .bind(is.millis())
                .bind(&flow)
                .execute(&mut *connection)
                .await?;
            moved.push(MendedHorizon { flow, was, is: Some(is) });
        }
    }
    writing.commit().await?;
    Ok(moved)
}
