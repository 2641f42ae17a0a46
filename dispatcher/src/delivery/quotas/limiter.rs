//! The limiter of one account as a shared service: its callers wait, and a task lets them pass as the limiter decides.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use usher_quota::{LimitedAccount, Limiter, NextGrant, QuotaLease, QuotaRequest, RateLimitHeaders};
use usher_service::clock;

use super::QuotaError;
use crate::metrics::DispatcherMetrics;

/// Limiter of one account, at which its calls wait for their permits.
pub(super) struct AccountLimiter {
    account: String,
    destination: String,
    limits_concurrency: bool,
    limiter: Mutex<Limiter<oneshot::Sender<CallPermit>>>,
    /// Set once a header that cannot be read was logged.
    unreadable_logged: std::sync::Once,
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
    /// The call's number at the limiter; `None` if calls are not counted.
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
            limiter.locked().ended(*number, *measured, clock::since_boot());
            limiter.changed.notify_one();
        }
    }
}

impl AccountLimiter {
    pub(super) fn new(account: LimitedAccount, short: Arc<Notify>, metrics: DispatcherMetrics) -> Self {
        Self {
            account: account.account.clone(),
            destination: account.destination.clone(),
            limits_concurrency: account.quota.max_concurrent.is_some(),
            limiter: Mutex::new(Limiter::new(account)),
            unreadable_logged: std::sync::Once::new(),
            changed: Notify::new(),
            lease_arrived: Notify::new(),
            short,
            metrics,
        }
    }

    /// Returns true if the quota limits the number of concurrent calls.
    pub(super) fn limits_concurrency(&self) -> bool {
        self.limits_concurrency
    }

    /// Returns the account's name in the engine.
    pub(super) fn destination(&self) -> &str {
        &self.destination
    }

    fn locked(&self) -> MutexGuard<'_, Limiter<oneshot::Sender<CallPermit>>> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one call from the budget of the caps. Waits while the budget is not known.
    pub(super) async fn take(&self, urgent: bool) -> Result<(), QuotaError> {
        loop {
            let lease_arrived = self.lease_arrived.notified();
            if let Some(taken) = self.locked().take(urgent, clock::now()) {
                return taken.map_err(QuotaError::Exhausted);
            }
            self.short.notify_one();
            lease_arrived.await;
        }
    }

    pub(super) async fn permit(self: &Arc<Self>, flow: &str, urgent: bool) -> CallPermit {
        loop {
            let (who, permit) = oneshot::channel();
            let short = {
                let mut limiter = self.locked();
                limiter.push(flow, urgent, who);
                !limiter.may_send(clock::since_boot())
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
            let next = self.locked().next(clock::since_boot());
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
        self.locked().waiting()
    }

    /// Returns the request for the account's next lease.
    pub(super) fn quota_request(&self) -> QuotaRequest {
        let mut limiter = self.locked();
        let waiting = i64::try_from(limiter.waiting()).unwrap_or(i64::MAX);
        self.metrics.quota_waiting.with_label_values(&[&self.account]).set(waiting);
        limiter.request(clock::since_boot())
    }

    /// Applies a lease of the store, which ends at `until` (time since boot).
    pub(super) fn granted(&self, request: &QuotaRequest, lease: &QuotaLease, until: Duration) {
        self.locked().granted(request, lease, until, clock::since_boot());
        if lease.pace.is_some() || self.limits_concurrency {
            let share = lease.pace.map_or(lease.max_concurrent, |(_, part)| part);
            self.metrics.quota_share.with_label_values(&[&self.account]).set(i64::from(share));
        }
        self.lease_arrived.notify_waiters();
        self.changed.notify_one();
    }

    /// Returns the number of a flow's calls that may wait here.
    pub(super) fn room(&self) -> usize {
        self.locked().room(clock::since_boot())
    }

    /// Returns true if a call queued now should get its permit within two seconds.
    pub(super) fn is_near(&self) -> bool {
        self.locked().is_near(clock::since_boot())
    }

    /// Returns true if calls wait and the process may not send.
    pub(super) fn is_starving(&self) -> bool {
        self.locked().is_starving(clock::since_boot())
    }

    /// Records the rate limit headers of an answer.
    pub(super) fn observe_headers(&self, headers: &RateLimitHeaders) {
        if self.locked().observe(headers, clock::since_boot()) {
            self.short.notify_one();
        }
        if let Some(header) = headers.unreadable {
            self.unreadable_logged.call_once(|| {
                tracing::warn!(account = %self.account, header, "ignoring a rate limit header that cannot be read");
            });
        }
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(quota: &str) -> Arc<AccountLimiter> {
        let metrics = DispatcherMetrics::register(&prometheus::Registry::new()).expect("metrics");
        let quota = quota.parse().expect("a quota");
        let account = "resend".to_owned();
        let destination = "resend".to_owned();
        let account = LimitedAccount { account, destination, quota, assumed: false, serves_urgent: false };
        Arc::new(AccountLimiter::new(account, Arc::default(), metrics))
    }

    /// The limiter decides at what time; here only the waiting and the waking are at stake.
    #[tokio::test]
    async fn a_caller_waits_until_a_lease_and_an_ended_call_let_it_pass() {
        let limiter = limiter("1 at once");
        let handing_out = tokio::spawn(limiter.clone().hand_out());
        let waiting = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.permit("a", false).await }
        });
        // Notified when the first caller has no lease to wait under.
        limiter.short.notified().await;
        let request = limiter.quota_request();
        let lease = QuotaLease { max_concurrent: 1, ..QuotaLease::default() };
        limiter.granted(&request, &lease, clock::since_boot() + Duration::from_secs(60));
        let first = waiting.await.expect("a permit");
        let mut second = Box::pin(limiter.permit("a", false));
        assert!(futures::poll!(&mut second).is_pending() && limiter.waiting() == 1);
        drop(first);
        second.await;
        handing_out.abort();
    }
}
