//! A replica that makes no attempts for a while. It breaks no guarantee; its slowness determines which of two
//! replicas comes first.

use async_trait::async_trait;
use tokio::sync::watch;
use usher_engine::{Change, Changed};
use usher_store::{RunStore, StoreError};

use super::{Sabotage, is_claim};

/// The sabotage described in the module documentation.
#[derive(Default)]
pub struct ClaimGate {
    held: watch::Sender<bool>,
}

impl ClaimGate {
    /// Makes claims wait from now on.
    pub fn close(&self) {
        self.held.send_replace(true);
    }

    /// Lets waiting claims continue.
    pub fn open(&self) {
        self.held.send_replace(false);
    }
}

#[async_trait]
impl Sabotage for ClaimGate {
    async fn change(&self, store: &dyn RunStore, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        if changes.iter().any(is_claim) {
            // Cannot fail: the sender lives as long as `self`.
            let _ = self.held.subscribe().wait_for(|held| !held).await;
        }
        store.change(flow, changes).await
    }
}
