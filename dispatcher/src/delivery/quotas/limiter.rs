//! Rate limiter of one account: hands out the permits for its calls.

mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use usher_service::clock;

use super::fair_queue::FairQueue;
use super::pace::CallPacer;
use super::{Limited, QuotaError};
use crate::engine::quota::{Announced, Demand, Quota, RateLimitHeaders};
use crate::metrics::DispatcherMetrics;
use crate::store::{CapBudget, CapShortage, QuotaLease, QuotaRequest};
use state::{LimiterState, NextGrant};

/// Approximate longest wait of a flow's calls here. A step that has begun and waits cannot be handed over to another
/// replica.
const LINE: Duration = Duration::from_secs(1);
/// A permit expected within this time is near.
const NEAR: Duration = Duration::from_secs(2);
/// Number of a flow's calls that may always wait.
const MIN_QUEUE: usize = 2;

/// Rate limiter of one account, at which its calls wait for their permits.
pub(super) struct AccountLimiter {
    account: String,
    destination: String,
    serves_urgent: bool,
    assumed: bool,
    quota: Quota,
    state: Mutex<LimiterState>,
    /// Notified after a change that waiting calls may depend on.
    changed: Notify,
    /// Notified when a lease may have brought new calls under the caps.
    lease_arrived: Notify,
    /// Wakes the task that renews the leases.
    short: Arc<Notify>,
    metrics: DispatcherMetrics,
}

/// Permit for one call now. The call counts as in flight until the permit is dropped, which happens when the answer has
/// come.
pub(in crate::delivery) struct CallPermit(Option<Issued>);

/// The part of a permit that an account's limiter has issued.
struct Issued {
    limiter: Arc<AccountLimiter>,
    /// The call's number at the pacer; `None` if the pacer does not count calls.
    number: Option<u64>,
    measured: bool,
}

impl CallPermit {
    /// Returns the permit of an account without a limiter.
    pub(super) const fn free() -> Self {
        Self(None)
    }

    /// Releases the permit before the call is made. Its duration is not measured, because the answer comes elsewhere.
    pub(super) fn release_early(mut self) {
        if let Some(issued) = &mut self.0 {
            issued.measured = false;
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if let Some(Issued { limiter, number, measured }) = &self.0 {
            {
                let mut state = limiter.state();
                state.under_way -= 1;
                if let Some(number) = number {
                    state.pacer.ended(*number, *measured, clock::since_boot());
                }
            }
            limiter.changed.notify_one();
        }
    }
}

impl AccountLimiter {
    pub(super) fn new(limited: Limited, short: Arc<Notify>, metrics: DispatcherMetrics) -> Self {
        let Limited { account, destination, quota, assumed, serves_urgent } = limited;
        let state = LimiterState {
            quota: quota.clone(),
            announced: Announced::default(),
            unreadable_logged: false,
            waiting: FairQueue::default(),
            under_way: 0,
            until: Duration::ZERO,
            max_concurrent: 0,
            pacer: CallPacer::default(),
            paced: None,
            sharers: 1,
            usual: CapBudget::default(),
            urgent: CapBudget::default(),
            short: CapShortage::default(),
            busy: false,
        };
        let state = Mutex::new(state);
        let changed = Notify::new();
        let lease_arrived = Notify::new();
        Self { account, destination, serves_urgent, assumed, quota, state, changed, lease_arrived, short, metrics }
    }

    /// Returns true if the quota limits the number of concurrent calls.
    pub(super) fn limits_concurrency(&self) -> bool {
        self.quota.max_concurrent.is_some()
    }

    /// Returns the account's name in the engine.
    pub(super) fn destination(&self) -> &str {
        &self.destination
    }

    fn state(&self) -> MutexGuard<'_, LimiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one call from the budget of the caps. Waits while the budget is not known.
    pub(super) async fn take(&self, urgent: bool) -> Result<(), QuotaError> {
        loop {
            let lease_arrived = self.lease_arrived.notified();
            if let Some(taken) = self.state().take(urgent) {
                return taken;
            }
            self.short.notify_one();
            lease_arrived.await;
        }
    }

    pub(super) async fn permit(self: &Arc<Self>, flow: &str, urgent: bool) -> CallPermit {
        loop {
            let (who, permit) = oneshot::channel();
            let short = {
                let mut state = self.state();
                state.waiting.push(flow, urgent, who);
                !state.has_something()
            };
            self.changed.notify_one();
            if short {
                self.short.notify_one();
            }
            if let Ok(permit) = permit.await {
                return permit;
            }
        }
    }

    /// Hands out permits until it is dropped.
    pub(super) async fn hand_out(self: Arc<Self>) {
        loop {
            let next = self.state().next();
            match next {
                NextGrant::Grant(who, number) => {
                    self.metrics.quota_used.with_label_values(&[&self.account]).inc();
                    // A caller that no longer waits drops the permit.
                    let issued = Issued { limiter: self.clone(), number, measured: true };
                    drop(who.send(CallPermit(Some(issued))));
                }
                NextGrant::In(pause) => drop(tokio::time::timeout(pause, self.changed.notified()).await),
                NextGrant::Later => self.changed.notified().await,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Returns the request for the account's next lease.
    pub(super) fn quota_request(&self) -> QuotaRequest {
        let now = clock::since_boot();
        let mut state = self.state();
        let something = !state.waiting.is_empty() || std::mem::take(&mut state.busy);
        let demand = match something {
            _ if state.waiting.any_urgent() => Demand::Urgent,
            true => Demand::Normal,
            false => Demand::Idle,
        };
        let waiting = i64::try_from(state.waiting.len()).unwrap_or(i64::MAX);
        self.metrics.quota_waiting.with_label_values(&[&self.account]).set(waiting);
        QuotaRequest {
            account: self.account.clone(),
            quota: self.quota.clone(),
            demand,
            serves_urgent: self.serves_urgent,
            max_concurrent: if now < state.until { state.max_concurrent } else { 0 },
            under_way: state.under_way,
            announced: state.announced.pace(now),
            counts: state.announced.counts(now),
            assumed: self.assumed,
            short: state.short,
        }
    }

    /// Applies a lease of the store, which ends at `until` (time since boot).
    pub(super) fn granted(&self, quota_request: &QuotaRequest, grant: QuotaLease, until: Duration) {
        {
            let mut state = self.state();
            state.until = until;
            state.max_concurrent = grant.max_concurrent;
            state.paced = grant.pace;
            state.sharers = grant.sharers.max(1);
            state.pacer.share(grant.pace, clock::since_boot());
            if quota_request.short.usual {
                state.usual = grant.usual;
            }
            if quota_request.short.urgent {
                state.urgent = grant.urgent;
            }
            state.short = CapShortage::default();
        }
        if grant.pace.is_some() || self.quota.max_concurrent.is_some() {
            let share = grant.pace.map_or(grant.max_concurrent, |(_, part)| part);
            self.metrics.quota_share.with_label_values(&[&self.account]).set(i64::from(share));
        }
        self.lease_arrived.notify_waiters();
        self.changed.notify_one();
    }

    /// Returns the number of a flow's calls that may wait here: as many as are sent in about a second, or may be in
    /// flight at once.
    pub(super) fn room(&self) -> usize {
        let state = self.state();
        let now = clock::since_boot();
        let in_line = state.is_paced(now).then(|| (state.pacer.per_second() * LINE.as_secs_f64()).ceil() as usize);
        let in_line = if state.announced.check(state.sharers, now).is_err() { Some(0) } else { in_line };
        let max_concurrent = state.quota.max_concurrent.map(|_| state.max_concurrent as usize);
        in_line.into_iter().chain(max_concurrent).min().map_or(usize::MAX, |room| room.max(MIN_QUEUE))
    }

    /// Returns true if, by all that is known, a call queued now gets its permit within [`NEAR`].
    pub(super) fn is_near(&self) -> bool {
        let state = self.state();
        let now = clock::since_boot();
        let open = state.quota.max_concurrent.is_none() && state.may_begin(state.waiting.len(), now).is_ok();
        let line = (state.waiting.len() + 1) as f64;
        open && state.has_something() && line <= state.pacer.per_second() * NEAR.as_secs_f64()
    }

    /// Returns true if calls wait and the process may not send.
    pub(super) fn is_starving(&self) -> bool {
        let state = self.state();
        !state.waiting.is_empty() && !state.has_something()
    }

    /// Records the rate limit headers of an answer.
    pub(super) fn observe_headers(&self, headers: &RateLimitHeaders) {
        let now = clock::since_boot();
        let mut state = self.state();
        let before = state.announced.pace(now);
        let under_way = state.under_way.saturating_sub(1);
        state.announced.observe(headers, self.quota.pace.map(|pace| pace.per), under_way, now);
        if state.announced.pace(now) != before {
            // The other processes need to learn of the change, and this one needs its part of the new pace.
            self.short.notify_one();
        }
        if let Some(header) = headers.unreadable.filter(|_| !state.unreadable_logged) {
            state.unreadable_logged = true;
            tracing::warn!(account = %self.account, header, "ignoring a rate limit header that cannot be read");
        }
        self.changed.notify_one();
    }
}
