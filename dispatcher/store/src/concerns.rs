//! The store as the dispatcher uses it: a trait for each concern. A part of the dispatcher receives only the trait that it uses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use usher_engine::arrival::{Admission, Batch, FirstClaim, Ownership};
use usher_engine::clock::Witness;
use usher_engine::{Change, Changed, Run};
use usher_proto::suppression::SuppressionEntry;
use usher_proto::{AddressDigest, Epoch, EventRef, Offset, Partition, Subject, SubjectId, Timestamp};
use usher_quota::{QuotaLease, QuotaRequest};

use crate::{
    Due, HeadsQuery, LaneQuery, LaneRuns, MailRecipients, RunCount, ScheduleStore, StoreError, StoredFrontier,
    TroubleTold,
};

/// All concerns together. Implemented by every type that implements each of them.
pub trait Store:
    RunStore + SubjectStore + FlowStore + RetentionStore + QuotaStore + StoreClock + ScheduleStore
{
}

impl<S: RunStore + SubjectStore + FlowStore + RetentionStore + QuotaStore + StoreClock + ScheduleStore> Store for S {}

/// Makes the first claims of runs that begin with their admission.
#[async_trait]
pub trait FirstClaims: Send + Sync {
    /// Returns once the admission may be written. Until then only what it needs is read, and the claims are made, so that
    /// this can overlap with changes that are written before it.
    async fn turn(&self) {}

    /// Returns the claim of the first attempt of a run whose subject is in this state; `None` if the run does not call its
    /// destination at once, or cannot be claimed before it is admitted.
    async fn first_claim(&self, run: &Run, subject: Option<&Subject>) -> Option<FirstClaim>;
}

/// Claims nothing.
struct NoFirstClaims;

#[async_trait]
impl FirstClaims for NoFirstClaims {
    async fn first_claim(&self, _: &Run, _: Option<&Subject>) -> Option<FirstClaim> {
        None
    }
}

/// Runs and the ownership of partitions: one method for each request of the engine. The dispatcher calls them from one task
/// for each flow, in the engine's order, and repeats a call until it is answered. So an implementation must accept the same
/// call twice.
#[async_trait]
pub trait RunStore: Send + Sync {
    /// Takes over partitions of a flow. From now on only writes with the new epochs are accepted.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    async fn acquire(&self, flow: &str, partitions: &[Partition], owner: &str) -> Result<Vec<Ownership>, StoreError>;

    /// Admits batches of different partitions, all of each or nothing: runs, subjects, suppression changes, wake-ups,
    /// cancellations and the frontier. Runs that may begin, by [`Batch::begins`], are admitted with the claims that `claims`
    /// makes for them. Nothing is written before its [`turn`](FirstClaims::turn). The result of a batch is `None` if another
    /// replica owns its partition.
    ///
    /// # Errors
    ///
    /// If the database does not answer, refuses a statement, or holds a row that cannot be read. Some batches may have been
    /// admitted then.
    async fn admit_claiming(
        &self,
        flow: &str,
        batches: &[Batch],
        claims: &dyn FirstClaims,
    ) -> Result<Vec<Option<Admission>>, StoreError>;

    /// Admits a batch without any claim.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`] if another replica owns the partition. Otherwise as [`RunStore::admit_claiming`].
    async fn admit(&self, flow: &str, batch: &Batch) -> Result<Admission, StoreError> {
        let mut admitted = self.admit_claiming(flow, std::slice::from_ref(batch), &NoFirstClaims).await?;
        admitted.pop().flatten().ok_or(StoreError::Fenced(batch.partition))
    }

    /// Takes the news of a batch before it is admitted: subjects, suppression changes and wake-ups. The batch's frontier
    /// is the offset below which everything is told. Returns the woken runs.
    ///
    /// # Errors
    ///
    /// As [`RunStore::admit`].
    async fn tell(&self, flow: &str, batch: &Batch) -> Result<Admission, StoreError>;

    /// Writes changes in order; those of different runs in one transaction. Changes of partitions that another replica owns are left out
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
    async fn heads(&self, flow: &str, of: &HeadsQuery) -> Result<Vec<Run>, StoreError>;

    /// Returns the next runs of each of these lanes, in the order of the queries.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    async fn lanes(&self, flow: &str, of: &[LaneQuery]) -> Result<Vec<LaneRuns>, StoreError>;

    /// Ends the waits and pauses that are over by `now`, in these partitions, given with their epochs, and finds the next one
    /// that ends.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement, or a row cannot be read.
    async fn due(&self, flow: &str, partitions: &[(Partition, Epoch)], now: Timestamp) -> Result<Due, StoreError>;

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
}

/// Knowledge of the people whom a step concerns. Read before each attempt, for many attempts at once; changes nothing.
#[async_trait]
pub trait SubjectStore: Send + Sync {
    /// Returns the newest states of these subjects. A subject that is unknown has none.
    ///
    /// A subject that is an address (see [`usher_proto::unsubscribe::address_key`]) is the living user of Clerk with this
    /// primary address, in the subject's instance, if there is exactly one.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    async fn subjects(&self, subjects: &[SubjectId]) -> Result<HashMap<SubjectId, Subject>, StoreError>;

    /// Returns the newest state of one subject; `None` if the subject is unknown.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or the row cannot be read.
    async fn subject(&self, subject: &SubjectId) -> Result<Option<Subject>, StoreError> {
        Ok(self.subjects(std::slice::from_ref(subject)).await?.remove(subject))
    }

    /// Returns true if a living user of the same source and instance as `subject`, which may be the same user, has this
    /// primary address.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    async fn is_used(&self, subject: &SubjectId, address: AddressDigest) -> Result<bool, StoreError>;

    /// Returns the suppression entries of the recipients of each of these mails: those for all mail of its instance, and those
    /// for its list.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    async fn listed(&self, mails: &[MailRecipients]) -> Result<Vec<Vec<SuppressionEntry>>, StoreError>;
}

/// Flows as a whole: their versions, pauses, frontiers and counts. Called at the start of a flow, every few seconds for all flows
/// of the process together, and when the metrics are read.
#[async_trait]
pub trait FlowStore: Send + Sync {
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

    /// Returns the flows that operators have paused, with the time since which each is.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    async fn pauses(&self) -> Result<BTreeMap<String, Timestamp>, StoreError>;

    /// Returns the offset below which everything is admitted or told, in each partition that any replica of the flow has
    /// ever owned; `None` where nothing was admitted.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    async fn frontiers(&self, flow: &str) -> Result<BTreeMap<Partition, Option<Offset>>, StoreError>;

    /// Returns the frontiers of all flows, which are below what is only told. Partitions in which nothing was admitted are
    /// absent.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    async fn stored_frontiers(&self) -> Result<Vec<StoredFrontier>, StoreError>;

    /// Returns the number of runs of all flows in each state that may need attention: all runs except those that ended well.
    /// States without a run are absent. Reads all open runs.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a state cannot be read.
    async fn run_counts(&self) -> Result<Vec<RunCount>, StoreError>;
}

/// Removal of what is no longer needed. Called by each flow's housekeeping, a bounded number of rows at a time, and never for
/// runs that are under way. A failed call is repeated later.
#[async_trait]
pub trait RetentionStore: Send + Sync {
    /// Deletes some of a flow's ended runs and of its events. They must have been received longer ago than `keep`
    /// before the newest webhook that the flow has seen. Returns the number deleted; fewer than `limit` means that none
    /// is left.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    async fn prune(&self, flow: &str, keep: Duration, limit: usize) -> Result<u64, StoreError>;

    /// Returns the flows with runs whose dead letters are to be erased from their topics.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    async fn flows_to_erase(&self) -> Result<BTreeSet<String>, StoreError>;

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

    /// Makes the space of runs that have left the table of open runs available to new ones. To be called after each few
    /// thousand: by default a server waits for a fifth of a table, and a minute, and the table grows meanwhile.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the operation.
    async fn reuse_space(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Removes deleted content from the store's files, where this takes a separate operation.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the operation.
    async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Shares of the accounts' quotas. Called by one task of the process; other processes ask at the same time, and no sum of
/// grants may exceed a quota.
#[async_trait]
pub trait QuotaStore: Send + Sync {
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

    /// Records for operators that `member` holds back from an account's calls, or, with `None`, that it no longer does.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    async fn tell_trouble(
        &self,
        account: &str,
        member: &str,
        trouble: Option<TroubleTold>,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Gives back at once all that was granted to `member`, which is stopping. The member is no longer expected to confirm
    /// a pause, and holds back from nothing.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    async fn leave(&self, member: &str) -> Result<(), StoreError>;
}

/// The store's clock, by which the processes judge their own. Called at the start, and every few seconds while running.
#[async_trait]
pub trait StoreClock: Send + Sync {
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
