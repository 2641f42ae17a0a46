//! Rate limiter of one account: hands out the permits for its calls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use usher_service::clock;

use super::fair_queue::FairQueue;
use super::pace::CallPacer;
use super::{Limited, QuotaError};
use crate::engine::quota::{Announced, Demand, Pace, Quota, RateLimitHeaders};
use crate::metrics::DispatcherMetrics;
use crate::store::{CapBudget, CapShortage, QuotaLease, QuotaRequest};

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

struct LimiterState {
    /// The quota. Only the presence of a pace and of a concurrency limit, and the caps, are read from it here.
    quota: Quota,
    /// The limits that the destination has announced.
    announced: Announced,
    /// True if a header that cannot be read was logged.
    unreadable_logged: bool,
    waiting: FairQueue<oneshot::Sender<CallPermit>>,
    under_way: u32,
    /// End of the lease, as time since boot.
    until: Duration,
    max_concurrent: u32,
    pacer: CallPacer,
    /// The granted pace, and this process's part of it.
    paced: Option<(Pace, u32)>,
    /// Processes that use the account, this one included.
    sharers: u32,
    usual: CapBudget,
    urgent: CapBudget,
    short: CapShortage,
    /// True if a permit was issued since the lease was last renewed.
    busy: bool,
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
        if let Some(given) = &mut self.0 {
            given.measured = false;
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

/// Next action of the loop that hands out permits.
enum NextGrant {
    Grant(oneshot::Sender<CallPermit>, Option<u64>),
    In(Duration),
    /// Nothing to do until something changes.
    Later,
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
                    let given = Issued { limiter: self.clone(), number, measured: true };
                    drop(who.send(CallPermit(Some(given))));
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

impl LimiterState {
    /// Takes one call from the budget of the caps. Returns `None` while it is not known whether one is left.
    fn take(&mut self, urgent: bool) -> Option<Result<(), QuotaError>> {
        if self.quota.caps.is_empty() {
            return Some(Ok(()));
        }
        let now = clock::now();
        let valid = |cap_budget: &CapBudget| cap_budget.calls > 0 && cap_budget.until.is_none_or(|until| now < until);
        let budgets =
            if urgent { [Some(&mut self.urgent), Some(&mut self.usual)] } else { [Some(&mut self.usual), None] };
        let mut until = None;
        for (place, pot) in budgets.into_iter().flatten().enumerate() {
            if valid(pot) {
                pot.calls -= 1;
                return Some(Ok(()));
            }
            if place == 0 {
                until = pot.none_before.filter(|until| now < *until);
            }
        }
        if let Some(until) = until {
            return Some(Err(QuotaError::QuotaExhausted(until)));
        }
        if urgent {
            self.short.urgent = true
        } else {
            self.short.usual = true
        }
        None
    }

    /// Returns true if the process may send at all.
    fn has_something(&self) -> bool {
        let now = clock::since_boot();
        let paced = self.is_paced(now);
        let limits_concurrency = self.quota.max_concurrent.is_some();
        // An account without any limit needs no lease.
        let leased = now < self.until || !(paced || limits_concurrency);
        let pace = !paced || self.paced.is_some_and(|(_, part)| part > 0);
        let max_concurrent = !limits_concurrency || self.max_concurrent > 0;
        pace && max_concurrent && leased
    }

    /// Returns true if there is a pace to keep: configured, announced to this process, or announced to another process.
    fn is_paced(&self, now: Duration) -> bool {
        let granted = self.paced.is_some() && now < self.until;
        self.quota.pace.is_some() || self.announced.pace(now).is_some() || granted
    }

    /// Checks if a call may begin behind `waiting` others, by what the destination has announced or may yet announce.
    /// The error is the pause until the next check.
    fn may_begin(&self, waiting: usize, now: Duration) -> Result<(), Duration> {
        self.announced.check(self.sharers, now)?;
        if self.is_paced(now) || self.quota.max_concurrent.is_some() {
            return Ok(());
        }
        let before = self.under_way.saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX));
        self.announced.may_probe(before, now)
    }

    fn next(&mut self) -> NextGrant {
        let now = clock::since_boot();
        if self.waiting.is_empty() || !self.has_something() {
            return NextGrant::Later;
        }
        if self.quota.max_concurrent.is_some() && self.under_way >= self.max_concurrent {
            return NextGrant::Later;
        }
        if let Err(pause) = self.may_begin(0, now) {
            return NextGrant::In(pause);
        }
        let number = match self.pacer.grant(now) {
            Ok(number) => number,
            Err(pause) => return NextGrant::In(pause),
        };
        let Some(who) = self.waiting.pop() else { return NextGrant::Later };
        self.announced.count(now);
        self.under_way += 1;
        self.busy = true;
        NextGrant::Grant(who, number)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn limiter(quota: &str) -> Arc<AccountLimiter> {
        let metrics = DispatcherMetrics::register(&prometheus::Registry::new()).expect("metrics");
        let quota = quota.parse().expect("a quota");
        let account = "resend".to_owned();
        let destination = "resend".to_owned();
        let limited = Limited { account, destination, quota, assumed: false, serves_urgent: false };
        Arc::new(AccountLimiter::new(limited, Arc::default(), metrics))
    }

    /// Grants the whole quota for this many seconds.
    fn grant(limiter: &AccountLimiter, seconds: u64) {
        let quota_request = limiter.quota_request();
        let pace = quota_request.quota.pace.map(|pace| (pace, pace.calls));
        let max_concurrent = quota_request.quota.max_concurrent.unwrap_or(0);
        let grant = QuotaLease { pace, max_concurrent, ..QuotaLease::default() };
        limiter.granted(&quota_request, grant, clock::since_boot() + Duration::from_secs(seconds));
    }

    #[tokio::test]
    async fn the_pace_is_kept_in_every_second_and_used_well() {
        let limiter = limiter("50/s");
        grant(&limiter, 60);
        let handing_out = tokio::spawn(limiter.clone().hand_out());
        let begun = Instant::now();
        let mut let_go = Vec::new();
        for _ in 0..100 {
            let permit = limiter.permit("a", false).await;
            let_go.push(begun.elapsed());
            drop(permit);
        }
        handing_out.abort();
        let most = let_go
            .iter()
            .map(|at| let_go.iter().filter(|other| **other >= *at && **other < *at + Duration::from_secs(1)).count());
        assert!(most.max() <= Some(50), "{let_go:?}");
        // Two seconds, plus the first one, plus a reserve for a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(6), "100 calls at 47.6 a second: {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn nobody_gets_a_turn_when_the_lease_is_over() {
        let limiter = limiter("1000/s");
        grant(&limiter, 0);
        let handing_out = tokio::spawn(limiter.clone().hand_out());
        let permit = tokio::time::timeout(Duration::from_millis(50), limiter.permit("a", false)).await;
        assert!(permit.is_err() && limiter.is_starving());
        grant(&limiter, 60);
        let permit = tokio::time::timeout(Duration::from_secs(5), limiter.permit("a", false)).await;
        handing_out.abort();
        assert!(permit.is_ok());
    }

    #[tokio::test]
    async fn so_many_are_under_way_at_once_and_no_more() {
        let limiter = limiter("2 at once");
        grant(&limiter, 60);
        let handing_out = tokio::spawn(limiter.clone().hand_out());
        let first = limiter.permit("a", false).await;
        let _second = limiter.permit("a", false).await;
        let third = tokio::time::timeout(Duration::from_millis(50), limiter.permit("a", false)).await;
        assert!(third.is_err());
        drop(first);
        let third = tokio::time::timeout(Duration::from_secs(5), limiter.permit("a", false)).await;
        handing_out.abort();
        assert!(third.is_ok());
    }

    #[test]
    fn none_left_is_believed_until_there_are_more() {
        let limiter = limiter("1000/s");
        grant(&limiter, 60);
        let remaining = Some(0);
        let reset = Some(Duration::from_secs(3_600));
        limiter.observe_headers(&RateLimitHeaders { remaining, reset, ..RateLimitHeaders::default() });
        let (who, _turn) = oneshot::channel();
        let mut state = limiter.state();
        state.waiting.push("a", false, who);
        let NextGrant::In(pause) = state.next() else { panic!("it waits") };
        assert!(pause > Duration::from_secs(50) && pause <= Duration::from_secs(60));
    }

    #[tokio::test]
    async fn an_account_without_a_quota_asks_first_and_holds_what_is_announced_once_it_is_granted() {
        let limiter = limiter("none");
        let handing_out = tokio::spawn(limiter.clone().hand_out());
        let soon = Duration::from_millis(50);
        let first = limiter.permit("a", false).await;
        let second = limiter.permit("a", false).await;
        assert!(tokio::time::timeout(soon, limiter.permit("a", false)).await.is_err(), "two ask");
        let second_long = Pace { calls: 20, per: Duration::from_secs(1) };
        limiter.observe_headers(&RateLimitHeaders { policies: vec![second_long], ..RateLimitHeaders::default() });
        drop((first, second));
        assert!(
            tokio::time::timeout(soon, limiter.permit("a", false)).await.is_err() && limiter.is_starving(),
            "not granted yet"
        );
        let quota_request = limiter.quota_request();
        assert_eq!(quota_request.announced, Some(second_long));
        let grant = QuotaLease { pace: Some((second_long, 20)), ..QuotaLease::default() };
        limiter.granted(&quota_request, grant, clock::since_boot() + Duration::from_secs(60));
        let permit = tokio::time::timeout(Duration::from_secs(5), limiter.permit("a", false)).await;
        assert!(permit.is_ok() && limiter.room() == 20);
        handing_out.abort();
    }

    #[tokio::test]
    async fn an_account_that_announces_nothing_is_not_limited_and_needs_no_lease() {
        let limiter = limiter("none");
        let handing_out = tokio::spawn(limiter.clone().hand_out());
        let first = limiter.permit("a", false).await;
        limiter.observe_headers(&RateLimitHeaders::default());
        drop(first);
        let mut turns = Vec::new();
        for _ in 0..200 {
            turns
                .push(tokio::time::timeout(Duration::from_secs(5), limiter.permit("a", false)).await.expect("at once"));
        }
        assert_eq!(limiter.room(), usize::MAX);
        handing_out.abort();
    }

    #[test]
    fn urgent_flows_may_use_what_others_have_of_the_caps_and_not_the_other_way_round() {
        let limiter = limiter("10/d");
        let mut state = limiter.state();
        assert_eq!((state.take(false), state.short), (None, CapShortage { usual: true, urgent: false }));
        state.usual = CapBudget { calls: 1, ..CapBudget::default() };
        state.urgent = CapBudget { calls: 1, ..CapBudget::default() };
        assert_eq!((state.take(false), state.take(false)), (Some(Ok(())), None));
        assert_eq!(state.take(true), Some(Ok(())));
        let until = clock::now().plus(Duration::from_secs(60));
        state.usual.none_before = Some(until);
        assert_eq!((state.take(false), state.take(true)), (Some(Err(QuotaError::QuotaExhausted(until))), None));
    }
}
