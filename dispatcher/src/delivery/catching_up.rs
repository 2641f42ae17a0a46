//! Catching up as it is seen from outside: the look at the log and the store that it begins with, and the log lines.

use std::time::Duration;

use tokio::time::Instant;
use usher_eventlog::Log;

use crate::engine::{Engine, Looked, Seen};
use crate::store::Store;

/// Interval between log lines about what a start still waits for.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Where the flow stands: paused or not, and how far every partition of the topic reaches. None if it cannot be had now.
pub(super) async fn look(store: &dyn Store, log: &dyn Log, flow: &str, topic: &str) -> Option<Looked> {
    let paused = store
        .paused(flow)
        .await
        .inspect_err(|error| tracing::debug!(flow, %error, "whether the flow is paused cannot be asked yet"))
        .ok()?;
    let watermarks = log
        .watermarks(topic)
        .await
        .inspect_err(|error| tracing::debug!(flow, %error, "the log does not say how far it reaches"))
        .ok()?;
    let seen =
        |(partition, marks): (_, usher_eventlog::Watermarks)| Seen { partition, low: marks.low, end: marks.high };
    Some(Looked { paused, ends: watermarks.into_iter().map(seen).collect() })
}

/// Says when a flow begins to catch up, what it waits for while that lasts, and when it is done.
#[derive(Debug, Default)]
pub(super) struct CatchingUp {
    /// When it was said last.
    said_at: Option<Instant>,
    /// Since when it lasts, said or not.
    since: Option<Instant>,
}

impl CatchingUp {
    /// Looks at the engine after an input.
    pub(super) fn follow(&mut self, flow: &str, engine: &Engine) {
        if !engine.is_catching_up() {
            if let (Some(_), Some(since)) = (self.said_at.take(), self.since) {
                tracing::info!(flow, seconds = since.elapsed().as_secs(), "caught up with the log; sending");
            }
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.said_at.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            return;
        }
        let Some(unread) = engine.catching_up() else { return };
        if unread.partitions.is_empty() && since.elapsed() < SAY_EVERY {
            return; // the log has only just been asked how far it reaches
        }
        let partitions: Vec<i32> = unread.partitions.iter().map(|partition| partition.0).collect();
        tracing::info!(flow, events = unread.events, ?partitions, "catching up before sending");
        self.said_at = Some(Instant::now());
    }
}
