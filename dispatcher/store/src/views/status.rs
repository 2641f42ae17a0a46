//! The state of all flows and accounts at once, as the store has it.

use serde::Serialize;
use usher_proto::{Offset, Timestamp};
use usher_sql::query_as;

use super::{BoundedCount, SCAN, bound};
use crate::{SqlStore, StoreError};

/// The position of a flow in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowPosition {
    /// Name of the flow.
    #[serde(skip)]
    pub flow: String,
    /// The partition.
    pub partition: i32,
    /// The offset below which every event is accounted for; `None` before the first.
    pub frontier: Option<Offset>,
    /// True if a process owns it, as far as the store knows. A process that was killed is still counted.
    pub owned: bool,
}

/// The calls of an account that were handed out to processes, of those that its quota has in a month, a day or an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuotaUse {
    /// The account.
    pub account: String,
    /// The span of time: a month, a day or an hour.
    pub span: String,
    /// Calls handed out in the present span.
    pub used: i64,
    /// The end of the present span.
    pub ends_at: Timestamp,
}

/// An account whose calls processes share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountShares {
    /// The account.
    pub account: String,
    /// Number of processes that use it.
    pub processes: i64,
    /// Number of them that want calls now.
    pub wanting: i64,
}

impl SqlStore {
    /// Returns the positions of all flows, by flow and partition.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn positions(&self) -> Result<Vec<FlowPosition>, StoreError> {
        let sql = "SELECT flow, partition, frontier, owner FROM usher_ownership ORDER BY flow, partition";
        let rows: Vec<(String, i64, Option<i64>, String)> = query_as(sql).fetch_all(&self.database).await?;
        let position = |(flow, partition, frontier, owner): (String, i64, Option<i64>, String)| {
            let partition =
                i32::try_from(partition).map_err(|_| StoreError::Unreadable("usher_ownership.partition".into()))?;
            let owned = !owner.is_empty();
            Ok(FlowPosition { flow, partition, frontier: frontier.map(Offset), owned })
        };
        rows.into_iter().map(position).collect()
    }

    /// Returns the number of dead letters of each flow that has some, among the newest [`SCAN`] of all flows.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn dead_counts(&self) -> Result<Vec<(String, BoundedCount)>, StoreError> {
        let sql = "SELECT q.flow, COUNT(*) FROM (SELECT flow FROM usher_ended_run WHERE state = 'dead' \
                     ORDER BY ended_at DESC LIMIT $1) q GROUP BY q.flow ORDER BY q.flow";
        let rows: Vec<(String, i64)> = query_as(sql).bind(bound(SCAN + 1)).fetch_all(&self.database).await?;
        let more = rows.iter().map(|(_, count)| count).sum::<i64>() > bound(SCAN);
        let count =
            |(flow, count): (String, i64)| (flow, BoundedCount { count: u64::try_from(count).unwrap_or(0), more });
        Ok(rows.into_iter().map(count).collect())
    }

    /// Returns the use of all quotas with a month, a day or an hour that has not ended, by account and span.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn quota_uses(&self, now: Timestamp) -> Result<Vec<QuotaUse>, StoreError> {
        let sql = "SELECT account, span, used, ends_at FROM usher_quota_used WHERE ends_at > $1 ORDER BY account, span";
        let rows: Vec<(String, String, i64, i64)> = query_as(sql).bind(now.millis()).fetch_all(&self.database).await?;
        let record =
            |(account, span, used, ends_at)| QuotaUse { account, span, used, ends_at: Timestamp::from_millis(ends_at) };
        Ok(rows.into_iter().map(record).collect())
    }

    /// Returns the accounts whose calls are shared by quota, with the processes that use them.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn account_shares(&self, now: Timestamp) -> Result<Vec<AccountShares>, StoreError> {
        let sql = "SELECT account, COUNT(*), COUNT(CASE WHEN wants > 0 THEN 1 END) FROM usher_quota_member \
                   WHERE expires_at > $1 GROUP BY account ORDER BY account";
        let rows: Vec<(String, i64, i64)> = query_as(sql).bind(now.millis()).fetch_all(&self.database).await?;
        let record = |(account, processes, wanting)| AccountShares { account, processes, wanting };
        Ok(rows.into_iter().map(record).collect())
    }
}
