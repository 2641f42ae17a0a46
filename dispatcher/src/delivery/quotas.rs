//! Quotas at work: every call of an account that has one waits here for its permit.
//!
//! A limit that a destination announces is held like one that is configured. The process' share of each account is a
//! short lease from the store, renewed twice a second; while the store is away it runs out, and nothing is sent. Within
//! the process a governor sets the pace, and urgent flows go first.

mod fair_queue;
mod limiter;
mod pace;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use usher_proto::Timestamp;
use usher_service::clock;

use super::store_actor::Stopped;
use crate::connectors::RequestGate;
use crate::engine::Destinations;
use crate::engine::quota::{Quota, RateLimitHeaders};
use crate::metrics::Metrics;
use crate::store::{QuotaLease, QuotaRequest, Store};
use limiter::AccountLimiter;
pub(super) use limiter::CallPermit;

/// How long a grant holds. A process that has died has its share for so long, and nobody else.
const LEASE: Duration = Duration::from_millis(2_500);
/// Interval between log lines that quotas cannot be shared.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How often it is renewed; what somebody else is to have more of is given back as often.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// How soon somebody who has nothing asks again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// An account with a quota, or one that may announce a limit, and how it is used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limited {
    /// The account, or one part of it: `nylas`, `nylas/<mailbox>`.
    pub(super) account: String,
    /// The account that the engine knows.
    pub(super) destination: String,
    pub(super) quota: Quota,
    /// Whether the quota is only our assumption, and the destination's own word counts instead.
    pub(super) assumed: bool,
    /// Whether an urgent flow uses it.
    pub(super) serves_urgent: bool,
}

/// The extra_requests requests of one call. They keep the pace; the call as a whole is one that is under way, and one of those that
/// caps count.
struct ExtraRequests {
    limiter: Option<Arc<AccountLimiter>>,
    flow: String,
    urgent: bool,
}

#[async_trait]
impl RequestGate for ExtraRequests {
    async fn pass(&self) {
        // Where calls at once are limited, one that waited for another would wait for itself.
        if let Some(limiter) = self.limiter.as_ref().filter(|limiter| !limiter.limits_at_once()) {
            limiter.permit(&self.flow, self.urgent).await.release_early();
        }
    }
}

/// The name of a part of an account that has a quota of its own.
pub(super) fn part(account: &str, part: &str) -> String {
    format!("{account}/{part}")
}

/// All accounts of a process that have a quota or may announce a limit.
pub(super) struct Quotas {
    limiters: BTreeMap<String, Arc<AccountLimiter>>,
    /// Somebody has to wait for what the process does not have.
    short: Arc<Notify>,
    metrics: Metrics,
}

/// Why there is no call to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuotaError {
    /// The account's calls are used up until then.
    UsedUp(Timestamp),
    /// The process is stopping.
    Stopped,
}

impl Quotas {
    pub(super) fn new(limited: Vec<Limited>, metrics: Metrics) -> Self {
        let short = Arc::new(Notify::new());
        let limiter =
            |it: Limited| (it.account.clone(), Arc::new(AccountLimiter::new(it, short.clone(), metrics.clone())));
        Self { limiters: limited.into_iter().map(limiter).collect(), short: short.clone(), metrics }
    }

    /// Takes one call out of what the account has left for the day, or whatever its caps count.
    pub(super) async fn take(&self, account: &str, urgent: bool, stop: &CancellationToken) -> Result<(), QuotaError> {
        let Some(limiter) = self.limiters.get(account) else { return Ok(()) };
        stop.run_until_cancelled(limiter.take(urgent)).await.unwrap_or(Err(QuotaError::Stopped))
    }

    /// Whether who waits for a permit now will have it in a moment.
    pub(super) fn is_near(&self, account: &str) -> bool {
        self.limiters.get(account).is_none_or(|limiter| limiter.is_near())
    }

    /// Waits for leave to make one call now.
    pub(super) async fn permit(
        &self,
        account: &str,
        flow: &str,
        urgent: bool,
        stop: &CancellationToken,
    ) -> Result<CallPermit, Stopped> {
        let Some(limiter) = self.limiters.get(account) else { return Ok(CallPermit::free()) };
        let begun = clock::since_boot();
        let permit = stop.run_until_cancelled(limiter.permit(flow, urgent)).await.ok_or(Stopped)?;
        let waited = clock::since_boot().saturating_sub(begun);
        let priority = if urgent { "urgent" } else { "normal" };
        self.metrics.quota_wait_seconds.with_label_values(&[account, priority]).observe(waited.as_secs_f64());
        Ok(permit)
    }

    /// Where the extra_requests requests of a call wait.
    pub(super) fn extra_requests(&self, account: &str, flow: &str, urgent: bool) -> Arc<dyn RequestGate> {
        Arc::new(ExtraRequests { limiter: self.limiters.get(account).cloned(), flow: flow.to_owned(), urgent })
    }

    /// How many calls of an account wait for their permit.
    #[cfg(test)]
    pub(super) fn waiting(&self, account: &str) -> usize {
        self.limiters.get(account).map_or(0, |limiter| limiter.waiting())
    }

    /// Takes the rate limit headers of an answer.
    pub(super) fn observe_headers(&self, account: &str, headers: &RateLimitHeaders) {
        if let Some(limiter) = self.limiters.get(account) {
            limiter.observe_headers(headers);
        }
    }

    /// Hands out turns and renews the lease, until it is dropped.
    pub(super) async fn run(
        self: Arc<Self>,
        member: String,
        store: Arc<dyn Store>,
        destinations: Arc<Mutex<Destinations>>,
    ) {
        if self.limiters.is_empty() {
            return;
        }
        let mut handing_out = JoinSet::new();
        for limiter in self.limiters.values() {
            handing_out.spawn(limiter.clone().hand_out());
        }
        let mut said: Option<Duration> = None;
        loop {
            let asked = clock::since_boot();
            let quota_requests: Vec<QuotaRequest> =
                self.limiters.values().map(|limiter| limiter.quota_request()).collect();
            match store.grant(&member, LEASE, &quota_requests).await {
                Ok(grants) => self.granted(&quota_requests, grants, asked + LEASE, &destinations),
                Err(error) if said.is_none_or(|said| asked - said >= SAY_EVERY) => {
                    said = Some(asked);
                    tracing::warn!(%error, "quotas cannot be shared; what needs them waits");
                }
                Err(_) => {}
            }
            let starving = self.limiters.values().any(|limiter| limiter.is_starving());
            // Not more often, however many are short of something.
            tokio::time::sleep(ASK_AGAIN).await;
            if !starving {
                let _ = tokio::time::timeout(RENEW_EVERY - ASK_AGAIN, self.short.notified()).await;
            }
        }
    }

    fn granted(
        &self,
        quota_requests: &[QuotaRequest],
        grants: Vec<QuotaLease>,
        until: Duration,
        destinations: &Mutex<Destinations>,
    ) {
        let mut rooms: BTreeMap<&str, usize> = BTreeMap::new();
        for ((quota_request, grant), limiter) in quota_requests.iter().zip(grants).zip(self.limiters.values()) {
            limiter.granted(quota_request, grant, until);
            let room = rooms.entry(limiter.destination()).or_default();
            *room = room.saturating_add(limiter.room());
        }
        let mut destinations = destinations.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.into_iter().for_each(|(destination, room)| destinations.make_room(destination, room));
    }
}
