//! The store: what runs are under way, what they did, who owns what, and whom keys stand for.
//!
//! One trait, one implementation in SQL for Postgres and SQLite, one suite of tests for both. Every write about a
//! partition is conditional on its epoch, so a predecessor that wakes up late changes nothing.

mod addresses;
mod admit;
mod change;
mod command;
mod inspect;
pub mod isolate;
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
use usher_proto::{AddressDigest, EventRef, Partition, SubjectId, Timestamp};
use usher_service::ConfigError;

use crate::engine::arrival::{Admission, Batch, Ownership};
use crate::engine::clock::Witness;
use crate::engine::{Change, Changed, Run, RunState};
use crate::sql::fault::{self, Fault};
use crate::subject::Subject;
use crate::suppression::SuppressionEntry;
pub use inspect::{EffectRecord, RunFilter, RunRecord};
pub use operate::{ActionRecord, ReplicaPause};
pub use prune::MendedHorizon;
pub use quota::{CapBudget, CapShortage, QuotaLease, QuotaRequest};
pub use refused::RefusedRow;
pub use sql_store::SqlStore;
pub use suppression::SuppressionRecord;

/// The store could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else owns the partition now; nothing was written.
    #[error("partition {0} belongs to somebody else now")]
    Fenced(Partition),
    /// The store was laid out for another number of partitions.
    #[error(
        "the store was laid out for {found} partitions but USHER_PARTITIONS says {wanted}: changing the number moves \
         users to other partitions and breaks their order; set USHER_PARTITIONS={found}"
    )]
    PartitionCount {
        /// What the store says.
        found: String,
        /// What was configured.
        wanted: i32,
    },
    /// The database does not answer, or refuses.
    #[error("{}", fault::describe(.0))]
    Database(sqlx::Error),
    /// The file is damaged, or no database.
    #[error("{0}")]
    Damaged(#[source] ConfigError),
    /// Its tables cannot be made or brought up to this version.
    #[error("{}", fault::describe_migration(.0))]
    Migration(sqlx::migrate::MigrateError),
    /// A row cannot be read.
    #[error("the store holds what cannot be read: {0}")]
    Unreadable(String),
}

impl StoreError {
    /// The kind of trouble.
    pub fn fault(&self) -> Fault {
        match self {
            // Whoever owns the partition now does not give it back, and what cannot be read stays so: asked again all the
            // same, for a person may mend it.
            Self::Fenced(_) | Self::Unreadable(_) => Fault::Passing,
            Self::PartitionCount { .. } => Fault::Setting,
            Self::Damaged(_) => Fault::Damaged,
            Self::Database(error) => Fault::of(error),
            Self::Migration(error) => Fault::of_migration(error),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match Fault::of(&error) {
            Fault::Damaged => Self::Damaged(ConfigError::new("USHER_STORE", fault::damaged(&fault::describe(&error)))),
            Fault::Passing | Fault::Refused | Fault::Setting | Fault::Unclear => Self::Database(error),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migration(error)
    }
}

/// What is asked of a search for the heads of lanes.
#[derive(Debug, Clone)]
pub struct HeadsOf {
    /// The partition.
    pub partition: Partition,
    /// After this place.
    pub after: Option<(i64, EventRef)>,
    /// Leaving out those that ask these destinations.
    pub without: Vec<String>,
    /// At most so many.
    pub limit: usize,
}

/// Runs whose wait or pause is over.
#[derive(Debug, Default)]
pub struct Due {
    /// Those that nothing of their key goes before.
    pub heads: Vec<Run>,
    /// The keys of the others.
    pub behind: Vec<SubjectId>,
    /// Partitions that have something due and are somebody else's now.
    pub fenced: Vec<(Partition, i64)>,
}

/// The store, as the dispatcher uses it.
#[async_trait]
pub trait Store: Send + Sync {
    /// Takes over partitions of a flow: from now on only writes with the new epochs count.
    async fn acquire(&self, flow: &str, partitions: &[Partition], owner: &str) -> Result<Vec<Ownership>, StoreError>;

    /// Takes in a batch, all of it or nothing: runs, subjects, who may be written to, wake-ups, cancellations, frontier.
    async fn admit(&self, flow: &str, batch: &Batch) -> Result<Admission, StoreError>;

    /// Writes changes in order, all in one transaction; those of partitions that are somebody else's are left out.
    async fn change(&self, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError>;

    /// The heads of a partition's lanes that are queued or under way, by place. The head of a lane is the run that has
    /// begun, else the first by place; a lane whose head is parked has none to show.
    async fn heads(&self, flow: &str, of: &HeadsOf) -> Result<Vec<Run>, StoreError>;

    /// The next runs of a lane, in order, and whether there are more. None while its head is parked.
    async fn lane(&self, flow: &str, key: &SubjectId, limit: usize) -> Result<(Vec<Run>, bool), StoreError>;

    /// Ends the waits and pauses that are over by `now`, in these partitions (with their epochs).
    async fn due(&self, flow: &str, partitions: &[(Partition, i64)], now: Timestamp) -> Result<Due, StoreError>;

    /// Its newest state.
    async fn subject(&self, subject: &SubjectId) -> Result<Option<Subject>, StoreError>;

    /// True if a living user of the same source and instance as `subject`, be it the same user, has this primary
    /// address.
    async fn is_used(&self, subject: &SubjectId, address: AddressDigest) -> Result<bool, StoreError>;

    /// Which of these addresses an instance does not write to: at all, or with mail of this list.
    async fn listed(
        &self,
        instance: &str,
        list: Option<&str>,
        addresses: &[AddressDigest],
    ) -> Result<Vec<SuppressionEntry>, StoreError>;

    /// Keeps a version of a flow for the runs that begin with it.
    async fn keep_flow(&self, flow: &str, version: &str, source: &str) -> Result<(), StoreError>;

    /// A version of a flow that was kept.
    async fn flow(&self, flow: &str, version: &str) -> Result<Option<String>, StoreError>;

    /// Since when an operator has paused a flow; none if it is not paused.
    async fn paused(&self, flow: &str) -> Result<Option<Timestamp>, StoreError>;

    /// Writes that `owner` begins nothing of a flow that is paused since then, with `under_way` steps begun before.
    async fn confirm_pause(
        &self,
        flow: &str,
        owner: &str,
        since: Timestamp,
        under_way: usize,
    ) -> Result<(), StoreError>;

    /// A flow's frontier in each partition that any replica has ever owned; none where nothing was admitted.
    async fn frontiers(&self, flow: &str) -> Result<BTreeMap<Partition, Option<i64>>, StoreError>;

    /// How many runs of a flow are in each state that needs somebody's attention: all but those that ended well.
    async fn counts(&self, flow: &str) -> Result<Vec<(RunState, i64)>, StoreError>;

    /// Forgets some of the runs of a flow that have ended, and of its events, that were received longer ago than `keep`
    /// before the newest webhook that the flow has seen. Returns how many; fewer than `limit` means that there are no more.
    async fn prune(&self, flow: &str, keep: Duration, limit: usize) -> Result<u64, StoreError>;

    /// Some of the runs of a flow whose dead letters are to be erased from their topic.
    async fn letters_to_erase(&self, flow: &str, limit: usize) -> Result<Vec<EventRef>, StoreError>;

    /// Remembers that they are.
    async fn letters_erased(&self, flow: &str, runs: &[EventRef]) -> Result<(), StoreError>;

    /// Drops what dead runs carry whose life is over by `now`.
    async fn drop_spent(&self, flow: &str, now: Timestamp, limit: usize) -> Result<u64, StoreError>;

    /// Shares quotas with the other processes that use the same accounts. What is granted to `member` holds for as long as
    /// `lease`, counted from before it was asked for; then it is everybody's again.
    async fn grant(
        &self,
        member: &str,
        lease: Duration,
        quota_requests: &[QuotaRequest],
    ) -> Result<Vec<QuotaLease>, StoreError>;

    /// Gives back at once what was granted to `member`, which stops: it is not asked to confirm a pause any more.
    async fn leave(&self, member: &str) -> Result<(), StoreError>;

    /// Removes what has been deleted from the store's files, where that takes an act of its own.
    async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What time it is by the store's clock.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// What the store knows of time. It also remembers that it is used at `now`, by a clock that is right or not; and where
    /// it has been used at a later time, by a clock that was ahead, it sets back what was written then: waits, pauses and
    /// claims keep their length.
    async fn witness(&self, now: Timestamp, right: bool) -> Result<Witness, StoreError>;
}
