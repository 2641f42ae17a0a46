//! A store without fencing: a former owner of a partition can still write to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::AnyPool;
use usher_engine::arrival::{Admission, Batch, Ownership};
use usher_engine::{Change, ChangeKind, Changed};
use usher_proto::{Epoch, Partition, Timestamp};
use usher_store::{Due, FirstClaims, RunStore, StoreError};

use super::{Sabotage, is_claim};
use crate::eventually;
use crate::test_env::SOON;

/// Time for which the late replica leaves the other the first write.
const SLOWER: Duration = Duration::from_secs(10);

/// The sabotage described in the module documentation.
pub struct Unfenced {
    on: bool,
    pool: AnyPool,
    late_claims: AtomicUsize,
    late_ends: AtomicUsize,
    acquisitions: AtomicUsize,
}

impl Unfenced {
    /// Removes the fence of the store behind `pool`. With `on` false the fence stays in place.
    pub fn new(on: bool, pool: AnyPool) -> Self {
        let [late_claims, late_ends, acquisitions] = [0; 3].map(AtomicUsize::new);
        Self { on, pool, late_claims, late_ends, acquisitions }
    }

    /// Number of claims, accepted or fenced, of runs whose partition had another owner by then.
    pub fn late_claims(&self) -> usize {
        self.late_claims.load(Ordering::SeqCst)
    }

    /// Number of such runs that have had their effect and are about to be ended.
    pub fn late_ends(&self) -> usize {
        self.late_ends.load(Ordering::SeqCst)
    }

    /// Number of calls that took over partitions.
    pub fn acquisitions(&self) -> usize {
        self.acquisitions.load(Ordering::SeqCst)
    }

    /// Returns the current epoch of each partition of a flow, to pass the fence with. Empty if the sabotage is off.
    async fn passing(&self, flow: &str) -> Result<BTreeMap<Partition, Epoch>, StoreError> {
        if !self.on {
            return Ok(BTreeMap::new());
        }
        let sql = "SELECT partition, epoch FROM usher_ownership WHERE flow = $1";
        let rows: Result<Vec<(i64, i64)>, _> = sqlx::query_as(sql).bind(flow).fetch_all(&self.pool).await;
        let rows = rows.map_err(|error| StoreError::Unreadable(error.to_string()))?;
        let known = |(partition, epoch): (i64, i64)| Some((Partition(i32::try_from(partition).ok()?), Epoch(epoch)));
        Ok(rows.into_iter().filter_map(known).collect())
    }

    /// Waits until another replica has ended these runs. The late replica is thereby made the slower one, so that both
    /// have the effect. Gives up after a while: what the late one claims after the other has read its runs, the other
    /// may take for a run in flight.
    async fn ended_by_others(&self, flow: &str, events: &[&str]) {
        let sql = "SELECT 1 FROM usher_run WHERE flow = $1 AND event_ref = $2 AND ended_at IS NOT NULL";
        let all_ended = async {
            for event in events {
                eventually("the other has ended the run, too", SOON, || async {
                    sqlx::query(sql).bind(flow).bind(*event).fetch_optional(&self.pool).await.ok()?.map(drop)
                })
                .await;
            }
        };
        // Without the other's end, the run has one effect, and the control shows the less.
        let _ = tokio::time::timeout(SLOWER, all_ended).await;
    }
}

#[async_trait]
impl Sabotage for Unfenced {
    async fn acquire(
        &self,
        store: &dyn RunStore,
        flow: &str,
        partitions: &[Partition],
        owner: &str,
    ) -> Result<Vec<Ownership>, StoreError> {
        let owned = store.acquire(flow, partitions, owner).await?;
        self.acquisitions.fetch_add(1, Ordering::SeqCst);
        Ok(owned)
    }

    async fn admit(
        &self,
        store: &dyn RunStore,
        flow: &str,
        batch: &Batch,
        claims: &dyn FirstClaims,
    ) -> Result<Admission, StoreError> {
        loop {
            let epoch = self.passing(flow).await?.get(&batch.partition).copied().unwrap_or(batch.epoch);
            match super::admit(store, flow, &Batch { epoch, ..batch.clone() }, claims).await {
                // Another replica has taken the partition over since the epoch was read.
                Err(StoreError::Fenced(_)) if self.on => {}
                answer => return answer,
            }
        }
    }

    async fn change(&self, store: &dyn RunStore, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        loop {
            let epochs = self.passing(flow).await?;
            let mut passing = Vec::with_capacity(changes.len());
            let mut late_ends = Vec::new();
            for change in changes {
                let epoch = epochs.get(&change.partition).copied().unwrap_or(change.epoch);
                if epoch != change.epoch && matches!(change.kind, ChangeKind::End { .. }) {
                    late_ends.push(change.event.as_str());
                }
                passing.push(Change { epoch, ..change.clone() });
            }
            self.late_ends.fetch_add(late_ends.len(), Ordering::SeqCst);
            self.ended_by_others(flow, &late_ends).await;
            let changed = store.change(flow, &passing).await?;
            if self.on && changed.contains(&Changed::Fenced) {
                continue; // the partition has a new owner since the read; repeated writes are idempotent
            }
            let all = changes.iter().zip(&passing).zip(&changed);
            let late = all.filter(|((change, passing), changed)| {
                is_claim(change) && (change.epoch != passing.epoch || **changed == Changed::Fenced)
            });
            self.late_claims.fetch_add(late.count(), Ordering::SeqCst);
            return Ok(changed);
        }
    }

    async fn due(
        &self,
        store: &dyn RunStore,
        flow: &str,
        partitions: &[(Partition, Epoch)],
        now: Timestamp,
    ) -> Result<Due, StoreError> {
        loop {
            let epochs = self.passing(flow).await?;
            let passing = |(partition, epoch): &(Partition, Epoch)| {
                (*partition, epochs.get(partition).copied().unwrap_or(*epoch))
            };
            let due = store.due(flow, &partitions.iter().map(passing).collect::<Vec<_>>(), now).await?;
            if self.on && !due.fenced.is_empty() {
                continue; // a partition has a new owner since the read; the replica must not learn of it
            }
            return Ok(due);
        }
    }
}
