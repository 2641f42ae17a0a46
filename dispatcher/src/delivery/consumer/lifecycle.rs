//! Reports on a flow, rejoins its group, and ends it.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use usher_engine::Input;

use super::{JoinedConsumer, REPORT_EVERY, sleep_until};
use crate::delivery::error::DispatcherError;

/// Time allowed for steps in flight to finish after a stop was requested. It is below the process's own deadline,
/// because the last commit comes after it.
const DRAIN_DEADLINE: Duration = Duration::from_secs(6);
/// Time without an answer from the store after which a flow is not ready.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// Pause before the consumer group is joined again.
const REJOIN_AFTER: Duration = Duration::from_secs(1);
/// Time allowed for leaving the consumer group.
const LEAVE_DEADLINE: Duration = Duration::from_secs(8);

impl JoinedConsumer {
    /// Lets the steps in flight finish and be written, starts nothing new, and leaves the group. Steps that exceed
    /// [`DRAIN_DEADLINE`] are aborted.
    pub(super) async fn finish(mut self) -> Result<(), DispatcherError> {
        self.consumer.stop.cancel();
        let flow = self.consumer.flow.name.clone();
        self.handle(Input::Stop);
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while !self.consumer.engine.is_idle() {
            tokio::select! {
                Some(input) = self.consumer.answers.recv() => self.answered(input),
                Some(done) = self.tasks.join_next() => self.done(done),
                () = sleep_until(self.wakeup) => self.handle(Input::Wakeup),
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(flow, "drain deadline passed with steps in flight; their requests are stored and repeated");
                    self.tasks.abort_all();
                    break;
                }
            }
        }
        self.subscription.control.close().await;
        self.failed.map_or(Ok(()), Err)
    }

    /// Leaves the group and joins it again. The engine has dropped its state; the log reports the partitions assigned
    /// next.
    pub(super) async fn rejoin(&mut self) {
        let flow = self.consumer.flow.name.clone();
        let stop = self.consumer.stop.clone();
        if tokio::time::timeout(LEAVE_DEADLINE, self.subscription.control.close()).await.is_err() {
            tracing::warn!(flow, "leaving the consumer group timed out; joining again");
        }
        self.rejoin = false;
        loop {
            if stop.run_until_cancelled(tokio::time::sleep(REJOIN_AFTER)).await.is_none() {
                return;
            }
            match self.consumer.subscribe().await {
                Ok(subscription) => {
                    self.subscription = subscription;
                    return;
                }
                Err(error) => tracing::warn!(flow, %error, "joining the consumer group failed; retrying"),
            }
        }
    }

    pub(super) fn signal_ready(&mut self) {
        if let Some(ready) = self.consumer.ready.take() {
            // The receiver is gone only if the process is stopping.
            let _ = ready.send(());
        }
    }

    /// Sets the gauges and the readiness of the flow, and logs what it waits for. Is to be repeated while something is in flight
    /// or pending, because then they change with time alone.
    pub(super) fn report(&mut self) {
        let now = Instant::now();
        let pending_for = self.consumer.executor.store_handle.pending_for();
        let at_rest = pending_for.is_zero() && self.consumer.engine.is_idle() && !self.consumer.engine.is_catching_up();
        self.reported_at = now;
        self.report_at = (!at_rest).then(|| now + REPORT_EVERY);
        self.catching_up.follow(&self.consumer.flow.name, &self.consumer.engine);
        let metrics = &self.consumer.executor.metrics;
        let numbers = self.consumer.engine.numbers();
        let set = |gauge: &prometheus::IntGaugeVec, value: usize| {
            gauge.with_label_values(&[self.consumer.flow.name.as_str()]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&metrics.in_flight, numbers.in_flight);
        set(&metrics.retrying, numbers.resting);
        set(&metrics.lanes_blocked, numbers.held);
        set(&metrics.loaded, numbers.loaded);
        set(&metrics.loaded_bytes, numbers.weight);
        let half_retention_offsets =
            self.consumer.half_retention_offsets.lock().unwrap_or_else(PoisonError::into_inner);
        let late = metrics.lag_half_kept.with_label_values(&[self.consumer.flow.name.as_str()]);
        late.set(self.consumer.engine.lag(&half_retention_offsets));
        let unread = self.consumer.engine.catching_up();
        set(&metrics.paused, usize::from(self.consumer.engine.is_paused()));
        set(&metrics.catching_up, usize::from(unread.is_some()));
        set(&metrics.catching_up_events, unread.map_or(0, |unread| usize::try_from(unread.events).unwrap_or(0)));
        set(&metrics.stalled_seconds, usize::try_from(pending_for.as_secs()).unwrap_or(usize::MAX));
        self.consumer.readiness.set(format!("flow {}", self.consumer.flow.name), pending_for < STALLED_AFTER);
    }
}
