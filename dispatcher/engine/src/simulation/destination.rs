//! Destinations: the results of calls, and the effects so far.

use std::collections::HashMap;

use rand::Rng as _;
use rand::rngs::StdRng;
use usher_proto::Reason;

use super::plan::{Defect, DestinationPlan};
use crate::{Cause, Effect, Outcome};

/// Timeout of a call, in ms.
pub(super) const TIMEOUT: i64 = 10_000;

/// The fault of a destination as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DestinationTrouble {
    None,
    /// No connection can be made.
    Unreachable,
    /// Every answer is 503.
    OutOfOrder,
    /// Calls arrive and are never answered; some have an effect.
    Hangs,
    /// Every answer is 429, with a time to wait or without one.
    Throttles(Option<i64>),
}

/// The result of a call, decided when it is sent.
#[derive(Debug)]
pub(super) struct SimulatedCall {
    /// Time until it reaches the destination; absent if it never does.
    pub(super) arrives_in: Option<i64>,
    /// Time until its outcome is known.
    pub(super) answers_in: i64,
    pub(super) outcome: Outcome,
}

/// A simulated destination.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) plan: DestinationPlan,
    pub(super) trouble: DestinationTrouble,
    /// Requests by key: event, step, generation.
    memory: HashMap<(u32, u8, u32), Vec<u8>>,
    forgets: bool,
    /// The current second, and the calls served in it.
    second: (i64, u32),
    /// Calls served in each second, for measurements of utilisation.
    pub(super) served: Vec<u32>,
}

fn done() -> Outcome {
    Outcome::Done(Effect::new("", serde_json::Value::Null))
}

impl Destination {
    pub(super) fn new(plan: DestinationPlan, defect: Defect) -> Self {
        Self {
            plan,
            trouble: DestinationTrouble::None,
            memory: HashMap::new(),
            forgets: defect == Defect::NoMemory,
            second: (0, 0),
            served: Vec::new(),
        }
    }

    /// Ends all faults, except slowness by nature.
    pub(super) fn calm_down(&mut self) {
        self.trouble = DestinationTrouble::None;
        let DestinationPlan { unavailable, hangs, answer_lost, panics, conflicts, .. } = &mut self.plan;
        for part in [unavailable, hangs, answer_lost, panics, conflicts] {
            *part = 0.0;
        }
    }

    /// Returns the result of a call that is sent now.
    pub(super) fn call(&mut self, now: i64, rng: &mut StdRng) -> SimulatedCall {
        let latency = rng.random_range(self.plan.latency.0..=self.plan.latency.1);
        let way = latency / 2;
        let fails = |cause, after: Option<i64>| {
            let after = after.map(|after| std::time::Duration::from_millis(after.unsigned_abs()));
            SimulatedCall { arrives_in: None, answers_in: latency, outcome: Outcome::Retry { cause, after } }
        };
        let times_out =
            |arrives_in| SimulatedCall { arrives_in, answers_in: TIMEOUT, outcome: Outcome::retry(Cause::Timeout) };
        match self.trouble {
            DestinationTrouble::Unreachable => return fails(Cause::Unreachable, None),
            DestinationTrouble::OutOfOrder => return fails(Cause::Unavailable, None),
            DestinationTrouble::Hangs => return times_out(rng.random_bool(0.3).then_some(way)),
            DestinationTrouble::Throttles(after) => return fails(Cause::Throttled, after),
            DestinationTrouble::None => {}
        }
        if let Some(quota) = self.plan.quota {
            let second = now / 1000;
            if self.second.0 != second {
                self.second = (second, 0);
            }
            if self.second.1 >= quota {
                return fails(Cause::Throttled, Some(1000));
            }
            self.second.1 += 1;
        }
        let chance: f64 = rng.random();
        let plan = &self.plan;
        let mut bound = plan.unavailable;
        if chance < bound {
            // Sometimes the answer is 503 although the request had its effect.
            let arrives_in = rng.random_bool(0.2).then_some(way);
            return SimulatedCall { arrives_in, answers_in: latency, outcome: Outcome::retry(Cause::Unavailable) };
        }
        bound += plan.hangs;
        if chance < bound {
            let arrives_in = match rng.random_range(0..3) {
                0 => None,
                1 => Some(way),
                _ => Some(rng.random_range(0..TIMEOUT)),
            };
            return times_out(arrives_in);
        }
        bound += plan.answer_lost;
        if chance < bound {
            let outcome = Outcome::retry(Cause::Interrupted);
            return SimulatedCall { arrives_in: Some(way), answers_in: latency, outcome };
        }
        bound += plan.panics;
        if chance < bound {
            let arrives_in = rng.random_bool(0.5).then_some(way);
            return SimulatedCall { arrives_in, answers_in: latency, outcome: Outcome::retry(Cause::Panicked) };
        }
        bound += plan.conflicts;
        if chance < bound {
            return fails(Cause::Conflict, None);
        }
        SimulatedCall { arrives_in: Some(way), answers_in: latency, outcome: done() }
    }

    /// Takes a request that has arrived. Returns true if it has an effect; the error is the refusal.
    pub(super) fn arrives(&mut self, key: (u32, u8, u32), request: &[u8], now: i64) -> Result<bool, Outcome> {
        let second = usize::try_from(now / 1000).expect("time goes on from 0");
        if self.served.len() <= second {
            self.served.resize(second + 1, 0);
        }
        self.served[second] += 1;
        if !self.plan.remembers || self.forgets {
            return Ok(true);
        }
        match self.memory.get(&key) {
            None => {
                self.memory.insert(key, request.to_vec());
                Ok(true)
            }
            Some(known) if known == request => Ok(false),
            Some(_) => Err(Outcome::reject(Reason::IdempotencyConflict, "another request")),
        }
    }
}
