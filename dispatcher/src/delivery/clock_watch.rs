//! Monitor of the process's clock. Compares it with the store's clock, or with times that the store has recorded, and
//! reports the result to the flows.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use usher_engine::clock::{ClockState, MAX_SKEW, Witness, judge};
use usher_proto::Timestamp;
use usher_service::{Readiness, clock};
use usher_store::{StoreClock, StoreError};

use crate::metrics::DispatcherMetrics;

/// Interval between checks of the clock.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Monitor of one process's clock.
pub(super) struct ClockWatch {
    store: Arc<dyn StoreClock>,
    readiness: Readiness,
    metrics: DispatcherMetrics,
    started: Duration,
    /// Last use of the store before this process used it; unset before the first check.
    used_before: OnceLock<Option<Timestamp>>,
    state: watch::Sender<ClockState>,
}

impl ClockWatch {
    /// Creates a monitor that has not checked yet. The clock counts as wrong until the first check.
    pub(super) fn new(store: Arc<dyn StoreClock>, readiness: Readiness, metrics: DispatcherMetrics) -> Self {
        let started = clock::since_boot();
        let state = watch::Sender::new(ClockState::Wrong);
        Self { store, readiness, metrics, started, used_before: OnceLock::new(), state }
    }

    /// Returns a receiver for the state of the clock and its changes.
    pub(super) fn state(&self) -> watch::Receiver<ClockState> {
        self.state.subscribe()
    }

    /// Checks the clock periodically.
    pub(super) async fn run(self) {
        loop {
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "reading the store's clock failed; retrying");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Checks the clock once.
    ///
    /// # Errors
    ///
    /// If the store does not answer. The state of the clock then stays unchanged.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let asked = clock::now();
        let right = *self.state.borrow() == ClockState::Right;
        let mut witness = self.store.witness(asked, right).await?;
        let is_first = self.used_before.get().is_none();
        witness.last_used = *self.used_before.get_or_init(|| witness.last_used);
        if let Some(own) = witness.own {
            let at = nearest(own, asked, clock::now());
            if apart(clock::wall(), own) <= MAX_SKEW && apart(at, own) > MAX_SKEW {
                // The machine's clock was set, and it is right now.
                clock::adopt_wall();
            } else {
                self.judged(&witness, at, is_first);
                return Ok(());
            }
        }
        self.judged(&witness, clock::now(), is_first);
        Ok(())
    }

    /// Takes over a judgement. A clock that is right at the first check, as usual, is no news.
    fn judged(&self, witness: &Witness, now: Timestamp, is_first: bool) {
        let state = judge(witness, now, clock::since_boot().saturating_sub(self.started));
        // After a jump this process keeps the old time for a while; other programs that read the machine's clock do
        // not.
        let jumped = witness.own.is_none() && apart(clock::wall(), now) > MAX_SKEW;
        let ready = state != ClockState::Wrong && !jumped;
        self.readiness.set("clock", ready);
        self.metrics.clock_right.set(i64::from(ready && state == ClockState::Right));
        let changed = self.state.send_if_modified(|known| std::mem::replace(known, state) != state);
        match state {
            ClockState::Right if jumped => {
                let ahead_ms = clock::wall().millis() - now.millis();
                tracing::error!(ahead_ms, "the machine's clock was set while this runs: timers keep the old time");
            }
            ClockState::Right if changed && !is_first => tracing::info!("clock confirmed"),
            ClockState::Right => {}
            ClockState::Unproven if changed => {
                tracing::warn!(
                    last_used = ?witness.last_used,
                    "nothing says yet that the clock is right: no wait ends, nothing expires and nothing is forgotten, \
                     until a webhook comes or ten minutes have passed"
                );
            }
            ClockState::Unproven => {}
            ClockState::Wrong => {
                let store = witness.own;
                let newest_webhook = witness.newest;
                tracing::error!(%now, ?store, ?newest_webhook, "the clock is wrong: nothing is begun; set the machine's clock");
            }
        }
    }
}

/// Returns the moment between request and answer that is nearest to the store's time, so that a slow answer does not
/// count as a wrong clock.
fn nearest(own: Timestamp, asked: Timestamp, answered: Timestamp) -> Timestamp {
    own.clamp(asked, answered.max(asked))
}

fn apart(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_wrong_clock() {
        let second = Duration::from_secs(1);
        let asked = Timestamp::from_seconds(1_767_261_600);
        let answered = asked.plus(30 * second);
        let differs = |own| apart(nearest(own, asked, answered), own);
        for own in [asked, asked.plus(second), answered] {
            assert_eq!(differs(own), Duration::ZERO);
        }
        assert_eq!(differs(asked.minus(5 * second)), 5 * second);
        assert_eq!(differs(answered.plus(5 * second)), 5 * second);
    }
}
