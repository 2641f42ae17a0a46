//! Destinations: what a call to one comes to, and what it has done so far.

use std::collections::HashMap;

use rand::Rng as _;
use rand::rngs::StdRng;
use usher_proto::Reason;

use super::plan::{Breakage, DestinationPlan};
use crate::engine::{Cause, Effect, Outcome};

/// How long a call may take.
pub(super) const TIMEOUT: i64 = 10_000;

/// What is wrong with a destination as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// No connection can be made.
    Unreachable,
    /// Every answer is 503.
    OutOfOrder,
    /// Calls are taken, and never answered; some have an effect.
    Hangs,
    /// Every answer is 429, with a time to wait or without.
    Throttles(Option<i64>),
}

/// What a call comes to, decided when it is sent.
#[derive(Debug)]
pub(super) struct Call {
    /// After how long it has reached the destination, if it does.
    pub(super) arrives_in: Option<i64>,
    /// After how long its outcome is known.
    pub(super) answers_in: i64,
    pub(super) outcome: Outcome,
}

/// One destination.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) plan: DestinationPlan,
    pub(super) trouble: Trouble,
    /// Requests by key: event, step, generation.
    memory: HashMap<(u32, u8, u32), Vec<u8>>,
    forgets: bool,
    /// The second that is counted, and the calls served in it.
    second: (i64, u32),
    /// Calls served in each second, for those who look at utilisation.
    pub(super) served: Vec<u32>,
}

fn done() -> Outcome {
    Outcome::Done(Effect::new("", serde_json::Value::Null))
}

impl Destination {
    pub(super) fn new(plan: DestinationPlan, breakage: Breakage) -> Self {
        Self {
            plan,
            trouble: Trouble::None,
            memory: HashMap::new(),
            forgets: breakage == Breakage::NoMemory,
            second: (0, 0),
            served: Vec::new(),
        }
    }

    /// No misfortune from now on, but for what is slow by nature.
    pub(super) fn calm_down(&mut self) {
        self.trouble = Trouble::None;
        let DestinationPlan { unavailable, hangs, answer_lost, panics, conflicts, .. } = &mut self.plan;
        for part in [unavailable, hangs, answer_lost, panics, conflicts] {
            *part = 0.0;
        }
    }

    /// What a call comes to that is sent now.
    pub(super) fn call(&mut self, now: i64, rng: &mut StdRng) -> Call {
        let latency = rng.random_range(self.plan.latency.0..=self.plan.latency.1);
        let way = latency / 2;
        let fails = |cause, after: Option<i64>| {
            let after = after.map(|after| std::time::Duration::from_millis(after.unsigned_abs()));
            Call { arrives_in: None, answers_in: latency, outcome: Outcome::Retry { cause, after } }
        };
        let times_out = |arrives_in| Call { arrives_in, answers_in: TIMEOUT, outcome: Outcome::retry(Cause::Timeout) };
        match self.trouble {
            Trouble::Unreachable => return fails(Cause::Unreachable, None),
            Trouble::OutOfOrder => return fails(Cause::Unavailable, None),
            Trouble::Hangs => return times_out(rng.random_bool(0.3).then_some(way)),
            Trouble::Throttles(after) => return fails(Cause::Throttled, after),
            Trouble::None => {}
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
            // Now and then it says 503 though it has done it.
            let arrives_in = rng.random_bool(0.2).then_some(way);
            return Call { arrives_in, answers_in: latency, outcome: Outcome::retry(Cause::Unavailable) };
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
            return Call { arrives_in: Some(way), answers_in: latency, outcome };
        }
        bound += plan.panics;
        if chance < bound {
            let arrives_in = rng.random_bool(0.5).then_some(way);
            return Call { arrives_in, answers_in: latency, outcome: Outcome::retry(Cause::Panicked) };
        }
        bound += plan.conflicts;
        if chance < bound {
            return fails(Cause::Conflict, None);
        }
        Call { arrives_in: Some(way), answers_in: latency, outcome: done() }
    }

    /// A request has arrived. Whether it has an effect, or else why it is refused.
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
