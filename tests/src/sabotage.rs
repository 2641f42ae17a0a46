//! Stores that deliberately break a guarantee, to verify that the checks notice it. Each can be switched off: the test
//! then does the same with a correct store, so that only the broken guarantee differs.

pub mod ahead;
pub mod claim_gate;
pub mod unfenced;
pub mod unwritten;

use std::sync::Arc;

use async_trait::async_trait;
use usher_engine::arrival::{Admission, Batch, Ownership};
use usher_engine::{Change, ChangeKind, Changed, Run};
use usher_proto::{Epoch, Partition, Timestamp};
use usher_store::{Due, FirstClaims, HeadsQuery, LaneQuery, LaneRuns, RunStore, StoreError};

/// Replacements for write operations of the store. The defaults call the store.
#[async_trait]
pub trait Sabotage: Send + Sync + 'static {
    /// Replaces [`RunStore::acquire`].
    ///
    /// # Errors
    ///
    /// As [`RunStore::acquire`].
    async fn acquire(
        &self,
        store: &dyn RunStore,
        flow: &str,
        partitions: &[Partition],
        owner: &str,
    ) -> Result<Vec<Ownership>, StoreError> {
        store.acquire(flow, partitions, owner).await
    }

    /// Replaces [`RunStore::admit_claiming`].
    ///
    /// # Errors
    ///
    /// As [`RunStore::admit_claiming`].
    async fn admit(
        &self,
        store: &dyn RunStore,
        flow: &str,
        batch: &Batch,
        claims: &dyn FirstClaims,
    ) -> Result<Admission, StoreError> {
        admit(store, flow, batch, claims).await
    }

    /// Replaces [`RunStore::change`].
    ///
    /// # Errors
    ///
    /// As [`RunStore::change`].
    async fn change(&self, store: &dyn RunStore, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        store.change(flow, changes).await
    }

    /// Replaces [`RunStore::due`].
    ///
    /// # Errors
    ///
    /// As [`RunStore::due`].
    async fn due(
        &self,
        store: &dyn RunStore,
        flow: &str,
        partitions: &[(Partition, Epoch)],
        now: Timestamp,
    ) -> Result<Due, StoreError> {
        store.due(flow, partitions, now).await
    }
}

/// Admits one batch.
///
/// # Errors
///
/// As [`RunStore::admit`].
pub(crate) async fn admit(
    store: &dyn RunStore,
    flow: &str,
    batch: &Batch,
    claims: &dyn FirstClaims,
) -> Result<Admission, StoreError> {
    let mut admitted = store.admit_claiming(flow, std::slice::from_ref(batch), claims).await?;
    admitted.pop().flatten().ok_or(StoreError::Fenced(batch.partition))
}

/// Returns a function that wraps a store in `sabotage`.
pub fn around<S: Sabotage>(sabotage: &Arc<S>) -> impl FnOnce(Arc<dyn RunStore>) -> Arc<dyn RunStore> + Send + use<S> {
    let sabotage = sabotage.clone();
    |store| Arc::new(Sabotaged { store, sabotage })
}

fn is_claim(change: &Change) -> bool {
    matches!(change.kind, ChangeKind::Claim { .. })
}

struct Sabotaged<S> {
    store: Arc<dyn RunStore>,
    sabotage: Arc<S>,
}

#[async_trait]
impl<S: Sabotage> RunStore for Sabotaged<S> {
    async fn acquire(&self, flow: &str, partitions: &[Partition], owner: &str) -> Result<Vec<Ownership>, StoreError> {
        self.sabotage.acquire(&*self.store, flow, partitions, owner).await
    }

    async fn admit_claiming(
        &self,
        flow: &str,
        batches: &[Batch],
        claims: &dyn FirstClaims,
    ) -> Result<Vec<Option<Admission>>, StoreError> {
        let mut admitted = Vec::new();
        for batch in batches {
            admitted.push(match self.sabotage.admit(&*self.store, flow, batch, claims).await {
                Ok(admission) => Some(admission),
                Err(StoreError::Fenced(_)) => None,
                Err(error) => return Err(error),
            });
        }
        Ok(admitted)
    }

    async fn tell(&self, flow: &str, batch: &Batch) -> Result<Admission, StoreError> {
        self.store.tell(flow, batch).await
    }

    async fn change(&self, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        self.sabotage.change(&*self.store, flow, changes).await
    }

    async fn heads(&self, flow: &str, of: &HeadsQuery) -> Result<Vec<Run>, StoreError> {
        self.store.heads(flow, of).await
    }

    async fn lanes(&self, flow: &str, of: &[LaneQuery]) -> Result<Vec<LaneRuns>, StoreError> {
        self.store.lanes(flow, of).await
    }

    async fn due(&self, flow: &str, partitions: &[(Partition, Epoch)], now: Timestamp) -> Result<Due, StoreError> {
        self.sabotage.due(&*self.store, flow, partitions, now).await
    }

    async fn confirm_pause(&self, flow: &str, owner: &str, since: Timestamp, n: usize) -> Result<(), StoreError> {
        self.store.confirm_pause(flow, owner, since, n).await
    }
}
