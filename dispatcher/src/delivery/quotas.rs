//! Quotas at work: every call of an account that has one waits here for its turn.
//!
//! A limit that a destination announces is held like one that is configured. The process' share of each account is a
//! short lease from the store, renewed twice a second; while the store is away it runs out, and nothing is sent. Within
//! the process a governor sets the pace, and urgent flows go first.

mod desk;
mod pace;
mod waiting;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use usher_proto::Timestamp;
use usher_service::clock;

use super::scribe::Stopped;
use crate::connectors::Turnstile;
use crate::engine::Destinations;
use crate::engine::quota::{Quota, RateLimitHeaders};
use crate::metrics::Metrics;
use crate::store::{Grant, Store, Wish};
use desk::Desk;
pub(super) use desk::Turn;

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

/// The further requests of one call. They keep the pace; the call as a whole is one that is under way, and one of those that
/// caps count.
struct Further {
    desk: Option<Arc<Desk>>,
    flow: String,
    urgent: bool,
}

#[async_trait]
impl Turnstile for Further {
    async fn pass(&self) {
        // Where calls at once are limited, one that waited for another would wait for itself.
        if let Some(desk) = self.desk.as_ref().filter(|desk| !desk.limits_at_once()) {
            desk.turn(&self.flow, self.urgent).await.let_be();
        }
    }
}

/// The name of a part of an account that has a quota of its own.
pub(super) fn part(account: &str, part: &str) -> String {
    format!("{account}/{part}")
}

/// All accounts of a process that have a quota or may announce a limit.
pub(super) struct Quotas {
    desks: BTreeMap<String, Arc<Desk>>,
    /// Somebody has to wait for what the process does not have.
    short: Arc<Notify>,
    metrics: Metrics,
}

/// Why there is no call to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNow {
    /// The account's calls are used up until then.
    UsedUp(Timestamp),
    /// The process is stopping.
    Stopped,
}

impl Quotas {
    pub(super) fn new(limited: Vec<Limited>, metrics: Metrics) -> Self {
        let short = Arc::new(Notify::new());
        let desk = |it: Limited| (it.account.clone(), Arc::new(Desk::new(it, short.clone(), metrics.clone())));
        Self { desks: limited.into_iter().map(desk).collect(), short: short.clone(), metrics }
    }

    /// Takes one call out of what the account has left for the day, or whatever its caps count.
    pub(super) async fn take(&self, account: &str, urgent: bool, stop: &CancellationToken) -> Result<(), NotNow> {
        let Some(desk) = self.desks.get(account) else { return Ok(()) };
        stop.run_until_cancelled(desk.take(urgent)).await.unwrap_or(Err(NotNow::Stopped))
    }

    /// Whether who waits for a turn now will have it in a moment.
    pub(super) fn is_near(&self, account: &str) -> bool {
        self.desks.get(account).is_none_or(|desk| desk.is_near())
    }

    /// Waits for leave to make one call now.
    pub(super) async fn turn(
        &self,
        account: &str,
        flow: &str,
        urgent: bool,
        stop: &CancellationToken,
    ) -> Result<Turn, Stopped> {
        let Some(desk) = self.desks.get(account) else { return Ok(Turn::free()) };
        let begun = clock::since_boot();
        let turn = stop.run_until_cancelled(desk.turn(flow, urgent)).await.ok_or(Stopped)?;
        let waited = clock::since_boot().saturating_sub(begun);
        let priority = if urgent { "urgent" } else { "normal" };
        self.metrics.quota_wait_seconds.with_label_values(&[account, priority]).observe(waited.as_secs_f64());
        Ok(turn)
    }

    /// Where the further requests of a call wait.
    pub(super) fn further(&self, account: &str, flow: &str, urgent: bool) -> Arc<dyn Turnstile> {
        Arc::new(Further { desk: self.desks.get(account).cloned(), flow: flow.to_owned(), urgent })
    }

    /// How many calls of an account wait for their turn.
    #[cfg(test)]
    pub(super) fn waiting(&self, account: &str) -> usize {
        self.desks.get(account).map_or(0, |desk| desk.waiting())
    }

    /// Takes the rate limit headers of an answer.
    pub(super) fn told(&self, account: &str, headers: &RateLimitHeaders) {
        if let Some(desk) = self.desks.get(account) {
            desk.told(headers);
        }
    }

    /// Hands out turns and renews the lease, until it is dropped.
    pub(super) async fn run(
        self: Arc<Self>,
        member: String,
        store: Arc<dyn Store>,
        destinations: Arc<Mutex<Destinations>>,
    ) {
        if self.desks.is_empty() {
            return;
        }
        let mut handing_out = JoinSet::new();
        for desk in self.desks.values() {
            handing_out.spawn(desk.clone().hand_out());
        }
        let mut said: Option<Duration> = None;
        loop {
            let asked = clock::since_boot();
            let wishes: Vec<Wish> = self.desks.values().map(|desk| desk.wish()).collect();
            match store.grant(&member, LEASE, &wishes).await {
                Ok(grants) => self.granted(&wishes, grants, asked + LEASE, &destinations),
                Err(error) if said.is_none_or(|said| asked - said >= SAY_EVERY) => {
                    said = Some(asked);
                    tracing::warn!(%error, "quotas cannot be shared; what needs them waits");
                }
                Err(_) => {}
            }
            let starving = self.desks.values().any(|desk| desk.is_starving());
            // Not more often, however many are short of something.
            tokio::time::sleep(ASK_AGAIN).await;
            if !starving {
                let _ = tokio::time::timeout(RENEW_EVERY - ASK_AGAIN, self.short.notified()).await;
            }
        }
    }

    fn granted(&self, wishes: &[Wish], grants: Vec<Grant>, until: Duration, destinations: &Mutex<Destinations>) {
        let mut rooms: BTreeMap<&str, usize> = BTreeMap::new();
        for ((wish, grant), desk) in wishes.iter().zip(grants).zip(self.desks.values()) {
            desk.granted(wish, grant, until);
            let room = rooms.entry(desk.destination()).or_default();
            *room = room.saturating_add(desk.room());
        }
        let mut destinations = destinations.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.into_iter().for_each(|(destination, room)| destinations.make_room(destination, room));
    }
}
