//! Stores that deliberately break a guarantee, to verify that the checks notice it. Each can be switched off: the test
//! then does the same with a correct store, so that only the broken guarantee differs.

pub mod ahead;
pub mod claim_gate;
pub mod unfenced;
pub mod unwritten;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use usher_engine::arrival::{Admission, Batch, Ownership};
use usher_engine::clock::Witness;
use usher_engine::{Change, ChangeKind, Changed, Run, RunState};
use usher_proto::Subject;
use usher_proto::suppression::SuppressionEntry;
use usher_proto::{AddressDigest, EventRef, Partition, SubjectId, Timestamp};
use usher_quota::{QuotaLease, QuotaRequest};
use usher_store::{Due, HeadsOf, Store, StoreError};

/// Replacements for write operations of the store. The defaults call the store.
#[async_trait]
pub trait Sabotage: Send + Sync + 'static {
    /// Replaces [`Store::acquire`].
    ///
    /// # Errors
    ///
    /// As [`Store::acquire`].
    async fn acquire(
        &self,
        store: &dyn Store,
        flow: &str,
        partitions: &[Partition],
        owner: &str,
    ) -> Result<Vec<Ownership>, StoreError> {
        store.acquire(flow, partitions, owner).await
    }

    /// Replaces [`Store::admit`].
    ///
    /// # Errors
    ///
    /// As [`Store::admit`].
    async fn admit(&self, store: &dyn Store, flow: &str, batch: &Batch) -> Result<Admission, StoreError> {
        store.admit(flow, batch).await
    }

    /// Replaces [`Store::change`].
    ///
    /// # Errors
    ///
    /// As [`Store::change`].
    async fn change(&self, store: &dyn Store, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        store.change(flow, changes).await
    }

    /// Replaces [`Store::due`].
    ///
    /// # Errors
    ///
    /// As [`Store::due`].
    async fn due(
        &self,
        store: &dyn Store,
        flow: &str,
        partitions: &[(Partition, i64)],
        now: Timestamp,
    ) -> Result<Due, StoreError> {
        store.due(flow, partitions, now).await
    }
}

/// Returns a function that wraps a store in `sabotage`.
pub fn around<S: Sabotage>(sabotage: &Arc<S>) -> impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store> + Send + use<S> {
    let sabotage = sabotage.clone();
    |store| Arc::new(Sabotaged { store, sabotage })
}

fn is_claim(change: &Change) -> bool {
    matches!(change.kind, ChangeKind::Claim { .. })
}

struct Sabotaged<S> {
    store: Arc<dyn Store>,
    sabotage: Arc<S>,
}

#[async_trait]
impl<S: Sabotage> Store for Sabotaged<S> {
    async fn acquire(&self, flow: &str, partitions: &[Partition], owner: &str) -> Result<Vec<Ownership>, StoreError> {
        self.sabotage.acquire(&*self.store, flow, partitions, owner).await
    }

    async fn admit(&self, flow: &str, batch: &Batch) -> Result<Admission, StoreError> {
        self.sabotage.admit(&*self.store, flow, batch).await
    }

    async fn change(&self, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        self.sabotage.change(&*self.store, flow, changes).await
    }

    async fn heads(&self, flow: &str, of: &HeadsOf) -> Result<Vec<Run>, StoreError> {
        self.store.heads(flow, of).await
    }

    async fn lane(&self, flow: &str, key: &SubjectId, limit: usize) -> Result<(Vec<Run>, bool), StoreError> {
        self.store.lane(flow, key, limit).await
    }

    async fn due(&self, flow: &str, partitions: &[(Partition, i64)], now: Timestamp) -> Result<Due, StoreError> {
        self.sabotage.due(&*self.store, flow, partitions, now).await
    }

    async fn subject(&self, subject: &SubjectId) -> Result<Option<Subject>, StoreError> {
        self.store.subject(subject).await
    }

    async fn is_used(&self, subject: &SubjectId, address: AddressDigest) -> Result<bool, StoreError> {
        self.store.is_used(subject, address).await
    }

    async fn listed(
        &self,
        instance: &str,
        list: Option<&str>,
        addresses: &[AddressDigest],
    ) -> Result<Vec<SuppressionEntry>, StoreError> {
        self.store.listed(instance, list, addresses).await
    }

    async fn keep_flow(&self, flow: &str, version: &str, source: &str) -> Result<(), StoreError> {
        self.store.keep_flow(flow, version, source).await
    }

    async fn flow(&self, flow: &str, version: &str) -> Result<Option<String>, StoreError> {
        self.store.flow(flow, version).await
    }

    async fn paused(&self, flow: &str) -> Result<Option<Timestamp>, StoreError> {
        self.store.paused(flow).await
    }

    async fn confirm_pause(&self, flow: &str, owner: &str, since: Timestamp, n: usize) -> Result<(), StoreError> {
        self.store.confirm_pause(flow, owner, since, n).await
    }

    async fn frontiers(&self, flow: &str) -> Result<BTreeMap<Partition, Option<i64>>, StoreError> {
        self.store.frontiers(flow).await
    }

    async fn counts(&self, flow: &str) -> Result<Vec<(RunState, i64)>, StoreError> {
        self.store.counts(flow).await
    }

    async fn prune(&self, flow: &str, keep: Duration, limit: usize) -> Result<u64, StoreError> {
        self.store.prune(flow, keep, limit).await
    }

    async fn dead_letters_to_erase(&self, flow: &str, limit: usize) -> Result<Vec<EventRef>, StoreError> {
        self.store.dead_letters_to_erase(flow, limit).await
    }

    async fn dead_letters_erased(&self, flow: &str, runs: &[EventRef]) -> Result<(), StoreError> {
        self.store.dead_letters_erased(flow, runs).await
    }

    async fn drop_spent(&self, flow: &str, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.store.drop_spent(flow, now, limit).await
    }

    async fn grant(
        &self,
        member: &str,
        lease: Duration,
        wishes: &[QuotaRequest],
    ) -> Result<Vec<QuotaLease>, StoreError> {
        self.store.grant(member, lease, wishes).await
    }

    async fn leave(&self, member: &str) -> Result<(), StoreError> {
        self.store.leave(member).await
    }

    async fn witness(&self, now: Timestamp, right: bool) -> Result<Witness, StoreError> {
        self.store.witness(now, right).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.now().await
    }
}
