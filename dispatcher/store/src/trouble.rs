//! Destinations in trouble, as the processes that hold back from them tell it, for operators.

use std::time::Duration;

use serde::Serialize;
use usher_proto::Timestamp;
use usher_sql::{Database, query, query_as};

use super::{SqlStore, StoreError};

/// Time after which a row that was not written again is of a process that no longer runs. Processes write once a minute.
const CURRENT: Duration = Duration::from_secs(150);

/// A destination that does not serve, as one process has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TroubleTold {
    /// The time at which its breaker opened.
    pub since: Timestamp,
    /// The time of the next call that tries it; `None` while calls are let through one by one.
    pub next_probe: Option<Timestamp>,
}

/// A destination in trouble, as shown to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TroubleRecord {
    /// The account.
    pub account: String,
    /// The earliest time at which a process that still tells of it began to hold back.
    pub since: Timestamp,
    /// The latest time at which a process tries it next; `None` if none holds back any more, and calls are let through one by one.
    pub next_probe: Option<Timestamp>,
    /// Number of processes that hold back.
    pub processes: i64,
}

pub(super) async fn tell(
    database: &Database,
    account: &str,
    member: &str,
    trouble: Option<TroubleTold>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut writing = database.write().await?;
    let statement = match trouble {
        None => query("DELETE FROM usher_trouble WHERE account = $1 AND member = $2").bind(account).bind(member),
        Some(TroubleTold { since, next_probe }) => query(
            "INSERT INTO usher_trouble (account, member, since, next_probe, told_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (account, member) DO UPDATE SET since = excluded.since, next_probe = excluded.next_probe, \
               told_at = excluded.told_at",
        )
        .bind(account)
        .bind(member)
        .bind(since.millis())
        .bind(next_probe.map(Timestamp::millis))
        .bind(now.millis()),
    };
    statement.execute(writing.connection()).await?;
    // Rows of processes that were killed.
    let over = query("DELETE FROM usher_trouble WHERE told_at < $1").bind(now.minus(CURRENT).millis());
    over.execute(writing.connection()).await?;
    Ok(writing.commit().await?)
}

pub(super) async fn leave(database: &Database, member: &str) -> Result<(), StoreError> {
    let mut writing = database.write().await?;
    query("DELETE FROM usher_trouble WHERE member = $1").bind(member).execute(writing.connection()).await?;
    Ok(writing.commit().await?)
}

impl SqlStore {
    /// Returns the destinations that some process holds back from, by account.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn troubles(&self, now: Timestamp) -> Result<Vec<TroubleRecord>, StoreError> {
        let sql = "SELECT account, min(since), max(next_probe), count(*) FROM usher_trouble WHERE told_at >= $1 \
                   GROUP BY account ORDER BY account";
        let rows: Vec<(String, i64, Option<i64>, i64)> =
            query_as(sql).bind(now.minus(CURRENT).millis()).fetch_all(&self.database).await?;
        let record = |(account, since, next_probe, processes): (String, i64, Option<i64>, i64)| TroubleRecord {
            account,
            since: Timestamp::from_millis(since),
            next_probe: next_probe.map(Timestamp::from_millis),
            processes,
        };
        Ok(rows.into_iter().map(record).collect())
    }
}
