//! Observation of a flow that catches up: the positions of the log and the store at its start, and the log lines.

use std::time::Duration;

use tokio::time::Instant;
use usher_engine::{CatchUpTarget, Engine, Seen};
use usher_eventlog::Log;
use usher_store::FlowStore;

/// Interval between log lines about what a start still waits for.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Reads the position of the flow: its pause, if any, and the watermarks of each partition of the topic. Returns `None`
/// if one of them cannot be read now.
pub(super) async fn look(store: &dyn FlowStore, log: &dyn Log, flow: &str, topic: &str) -> Option<CatchUpTarget> {
    let paused = store
        .paused(flow)
        .await
        .inspect_err(|error| tracing::debug!(flow, %error, "reading the pause failed; retrying"))
        .ok()?;
    let watermarks = log
        .watermarks(topic)
        .await
        .inspect_err(|error| tracing::debug!(flow, %error, "reading the log's watermarks failed; retrying"))
        .ok()?;
    let seen =
        |(partition, marks): (_, usher_eventlog::Watermarks)| Seen { partition, low: marks.low, end: marks.high };
    Some(CatchUpTarget { paused, ends: watermarks.into_iter().map(seen).collect() })
}

/// Logs the start of catching up, what the flow still waits for, and the end.
#[derive(Debug, Default)]
pub(super) struct CatchingUp {
    /// Time of the last log line; `None` before the first.
    said_at: Option<Instant>,
    /// Start of catching up, logged or not; `None` while the flow is not catching up.
    since: Option<Instant>,
}

impl CatchingUp {
    /// Logs progress by the engine's state after an input.
    pub(super) fn follow(&mut self, flow: &str, engine: &Engine) {
        if !engine.is_catching_up() {
            if let (Some(_), Some(since)) = (self.said_at.take(), self.since) {
                tracing::info!(flow, seconds = since.elapsed().as_secs(), "caught up with the log; sending begins");
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
            return; // the watermarks were requested only a moment ago
        }
        let partitions: Vec<i32> = unread.partitions.iter().map(|partition| partition.0).collect();
        tracing::info!(flow, events = unread.events, ?partitions, "catching up before sending");
        self.said_at = Some(Instant::now());
    }
}
