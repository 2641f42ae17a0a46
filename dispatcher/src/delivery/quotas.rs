//! Quotas: each call of an account that has one waits here for its permit.
//!
//! A rate limit that a destination announces is applied like a configured one. The process's share of each account is a
//! short lease from the store, renewed twice a second while anything is called, and every two seconds otherwise. While the
//! store is unreachable the lease runs out, and nothing is sent. Within the process a `governor` limiter sets the pace, and urgent flows go first.

mod limiter;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use limiter::AccountLimiter;
pub(super) use limiter::CallPermit;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use usher_connectors::RequestGate;
use usher_proto::Timestamp;
use usher_quota::{Demand, LimitedAccount, QuotaLease, QuotaRequest, RateLimitHeaders};
use usher_service::clock;
use usher_store::QuotaStore;

use super::destinations::SharedDestinations;
use super::store_actor::Stopped;
use crate::metrics::DispatcherMetrics;

/// Duration of a lease. The share of a process that has died stays reserved for this long.
const LEASE: Duration = Duration::from_millis(2_500);
/// Interval between log lines that quotas cannot be shared.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Interval of lease renewals. A share that another process should have more of is given back as often.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// The same of a process that calls nothing. Its next call renews them at once.
const RENEW_IDLE_EVERY: Duration = Duration::from_secs(2);
/// Time without a call after which a process counts as one that calls nothing.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// Pause before the next request of a process that has no share while calls wait.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Extra HTTP requests of one call. Each is paced. The call as a whole counts once for concurrency and for caps.
struct ExtraRequests {
    limiter: Option<Arc<AccountLimiter>>,
    flow: String,
    urgent: bool,
}

#[async_trait]
impl RequestGate for ExtraRequests {
    async fn pass(&self) {
        // Under a concurrency limit, a request that waited for another permit would wait for its own call.
        if let Some(limiter) = self.limiter.as_ref().filter(|limiter| !limiter.limits_concurrency()) {
            limiter.permit(&self.flow, self.urgent).await.release_early();
        }
    }
}

/// Returns the name of a part of an account that has its own quota.
pub(super) fn part(account: &str, part: &str) -> String {
    format!("{account}/{part}")
}

/// All accounts of a process that have a quota or may announce a rate limit.
pub(super) struct Quotas {
    limiters: BTreeMap<String, Arc<AccountLimiter>>,
    /// Notified when a call has to wait for something that the process does not hold.
    short: Arc<Notify>,
    /// True while leases are renewed less often because nothing is called.
    is_idle: AtomicBool,
    metrics: DispatcherMetrics,
}

/// Reason why no call is available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuotaError {
    /// The account's calls are used up until this time.
    Exhausted(Timestamp),
    /// The process is stopping.
    Stopped,
}

impl Quotas {
    pub(super) fn new(limited: Vec<LimitedAccount>, metrics: DispatcherMetrics) -> Self {
        let short = Arc::new(Notify::new());
        let limiter = |it: LimitedAccount| {
            (it.account.clone(), Arc::new(AccountLimiter::new(it, short.clone(), metrics.clone())))
        };
        let limiters: BTreeMap<_, _> = limited.into_iter().map(limiter).collect();
        metrics.create_series_of_limited_accounts(&limiters.keys().map(String::as_str).collect::<Vec<_>>());
        Self { limiters, short: short.clone(), is_idle: AtomicBool::new(false), metrics }
    }

    /// Takes one call from the budget of the account's caps, for example from the calls left for the day.
    pub(super) async fn take(&self, account: &str, urgent: bool, stop: &CancellationToken) -> Result<(), QuotaError> {
        let Some(limiter) = self.limiters.get(account) else { return Ok(()) };
        stop.run_until_cancelled(limiter.take(urgent)).await.unwrap_or(Err(QuotaError::Stopped))
    }

    /// Returns true if a call queued now should get its permit within two seconds.
    pub(super) fn is_near(&self, account: &str) -> bool {
        self.limiters.get(account).is_none_or(|limiter| limiter.is_near())
    }

    /// Waits for the permit to make one call.
    pub(super) async fn permit(
        &self,
        account: &str,
        flow: &str,
        urgent: bool,
        stop: &CancellationToken,
    ) -> Result<CallPermit, Stopped> {
        let Some(limiter) = self.limiters.get(account) else { return Ok(CallPermit::free()) };
        let begun = clock::since_boot();
        if self.is_idle.swap(false, Ordering::Relaxed) {
            self.short.notify_one();
        }
        let permit = stop.run_until_cancelled(limiter.permit(flow, urgent)).await.ok_or(Stopped)?;
        let waited = clock::since_boot().saturating_sub(begun);
        let priority = if urgent { "urgent" } else { "normal" };
        self.metrics.quota_wait_seconds.with_label_values(&[account, priority]).observe(waited.as_secs_f64());
        Ok(permit)
    }

    /// Returns the gate at which the extra requests of a call wait.
    pub(super) fn extra_requests(&self, account: &str, flow: &str, urgent: bool) -> Arc<dyn RequestGate> {
        Arc::new(ExtraRequests { limiter: self.limiters.get(account).cloned(), flow: flow.to_owned(), urgent })
    }

    /// Returns the number of an account's calls that wait for a permit.
    #[cfg(test)]
    pub(super) fn waiting(&self, account: &str) -> usize {
        self.limiters.get(account).map_or(0, |limiter| limiter.waiting())
    }

    /// Records the rate limit headers of an answer.
    pub(super) fn observe_headers(&self, account: &str, headers: &RateLimitHeaders) {
        if let Some(limiter) = self.limiters.get(account) {
            limiter.observe_headers(headers);
        }
    }

    /// Hands out permits and renews the leases until it is dropped.
    pub(super) async fn run(
        self: Arc<Self>,
        member: String,
        store: Arc<dyn QuotaStore>,
        destinations: SharedDestinations,
    ) {
        if self.limiters.is_empty() {
            return;
        }
        let mut handing_out = JoinSet::new();
        for limiter in self.limiters.values() {
            handing_out.spawn(limiter.clone().hand_out());
        }
        let mut said: Option<Duration> = None;
        let mut used_at = clock::since_boot();
        loop {
            let asked = clock::since_boot();
            let quota_requests: Vec<QuotaRequest> =
                self.limiters.values().map(|limiter| limiter.quota_request()).collect();
            let is_used = |request: &QuotaRequest| request.demand != Demand::Idle || request.under_way > 0;
            if quota_requests.iter().any(is_used) {
                used_at = asked;
            }
            let is_idle = asked.saturating_sub(used_at) >= IDLE_AFTER;
            self.is_idle.store(is_idle, Ordering::Relaxed);
            match store.grant(&member, LEASE, &quota_requests).await {
                Ok(grants) => self.granted(&quota_requests, grants, asked + LEASE, &destinations),
                Err(error) if said.is_none_or(|said| asked - said >= SAY_EVERY) => {
                    said = Some(asked);
                    tracing::warn!(%error, "renewing quota leases failed; calls that need them wait");
                }
                Err(_) => {}
            }
            let starving = self.limiters.values().any(|limiter| limiter.is_starving());
            // At most this often, however many accounts are short of something.
            tokio::time::sleep(ASK_AGAIN).await;
            if !starving {
                let every = if is_idle { RENEW_IDLE_EVERY } else { RENEW_EVERY };
                let _ = tokio::time::timeout(every - ASK_AGAIN, self.short.notified()).await;
            }
        }
    }

    fn granted(
        &self,
        quota_requests: &[QuotaRequest],
        grants: Vec<QuotaLease>,
        until: Duration,
        destinations: &SharedDestinations,
    ) {
        let mut rooms: BTreeMap<&str, usize> = BTreeMap::new();
        for ((quota_request, grant), limiter) in quota_requests.iter().zip(grants).zip(self.limiters.values()) {
            limiter.granted(quota_request, &grant, until);
            let room = rooms.entry(limiter.destination()).or_default();
            *room = room.saturating_add(limiter.room());
        }
        destinations.make_room(rooms);
    }
}
