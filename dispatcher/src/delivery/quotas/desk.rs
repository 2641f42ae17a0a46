//! One account's calls, handed out in turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use usher_service::clock;

use super::pace::Pacer;
use super::waiting::Waiting;
use super::{Limited, NotNow};
use crate::connectors::Room;
use crate::engine::quota::{Pace, Quota, Wants};
use crate::metrics::Metrics;
use crate::store::{Credit, Grant, Short, Wish};

/// The longest time for which a destination's "none left" is believed.
const LONGEST_QUIET: Duration = Duration::from_secs(60);
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
    /// The pace that the destination has named.
    heard: Option<Pace>,
    waiting: Waiting<oneshot::Sender<Turn>>,
    under_way: u32,
    /// Until when what was granted holds, in time since the machine was started.
    until: Duration,
    at_once: u32,
    pacer: Pacer,
    /// Whether there is any part of the pace for us.
    paced: bool,
    /// The destination says that it has nothing left until then.
    quiet_until: Duration,
    usual: Credit,
    urgent: Credit,
    short: Short,
    /// Whether a call was let go since the lease was renewed.
    busy: bool,
}

/// Leave to make one call now. It counts as under way until this is dropped.
pub(in crate::delivery) struct Turn(Option<Arc<Desk>>);

impl Turn {
    /// Of an account without a quota.
    pub(super) const fn free() -> Self {
        Self(None)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(desk) = &self.0 {
            desk.state().under_way -= 1;
            desk.changed.notify_one();
        }
    }
}

/// What is to be done next.
enum Next {
    LetGo(oneshot::Sender<Turn>),
    In(Duration),
    /// When something has changed.
    Later,
}

impl Desk {
    pub(super) fn new(limited: Limited, short: Arc<Notify>, metrics: Metrics) -> Self {
        let Limited { account, destination, quota, assumed, serves_urgent } = limited;
        let state = State {
            quota: quota.clone(),
            heard: None,
            waiting: Waiting::default(),
            under_way: 0,
            until: Duration::ZERO,
            at_once: 0,
            pacer: Pacer::default(),
            paced: false,
            quiet_until: Duration::ZERO,
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
                Next::LetGo(who) => {
                    self.metrics.quota_used.with_label_values(&[&self.account]).inc();
                    // Whoever does not wait any more lets it drop.
                    drop(who.send(Turn(Some(self.clone()))));
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
            at_once: if clock::since_boot() < state.until { state.at_once } else { 0 },
            under_way: state.under_way,
            heard: state.heard,
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
            state.paced = grant.pace.is_some_and(|(_, part)| part > 0);
            state.pacer.share(grant.pace, clock::since_boot());
            if wish.short.usual {
                state.usual = grant.usual;
            }
            if wish.short.urgent {
                state.urgent = grant.urgent;
            }
            state.short = Short::default();
        }
        let share = grant.pace.map_or(grant.at_once, |(_, part)| part);
        self.metrics.quota_share.with_label_values(&[&self.account]).set(i64::from(share));
        self.credited.notify_waiters();
        self.changed.notify_one();
    }

    /// How many of a flow's calls may wait here: as many as go in about a second, or at once.
    pub(super) fn room(&self) -> usize {
        let state = self.state();
        let in_line = state.quota.pace.map(|_| (state.pacer.per_second() * LINE.as_secs_f64()).ceil() as usize);
        let at_once = state.quota.at_once.map(|_| state.at_once as usize);
        in_line.into_iter().chain(at_once).min().map_or(usize::MAX, |room| room.max(SHORTEST_LINE))
    }

    /// Whether who waits now will be let go in a moment, by all that is known.
    pub(super) fn is_near(&self) -> bool {
        let state = self.state();
        let open = state.quota.at_once.is_none() && clock::since_boot() >= state.quiet_until;
        let line = (state.waiting.len() + 1) as f64;
        open && state.has_something() && line <= state.pacer.per_second() * NEAR.as_secs_f64()
    }

    /// Whether somebody waits and the process has nothing.
    pub(super) fn is_starving(&self) -> bool {
        let state = self.state();
        !state.waiting.is_empty() && !state.has_something()
    }

    /// What an answer said.
    pub(super) fn told(&self, room: Room) {
        let mut state = self.state();
        let quiet = room.reset.filter(|_| room.remaining == Some(0)).unwrap_or_default();
        // Within the time of our own pace it is we who have used it up, as we should, and the headers are coarse: whole
        // seconds, rounded up.
        if quiet > self.quota.pace.map_or(Duration::ZERO, |pace| pace.per) {
            let quiet = quiet.min(LONGEST_QUIET);
            state.quiet_until = state.quiet_until.max(clock::since_boot() + quiet);
        }
        if let (Some(limit), Some(configured)) = (room.limit.filter(|limit| *limit > 0), self.quota.pace) {
            let per = room.window.filter(|window| !window.is_zero()).unwrap_or(configured.per);
            state.heard = Some(Pace { calls: limit, per });
        }
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
        let pace = self.quota.pace.is_none() || self.paced;
        let at_once = self.quota.at_once.is_none() || self.at_once > 0;
        pace && at_once && clock::since_boot() < self.until
    }

    fn next(&mut self) -> Next {
        let now = clock::since_boot();
        if self.waiting.is_empty() || !self.has_something() {
            return Next::Later;
        }
        if self.quota.at_once.is_some() && self.under_way >= self.at_once {
            return Next::Later;
        }
        if now < self.quiet_until {
            return Next::In(self.quiet_until - now);
        }
        if let Err(pause) = self.pacer.let_go(now) {
            return Next::In(pause);
        }
        let Some(who) = self.waiting.pop() else { return Next::Later };
        self.under_way += 1;
        self.busy = true;
        Next::LetGo(who)
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
        desk.told(Room { remaining: Some(0), reset: Some(Duration::from_secs(3_600)), ..Room::default() });
        let (who, _turn) = oneshot::channel();
        let mut state = desk.state();
        state.waiting.push("a", false, who);
        let Next::In(pause) = state.next() else { panic!("it waits") };
        assert!(pause > Duration::from_secs(50) && pause <= LONGEST_QUIET);
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
