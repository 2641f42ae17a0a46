//! The store: what runs are under way, what they did, who owns what, and whom keys stand for.
//!
//! One trait, one implementation in SQL for Postgres and SQLite, one suite of tests for both. Every write about a
//! partition is conditional on its epoch, so a predecessor that wakes up late changes nothing.

mod admit;
mod change;
mod inspect;
mod rows;
mod sql_store;

use async_trait::async_trait;
use usher_proto::{Event, EventId, Key, Partition, Timestamp};

use crate::engine::{Effect, Run, RunState};
use crate::subject::{Snapshot, Subject};
pub use inspect::{EffectRecord, RunFilter, RunRecord};
pub use sql_store::SqlStore;

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
    #[error("the store is not available: {0}")]
    Unavailable(#[from] sqlx::Error),
    /// Its tables cannot be made or brought up to this version.
    #[error("the store's tables cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row cannot be read.
    #[error("the store holds what cannot be read: {0}")]
    Unreadable(String),
}

/// A partition that has been taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// Which.
    pub partition: Partition,
    /// What every write must carry from now on.
    pub epoch: i64,
    /// The offset below which every event is accounted for; none if the flow never read it.
    pub frontier: Option<i64>,
}

/// An event on its way into the store.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its offset.
    pub offset: i64,
    /// The event.
    pub event: Event,
    /// Whether it starts a run.
    pub starts: bool,
    /// Whether it ends the runs of its key that came before it.
    pub cancels: bool,
    /// What it says of its subject.
    pub snapshot: Option<Snapshot>,
    /// Why its run is to be given up at once.
    pub verdict: Option<(usher_proto::Reason, String)>,
}

/// Consecutive events of one partition.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The partition.
    pub partition: Partition,
    /// Its epoch.
    pub epoch: i64,
    /// The offset below which everything is accounted for once this is written.
    pub frontier: i64,
    /// Those of the events that mean something to the flow.
    pub arrivals: Vec<Arrival>,
    /// The flow's present version, which new runs begin with.
    pub flow_version: String,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub struct Admission {
    /// New runs, and those whose wait the batch has ended.
    pub runs: Vec<Run>,
    /// Runs that it has cancelled.
    pub cancelled: Vec<(Key, EventId)>,
    /// Events whose run was known already.
    pub repeated: usize,
}

/// A change of one run.
#[derive(Debug, Clone)]
pub struct Change {
    /// The run.
    pub event: EventId,
    /// Its partition.
    pub partition: Partition,
    /// The partition's epoch.
    pub epoch: i64,
    /// What changes.
    pub kind: ChangeKind,
}

/// What changes about a run.
#[derive(Debug, Clone)]
pub enum ChangeKind {
    /// An attempt is about to be made.
    Claim {
        /// How many have been made of this step, this one included.
        attempts: u32,
        /// The idempotency key's generation.
        generation: u32,
        /// The exact request.
        request: Vec<u8>,
        /// By when the attempt has ended, whatever came of it.
        until: Timestamp,
    },
    /// A step is done or skipped, and more follow.
    Advance {
        /// The index of the next step.
        to: usize,
        /// What it did.
        effect: Option<StepEffect>,
        /// The results of all steps done, as JSON.
        results: String,
    },
    /// The run waits.
    Wait {
        /// Until when at most.
        until: Timestamp,
        /// The subject's revision after which it need not.
        news_after: Option<i64>,
    },
    /// The run has ended.
    End {
        /// How.
        state: RunState,
        /// What its last step did.
        effect: Option<StepEffect>,
        /// In a word why.
        note: Option<&'static str>,
        /// For a dead one: the reason and the destination's words.
        verdict: Option<(usher_proto::Reason, String)>,
    },
}

/// An effect and the step that had it.
#[derive(Debug, Clone)]
pub struct StepEffect {
    /// The step's index.
    pub step: usize,
    /// Its name.
    pub name: String,
    /// The connector.
    pub connector: String,
    /// What it did.
    pub effect: Effect,
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is written.
    Written,
    /// It was to wait, but news have come meanwhile.
    Awake,
    /// The run has ended already; nothing was written.
    Ended,
    /// Somebody else owns the partition now; nothing was written.
    Fenced,
}

/// The store, as the dispatcher uses it.
#[async_trait]
pub trait Store: Send + Sync {
    /// Takes over partitions of a flow: from now on only writes with the new epochs count.
    async fn acquire(&self, flow: &str, partitions: &[Partition], owner: &str) -> Result<Vec<Ownership>, StoreError>;

    /// Takes in a batch, all of it or nothing: runs, subjects, wake-ups, cancellations, frontier.
    async fn admit(&self, flow: &str, batch: &Batch) -> Result<Admission, StoreError>;

    /// Writes changes in order, all in one transaction; those of partitions that are somebody else's are left out.
    async fn change(&self, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError>;

    /// Runs of a partition that are queued or under way, by position, after the one given.
    async fn unfinished(
        &self,
        flow: &str,
        partition: Partition,
        after: Option<(i64, EventId)>,
        limit: u32,
    ) -> Result<Vec<Run>, StoreError>;

    /// The next runs of a lane that are queued or under way.
    async fn lane(&self, flow: &str, key: &Key, limit: u32) -> Result<Vec<Run>, StoreError>;

    /// Ends the waits that are over by `now`, in these partitions (with their epochs), and returns their runs.
    async fn due(&self, flow: &str, partitions: &[(Partition, i64)], now: Timestamp) -> Result<Vec<Run>, StoreError>;

    /// Whom a key stands for.
    async fn subject(&self, key: &Key) -> Result<Option<Subject>, StoreError>;

    /// Keeps a version of a flow for the runs that begin with it.
    async fn keep_flow(&self, flow: &str, version: &str, source: &str) -> Result<(), StoreError>;

    /// A version of a flow that was kept.
    async fn flow(&self, flow: &str, version: &str) -> Result<Option<String>, StoreError>;

    /// Whether the store answers.
    async fn check(&self) -> Result<(), StoreError>;
}
