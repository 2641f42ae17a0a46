//! The memory of what was done: how much of it there is, and forgetting what is old.

use sqlx::AnyConnection;
use usher_proto::Timestamp;

use usher_service::clock;

use super::StoreError;
use crate::engine::RunState;
use crate::sql::Database;

/// Before this time everything may be forgotten.
pub(super) async fn horizon(connection: &mut AnyConnection, flow: &str) -> Result<Timestamp, StoreError> {
    let sql = "SELECT older_than FROM usher_pruned WHERE flow = $1";
    let row: Option<(i64,)> = sqlx::query_as(sql).bind(flow).fetch_optional(connection).await?;
    Ok(Timestamp::from_millis(row.map_or(0, |(millis,)| millis)))
}

/// The horizon is written first and in the same transaction, so that nothing is forgotten that is then taken for new.
pub(super) async fn prune(
    database: &Database,
    flow: &str,
    older_than: Timestamp,
    limit: usize,
) -> Result<u64, StoreError> {
    let old =
        "SELECT event FROM usher_run WHERE flow = $1 AND ended_at < $2 AND occurred_at < $2 ORDER BY event LIMIT $3";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let bind =
        |sql: String| sqlx::query(sqlx::AssertSqlSafe(sql)).bind(flow.to_owned()).bind(older_than.millis()).bind(limit);
    let mut writing = database.write().await?;
    let connection = writing.connection();
    sqlx::query(
        "INSERT INTO usher_pruned (flow, older_than) VALUES ($1, $2) ON CONFLICT (flow) DO UPDATE SET \
         older_than = excluded.older_than WHERE usher_pruned.older_than < excluded.older_than",
    )
    .bind(flow)
    .bind(older_than.millis())
    .execute(&mut *connection)
    .await?;
    // A dead run is kept to be redriven. Past its life it would only die again, and what it carries may be a one-time code.
    let spent = "SELECT event FROM usher_run WHERE flow = $1 AND state = 'dead' AND body IS NOT NULL AND expires_at <= $2 \
                 ORDER BY expires_at LIMIT $3";
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE usher_run SET body = NULL, before_event = NULL, request = NULL WHERE flow = $1 AND event IN ({spent})"
    )))
    .bind(flow)
    .bind(clock::now().millis())
    .bind(limit)
    .execute(&mut *connection)
    .await?;
    for table in ["usher_effect", "usher_action"] {
        bind(format!("DELETE FROM {table} WHERE flow = $1 AND event IN ({old})")).execute(&mut *connection).await?;
    }
    let pruned =
        bind(format!("DELETE FROM usher_run WHERE flow = $1 AND event IN ({old})")).execute(connection).await?;
    writing.commit().await?;
    Ok(pruned.rows_affected())
}

pub(super) async fn counts(database: &Database, flow: &str) -> Result<Vec<(RunState, i64)>, StoreError> {
    let sql = "SELECT state, count(*) FROM usher_run WHERE flow = $1 AND ended_at IS NULL GROUP BY state \
               UNION ALL SELECT 'dead', count(*) FROM usher_run WHERE flow = $1 AND state = 'dead'";
    let rows: Vec<(String, i64)> = sqlx::query_as(sql).bind(flow).fetch_all(&database.pool).await?;
    let state = |(state, count): (String, i64)| Ok((state.parse::<RunState>()?, count));
    rows.into_iter()
        .map(state)
        .collect::<Result<_, crate::engine::run::UnknownState>>()
        .map_err(|_| StoreError::Unreadable("state".into()))
}
