//! The store: runs and what they did, ownership of partitions, and the subjects behind keys.
//!
//! One trait, one implementation in SQL for Postgres and SQLite, and one test suite for both. Every write for a
//! partition is conditional on its epoch, a fencing token. So a former owner that wakes up late changes nothing.

mod addresses;
mod admit;
mod change;
mod command;
mod inspect;
mod known;
mod lanes;
mod operate;
mod prune;
mod quota;
mod refused;
mod remember;
mod rows;
mod seek;
mod sql_store;
mod suppression;
mod time;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
pub use inspect::{EffectRecord, RunFilter, RunRecord};
pub use operate::{ActionRecord, ReplicaPause};
pub use prune::MendedHorizon;
pub use refused::RefusedRow;
pub use sql_store::SqlStore;
pub use suppression::SuppressionRecord;
use usher_engine::arrival::{Admission, Batch, Ownership};
use usher_engine::clock::Witness;
use usher_engine::{Change, Changed, Run, RunState};
use usher_proto::Subject;
use usher_proto::suppression::SuppressionEntry;
use usher_proto::{AddressDigest, EventRef, Partition, SubjectId, Timestamp};
use usher_quota::{QuotaLease, QuotaRequest};
use usher_service::ConfigError;
use usher_sql::Tables;
use usher_sql::fault::{self, DatabaseFault};

/// The tables of the store.
pub const TABLES: Tables = Tables {
    postgres: || sqlx::migrate!("migrations/postgres"),
    sqlite: || sqlx::migrate!("migrations/sqlite"),
    history: "usher_store_migrations",
};

/// Failure of a request to the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another replica owns the partition now; nothing was written.
    #[error("partition {0} belongs to somebody else now")]
    Fenced(Partition),
    /// The store was laid out for another number of partitions.
    #[error(
        "the store was laid out for {found} partitions but USHER_PARTITIONS says {wanted}: changing the number moves \
         users to other partitions and breaks their order; set USHER_PARTITIONS={found}"
    )]
    PartitionCount {
        /// Number of partitions that the store holds.
        found: String,
        /// Configured number of partitions.
        wanted: i32,
    },
    /// The database does not answer, or refuses the statement.
    #[error("{}", fault::describe(.0))]
    Database(sqlx::Error),
    /// The file is damaged, or is not a database.
    #[error("{0}")]
    Damaged(#[source] ConfigError),
    /// The tables cannot be created or migrated to this version.
    #[error("{}", fault::describe_migration(.0))]
    Migration(sqlx::migrate::MigrateError),
    /// A row cannot be read.
    #[error("the store holds what cannot be read: {0}")]
    Unreadable(String),
}

impl StoreError {
    /// Returns the kind of the failure.
    pub fn fault(&self) -> DatabaseFault {
        match self {
            // A lost partition is not given back, and an unreadable row stays unreadable. Both are retried all the
            // same, because a person may fix them.
            Self::Fenced(_) | Self::Unreadable(_) => DatabaseFault::Passing,
            Self::PartitionCount { .. } => DatabaseFault::Setting,
            Self::Damaged(_) => DatabaseFault::Damaged,
            Self::Database(error) => DatabaseFault::of(error),
            Self::Migration(error) => DatabaseFault::of_migration(error),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match DatabaseFault::of(&error) {
            DatabaseFault::Damaged => {
                Self::Damaged(ConfigError::new("USHER_STORE", fault::damaged(&fault::describe(&error))))
            }
            DatabaseFault::Passing | DatabaseFault::Refused | DatabaseFault::Setting | DatabaseFault::Unclear => {
                Self::Database(error)
            }
        }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migration(error)
    }
}

/// Query for the heads of lanes.
#[derive(Debug, Clone)]
pub struct HeadsOf {
    /// The partition to search.
    pub partition: Partition,
    /// Position and event after which the search starts; `None` for the beginning.
    pub after: Option<(i64, EventRef)>,
    /// Destinations whose runs are left out.
    pub without: Vec<String>,
    /// Largest number of heads to return.
    pub limit: usize,
}

/// Runs whose wait or pause is over.
#[derive(Debug, Default)]
pub struct Due {
    /// Runs that no other run of their key precedes.
    pub heads: Vec<Run>,
    /// Keys of the other runs.
    pub behind: Vec<SubjectId>,
    /// Partitions, with the caller's epochs, that were found to belong to another replica.
    pub fenced: Vec<(Partition, i64)>,
}

/// The store, as the dispatcher uses it.
#[async_trait]
pub trait Store: Send + Sync {
    /// Takes over partitions of a flow. From now on only writes with the new epochs are accepted.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    async fn acquire(&self, flow: &str, partitions: &[Partition], owner: &str) -> Result<Vec<Ownership>, StoreError>;

    /// Admits a batch, all of it or nothing: runs, subjects, suppression changes, wake-ups, cancellations and the
    /// frontier.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`] if another replica owns the partition. Otherwise if the database does not answer, refuses
    /// a statement, or holds a row that cannot be read.
    async fn admit(&self, flow: &str, batch: &Batch) -> Result<Admission, StoreError>;

    /// Writes changes in order, all in one transaction. Changes of partitions that another replica owns are left out
    /// and returned as [`Changed::Fenced`].
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    async fn change(&self, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError>;

    /// Returns the runnable heads of a partition's lanes, ordered by position. The head of a lane is the run that has
    /// started, else the first by position. A lane whose head is parked is skipped.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    async fn heads(&self, flow: &str, of: &HeadsOf) -> Result<Vec<Run>, StoreError>;

    /// Returns the next runs of a lane, in order. The flag is true if there are more. No runs are returned while the
    /// head is parked.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    async fn lane(&self, flow: &str, key: &SubjectId, limit: usize) -> Result<(Vec<Run>, bool), StoreError>;

    /// Ends the waits and pauses that are over by `now`, in these partitions, given with their epochs.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement, or a row cannot be read.
    async fn due(&self, flow: &str, partitions: &[(Partition, i64)], now: Timestamp) -> Result<Due, StoreError>;

    /// Returns the newest state of a subject; `None` if the subject is unknown.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    async fn subject(&self, subject: &SubjectId) -> Result<Option<Subject>, StoreError>;

    /// Returns true if a living user of the same source and instance as `subject`, which may be the same user, has this
    /// primary address.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    async fn is_used(&self, subject: &SubjectId, address: AddressDigest) -> Result<bool, StoreError>;

    /// Returns the suppression entries of these addresses for mail of an instance: those for all mail, and those for
    /// this list.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    async fn listed(
        &self,
        instance: &str,
        list: Option<&str>,
        addresses: &[AddressDigest],
    ) -> Result<Vec<SuppressionEntry>, StoreError>;

    /// Stores a version of a flow for the runs that begin with it.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    async fn keep_flow(&self, flow: &str, version: &str, source: &str) -> Result<(), StoreError>;

    /// Returns the source of a stored version of a flow; `None` if it is not stored.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    async fn flow(&self, flow: &str, version: &str) -> Result<Option<String>, StoreError>;

    /// Returns the time since which an operator has paused a flow; `None` if it is not paused.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    async fn paused(&self, flow: &str) -> Result<Option<Timestamp>, StoreError>;

    /// Records that `owner` starts nothing of a flow that is paused since `since`, with `under_way` steps started
    /// before.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    async fn confirm_pause(
        &self,
        flow: &str,
        owner: &str,
        since: Timestamp,
        under_way: usize,
    ) -> Result<(), StoreError>;

    /// Returns a flow's frontier in each partition that any replica has ever owned; `None` where nothing was admitted.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    async fn frontiers(&self, flow: &str) -> Result<BTreeMap<Partition, Option<i64>>, StoreError>;

    /// Returns the number of a flow's runs in each state that may need attention: all runs except those that ended
    /// well.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a state cannot be read.
    async fn counts(&self, flow: &str) -> Result<Vec<(RunState, i64)>, StoreError>;

    /// Deletes some of a flow's ended runs and of its events. They must have been received longer ago than `keep`
    /// before the newest webhook that the flow has seen. Returns the number deleted; fewer than `limit` means that none
    /// is left.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    async fn prune(&self, flow: &str, keep: Duration, limit: usize) -> Result<u64, StoreError>;

    /// Returns some of a flow's runs whose dead letters are to be erased from their topic, at most `limit`.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    async fn dead_letters_to_erase(&self, flow: &str, limit: usize) -> Result<Vec<EventRef>, StoreError>;

    /// Records that the dead letters of these runs are erased.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    async fn dead_letters_erased(&self, flow: &str, runs: &[EventRef]) -> Result<(), StoreError>;

    /// Deletes the content of dead runs that have expired by `now`, at most `limit` of them. Returns their number.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    async fn drop_spent(&self, flow: &str, now: Timestamp, limit: usize) -> Result<u64, StoreError>;

    /// Shares quotas with the other processes that use the same accounts. A grant to `member` is valid for `lease`,
    /// counted from before the request was sent. After that it is available to all processes again.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    async fn grant(
        &self,
        member: &str,
        lease: Duration,
        quota_requests: &[QuotaRequest],
    ) -> Result<Vec<QuotaLease>, StoreError>;

    /// Gives back at once all that was granted to `member`, which is stopping. The member is no longer expected to confirm
    /// a pause.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    async fn leave(&self, member: &str) -> Result<(), StoreError>;

    /// Removes deleted content from the store's files, where this takes a separate operation.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the operation.
    async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns the time of the store's clock.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// Returns the times by which a process's clock is judged. Also records that the store is used at `now`, by a clock
    /// that is right or not. If a clock that was ahead has used it at a later time, the times written then are set
    /// back: waits, pauses and claims keep their length.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    async fn witness(&self, now: Timestamp, right: bool) -> Result<Witness, StoreError>;
}
