//! The store in SQL. Short operations are here; admission, changes, lanes and pruning have their own files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use usher_engine::arrival::{Admission, Batch, Ownership};
use usher_engine::clock::Witness;
use usher_engine::{Change, Changed, Run};
use usher_proto::suppression::SuppressionEntry;
use usher_proto::{AddressDigest, Epoch, EventRef, Offset, Partition, Subject, SubjectId, Timestamp};
use usher_quota::{QuotaLease, QuotaRequest};
use usher_service::clock;
use usher_sql::{Database, Rows, query, query_as};

use super::rows::Named;
use super::{
    Due, FirstClaims, FlowStore, HeadsQuery, LaneQuery, LaneRuns, MailRecipients, QuotaStore, RetentionStore, RunCount,
    RunStore, StoreClock, StoreError, StoredFrontier, SubjectStore, TABLES, TroubleTold,
};

/// The store in a Postgres or SQLite database.
pub struct SqlStore {
    pub(super) database: Database,
}

impl SqlStore {
    /// Migrates the tables and checks that they were laid out for `partitions`.
    ///
    /// # Errors
    ///
    /// If the database does not answer, a migration fails, or the tables were laid out for another number of
    /// partitions.
    pub async fn open(database: Database, partitions: i32) -> Result<Self, StoreError> {
        database.migrate(&TABLES).await?;
        let mut writing = database.write().await?;
        query("INSERT INTO usher_meta (name, value) VALUES ('partitions', $1) ON CONFLICT (name) DO NOTHING")
            .bind(partitions.to_string())
            .execute(writing.connection())
            .await?;
        let (found,): (String,) =
            query_as("SELECT value FROM usher_meta WHERE name = 'partitions'").fetch_one(writing.connection()).await?;
        writing.commit().await?;
        if found != partitions.to_string() {
            return Err(StoreError::PartitionCount { found, wanted: partitions });
        }
        Ok(Self { database })
    }

    /// Sets back every retention horizon that a wrong clock has moved too far.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    pub async fn mend_horizons(&self) -> Result<Vec<super::MendedHorizon>, StoreError> {
        super::prune::mend_horizons(&self.database).await
    }

    /// Returns true if a flow has ever read the log. Its topic existed then, and is not created again.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn has_read(&self) -> Result<bool, StoreError> {
        let sql = "SELECT count(*) FROM usher_ownership";
        let (owned,): (i64,) = query_as(sql).fetch_one(&self.database).await?;
        Ok(owned > 0)
    }

    /// Returns a reader of a store that another process has laid out. Migrates and checks nothing.
    pub fn reader(database: Database) -> Self {
        Self { database }
    }
}

/// Epoch, frontier, how far the news are told and by which version, and the operator's offset of a partition.
type Owner = (i64, Option<i64>, Option<i64>, Option<String>, Option<i64>);

#[async_trait]
impl RunStore for SqlStore {
    async fn acquire(&self, flow: &str, partitions: &[Partition], owner: &str) -> Result<Vec<Ownership>, StoreError> {
        let mut owned = Vec::with_capacity(partitions.len());
        let mut writing = self.database.write().await?;
        // In one order everywhere, so that two replicas that take over at once do not deadlock.
        let mut partitions = partitions.to_vec();
        partitions.sort_unstable();
        query(super::rename::hold_names(self.database.dialect, false)).execute(writing.connection()).await?;
        super::rename::refuse_former_name(writing.connection(), flow).await?;
        let sql = "SELECT CAST(m.value AS BIGINT), \
                     (SELECT count(*) FROM usher_ownership o WHERE o.flow = $1 AND o.frontier IS NOT NULL \
                        AND o.partition < CAST(m.value AS BIGINT)) \
                   FROM usher_meta m WHERE m.name = 'partitions'";
        let (laid_out, begun): (i64, i64) = query_as(sql).bind(flow).fetch_one(writing.connection()).await?;
        for partition in partitions {
            let sql = "INSERT INTO usher_ownership (flow, partition, epoch, owner, owned_at) VALUES ($1, $2, 1, $3, $4) \
                       ON CONFLICT (flow, partition) DO UPDATE SET \
                         epoch = usher_ownership.epoch + 1, owner = excluded.owner, owned_at = excluded.owned_at \
                       RETURNING epoch, frontier, told, told_version, sought";
            let (epoch, frontier, told, told_version, operator_offset): Owner = query_as(sql)
                .bind(flow)
                .bind(i64::from(partition.0))
                .bind(owner)
                .bind(clock::now().millis())
                .fetch_one(writing.connection())
                .await?;
            let late = frontier.is_none() && i64::from(partition.0) >= laid_out && begun == laid_out;
            owned.push(Ownership {
                partition,
                epoch: Epoch(epoch),
                frontier: frontier.map(Offset),
                told: told.map(Offset).zip(told_version),
                operator_offset: operator_offset.map(Offset),
                late,
            });
        }
        writing.commit().await?;
        Ok(owned)
    }

    async fn admit_claiming(
        &self,
        flow: &str,
        batches: &[Batch],
        claims: &dyn FirstClaims,
    ) -> Result<Vec<Option<Admission>>, StoreError> {
        super::admit::admit(&self.database, flow, batches, claims).await
    }

    async fn tell(&self, flow: &str, batch: &Batch) -> Result<Admission, StoreError> {
        super::admit::tell(&self.database, flow, batch).await
    }

    async fn change(&self, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        super::change::change(&self.database, flow, changes).await
    }

    async fn heads(&self, flow: &str, of: &HeadsQuery) -> Result<Vec<Run>, StoreError> {
        super::lanes::heads(&self.database, flow, of).await
    }

    async fn lanes(&self, flow: &str, of: &[LaneQuery]) -> Result<Vec<LaneRuns>, StoreError> {
        super::lanes::lanes(&self.database, flow, of).await
    }

    async fn due(&self, flow: &str, partitions: &[(Partition, Epoch)], now: Timestamp) -> Result<Due, StoreError> {
        super::lanes::due(&self.database, flow, partitions, now).await
    }

    async fn confirm_pause(
        &self,
        flow: &str,
        owner: &str,
        since: Timestamp,
        under_way: usize,
    ) -> Result<(), StoreError> {
        super::operate::confirm_pause(&self.database, flow, owner, since, under_way).await
    }
}

#[async_trait]
impl SubjectStore for SqlStore {
    async fn subjects(&self, subjects: &[SubjectId]) -> Result<HashMap<SubjectId, Subject>, StoreError> {
        let rows = Rows::of(subjects).text("of", |subject| subject.as_str());
        let query = rows.query(self.database.dialect, Vec::new(), |rows| {
            format!(
                "SELECT s.subject, s.snapshot, s.deleted_at, s.revision FROM {rows} \
                 JOIN usher_subject s ON s.subject = r.of"
            )
        });
        let answers = self.database.read(vec![query]).await?;
        let read = |row| {
            let row = Named(row);
            let deleted = row.get::<Option<i64>>("deleted_at")?.is_some();
            let subject = Subject { snapshot: row.get("snapshot")?, deleted, revision: row.get("revision")? };
            Ok((row.parsed("subject")?, subject))
        };
        let known: Result<HashMap<_, _>, StoreError> =
            answers.iter().flat_map(|answer| &answer.rows).map(read).collect();
        let mut known = known?;
        let owners = super::addresses::owners(&self.database, subjects).await?;
        known.extend(owners);
        Ok(known)
    }

    async fn is_used(&self, subject: &SubjectId, address: AddressDigest) -> Result<bool, StoreError> {
        super::addresses::is_used(&self.database, subject, address).await
    }

    async fn listed(&self, mails: &[MailRecipients]) -> Result<Vec<Vec<SuppressionEntry>>, StoreError> {
        super::suppression::listed(&self.database, mails).await
    }
}

#[async_trait]
impl FlowStore for SqlStore {
    async fn keep_flow(&self, flow: &str, version: &str, source: &str) -> Result<(), StoreError> {
        let mut writing = self.database.write().await?;
        query("INSERT INTO usher_flow (flow, version, source) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(flow)
            .bind(version)
            .bind(source)
            .execute(writing.connection())
            .await?;
        Ok(writing.commit().await?)
    }

    async fn flow(&self, flow: &str, version: &str) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = query_as("SELECT source FROM usher_flow WHERE flow = $1 AND version = $2")
            .bind(flow)
            .bind(version)
            .fetch_optional(&self.database)
            .await?;
        Ok(row.map(|(source,)| source))
    }

    async fn paused(&self, flow: &str) -> Result<Option<Timestamp>, StoreError> {
        super::operate::paused(&self.database, flow).await
    }

    async fn pauses(&self) -> Result<BTreeMap<String, Timestamp>, StoreError> {
        super::operate::pauses(&self.database).await
    }

    async fn frontiers(&self, flow: &str) -> Result<BTreeMap<Partition, Option<Offset>>, StoreError> {
        let sql = "SELECT partition, CASE WHEN told > frontier THEN told ELSE frontier END FROM usher_ownership WHERE flow = $1";
        let rows: Vec<(i64, Option<i64>)> = query_as(sql).bind(flow).fetch_all(&self.database).await?;
        let row = |(partition, frontier): (i64, Option<i64>)| {
            Some((Partition(i32::try_from(partition).ok()?), frontier.map(Offset)))
        };
        Ok(rows.into_iter().filter_map(row).collect())
    }

    async fn stored_frontiers(&self) -> Result<Vec<StoredFrontier>, StoreError> {
        super::figures::stored_frontiers(&self.database).await
    }

    async fn run_counts(&self) -> Result<Vec<RunCount>, StoreError> {
        super::figures::run_counts(&self.database).await
    }
}

#[async_trait]
impl RetentionStore for SqlStore {
    async fn prune(&self, flow: &str, keep: Duration, limit: usize) -> Result<u64, StoreError> {
        super::prune::prune(&self.database, flow, keep, limit).await
    }

    async fn flows_to_erase(&self) -> Result<BTreeSet<String>, StoreError> {
        super::prune::flows_to_erase(&self.database).await
    }

    async fn dead_letters_to_erase(&self, flow: &str, limit: usize) -> Result<Vec<EventRef>, StoreError> {
        super::prune::dead_letters_to_erase(&self.database, flow, limit).await
    }

    async fn dead_letters_erased(&self, flow: &str, runs: &[EventRef]) -> Result<(), StoreError> {
        super::prune::dead_letters_erased(&self.database, flow, runs).await
    }

    async fn drop_spent(&self, flow: &str, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        super::prune::drop_spent(&self.database, flow, now, limit).await
    }

    async fn reuse_space(&self) -> Result<(), StoreError> {
        Ok(self.database.vacuum("usher_open_run").await?)
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(self.database.checkpoint().await?)
    }
}

#[async_trait]
impl QuotaStore for SqlStore {
    async fn grant(
        &self,
        member: &str,
        lease: Duration,
        quota_requests: &[QuotaRequest],
    ) -> Result<Vec<QuotaLease>, StoreError> {
        super::quota::grant(&self.database, member, lease, quota_requests).await
    }

    async fn tell_trouble(
        &self,
        account: &str,
        member: &str,
        trouble: Option<TroubleTold>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        super::trouble::tell(&self.database, account, member, trouble, now).await
    }

    async fn leave(&self, member: &str) -> Result<(), StoreError> {
        super::trouble::leave(&self.database, member).await?;
        super::operate::disown(&self.database, member).await?;
        super::quota::leave(&self.database, member).await
    }
}

#[async_trait]
impl StoreClock for SqlStore {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.database.now().await?)
    }

    async fn witness(&self, now: Timestamp, right: bool) -> Result<Witness, StoreError> {
        super::time::witness(&self.database, now, right).await
    }
}
