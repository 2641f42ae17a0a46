//! A replica that makes no attempts for a while: no broken promise, only slowness, so that it is not left to chance which
//! of two comes first.

use async_trait::async_trait;
use tokio::sync::watch;
use usher_dispatcher::engine::{Change, Changed};
use usher_dispatcher::store::{Store, StoreError};

use super::{Sabotage, is_claim};

/// See above.
#[derive(Default)]
pub struct Held {
    held: watch::Sender<bool>,
}

impl Held {
    /// From now on claims wait.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// They go on.
    pub fn let_go(&self) {
        self.held.send_replace(false);
    }
}

#[async_trait]
impl Sabotage for Held {
    async fn change(&self, store: &dyn Store, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        if changes.iter().any(is_claim) {
            // The sender lives as long as `self`.
            let _ = self.held.subscribe().wait_for(|held| !held).await;
        }
        store.change(flow, changes).await
    }
}
