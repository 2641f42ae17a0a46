//! A circuit breaker: stops the calls of a destination that is down, then admits single calls as probes. Once the
//! destination serves again, the breaker admits more calls step by step, so that the backlog does not overload it.

use std::time::Duration;

use usher_proto::Timestamp;

/// Number of different runs whose attempts must fail consecutively, with no successful call in between, before a
/// destination counts as down. A single run that always fails does not open the breaker.
const FAILURES: usize = 8;
/// Number of consecutive failing runs that reopen the breaker after it has begun to serve again.
const FAILURES_WHILE_RECOVERING: usize = 3;
/// Number of concurrent calls at which the recovery ends. It begins with one, and every answer admits one more, so that
/// the number doubles in the time of a call.
const RECOVERED: u32 = 64;
/// The pause before the first probe; it doubles with each probe that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between probes.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that is respected when a destination requests one.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// A destination that requests a pause of at least this length is reported like one that is down.
const LONG_THROTTLE: Duration = Duration::from_secs(10);
/// The pause for a destination that throttles without giving a time.
const DEFAULT_THROTTLE: Duration = Duration::from_secs(1);

/// The health of a destination, as one attempt shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers, even if it rejects the request.
    Serves,
    /// It seems to be down.
    Down,
    /// It requests a slower pace. Holds the pause that it requests, if any.
    Throttles(Option<Duration>),
    /// The attempt shows nothing about the destination.
    Unknown,
}

/// Permit for one call. Holds the generation of the breaker in which it was issued; results of an earlier
/// generation are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Timestamp },
    HalfOpen { allowed: u32, serves: bool },
}

/// The breaker of one destination.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// Number of state changes: the breaker's generation.
    time: u64,
    in_flight: u32,
    /// The runs that failed since the last successful call, up to the number that opens the breaker.
    failing: Vec<u64>,
    /// Number of pauses since the breaker was last closed.
    pauses: u32,
    /// The time of the last successful call; absent if there was none.
    served_at: Option<Timestamp>,
    /// The time at which the destination was last found to be down; absent if it never was.
    down_at: Option<Timestamp>,
    /// The time since which it has been in trouble that an operator should learn of; absent if it is not.
    trouble_since: Option<Timestamp>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            time: 0,
            in_flight: 0,
            failing: Vec::new(),
            pauses: 0,
            served_at: None,
            down_at: None,
            trouble_since: None,
        }
    }
}

impl Breaker {
    /// Returns true if calls are not limited.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Returns the time since which the destination has been in trouble, and the time of the next probe, which is
    /// absent while it is being probed. Returns `None` if it is not in trouble.
    pub fn trouble(&self) -> Option<(Timestamp, Option<Timestamp>)> {
        self.trouble_since.map(|since| (since, self.opens_at()))
    }

    /// Returns true if a call may be made now, without counting one.
    pub fn admits(&self, now: Timestamp) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } => now >= until,
            State::HalfOpen { allowed, .. } => self.in_flight < allowed,
        }
    }

    /// Returns the time from which a call may be made again; `None` if calls need not wait for a time.
    pub fn opens_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Returns a permit for one call, if one may be made now. Every permit must be returned with [`Breaker::answered`].
    pub fn permit(&mut self, now: Timestamp) -> Option<Permit> {
        if !self.admits(now) {
            return None;
        }
        if let State::Open { .. } = self.state {
            self.turn(State::HalfOpen { allowed: 1, serves: false });
            // Calls still in flight from before tell nothing about the present state.
            self.in_flight = 0;
        }
        self.in_flight += 1;
        Some(Permit(self.time))
    }

    /// Takes the result of a call. `who` distinguishes runs; `jitter` is random in 0..1.
    pub fn answered(&mut self, permit: Permit, health: Health, who: u64, now: Timestamp, jitter: f64) {
        if permit.0 != self.time {
            return; // from an earlier generation
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match health {
            Health::Unknown => {}
            Health::Serves => self.serves(now),
            Health::Throttles(after) => {
                let until = now.plus(after.unwrap_or(DEFAULT_THROTTLE).min(MAX_RETRY_AFTER));
                self.failing.clear();
                if until.since(now) >= LONG_THROTTLE {
                    self.trouble_since.get_or_insert(now);
                }
                self.turn(State::Open { until });
            }
            Health::Down => self.fails(who, now, jitter),
        }
    }

    fn serves(&mut self, now: Timestamp) {
        self.served_at = Some(now);
        self.failing.clear();
        if let State::HalfOpen { allowed, serves } = &mut self.state {
            *allowed += 1;
            *serves = true;
            if *allowed >= RECOVERED {
                self.pauses = 0;
                self.trouble_since = None;
                // Calls in flight stay counted: they were counted one by one.
                self.state = State::Closed;
            }
        }
    }

    fn fails(&mut self, who: u64, now: Timestamp, jitter: f64) {
        if !self.failing.contains(&who) {
            self.failing.push(who);
        }
        let enough = match self.state {
            State::Closed => FAILURES,
            State::HalfOpen { serves: true, .. } => FAILURES_WHILE_RECOVERING,
            State::HalfOpen { serves: false, .. } => 1,
            State::Open { .. } => return,
        };
        if self.failing.len() >= enough {
            let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(10)).min(LONGEST_PAUSE);
            self.pauses += 1;
            self.down_at = Some(now);
            self.trouble_since.get_or_insert(now);
            self.failing.clear();
            // Between half and the whole pause, so that several replicas do not probe at the same moment.
            self.turn(State::Open { until: now.plus(pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)) });
        }
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.in_flight = 0;
        self.time += 1;
    }

    /// Returns true if a failure at that time was the run's own: other runs have been served since, and the destination
    /// was not found to be down in between.
    pub fn served_others_since(&self, failed_at: Timestamp) -> bool {
        self.served_at.is_some_and(|at| at >= failed_at) && self.down_at.is_none_or(|at| at < failed_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn call(breaker: &mut Breaker, health: Health, who: u64, now: i64) {
        let permit = breaker.permit(at(now)).expect("leave");
        breaker.answered(permit, health, who, at(now), 1.0);
    }

    fn broken() -> Breaker {
        let mut breaker = Breaker::default();
        (0..8).for_each(|who| call(&mut breaker, Health::Down, who, 0));
        assert!(!breaker.is_closed());
        breaker
    }

    #[test]
    fn it_opens_when_different_runs_fail_in_a_row_and_not_before() {
        let mut breaker = Breaker::default();
        (0..100).for_each(|_| call(&mut breaker, Health::Down, 1, 0));
        (0..7).for_each(|who| call(&mut breaker, Health::Down, who, 0));
        call(&mut breaker, Health::Serves, 9, 0);
        (0..7).for_each(|who| call(&mut breaker, Health::Down, who, 0));
        assert!(breaker.is_closed());
        call(&mut breaker, Health::Down, 7, 0);
        assert!(!breaker.is_closed());
        assert_eq!(breaker.permit(at(999)), None);
    }

    #[test]
    fn one_call_tries_whether_it_is_back_and_the_pauses_double() {
        let mut breaker = broken();
        let permit = breaker.permit(at(1_000)).expect("one");
        assert_eq!(breaker.permit(at(1_000)), None, "and no second");
        breaker.answered(permit, Health::Down, 1, at(1_000), 1.0);
        assert_eq!(breaker.permit(at(2_999)), None);
        assert!(breaker.permit(at(3_000)).is_some());
    }

    #[test]
    fn it_closes_step_by_step() {
        let mut breaker = broken();
        let mut admitted = Vec::new();
        while !breaker.is_closed() {
            let permits: Vec<Permit> = std::iter::from_fn(|| breaker.permit(at(1_000))).collect();
            admitted.push(permits.len());
            permits.into_iter().for_each(|permit| breaker.answered(permit, Health::Serves, 1, at(1_000), 1.0));
        }
        assert_eq!(admitted.first(), Some(&1));
        assert!(admitted.windows(2).all(|pair| pair[1] <= 2 * pair[0]), "{admitted:?}");
    }

    #[test]
    fn a_late_answer_from_before_it_opened_does_not_count() {
        let mut breaker = Breaker::default();
        let late = breaker.permit(at(0)).expect("leave");
        (0..8).for_each(|who| call(&mut breaker, Health::Down, who, 0));
        let trial = breaker.permit(at(1_000)).expect("a trial");
        breaker.answered(late, Health::Down, 9, at(1_000), 1.0);
        breaker.answered(trial, Health::Serves, 1, at(1_000), 1.0);
        assert!(breaker.admits(at(1_000)));
    }

    #[test]
    fn one_run_that_always_fails_does_not_stop_the_recovery() {
        let mut breaker = broken();
        call(&mut breaker, Health::Serves, 1, 1_000);
        for _ in 0..10 {
            call(&mut breaker, Health::Down, 2, 1_000);
        }
        assert!(breaker.admits(at(1_000)));
    }

    #[test]
    fn a_destination_that_throttles_is_left_alone_for_as_long_as_it_says() {
        let mut breaker = Breaker::default();
        call(&mut breaker, Health::Throttles(Some(Duration::from_secs(5))), 1, 0);
        assert!(!breaker.admits(at(4_999)) && breaker.admits(at(5_000)));
        let mut breaker = Breaker::default();
        call(&mut breaker, Health::Throttles(Some(Duration::from_secs(86_400))), 1, 0);
        assert!(breaker.admits(at(300_000)), "but not for ever");
    }

    #[test]
    fn trouble_lasts_from_when_it_is_down_until_it_serves_as_usual() {
        let mut breaker = broken();
        assert_eq!(breaker.trouble(), Some((at(0), Some(at(1_000)))));
        let mut now = 1_000;
        while !breaker.is_closed() {
            call(&mut breaker, Health::Serves, 1, now);
            now += 1;
            assert_eq!(breaker.trouble().is_some(), !breaker.is_closed());
        }
        call(&mut breaker, Health::Throttles(Some(Duration::from_secs(1))), 1, now);
        assert_eq!(breaker.trouble(), None, "that is everyday life at a quota");
        call(&mut breaker, Health::Throttles(Some(Duration::from_secs(60))), 1, now + 1_000);
        assert_eq!(breaker.trouble().map(|(since, _)| since), Some(at(now + 1_000)));
    }

    #[test]
    fn a_failure_is_the_runs_own_where_others_are_served_and_no_outage_came_between() {
        let mut breaker = Breaker::default();
        assert!(!breaker.served_others_since(at(5)));
        call(&mut breaker, Health::Serves, 1, 4);
        assert!(!breaker.served_others_since(at(5)), "before it");
        call(&mut breaker, Health::Serves, 1, 6);
        assert!(breaker.served_others_since(at(5)));
        (0..8).for_each(|who| call(&mut breaker, Health::Down, who, 7));
        call(&mut breaker, Health::Serves, 1, 2_000);
        assert!(!breaker.served_others_since(at(5)), "an outage came between");
    }
}
