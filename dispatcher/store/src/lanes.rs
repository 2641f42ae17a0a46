//! Lanes in the store: their heads, the runs that follow, and the runs that are due. Memory holds only some of them.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};
use usher_engine::Run;
use usher_proto::{Epoch, Partition, SubjectId, Timestamp};
use usher_sql::{Database, Dialect};

use super::change::current_epoch;
use super::rows::{RUN_COLUMNS, preceded, rank, run, runs};
use super::{Due, HeadsQuery, StoreError};

/// Largest number of waits and pauses that are ended at once in each partition.
const DUE_AT_ONCE: i64 = 256;

pub(super) async fn heads(database: &Database, flow: &str, of: &HeadsQuery) -> Result<Vec<Run>, StoreError> {
    let (position, event) = of.after.as_ref().map_or((i64::MIN, ""), |(position, event)| (*position, event.as_str()));
    let sql = format!(
        "SELECT {RUN_COLUMNS} FROM usher_run r \
         WHERE flow = $1 AND partition = $3 AND ended_at IS NULL AND state IN ('queued', 'running') \
           AND (position, event_ref) > ($4, $5) AND (destination IS NULL OR destination NOT IN ({})) AND NOT {} \
         ORDER BY position, event_ref LIMIT $6",
        database.dialect.texts(),
        preceded("r")
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(flow)
        .bind(json!(of.without).to_string())
        .bind(i64::from(of.partition.0))
        .bind(position)
        .bind(event)
        .bind(i64::try_from(of.limit).unwrap_or(i64::MAX))
        .fetch_all(&database.pool)
        .await?;
    runs(&rows)
}

pub(super) async fn lane(
    database: &Database,
    flow: &str,
    key: &SubjectId,
    limit: usize,
) -> Result<(Vec<Run>, bool), StoreError> {
    let sql = format!(
        "SELECT {RUN_COLUMNS} FROM usher_run r \
         WHERE flow = $1 AND subject = $2 AND ended_at IS NULL AND state <> 'waiting' \
         ORDER BY {}, position, event_ref LIMIT $3",
        rank("r")
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(flow)
        .bind(key.as_str())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1))
        .fetch_all(&database.pool)
        .await?;
    let is_parked =
        rows.first().map(|row| row.try_get::<String, _>("state")).transpose()?.is_some_and(|s| s == "parked");
    if is_parked {
        return Ok((Vec::new(), false));
    }
    let rest = rows.get(..limit).unwrap_or(&rows);
    Ok((runs(rest)?, rows.len() > limit))
}

pub(super) async fn due(
    database: &Database,
    flow: &str,
    partitions: &[(Partition, Epoch)],
    now: Timestamp,
) -> Result<Due, StoreError> {
    let with_due = with_due(database, flow, partitions, now).await?;
    if with_due.is_empty() {
        return Ok(Due { fenced: lost(database, flow, partitions).await?, ..Due::default() });
    }
    let mut ended = Vec::new();
    let mut fenced = Vec::new();
    let mut writing = database.write().await?;
    let connection = writing.connection();
    for (partition, epoch) in partitions.iter().filter(|(partition, _)| with_due.contains(partition)) {
        if current_epoch(connection, database.dialect, flow, *partition).await? != Some(*epoch) {
            fenced.push((*partition, *epoch));
            continue;
        }
        let sql = format!(
            "UPDATE usher_run SET state = CASE state WHEN 'parked' THEN 'running' ELSE 'queued' END \
             WHERE flow = $1 AND state IN ('waiting', 'parked') AND event_ref IN ( \
                 SELECT event_ref FROM usher_run WHERE flow = $1 AND partition = $3 AND state IN ('waiting', 'parked') \
                   AND due_at <= $2 ORDER BY due_at LIMIT $4) \
             RETURNING {RUN_COLUMNS}"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(flow)
            .bind(now.millis())
            .bind(i64::from(partition.0))
            .bind(DUE_AT_ONCE)
            .fetch_all(&mut *connection)
            .await?;
        ended.extend(rows.iter().map(run).collect::<Result<Vec<_>, _>>()?);
    }
    let behind = behind(connection, database.dialect, flow, ended.iter()).await?;
    writing.commit().await?;
    let (behind, heads): (Vec<Run>, Vec<Run>) =
        ended.into_iter().partition(|run| behind.contains(run.event.reference().as_str()));
    Ok(Due { heads, behind: behind.into_iter().map(|run| run.event.subject).collect(), fenced })
}

/// Returns the partitions that another replica owns by now. A replica with nothing to write would not notice otherwise.
async fn lost(
    database: &Database,
    flow: &str,
    partitions: &[(Partition, Epoch)],
) -> Result<Vec<(Partition, Epoch)>, StoreError> {
    let rows: Vec<(i64, i64)> = sqlx::query_as("SELECT partition, epoch FROM usher_ownership WHERE flow = $1")
        .bind(flow)
        .fetch_all(&database.pool)
        .await?;
    let is_ours = |(partition, epoch): &(Partition, Epoch)| rows.contains(&(i64::from(partition.0), epoch.0));
    Ok(partitions.iter().filter(|owned| !is_ours(owned)).copied().collect())
}

/// Returns the partitions with something due. They are queried first: mostly there are none, and a read costs less than
/// a transaction that writes nothing.
async fn with_due(
    database: &Database,
    flow: &str,
    partitions: &[(Partition, Epoch)],
    now: Timestamp,
) -> Result<BTreeSet<Partition>, StoreError> {
    let numbers: Vec<String> = partitions.iter().map(|(partition, _)| partition.0.to_string()).collect();
    let sql = format!(
        "SELECT DISTINCT partition FROM usher_run \
         WHERE flow = $1 AND partition IN ({}) AND state IN ('waiting', 'parked') AND due_at <= $2",
        numbers.join(", ")
    );
    let rows: Vec<(i64,)> =
        sqlx::query_as(AssertSqlSafe(sql)).bind(flow).bind(now.millis()).fetch_all(&database.pool).await?;
    Ok(rows.into_iter().filter_map(|(partition,)| i32::try_from(partition).ok().map(Partition)).collect())
}

/// Returns the events of those of the runs that another run of their key precedes.
pub(super) async fn behind(
    connection: &mut AnyConnection,
    dialect: Dialect,
    flow: &str,
    of: impl Iterator<Item = &Run>,
) -> Result<BTreeSet<String>, StoreError> {
    let events: Vec<String> = of.map(|run| run.event.reference().to_string()).collect();
    if events.is_empty() {
        return Ok(BTreeSet::new());
    }
    let sql = format!(
        "SELECT event_ref FROM usher_run r WHERE flow = $1 AND event_ref IN ({}) AND {}",
        dialect.texts(),
        preceded("r")
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(flow).bind(json!(events).to_string()).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}
