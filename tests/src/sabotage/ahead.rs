//! The frontier moves before the runs below it are stored: admission as two steps instead of one.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use usher_dispatcher::engine::arrival::{Admission, Batch};
use usher_dispatcher::store::{Store, StoreError};

use super::Sabotage;

/// What becomes of a batch whose events are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Second {
    /// There is only one step, as there should be.
    InOne,
    /// The second step never comes, and nobody hears of it.
    Lost,
    /// The process ends between the two.
    Crash,
}

/// See above.
pub struct Ahead {
    second: Second,
    admitted: AtomicUsize,
}

impl Ahead {
    /// Admits like this.
    pub fn new(second: Second) -> Self {
        Self { second, admitted: AtomicUsize::new(0) }
    }

    /// How many events the frontier has passed.
    pub fn admitted(&self) -> usize {
        self.admitted.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Sabotage for Ahead {
    async fn admit(&self, store: &dyn Store, flow: &str, batch: &Batch) -> Result<Admission, StoreError> {
        let first = match self.second {
            Second::InOne => batch.clone(),
            Second::Lost | Second::Crash => Batch { arrivals: Vec::new(), ..batch.clone() },
        };
        let admission = store.admit(flow, &first).await?;
        self.admitted.fetch_add(batch.arrivals.len(), Ordering::SeqCst);
        if self.second == Second::Crash && !batch.arrivals.is_empty() {
            // Until the test makes an end of it.
            std::future::pending::<()>().await;
        }
        Ok(admission)
    }
}
