//! The store: runs and what they did, ownership of partitions, and the subjects behind keys.
//!
//! A trait for each concern, one implementation in SQL for Postgres and SQLite, and one test suite for both. Every write for a
//! partition is conditional on its epoch, a fencing token. So a former owner that wakes up late changes nothing.

mod addresses;
mod admit;
mod change;
mod command;
mod concerns;
mod figures;
mod inspect;
mod known;
mod lanes;
mod operate;
mod prune;
mod quota;
mod redrive;
mod refused;
mod remember;
mod rename;
mod rows;
mod schedule;
mod seek;
mod sql_store;
mod story;
mod suppression;
mod take_over;
mod time;
mod transitions;
mod trouble;
mod views;

pub use concerns::{FirstClaims, FlowStore, QuotaStore, RetentionStore, RunStore, Store, StoreClock, SubjectStore};
pub use figures::{RunCount, StoredFrontier};
pub use inspect::{EffectRecord, RunFilter, RunRecord};
pub use operate::{ActionRecord, ReplicaPause};
pub use prune::MendedHorizon;
pub use redrive::{NewRedrive, RedriveCame, RedriveCounts, RedriveRecord, RedriveRow};
pub use refused::RefusedRow;
pub use rename::{FormerName, RenameResult};
pub use schedule::{LivingUser, NextFiring, ScheduleStore};
pub use sql_store::SqlStore;
pub use story::{AttemptMessage, AttemptRecord, CANCELLED, StoryCause};
pub use suppression::{MailRecipients, SuppressionRecord};
pub use trouble::{TroubleRecord, TroubleTold};
use usher_engine::Run;
use usher_proto::{Epoch, EventRef, Partition, SubjectId, Timestamp};
use usher_service::ConfigError;
use usher_sql::fault::{self, DatabaseFault};
use usher_sql::{MigrationError, SqlError, Tables};
pub use views::{
    AccountShares, BoundedCount, CommandRow, DeadLetterCursor, DeadLetterQuery, DeadLetterRow, EventCursor, EventPage,
    EventQuery, EventRow, FlowCounts, FlowPosition, FlowVersion, MovableRow, PauseRecord, QuotaUse, RecentRuns,
    RunCell, RunContent, RunMark, RunTargetRow, SCAN, StandingRuns, SubjectRow,
};

/// The tables of the store.
pub const TABLES: Tables = Tables {
    postgres: usher_sql::migrations!("migrations/postgres":
        "0001_store", "0002_lanes", "0003_reach", "0004_quotas", "0005_before", "0006_identity", "0007_pause_seen",
        "0008_received", "0009_addresses", "0010_open_and_ended", "0011_told", "0012_next_due", "0013_subject_room", "0014_story",
        "0015_console", "0016_trouble", "0018_redrive", "0020_schedule", "0021_waits"),
    sqlite: usher_sql::migrations!("migrations/sqlite":
        "0001_store", "0002_lanes", "0003_reach", "0004_quotas", "0005_before", "0006_identity", "0007_pause_seen",
        "0008_received", "0009_addresses", "0010_open_and_ended", "0011_told", "0012_next_due",
        "0014_story",
        "0015_console", "0016_trouble", "0018_redrive", "0020_schedule", "0021_waits"),
    history: "usher_store_migrations",
};

/// Failure of a request to the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another replica owns the partition now; nothing was written.
    #[error("partition {0} belongs to somebody else now")]
    Fenced(Partition),
    /// The flow has another name now, under which another process works on it; nothing was written.
    #[error("flow {was} is called {now} by now: this process has flow files of before")]
    Renamed {
        /// The former name.
        was: String,
        /// The present name.
        now: String,
    },
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
    #[error("{0}")]
    Database(SqlError),
    /// The file is damaged, or is not a database.
    #[error("{0}")]
    Damaged(#[source] ConfigError),
    /// The tables cannot be created or migrated to this version.
    #[error("{0}")]
    Migration(MigrationError),
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
            Self::Fenced(_) | Self::Unreadable(_) => DatabaseFault::Transient,
            Self::PartitionCount { .. } | Self::Renamed { .. } => DatabaseFault::NeedsOperator,
            Self::Damaged(_) => DatabaseFault::Damaged,
            Self::Database(error) => DatabaseFault::of(error),
            Self::Migration(error) => DatabaseFault::of_migration(error),
        }
    }
}

impl From<SqlError> for StoreError {
    fn from(error: SqlError) -> Self {
        match DatabaseFault::of(&error) {
            DatabaseFault::Damaged => {
                Self::Damaged(ConfigError::new("USHER_STORE", fault::damaged(&error.to_string())))
            }
            DatabaseFault::Transient
            | DatabaseFault::Refused
            | DatabaseFault::NeedsOperator
            | DatabaseFault::Unclear => Self::Database(error),
        }
    }
}

impl From<MigrationError> for StoreError {
    fn from(error: MigrationError) -> Self {
        Self::Migration(error)
    }
}

/// Query for the heads of lanes.
#[derive(Debug, Clone)]
pub struct HeadsQuery {
    /// The partition to search.
    pub partition: Partition,
    /// Position and event after which the search starts; `None` for the beginning.
    pub after: Option<(i64, EventRef)>,
    /// Destinations whose runs are left out.
    pub without: Vec<String>,
    /// Largest number of heads to return.
    pub limit: usize,
}

/// Query for the next runs of a lane.
#[derive(Debug, Clone)]
pub struct LaneQuery {
    /// The lane.
    pub key: SubjectId,
    /// Largest number of runs to return.
    pub limit: usize,
}

/// The next runs of a lane.
#[derive(Debug, Default, PartialEq)]
pub struct LaneRuns {
    /// The runs in order; none while the head is parked.
    pub runs: Vec<Run>,
    /// True if there are more.
    pub more: bool,
}

/// Runs whose wait or pause is over.
#[derive(Debug, Default)]
pub struct Due {
    /// Runs that no other run of their key precedes.
    pub heads: Vec<Run>,
    /// Keys of the other runs.
    pub behind: Vec<SubjectId>,
    /// The time at which the next wait or pause ends; absent if there is none. It is past if more are over than were ended.
    pub next: Option<Timestamp>,
    /// Partitions, with the caller's epochs, that were found to belong to another replica.
    pub fenced: Vec<(Partition, Epoch)>,
}
