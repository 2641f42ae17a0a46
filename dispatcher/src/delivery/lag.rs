//! The lag of flows in seconds, and the age of their frontiers. Both are determined when the metrics are read, from the store
//! and the log alone: so they also grow while a consumer is stuck, or while no replica owns a partition.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use usher_eventlog::{Log, LogError};
use usher_service::{Scrapes, clock};
use usher_store::Store;

use crate::lag::{self, Backlogs};
use crate::metrics::DispatcherMetrics;

/// Longest time for which a reader of the metrics waits for newer values. Less than what the pages wait.
const PATIENCE: Duration = Duration::from_millis(800);
/// Time after which an unanswered look at the store and the log is given up.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Reports the lag of the flows of a process.
pub(super) struct LagReporter {
    flows: Vec<String>,
    topic: String,
    store: Arc<dyn Store>,
    log: Arc<dyn Log>,
    metrics: DispatcherMetrics,
    backlogs: Mutex<Backlogs>,
}

impl LagReporter {
    pub(super) fn new(
        flows: Vec<String>,
        topic: String,
        store: Arc<dyn Store>,
        log: Arc<dyn Log>,
        metrics: DispatcherMetrics,
    ) -> Self {
        Self { flows, topic, store, log, metrics, backlogs: Mutex::default() }
    }

    /// Runs until it is dropped. If the store or the log does not answer, the backlogs stay as they are, and become older.
    pub(super) async fn run(self, scrapes: Scrapes) {
        let mut reads = scrapes.subscribe();
        let reporter = Arc::new(self);
        let mut looking = JoinSet::new();
        while let Some(read) = reads.next().await {
            if looking.is_empty() {
                looking.spawn(reporter.clone().look());
            }
            // A look that takes longer goes on, and counts at the next read.
            let _ = tokio::time::timeout(PATIENCE, looking.join_next()).await;
            reporter.report();
            drop(read);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Backlogs> {
        self.backlogs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) {
        let now = clock::now();
        let backlogs = self.locked();
        let seconds = |age: Duration| i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        for flow in &self.flows {
            self.metrics.lag_seconds.with_label_values(&[flow]).set(seconds(backlogs.age(flow, now)));
            self.metrics.frontier_age.with_label_values(&[flow]).set(seconds(backlogs.frontier_age(flow, now)));
        }
    }

    async fn look(self: Arc<Self>) {
        match tokio::time::timeout(GIVE_UP, self.look_once()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "determining the lag failed; retrying when the metrics are read"),
            Err(_) => tracing::debug!("determining the lag timed out; retrying when the metrics are read"),
        }
    }

    async fn look_once(&self) -> Result<(), LogError> {
        // The ends first: what is admitted meanwhile does not count as a lag.
        let watermarks = self.log.watermarks(&self.topic).await?;
        let Ok(frontiers) = self.store.stored_frontiers().await.inspect_err(|error| {
            tracing::debug!(%error, "reading frontiers failed; retrying when the metrics are read");
        }) else {
            return Ok(());
        };
        let ours = frontiers.into_iter().filter(|frontier| self.flows.contains(&frontier.flow));
        let unread = self.locked().update(ours, &watermarks, clock::now());
        let learn = |first, received_at| self.locked().learn(first, received_at);
        lag::read_first_records(&*self.log, &self.topic, unread, &watermarks, learn).await
    }
}
