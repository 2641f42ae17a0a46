//! Work on a step: check it, claim it, send the request, report the outcome.

use std::time::Duration;

use rand::Rng as _;
use usher_proto::{Epoch, EventRef, Partition, Reason, SubjectId, Timestamp};

use super::destination::{DestinationTrouble, SimulatedCall, TIMEOUT};
use super::happening::{Fate, event_number};
use super::plan::{Defect, StepPlan};
use super::store_queue::Question;
use super::world::{Occurrence, World};
use crate::breaker::Permit;
use crate::{
    AttemptSeen, Cause, Change, ChangeKind, Changed, Input, NextStep, NotCalled, Outcome, Run, SkipReason, StepReport,
};

/// Claim lease, in ms: an attempt may be sent only within it.
pub(super) const LEASE: i64 = 5_000;
/// The longest wait of a step for its subject, in ms.
const NEEDS_WITHIN: i64 = 15_000;

/// An attempt, or an early result of the work on a step.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) r: usize,
    pub(super) incarnation: u32,
    key: SubjectId,
    event: EventRef,
    number: usize,
    partition: Partition,
    epoch: Epoch,
    step: usize,
    asked: Option<(String, Permit)>,
    destination: usize,
    generation: u32,
    claimed_at: i64,
    /// The time of the replica's last assignment or resume: it must know the log up to then.
    news_at: i64,
    request: Vec<u8>,
    /// True once it has a slot for its call.
    calls: bool,
    report: Option<StepReport>,
}

impl World {
    fn next(&self, step: usize) -> NextStep {
        if step + 1 == self.plan.steps.len() { NextStep::End } else { NextStep::Step(self.plan.asked_at(step + 1)) }
    }

    pub(super) fn work(&mut self, r: usize, run: Run, epoch: Epoch, permit: Option<Permit>) {
        let number = event_number(&run.event.reference());
        let p = usize::try_from(run.partition.0).expect("from 0");
        // What a run needs that begins with its admission was examined then.
        let examined = run.claimed.is_some();
        let early = if examined { self.stopped(r) } else { self.early(r, number, &run) };
        let destination = match self.plan.steps[run.step] {
            StepPlan::Call { destination, .. } => destination,
            StepPlan::Wait(_) => 0,
        };
        let request = run.request.clone().unwrap_or_else(|| {
            self.requests += 1;
            self.requests.to_le_bytes().to_vec()
        });
        let attempt = Attempt {
            r,
            incarnation: self.replicas[r].incarnation,
            key: run.event.subject.clone(),
            event: run.event.reference(),
            number,
            partition: run.partition,
            epoch,
            step: run.step,
            asked: run.destination.zip(permit),
            destination,
            generation: run.tries.generation,
            claimed_at: run.claimed.map_or(self.now, |at| i64::try_from(at.as_millis()).expect("a simulated time")),
            news_at: self.replicas[r].news_at,
            request,
            calls: false,
            report: early,
        };
        let is_early = attempt.report.is_some();
        if !is_early {
            let news_at = self.replicas[r].news_at;
            self.checker.begun(number, news_at, self.now, examined, &self.store);
        }
        let mut tries = run.tries;
        tries.claimed_until = None;
        if !self.plan.destinations[destination].remembers && self.plan.defect != Defect::NoClaims {
            tries.claimed_until = Some(Timestamp::from_millis(self.now + LEASE + TIMEOUT));
        }
        let change = Change {
            event: attempt.event.clone(),
            key: attempt.key.clone(),
            partition: attempt.partition,
            epoch,
            kind: ChangeKind::Claim { tries, request: attempt.request.clone() },
            story: Box::default(),
        };
        let id = match self.free_attempts.pop() {
            Some(id) => id,
            None => {
                self.attempts.push(None);
                self.attempts.len() - 1
            }
        };
        self.attempts[id] = Some(attempt);
        self.replicas[r].at_work[p].push(id);
        if is_early {
            self.at(self.now + 1, Occurrence::Reports(id));
        } else if examined {
            self.claimed(id, Changed::Written);
        } else {
            self.ask(r, Question::Claim(id, change));
        }
    }

    /// Returns the report of a step that does not begin because its process is stopping.
    fn stopped(&mut self, r: usize) -> Option<StepReport> {
        (self.replicas[r].stopping.is_some() && self.rng.random_bool(0.5)).then_some(StepReport::Stopped)
    }

    fn skipped(&self, step: usize, why: NotCalled) -> StepReport {
        StepReport::Skipped { step: String::new(), why, next: self.next(step) }
    }

    /// Returns the result of a step that needs no call, if there is one.
    fn early(&mut self, r: usize, number: usize, run: &Run) -> Option<StepReport> {
        let of = self.events[number];
        if let Some(stopped) = self.stopped(r) {
            return Some(stopped);
        }
        if of.fate == Fate::Superseded(run.step) {
            return Some(StepReport::Superseded);
        }
        let over = run.wait_until.is_some_and(|until| self.now >= until.millis());
        let until = |pause| run.wait_until.unwrap_or(Timestamp::from_millis(self.now + pause));
        match self.plan.steps[run.step] {
            StepPlan::Wait(_) if over => Some(self.skipped(run.step, NotCalled::WaitOver)),
            StepPlan::Wait(pause) => Some(StepReport::Wait { until: until(pause), news_after: None }),
            StepPlan::Call { .. } if self.store.is_suppressed(of.user) => Some(StepReport::HeldBack {
                step: String::new(),
                held: SkipReason::Suppressed,
                next: self.next(run.step),
            }),
            StepPlan::Call { .. } if run.request.is_some() => None,
            StepPlan::Call { .. } if of.skips & (1 << run.step) != 0 => {
                Some(self.skipped(run.step, NotCalled::Condition))
            }
            StepPlan::Call { needs, .. } => {
                let revision = self.store.revision(of.user);
                if !needs || revision >= of.needs {
                    None
                } else if over {
                    Some(StepReport::NothingToDo)
                } else {
                    Some(StepReport::Wait { until: until(NEEDS_WITHIN), news_after: Some(revision) })
                }
            }
        }
    }

    /// Takes the answer to a claim: the request is sent if the lease has not expired.
    pub(super) fn claimed(&mut self, id: usize, changed: Changed) {
        let Some(attempt) = &self.attempts[id] else { return };
        let claimed_at = attempt.claimed_at;
        let step = attempt.step;
        let refused = match changed {
            Changed::Fenced => Some(StepReport::Fenced),
            Changed::Refused => Some(StepReport::Attempted {
                outcome: Outcome::reject(Reason::Unstorable, ""),
                request: None,
                step: String::new(),
                next: self.next(step),
                seen: None,
            }),
            Changed::Ended => Some(StepReport::Ended),
            // Another replica may own the partition by now, and relies on nothing more being sent.
            Changed::Written | Changed::Awake if self.now - claimed_at > LEASE => Some(StepReport::Attempted {
                outcome: Outcome::retry(Cause::Unreachable),
                request: None,
                step: String::new(),
                next: self.next(step),
                seen: None,
            }),
            Changed::Written | Changed::Awake => None,
        };
        if refused.is_some() {
            self.attempts[id].as_mut().expect("it is there").report = refused;
            return self.reports(id);
        }
        self.send_in_turn(id);
    }

    /// Sends the request if the process has a slot for the call; otherwise it waits for one.
    fn send_in_turn(&mut self, id: usize) {
        let Some(attempt) = &mut self.attempts[id] else { return };
        let slots = &mut self.replicas[attempt.r].calls;
        if slots.taken == self.plan.in_flight {
            return slots.waiting.push_back(id);
        }
        slots.taken += 1;
        attempt.calls = true;
        self.send(id);
    }

    fn send(&mut self, id: usize) {
        let Some(attempt) = &self.attempts[id] else { return };
        let Attempt { number, step, destination, news_at, .. } = *attempt;
        let call = self.call(number, step, destination);
        let remembers = self.destinations[destination].plan.remembers;
        let arrives = call.arrives_in.is_some();
        self.checker.not_cancelled(number, news_at, self.now, &self.store, (&self.log, &self.events));
        self.checker.sent(number, step, remembers, arrives, self.now, &self.store);
        if let Some(timeline) = &mut self.timeline {
            timeline.push((self.now, number, step));
        }
        let next = self.next(step);
        let at = Timestamp::from_millis(self.now);
        let attempt = self.attempts[id].as_mut().expect("it is there");
        attempt.report = Some(StepReport::Attempted {
            outcome: call.outcome,
            request: Some(attempt.request.clone()),
            step: String::new(),
            next,
            seen: Some(AttemptSeen { at, took: Duration::ZERO, answer: None }),
        });
        if let Some(after) = call.arrives_in {
            self.at(self.now + after.min(TIMEOUT), Occurrence::Arrives(id));
        }
        self.at(self.now + call.answers_in.min(TIMEOUT), Occurrence::Reports(id));
    }

    fn call(&mut self, number: usize, step: usize, destination: usize) -> SimulatedCall {
        let own = |outcome| SimulatedCall { arrives_in: None, answers_in: 30, outcome };
        if self.destinations[destination].trouble == DestinationTrouble::None {
            match self.events[number].fate {
                // Once no other run is served, its failures cannot be distinguished from an outage.
                Fate::Fails(at) if at == step && !self.is_calm => {
                    let causes = [Cause::Unavailable, Cause::Unavailable, Cause::Interrupted, Cause::Conflict];
                    return own(Outcome::retry(causes[self.rng.random_range(0..causes.len())]));
                }
                Fate::FailsUntil(until) if self.now < until => return own(Outcome::retry(Cause::Unavailable)),
                Fate::Rejected(at) if at == step => {
                    return own(Outcome::reject(Reason::InvalidRequest, "422"));
                }
                Fate::Overtaken(at) if at == step => return own(Outcome::Overtaken),
                _ => {}
            }
        }
        self.destinations[destination].call(self.now, &mut self.rng)
    }

    /// Delivers a request to its destination, even if its sender is gone.
    pub(super) fn arrives(&mut self, id: usize) {
        let Some(attempt) = &mut self.attempts[id] else { return };
        let destination = &mut self.destinations[attempt.destination];
        let number = attempt.number;
        let step = attempt.step;
        let name = (u32::try_from(number).expect("few"), u8::try_from(step).expect("few"), attempt.generation);
        let had_effect = match destination.arrives(name, &attempt.request, self.now) {
            Ok(had_effect) => had_effect,
            Err(refusal) => {
                if let Some(StepReport::Attempted { outcome, .. }) = &mut attempt.report {
                    *outcome = refusal;
                }
                false
            }
        };
        self.checker.arrived(number, step, destination.plan.remembers, had_effect, self.now, &self.store);
    }

    /// Reports the result of an attempt to the engine that began it, if that engine still runs.
    pub(super) fn reports(&mut self, id: usize) {
        let Some(attempt) = self.attempts[id].take() else { return };
        self.free_attempts.push(id);
        let Attempt { r, incarnation, key, event, partition, epoch, asked, calls, report, .. } = attempt;
        let replica = &mut self.replicas[r];
        if replica.incarnation != incarnation {
            return;
        }
        let p = usize::try_from(partition.0).expect("from 0");
        replica.at_work[p].retain(|at_work| *at_work != id);
        let report = report.expect("something came of it");
        self.handle(r, Input::Reported { key, event, partition, epoch, asked, report });
        if calls {
            self.replicas[r].calls.taken -= 1;
            // It may find that its lease has expired, and leave the slot to the next one.
            while self.replicas[r].calls.taken < self.plan.in_flight
                && let Some(next) = self.replicas[r].calls.waiting.pop_front()
            {
                self.claimed(next, Changed::Written);
            }
        }
    }
}
