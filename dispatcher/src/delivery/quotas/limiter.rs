//! One account's calls, handed out in permit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use usher_service::clock;

use super::fair_queue::FairQueue;
use super::pace::CallPacer;
use super::{Limited, QuotaError};
use crate::engine::quota::{Announced, Demand, Pace, Quota, RateLimitHeaders};
use crate::metrics::Metrics;
use crate::store::{CapBudget, CapShortage, QuotaLease, QuotaRequest};

/// How long a flow's calls that are under way wait here at most, roughly: what is begun and waits cannot be handed over.
const LINE: Duration = Duration::from_secs(1);
/// A permit within this time is near.
const NEAR: Duration = Duration::from_secs(2);
/// So many of a flow's calls may always wait.
const SHORTEST_LINE: usize = 2;

/// Where calls of one account wait for their permit.
pub(super) struct AccountLimiter {
    account: String,
    destination: String,
    serves_urgent: bool,
    assumed: bool,
    quota: Quota,
    state: Mutex<LimiterState>,
    /// Something has changed that those who wait may have waited for.
    changed: Notify,
    /// New calls under the caps are there.
    credited: Notify,
    /// Tells the one who renews.
    short: Arc<Notify>,
    metrics: Metrics,
}

struct LimiterState {
    /// Of the quota: whether there is a pace, and a limit to calls at once, and what the caps are.
    quota: Quota,
    /// The limits that the destination has announced.
    announced: Announced,
    /// True if a header that cannot be read was logged.
    unreadable_logged: bool,
    waiting: FairQueue<oneshot::Sender<CallPermit>>,
    under_way: u32,
    /// Until when what was granted holds, in time since the machine was started.
    until: Duration,
    max_concurrent: u32,
    pacer: CallPacer,
    /// The pace that was granted, and our part of it.
    paced: Option<(Pace, u32)>,
    /// Processes that use the account, this one included.
    sharers: u32,
    usual: CapBudget,
    urgent: CapBudget,
    short: CapShortage,
    /// Whether a call was let go since the lease was renewed.
    busy: bool,
}

/// Leave to make one call now. It counts as under way until this is dropped, which is when its answer has come.
pub(in crate::delivery) struct CallPermit(Option<Issued>);

/// A permit of an account that is looked after.
struct Issued {
    limiter: Arc<AccountLimiter>,
    /// The call's number at the pacer, where it counts calls.
    number: Option<u64>,
    measured: bool,
}

impl CallPermit {
    /// Of an account without a quota.
    pub(super) const fn free() -> Self {
        Self(None)
    }

    /// Ends it before the call is made: its answer comes elsewhere.
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

/// What is to be done next.
enum NextGrant {
    Grant(oneshot::Sender<CallPermit>, Option<u64>),
    In(Duration),
    /// When something has changed.
    Later,
}

impl AccountLimiter {
    pub(super) fn new(limited: Limited, short: Arc<Notify>, metrics: Metrics) -> Self {
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
        let (state, changed, credited) = (Mutex::new(state), Notify::new(), Notify::new());
        Self { account, destination, serves_urgent, assumed, quota, state, changed, credited, short, metrics }
    }

    /// Whether so many calls may be under way at once and no more.
    pub(super) fn limits_at_once(&self) -> bool {
        self.quota.max_concurrent.is_some()
    }

    /// The account that the engine knows.
    pub(super) fn destination(&self) -> &str {
        &self.destination
    }

    fn state(&self) -> MutexGuard<'_, LimiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one call out of what the caps leave; waits while that is not known.
    pub(super) async fn take(&self, urgent: bool) -> Result<(), QuotaError> {
        loop {
            let credited = self.credited.notified();
            if let Some(taken) = self.state().take(urgent) {
                return taken;
            }
            self.short.notify_one();
            credited.await;
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

    /// Hands out turns until it is dropped.
    pub(super) async fn hand_out(self: Arc<Self>) {
        loop {
            let next = self.state().next();
            match next {
                NextGrant::Grant(who, number) => {
                    self.metrics.quota_used.with_label_values(&[&self.account]).inc();
                    // Whoever does not wait any more lets it drop.
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

    /// What is wanted of the account now.
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

    /// What the store has granted, until then since the machine was started.
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
        self.credited.notify_waiters();
        self.changed.notify_one();
    }

    /// How many of a flow's calls may wait here: as many as go in about a second, or at once.
    pub(super) fn room(&self) -> usize {
        let state = self.state();
        let now = clock::since_boot();
        let in_line = state.is_paced(now).then(|| (state.pacer.per_second() * LINE.as_secs_f64()).ceil() as usize);
        let in_line = if state.announced.check(state.sharers, now).is_err() { Some(0) } else { in_line };
        let max_concurrent = state.quota.max_concurrent.map(|_| state.max_concurrent as usize);
        in_line.into_iter().chain(max_concurrent).min().map_or(usize::MAX, |room| room.max(SHORTEST_LINE))
    }

    /// Whether who waits now will be let go in a moment, by all that is known.
    pub(super) fn is_near(&self) -> bool {
        let state = self.state();
        let now = clock::since_boot();
        let open = state.quota.max_concurrent.is_none() && state.may_begin(state.waiting.len(), now).is_ok();
        let line = (state.waiting.len() + 1) as f64;
        open && state.has_something() && line <= state.pacer.per_second() * NEAR.as_secs_f64()
    }

    /// Whether somebody waits and the process has nothing.
    pub(super) fn is_starving(&self) -> bool {
        let state = self.state();
        !state.waiting.is_empty() && !state.has_something()
    }

    /// Takes the rate limit headers of an answer.
    pub(super) fn observe_headers(&self, headers: &RateLimitHeaders) {
        let now = clock::since_boot();
        let mut state = self.state();
        let before = state.announced.pace(now);
        let under_way = state.under_way.saturating_sub(1);
        state.announced.observe(headers, self.quota.pace.map(|pace| pace.per), under_way, now);
        if state.announced.pace(now) != before {
            // The others are to know, and our part of it is to be granted.
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
    /// None while it is not known whether there is one.
    fn take(&mut self, urgent: bool) -> Option<Result<(), QuotaError>> {
        if self.quota.caps.is_empty() {
            return Some(Ok(()));
        }
        let now = clock::now();
        let valid = |cap_budget: &CapBudget| cap_budget.calls > 0 && cap_budget.until.is_none_or(|until| now < until);
        let pots = if urgent { [Some(&mut self.urgent), Some(&mut self.usual)] } else { [Some(&mut self.usual), None] };
        let mut until = None;
        for (place, pot) in pots.into_iter().flatten().enumerate() {
            if valid(pot) {
                pot.calls -= 1;
                return Some(Ok(()));
            }
            if place == 0 {
                until = pot.none_before.filter(|until| now < *until);
            }
        }
        if let Some(until) = until {
            return Some(Err(QuotaError::UsedUp(until)));
        }
        if urgent {
            self.short.urgent = true
        } else {
            self.short.usual = true
        }
        None
    }

    /// Whether the process may send at all.
    fn has_something(&self) -> bool {
        let now = clock::since_boot();
        let (paced, limits_at_once) = (self.is_paced(now), self.quota.max_concurrent.is_some());
        // An account without any limit needs no lease.
        let leased = now < self.until || !(paced || limits_at_once);
        let pace = !paced || self.paced.is_some_and(|(_, part)| part > 0);
        let max_concurrent = !limits_at_once || self.max_concurrent > 0;
        pace && max_concurrent && leased
    }

    /// True if there is a pace to hold: configured, announced to us, or announced to another process.
    fn is_paced(&self, now: Duration) -> bool {
        let granted = self.paced.is_some() && now < self.until;
        self.quota.pace.is_some() || self.announced.pace(now).is_some() || granted
    }

    /// True if a call may be begun behind as many as wait before it, by what the destination has announced, or may yet
    /// announce.
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
        let metrics = Metrics::register(&prometheus::Registry::new()).expect("metrics");
        let quota = quota.parse().expect("a quota");
        let (account, destination) = ("resend".to_owned(), "resend".to_owned());
        let limited = Limited { account, destination, quota, assumed: false, serves_urgent: false };
        Arc::new(AccountLimiter::new(limited, Arc::default(), metrics))
    }

    /// Grants everything, for so long.
    fn grant(limiter: &AccountLimiter, seconds: u64) {
        let quota_request = limiter.quota_request();
        let (pace, max_concurrent) =
            (quota_request.quota.pace.map(|pace| (pace, pace.calls)), quota_request.quota.max_concurrent.unwrap_or(0));
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
        // Two seconds and the first one, by what is left of a busy machine.
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
        let (first, _second) = (limiter.permit("a", false).await, limiter.permit("a", false).await);
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
        let (remaining, reset) = (Some(0), Some(Duration::from_secs(3_600)));
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
        let (first, second) = (limiter.permit("a", false).await, limiter.permit("a", false).await);
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
        assert_eq!((state.take(false), state.take(true)), (Some(Err(QuotaError::UsedUp(until))), None));
    }
}
