//! A store that moves the frontier before the runs below it are stored: admission in two steps instead of one.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use usher_engine::arrival::{Admission, Batch};
use usher_store::{FirstClaims, RunStore, StoreError};

use super::Sabotage;

/// Handling of a batch with new events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Second {
    /// One step, which is correct.
    InOne,
    /// The second step is lost and no error is reported.
    Lost,
    /// The process ends between the two steps.
    Crash,
}

/// The sabotage described in the module documentation.
pub struct EarlyFrontier {
    second: Second,
    admitted: AtomicUsize,
}

impl EarlyFrontier {
    /// Creates a sabotage that handles new events like this.
    pub fn new(second: Second) -> Self {
        Self { second, admitted: AtomicUsize::new(0) }
    }

    /// Number of events that the frontier has passed.
    pub fn admitted(&self) -> usize {
        self.admitted.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Sabotage for EarlyFrontier {
    async fn admit(
        &self,
        store: &dyn RunStore,
        flow: &str,
        batch: &Batch,
        claims: &dyn FirstClaims,
    ) -> Result<Admission, StoreError> {
        let first = match self.second {
            Second::InOne => batch.clone(),
            Second::Lost | Second::Crash => Batch { arrivals: Vec::new(), ..batch.clone() },
        };
        let admission = super::admit(store, flow, &first, claims).await?;
        self.admitted.fetch_add(batch.arrivals.len(), Ordering::SeqCst);
        if self.second == Second::Crash && !batch.arrivals.is_empty() {
            // Blocks until the test crashes the replica.
            std::future::pending::<()>().await;
        }
        Ok(admission)
    }
}
