//! The progress of scheduled flows, and the users among whom a firing selects.

use async_trait::async_trait;
use usher_engine::firing::{Firing, ScheduleProgress};
use usher_proto::{Epoch, Partition, SubjectId, Timestamp};
use usher_sql::{Dialect, Row, query, query_as};

use super::rows::Named;
use super::{SqlStore, StoreError};

/// A living user, as the store knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivingUser {
    /// The user's identity.
    pub subject: SubjectId,
    /// The newest snapshot, as JSON.
    pub snapshot: String,
}

/// The next time of a scheduled flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextFiring {
    /// The flow.
    pub flow: String,
    /// The time; `None` if the schedule has no further one.
    pub at: Option<Timestamp>,
    /// The time of the firing that is under way; `None` if none is.
    pub under_way: Option<Timestamp>,
}

/// Progress of schedules. Called by the owner of a flow's first partition, at the times at which the flow fires.
#[async_trait]
pub trait ScheduleStore: Send + Sync {
    /// Returns the progress of a flow's schedule; `None` if the flow is new.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or the row cannot be read.
    async fn schedule_progress(&self, flow: &str) -> Result<Option<ScheduleProgress>, StoreError>;

    /// Writes the progress of a flow's schedule, and its next time for operators. Returns false, and changes nothing, if the
    /// flow's partition `owned.0` has another epoch than `owned.1`.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    async fn keep_schedule(
        &self,
        flow: &str,
        owned: (Partition, Epoch),
        progress: &ScheduleProgress,
        next: Option<Timestamp>,
    ) -> Result<bool, StoreError>;

    /// Returns the next living users after this one, of every instance, in the order of their identities; from the first one
    /// with `None`. Fewer than `limit` means that no other follows.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    async fn living_users(&self, after: Option<&SubjectId>, limit: usize) -> Result<Vec<LivingUser>, StoreError>;
}

#[async_trait]
impl ScheduleStore for SqlStore {
    async fn schedule_progress(&self, flow: &str) -> Result<Option<ScheduleProgress>, StoreError> {
        let sql = "SELECT plan, settled, firing, cursor FROM usher_schedule WHERE flow = $1";
        let row = query(sql).bind(flow).fetch_optional(&self.database).await?;
        row.as_ref().map(progress).transpose()
    }

    async fn keep_schedule(
        &self,
        flow: &str,
        (partition, epoch): (Partition, Epoch),
        progress: &ScheduleProgress,
        next: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let ScheduleProgress { plan, settled, under_way } = progress;
        let mut writing = self.database.write().await?;
        // The row is locked, so that nobody takes the partition over between this check and the write.
        let lock = match self.database.dialect {
            Dialect::Postgres => " FOR SHARE",
            Dialect::Sqlite => "",
        };
        let sql = format!("SELECT 1 FROM usher_ownership WHERE flow = $1 AND partition = $2 AND epoch = $3{lock}");
        let owned: Option<(i32,)> = query_as(sql)
            .bind(flow)
            .bind(i64::from(partition.0))
            .bind(epoch.0)
            .fetch_optional(writing.connection())
            .await?;
        if owned.is_none() {
            writing.commit().await?;
            return Ok(false);
        }
        let sql = "INSERT INTO usher_schedule (flow, plan, settled, next_at, firing, cursor) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (flow) DO UPDATE SET \
                     plan = excluded.plan, settled = excluded.settled, next_at = excluded.next_at, \
                     firing = excluded.firing, cursor = excluded.cursor";
        let cursor = under_way.as_ref().and_then(|firing| firing.after.as_ref());
        query(sql)
            .bind(flow)
            .bind(plan)
            .bind(settled.millis())
            .bind(next.map(Timestamp::millis))
            .bind(under_way.as_ref().map(|firing| firing.at.millis()))
            .bind(cursor.map(SubjectId::as_str))
            .execute(writing.connection())
            .await?;
        writing.commit().await?;
        Ok(true)
    }

    async fn living_users(&self, after: Option<&SubjectId>, limit: usize) -> Result<Vec<LivingUser>, StoreError> {
        // The primary key gives the order, and finds the place in it.
        let sql = "SELECT subject, snapshot FROM usher_subject \
                   WHERE subject > $1 AND deleted_at IS NULL AND snapshot IS NOT NULL ORDER BY subject LIMIT $2";
        let rows = query(sql)
            .bind(after.map_or("", SubjectId::as_str))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.database)
            .await?;
        let user = |row: &Row| {
            let row = Named(row);
            Ok(LivingUser { subject: row.parsed("subject")?, snapshot: row.get("snapshot")? })
        };
        rows.iter().map(user).collect()
    }
}

fn progress(row: &Row) -> Result<ScheduleProgress, StoreError> {
    let row = Named(row);
    let cursor: Option<String> = row.get("cursor")?;
    let after = cursor.map(|text| text.parse()).transpose();
    let after = after.map_err(|_| StoreError::Unreadable("cursor".into()))?;
    Ok(ScheduleProgress {
        plan: row.get("plan")?,
        settled: Timestamp::from_millis(row.get("settled")?),
        under_way: row.time("firing")?.map(|at| Firing { at, after }),
    })
}

impl SqlStore {
    /// Returns the next times of all scheduled flows that have ever been run, by name.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn next_firings(&self) -> Result<Vec<NextFiring>, StoreError> {
        let sql = "SELECT flow, next_at, firing FROM usher_schedule ORDER BY flow";
        let rows = query(sql).fetch_all(&self.database).await?;
        let next = |row: &Row| {
            let row = Named(row);
            Ok(NextFiring { flow: row.get("flow")?, at: row.time("next_at")?, under_way: row.time("firing")? })
        };
        rows.iter().map(next).collect()
    }
}
