//! Times by which a process's clock is judged: the store's own clock, its last use, and the newest webhook. Also
//! corrects what a clock that was ahead has written.

use std::time::Duration;

use usher_engine::clock::Witness;
use usher_proto::Timestamp;
use usher_sql::{Connection, Database, Dialect, query, query_as};

use super::StoreError;

/// Tolerance: a time further ahead than this was written by a wrong clock.
const AHEAD: Duration = Duration::from_secs(60);
/// Interval at which the use of the store is recorded. It is long, because each record is a synced write.
const WRITTEN_EVERY: Duration = Duration::from_secs(60);

/// Time of the last use of the store by a clock that was right.
const USED: &str = "used_at";
/// Latest time at which anything may have been written, by any clock.
const WRITTEN: &str = "written_until";

pub(super) async fn witness(database: &Database, now: Timestamp, right: bool) -> Result<Witness, StoreError> {
    let sql = format!("SELECT (SELECT max(newest_at) FROM usher_ownership), ({})", database.dialect.now());
    let (newest, own): (Option<i64>, i64) = query_as(sql).fetch_one(database).await?;
    let newest = newest.filter(|millis| *millis > 0).map(Timestamp::from_millis);
    if database.dialect == Dialect::Postgres {
        return Ok(Witness { own: Some(Timestamp::from_millis(own)), last_used: None, newest });
    }
    let last_used = known(database, USED).await?;
    let written = known(database, WRITTEN).await?;
    let is_due = |known: Option<Timestamp>| known.is_none_or(|known| now.since(known) >= WRITTEN_EVERY);
    // If the clock is behind the newest webhook, the clock is the wrong one of the two; then it corrects nothing.
    let is_behind = newest.is_some_and(|newest| newest.since(now) > AHEAD);
    let was_ahead = !is_behind && written.is_some_and(|written| written.since(now) > AHEAD);
    if was_ahead || is_due(written) || (right && is_due(last_used)) {
        let mut writing = database.write().await?;
        if was_ahead {
            set_back(writing.connection(), now).await?;
        }
        if was_ahead || is_due(written) {
            keep(writing.connection(), WRITTEN, now).await?;
        }
        if right {
            keep(writing.connection(), USED, now).await?;
        }
        writing.commit().await?;
    }
    Ok(Witness { own: None, last_used, newest })
}

async fn known(database: &Database, name: &str) -> Result<Option<Timestamp>, StoreError> {
    let row: Option<(String,)> =
        query_as("SELECT value FROM usher_meta WHERE name = $1").bind(name).fetch_optional(database).await?;
    Ok(row.and_then(|(text,)| text.parse().ok()).map(Timestamp::from_millis))
}

async fn keep(connection: &mut Connection, name: &str, at: Timestamp) -> Result<(), StoreError> {
    let sql = "INSERT INTO usher_meta (name, value) VALUES ($1, $2) \
               ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    query(sql).bind(name).bind(at.millis().to_string()).execute(connection).await?;
    Ok(())
}

/// Shifts the waits, pauses and claims that were written later than now, so that they keep their length from now on.
async fn set_back(connection: &mut Connection, now: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE usher_open_run SET due_at = due_at - (changed_at - $1), wakes_at = wakes_at - (changed_at - $1), \
                 claimed_until = claimed_until - (changed_at - $1), changed_at = $1 \
               WHERE changed_at > $2";
    let mended = query(sql).bind(now.millis()).bind(now.plus(AHEAD).millis()).execute(connection).await?;
    tracing::warn!(runs = mended, "clock was ahead at the last use of the store; waits corrected");
    Ok(())
}
