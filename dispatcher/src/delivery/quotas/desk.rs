//! One account's calls, handed out in turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use usher_service::clock;

use super::pace::Pacer;
use super::waiting::Waiting;
use super::{Limited, NotNow};
use crate::engine::quota::{Announced, Pace, Quota, RateLimitHeaders, Wants};
use crate::metrics::Metrics;
use crate::store::{Credit, Grant, Short, Wish};

/// How long a flow's calls that are under way wait here at most, roughly: what is begun and waits cannot be handed over.
const LINE: Duration = Duration::from_secs(1);
/// A turn within this time is near.
const NEAR: Duration = Duration::from_secs(2);
/// So many of a flow's calls may always wait.
const SHORTEST_LINE: usize = 2;

/// Where calls of one account wait for their turn.
pub(super) struct Desk {
    account: String,
    destination: String,
    serves_urgent: bool,
    assumed: bool,
    quota: Quota,
    state: Mutex<State>,
    /// Something has changed that those who wait may have waited for.
    changed: Notify,
    /// New calls under the caps are there.
    credited: Notify,
    /// Tells the one who renews.
    short: Arc<Notify>,
    metrics: Metrics,
}

struct State {
    /// Of the quota: whether there is a pace, and a limit to calls at once, and what the caps are.
    quota: Quota,
    /// The limits that the destination has announced.
    announced: Announced,
    /// True if a header that cannot be read was logged.
    unreadable_logged: bool,
    waiting: Waiting<oneshot::Sender<Turn>>,
    under_way: u32,
    /// Until when what was granted holds, in time since the machine was started.
    until: Duration,
    at_once: u32,
    pacer: Pacer,
    /// The pace that was granted, and our part of it.
    paced: Option<(Pace, u32)>,
    /// Processes that use the account, this one included.
    sharers: u32,
    usual: Credit,
    urgent: Credit,
    short: Short,
    /// Whether a call was let go since the lease was renewed.
    busy: bool,
}

/// Leave to make one call now. It counts as under way until this is dropped, which is when its answer has come.
pub(in crate::delivery) struct Turn(Option<Given>);

/// A turn of an account that is looked after.
struct Given {
    desk: Arc<Desk>,
    /// The call's number at the pacer, where it counts calls.
    number: Option<u64>,
    measured: bool,
}

impl Turn {
    /// Of an account without a quota.
    pub(super) const fn free() -> Self {
        Self(None)
    }

    /// Ends it before the call is made: its answer comes elsewhere.
    pub(super) fn let_be(mut self) {
        if let Some(given) = &mut self.0 {
            given.measured = false;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(Given { desk, number, measured }) = &self.0 {
            {
                let mut state = desk.state();
                state.under_way -= 1;
                if let Some(number) = number {
                    state.pacer.ended(*number, *measured, clock::since_boot());
                }
            }
            desk.changed.notify_one();
        }
    }
}

/// What is to be done next.
enum Next {
    LetGo(oneshot::Sender<Turn>, Option<u64>),
    In(Duration),
    /// When something has changed.
    Later,
}

impl Desk {
    pub(super) fn new(limited: Limited, short: Arc<Notify>, metrics: Metrics) -> Self {
        let Limited { account, destination, quota, assumed, serves_urgent } = limited;
        let state = State {
            quota: quota.clone(),
            announced: Announced::default(),
            unreadable_logged: false,
            waiting: Waiting::default(),
            under_way: 0,
            until: Duration::ZERO,
            at_once: 0,
            pacer: Pacer::default(),
            paced: None,
            sharers: 1,
            usual: Credit::default(),
            urgent: Credit::default(),
            short: Short::default(),
            busy: false,
        };
        let (state, changed, credited) = (Mutex::new(state), Notify::new(), Notify::new());
        Self { account, destination, serves_urgent, assumed, quota, state, changed, credited, short, metrics }
    }

    /// Whether so many calls may be under way at once and no more.
    pub(super) fn limits_at_once(&self) -> bool {
        self.quota.at_once.is_some()
    }

    /// The account that the engine knows.
    pub(super) fn destination(&self) -> &str {
        &self.destination
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one call out of what the caps leave; waits while that is not known.
    pub(super) async fn take(&self, urgent: bool) -> Result<(), NotNow> {
        loop {
            let credited = self.credited.notified();
            if let Some(taken) = self.state().take(urgent) {
                return taken;
            }
            self.short.notify_one();
            credited.await;
        }
    }

    pub(super) async fn turn(self: &Arc<Self>, flow: &str, urgent: bool) -> Turn {
        loop {
            let (who, turn) = oneshot::channel();
            let short = {
                let mut state = self.state();
                state.waiting.push(flow, urgent, who);
                !state.has_something()
            };
            self.changed.notify_one();
            if short {
                self.short.notify_one();
            }
            if let Ok(turn) = turn.await {
                return turn;
            }
        }
    }

    /// Hands out turns until it is dropped.
    pub(super) async fn hand_out(self: Arc<Self>) {
        loop {
            let next = self.state().next();
            match next {
                Next::LetGo(who, number) => {
                    self.metrics.quota_used.with_label_values(&[&self.account]).inc();
                    // Whoever does not wait any more lets it drop.
                    let given = Given { desk: self.clone(), number, measured: true };
                    drop(who.send(Turn(Some(given))));
                }
                Next::In(pause) => drop(tokio::time::timeout(pause, self.changed.notified()).await),
                Next::Later => self.changed.notified().await,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// What is wanted of the account now.
    pub(super) fn wish(&self) -> Wish {
        let now = clock::since_boot();
        let mut state = self.state();
        let something = !state.waiting.is_empty() || std::mem::take(&mut state.busy);
        let wants = match something {
            _ if state.waiting.any_urgent() => Wants::Urgent,
            true => Wants::Something,
            false => Wants::Nothing,
        };
        let waiting = i64::try_from(state.waiting.len()).unwrap_or(i64::MAX);
        self.metrics.quota_waiting.with_label_values(&[&self.account]).set(waiting);
        Wish {
            account: self.account.clone(),
            quota: self.quota.clone(),
            wants,
            serves_urgent: self.serves_urgent,
            at_once: if now < state.until { state.at_once } else { 0 },
            under_way: state.under_way,
            announced: state.announced.pace(now),
            counts: state.announced.counts(now),
            assumed: self.assumed,
            short: state.short,
        }
    }

    /// What the store has granted, until then since the machine was started.
    pub(super) fn granted(&self, wish: &Wish, grant: Grant, until: Duration) {
        {
            let mut state = self.state();
            state.until = until;
            state.at_once = grant.at_once;
            state.paced = grant.pace;
            state.sharers = grant.sharers.max(1);
            state.pacer.share(grant.pace, clock::since_boot());
            if wish.short.usual {
                state.usual = grant.usual;
            }
            if wish.short.urgent {
                state.urgent = grant.urgent;
            }
            state.short = Short::default();
        }
        if grant.pace.is_some() || self.quota.at_once.is_some() {
            let share = grant.pace.map_or(grant.at_once, |(_, part)| part);
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
        let at_once = state.quota.at_once.map(|_| state.at_once as usize);
        in_line.into_iter().chain(at_once).min().map_or(usize::MAX, |room| room.max(SHORTEST_LINE))
    }

    /// Whether who waits now will be let go in a moment, by all that is known.
    pub(super) fn is_near(&self) -> bool {
        let state = self.state();
        let now = clock::since_boot();
        let open = state.quota.at_once.is_none() && state.may_begin(state.waiting.len(), now).is_ok();
        let line = (state.waiting.len() + 1) as f64;
        open && state.has_something() && line <= state.pacer.per_second() * NEAR.as_secs_f64()
    }

    /// Whether somebody waits and the process has nothing.
    pub(super) fn is_starving(&self) -> bool {
        let state = self.state();
        !state.waiting.is_empty() && !state.has_something()
    }

    /// Takes the rate limit headers of an answer.
    pub(super) fn told(&self, headers: &RateLimitHeaders) {
        let now = clock::since_boot();
        let mut state = self.state();
        let before = state.announced.pace(now);
        let under_way = state.under_way.saturating_sub(1);
        state.announced.hear(headers, self.quota.pace.map(|pace| pace.per), under_way, now);
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

impl State {
    /// None while it is not known whether there is one.
    fn take(&mut self, urgent: bool) -> Option<Result<(), NotNow>> {
        if self.quota.caps.is_empty() {
            return Some(Ok(()));
        }
        let now = clock::now();
        let valid = |credit: &Credit| credit.calls > 0 && credit.until.is_none_or(|until| now < until);
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
            return Some(Err(NotNow::UsedUp(until)));
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
        let (paced, limits_at_once) = (self.is_paced(now), self.quota.at_once.is_some());
        // An account without any limit needs no lease.
        let leased = now < self.until || !(paced || limits_at_once);
        let pace = !paced || self.paced.is_some_and(|(_, part)| part > 0);
        let at_once = !limits_at_once || self.at_once > 0;
        pace && at_once && leased
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
        if self.is_paced(now) || self.quota.at_once.is_some() {
            return Ok(());
        }
        let before = self.under_way.saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX));
        self.announced.may_probe(before, now)
    }

    fn next(&mut self) -> Next {
        let now = clock::since_boot();
        if self.waiting.is_empty() || !self.has_something() {
            return Next::Later;
        }
        if self.quota.at_once.is_some() && self.under_way >= self.at_once {
            return Next::Later;
        }
        if let Err(pause) = self.may_begin(0, now) {
            return Next::In(pause);
        }
        let number = match self.pacer.let_go(now) {
            Ok(number) => number,
            Err(pause) => return Next::In(pause),
        };
        let Some(who) = self.waiting.pop() else { return Next::Later };
        self.announced.count(now);
        self.under_way += 1;
        self.busy = true;
        Next::LetGo(who, number)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn desk(quota: &str) -> Arc<Desk> {
        let metrics = Metrics::register(&prometheus::Registry::new()).expect("metrics");
        let quota = quota.parse().expect("a quota");
        let (account, destination) = ("resend".to_owned(), "resend".to_owned());
        let limited = Limited { account, destination, quota, assumed: false, serves_urgent: false };
        Arc::new(Desk::new(limited, Arc::default(), metrics))
    }

    /// Grants everything, for so long.
    fn grant(desk: &Desk, seconds: u64) {
        let wish = desk.wish();
        let (pace, at_once) = (wish.quota.pace.map(|pace| (pace, pace.calls)), wish.quota.at_once.unwrap_or(0));
        let grant = Grant { pace, at_once, ..Grant::default() };
        desk.granted(&wish, grant, clock::since_boot() + Duration::from_secs(seconds));
    }

    #[tokio::test]
    async fn the_pace_is_kept_in_every_second_and_used_well() {
        let desk = desk("50/s");
        grant(&desk, 60);
        let handing_out = tokio::spawn(desk.clone().hand_out());
        let begun = Instant::now();
        let mut let_go = Vec::new();
        for _ in 0..100 {
            let turn = desk.turn("a", false).await;
            let_go.push(begun.elapsed());
            drop(turn);
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
        let desk = desk("1000/s");
        grant(&desk, 0);
        let handing_out = tokio::spawn(desk.clone().hand_out());
        let turn = tokio::time::timeout(Duration::from_millis(50), desk.turn("a", false)).await;
        assert!(turn.is_err() && desk.is_starving());
        grant(&desk, 60);
        let turn = tokio::time::timeout(Duration::from_secs(5), desk.turn("a", false)).await;
        handing_out.abort();
        assert!(turn.is_ok());
    }

    #[tokio::test]
    async fn so_many_are_under_way_at_once_and_no_more() {
        let desk = desk("2 at once");
        grant(&desk, 60);
        let handing_out = tokio::spawn(desk.clone().hand_out());
        let (first, _second) = (desk.turn("a", false).await, desk.turn("a", false).await);
        let third = tokio::time::timeout(Duration::from_millis(50), desk.turn("a", false)).await;
        assert!(third.is_err());
        drop(first);
        let third = tokio::time::timeout(Duration::from_secs(5), desk.turn("a", false)).await;
        handing_out.abort();
        assert!(third.is_ok());
    }

    #[test]
    fn none_left_is_believed_until_there_are_more() {
        let desk = desk("1000/s");
        grant(&desk, 60);
        let (remaining, reset) = (Some(0), Some(Duration::from_secs(3_600)));
        desk.told(&RateLimitHeaders { remaining, reset, ..RateLimitHeaders::default() });
        let (who, _turn) = oneshot::channel();
        let mut state = desk.state();
        state.waiting.push("a", false, who);
        let Next::In(pause) = state.next() else { panic!("it waits") };
        assert!(pause > Duration::from_secs(50) && pause <= Duration::from_secs(60));
    }

    #[tokio::test]
    async fn an_account_without_a_quota_asks_first_and_holds_what_is_announced_once_it_is_granted() {
        let desk = desk("none");
        let handing_out = tokio::spawn(desk.clone().hand_out());
        let soon = Duration::from_millis(50);
        let (first, second) = (desk.turn("a", false).await, desk.turn("a", false).await);
        assert!(tokio::time::timeout(soon, desk.turn("a", false)).await.is_err(), "two ask");
        let second_long = Pace { calls: 20, per: Duration::from_secs(1) };
        desk.told(&RateLimitHeaders { policies: vec![second_long], ..RateLimitHeaders::default() });
        drop((first, second));
        assert!(
            tokio::time::timeout(soon, desk.turn("a", false)).await.is_err() && desk.is_starving(),
            "not granted yet"
        );
        let wish = desk.wish();
        assert_eq!(wish.announced, Some(second_long));
        let grant = Grant { pace: Some((second_long, 20)), ..Grant::default() };
        desk.granted(&wish, grant, clock::since_boot() + Duration::from_secs(60));
        let turn = tokio::time::timeout(Duration::from_secs(5), desk.turn("a", false)).await;
        assert!(turn.is_ok() && desk.room() == 20);
        handing_out.abort();
    }

    #[tokio::test]
    async fn an_account_that_announces_nothing_is_not_limited_and_needs_no_lease() {
        let desk = desk("none");
        let handing_out = tokio::spawn(desk.clone().hand_out());
        let first = desk.turn("a", false).await;
        desk.told(&RateLimitHeaders::default());
        drop(first);
        let mut turns = Vec::new();
        for _ in 0..200 {
            turns.push(tokio::time::timeout(Duration::from_secs(5), desk.turn("a", false)).await.expect("at once"));
        }
        assert_eq!(desk.room(), usize::MAX);
        handing_out.abort();
    }

    #[test]
    fn urgent_flows_may_use_what_others_have_of_the_caps_and_not_the_other_way_round() {
        let desk = desk("10/d");
        let mut state = desk.state();
        assert_eq!((state.take(false), state.short), (None, Short { usual: true, urgent: false }));
        state.usual = Credit { calls: 1, ..Credit::default() };
        state.urgent = Credit { calls: 1, ..Credit::default() };
        assert_eq!((state.take(false), state.take(false)), (Some(Ok(())), None));
        assert_eq!(state.take(true), Some(Ok(())));
        let until = clock::now().plus(Duration::from_secs(60));
        state.usual.none_before = Some(until);
        assert_eq!((state.take(false), state.take(true)), (Some(Err(NotNow::UsedUp(until))), None));
    }
}
