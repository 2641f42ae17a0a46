//! The store in SQL. The statements that only read, and those about ownership, are here; admission and changes of runs
//! have files of their own.

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use usher_proto::{EventId, Key, Partition, Timestamp};
use usher_service::clock;

use super::change;
use super::rows::{RUN_COLUMNS, runs};
use super::{Admission, Batch, Change, Changed, Ownership, Store, StoreError};
use crate::engine::Run;
use crate::sql::{Database, Tables};
use crate::subject::Subject;

/// How many waits are ended at once.
const DUE_AT_ONCE: i64 = 256;

/// The store in a database.
pub struct SqlStore {
    pub(super) database: Database,
}

impl SqlStore {
    /// Brings the tables up to date and checks that they were laid out for `partitions`.
    pub async fn open(database: Database, partitions: i32) -> Result<Self, StoreError> {
        database.migrate(Tables::Store).await?;
        let mut writing = database.write().await?;
        sqlx::query("INSERT INTO usher_meta (name, value) VALUES ('partitions', $1) ON CONFLICT (name) DO NOTHING")
            .bind(partitions.to_string())
            .execute(writing.connection())
            .await?;
        let (found,): (String,) = sqlx::query_as("SELECT value FROM usher_meta WHERE name = 'partitions'")
            .fetch_one(writing.connection())
            .await?;
        writing.commit().await?;
        if found != partitions.to_string() {
            return Err(StoreError::PartitionCount { found, wanted: partitions });
        }
        Ok(Self { database })
    }

    /// Looks into a store that somebody else has laid out.
    pub fn reader(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn acquire(&self, flow: &str, partitions: &[Partition], owner: &str) -> Result<Vec<Ownership>, StoreError> {
        let mut owned = Vec::with_capacity(partitions.len());
        let mut writing = self.database.write().await?;
        // In one order everywhere, so that two who take over at once do not wait for each other.
        let mut partitions = partitions.to_vec();
        partitions.sort_unstable();
        for partition in partitions {
            let sql = "INSERT INTO usher_ownership (flow, partition, epoch, owner, owned_at) VALUES ($1, $2, 1, $3, $4) \
                       ON CONFLICT (flow, partition) DO UPDATE SET \
                         epoch = usher_ownership.epoch + 1, owner = excluded.owner, owned_at = excluded.owned_at \
                       RETURNING epoch, frontier";
            let (epoch, frontier): (i64, Option<i64>) = sqlx::query_as(sql)
                .bind(flow)
                .bind(i64::from(partition.0))
                .bind(owner)
                .bind(clock::now().millis())
                .fetch_one(writing.connection())
                .await?;
            owned.push(Ownership { partition, epoch, frontier });
        }
        writing.commit().await?;
        Ok(owned)
    }

    async fn admit(&self, flow: &str, batch: &Batch) -> Result<Admission, StoreError> {
        super::admit::admit(&self.database, flow, batch).await
    }

    async fn change(&self, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        super::change::change(&self.database, flow, changes).await
    }

    async fn unfinished(
        &self,
        flow: &str,
        partition: Partition,
        after: Option<(i64, EventId)>,
        limit: u32,
    ) -> Result<Vec<Run>, StoreError> {
        let (position, event) = after.map_or((i64::MIN, String::new()), |(p, e)| (p, e.as_str().to_owned()));
        let sql = format!(
            "SELECT {RUN_COLUMNS} FROM usher_run \
             WHERE flow = $1 AND partition = $2 AND ended_at IS NULL AND state <> 'waiting' \
               AND (position, event) > ($3, $4) ORDER BY position, event LIMIT $5"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(flow)
            .bind(i64::from(partition.0))
            .bind(position)
            .bind(event)
            .bind(i64::from(limit))
            .fetch_all(&self.database.pool)
            .await?;
        runs(&rows)
    }

    async fn lane(&self, flow: &str, key: &Key, limit: u32) -> Result<Vec<Run>, StoreError> {
        let sql = format!(
            "SELECT {RUN_COLUMNS} FROM usher_run \
             WHERE flow = $1 AND key = $2 AND ended_at IS NULL AND state <> 'waiting' \
             ORDER BY position, event LIMIT $3"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(flow)
            .bind(key.as_str())
            .bind(i64::from(limit))
            .fetch_all(&self.database.pool)
            .await?;
        runs(&rows)
    }

    async fn due(&self, flow: &str, partitions: &[(Partition, i64)], now: Timestamp) -> Result<Vec<Run>, StoreError> {
        let mut ended = Vec::new();
        let mut writing = self.database.write().await?;
        for (partition, epoch) in partitions {
            let current = change::current_epoch(writing.connection(), self.database.dialect, flow, *partition).await?;
            if current != Some(*epoch) {
                continue;
            }
            let sql = format!(
                "UPDATE usher_run SET state = 'queued' \
                 WHERE flow = $1 AND event IN ( \
                     SELECT event FROM usher_run WHERE flow = $1 AND state = 'waiting' AND due_at <= $2 AND partition = $3 \
                     ORDER BY due_at LIMIT $4) \
                   AND state = 'waiting' \
                 RETURNING {RUN_COLUMNS}"
            );
            let rows = sqlx::query(AssertSqlSafe(sql))
                .bind(flow)
                .bind(now.millis())
                .bind(i64::from(partition.0))
                .bind(DUE_AT_ONCE)
                .fetch_all(writing.connection())
                .await?;
            ended.extend(runs(&rows)?);
        }
        writing.commit().await?;
        Ok(ended)
    }

    async fn subject(&self, key: &Key) -> Result<Option<Subject>, StoreError> {
        let row: Option<(Option<String>, Option<i64>, i64)> =
            sqlx::query_as("SELECT snapshot, deleted_at, revision FROM usher_subject WHERE key = $1")
                .bind(key.as_str())
                .fetch_optional(&self.database.pool)
                .await?;
        Ok(row.map(|(snapshot, deleted_at, revision)| Subject { snapshot, deleted: deleted_at.is_some(), revision }))
    }

    async fn keep_flow(&self, flow: &str, version: &str, source: &str) -> Result<(), StoreError> {
        let mut writing = self.database.write().await?;
        sqlx::query("INSERT INTO usher_flow (flow, version, source) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(flow)
            .bind(version)
            .bind(source)
            .execute(writing.connection())
            .await?;
        Ok(writing.commit().await?)
    }

    async fn flow(&self, flow: &str, version: &str) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = sqlx::query_as("SELECT source FROM usher_flow WHERE flow = $1 AND version = $2")
            .bind(flow)
            .bind(version)
            .fetch_optional(&self.database.pool)
            .await?;
        Ok(row.map(|(source,)| source))
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(self.database.check().await?)
    }
}
