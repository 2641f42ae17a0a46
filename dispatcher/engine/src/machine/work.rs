//! The results of attempts, and the changes that follow from them.

use std::time::Duration;

use usher_proto::{Epoch, EventRef, Partition, SubjectId, Timestamp};

use super::{Decision, Engine};
use crate::breaker::Health;
use crate::{
    AttemptSeen, Cause, Change, ChangeKind, Effect, NextStep, NotCalled, Outcome, Run, RunState, SkipReason, Step,
    StepEffect, StepReport, StoreRequest, StoryEntry,
};

/// A retry further in the future than this waits in the store.
const PARK_BEYOND: Duration = Duration::from_secs(5);
/// Number of attempts without an answer from which on every outcome is written to the store, not only the last.
const SUSPICIOUS: u32 = 2;

/// Returns the health of the destination that a report shows.
pub(super) fn health(report: &StepReport) -> Health {
    match report {
        // A request that could not be made, or an attempt that panicked, tells nothing about the destination.
        StepReport::Attempted { request: None, .. } => Health::Unknown,
        StepReport::Attempted { outcome, .. } => match outcome {
            Outcome::Done(_) | Outcome::Overtaken | Outcome::Reject { .. } => Health::Serves,
            Outcome::Retry { cause: Cause::Throttled, after } => Health::Throttles(*after),
            Outcome::Retry { cause, .. } if cause.indicates_outage() => Health::Down,
            // The refusal of one mailbox, or a failure stored on an earlier day, tells nothing about the present state.
            Outcome::Retry { cause: Cause::Panicked | Cause::Deferred | Cause::Replayed, .. } => Health::Unknown,
            Outcome::Retry { .. } => Health::Serves,
        },
        _ => Health::Unknown,
    }
}

impl Engine {
    pub(super) fn reported(
        &mut self,
        key: &SubjectId,
        event: &EventRef,
        (partition, epoch): (Partition, Epoch),
        report: StepReport,
        decision: &mut Decision<'_>,
    ) {
        let Some(run) = self.lanes.at_work(key, event) else { return };
        let end = |state, note| ChangeKind::End { state, effect: None, note, verdict: None, in_doubt: false };
        let kind = match report {
            StepReport::Skipped { step, why, next } => {
                if why != NotCalled::NoStep {
                    tell(run, step, why.label(), decision.now);
                }
                continue_run(run, StepResult::NotApplicable, next)
            }
            StepReport::HeldBack { step, held, next } => {
                tell(run, step, held.label(), decision.now);
                continue_run(run, StepResult::HeldBack(held), next)
            }
            StepReport::Wait { until, news_after } => ChangeKind::Wait { until, news_after },
            StepReport::NothingToDo => end(RunState::Done, Some("nothing_to_do")),
            StepReport::Superseded => end(RunState::Superseded, None),
            StepReport::Fenced => return self.rejoin("a claim says that a partition is somebody else's", decision),
            StepReport::Stopped => return self.lanes.forget(key),
            StepReport::QuotaExhausted { until, whole } => {
                // The destination was not called: the attempt is not counted, and the time until the next one
                // does not count.
                run.tries.attempts -= 1;
                run.tries.unanswered -= 1;
                run.tries.first_at = None;
                if run.request.is_none() {
                    run.tries.first_sent_at = None;
                }
                if !whole {
                    let kind = ChangeKind::Park { until, tries: run.tries, request: run.request.clone() };
                    let story = std::mem::take(&mut run.untold).into_boxed_slice();
                    return decision.steps.push(Step::Store(StoreRequest::Change(Change {
                        event: event.clone(),
                        key: key.clone(),
                        partition,
                        epoch,
                        kind,
                        story,
                    })));
                }
                if let Some(name) = &run.destination {
                    decision.destinations.use_up(name, self.limits.urgent, until);
                }
                // The head is examined again at once, and then held.
                return self.lanes.rest(key, decision.now);
            }
            StepReport::Ended => {
                if self.lanes.leave(key) {
                    self.load(key, partition, decision);
                }
                return;
            }
            StepReport::Attempted { outcome, request, step, next, seen } => {
                let took = seen.as_ref().map(|seen| seen.took);
                if let Some(entry) = failed_attempt(run, &step, &outcome, seen, request.as_ref()) {
                    run.tell(entry);
                }
                match outcome {
                    Outcome::Done(effect) => {
                        // Until its effect is written, only a repetition of this very request is harmless.
                        run.request = request;
                        continue_run(run, StepResult::Done { step, took, effect }, next)
                    }
                    Outcome::Overtaken => end(RunState::Superseded, None),
                    Outcome::Reject { reason, error } => {
                        return decision.steps.push(Step::DeadLetter {
                            run: Box::new(run.clone()),
                            epoch,
                            reason,
                            error,
                        });
                    }
                    Outcome::Retry { cause, after } => {
                        let Some(kind) = self.failed(key, event, cause, after, request, decision) else {
                            return;
                        };
                        kind
                    }
                }
            }
        };
        let Some(run) = self.lanes.at_work(key, event) else { return };
        let story = std::mem::take(&mut run.untold).into_boxed_slice();
        self.lanes.write(key);
        decision.steps.push(Step::Store(StoreRequest::Change(Change {
            event: event.clone(),
            key: key.clone(),
            partition,
            epoch,
            kind,
            story,
        })));
    }

    /// Returns the change of an attempt that is to be repeated: soon, later, or when its destination takes calls again.
    fn failed(
        &mut self,
        key: &SubjectId,
        event: &EventRef,
        cause: Cause,
        after: Option<Duration>,
        request: Option<Vec<u8>>,
        decision: &mut Decision<'_>,
    ) -> Option<ChangeKind> {
        let leaving = self.stopping || self.lanes.is_leaving(key);
        let run = self.lanes.at_work(key, event)?;
        // If the outcome of an earlier attempt under this generation is unknown, it stays unknown, whatever the result
        // of this one: its request is repeated unchanged until it is known to have had no effect.
        if cause.settles_earlier_attempts() {
            run.request = None;
        }
        if run.request.is_none() {
            if cause.nothing_happened() {
                run.tries.generation += 1;
                run.tries.first_sent_at = None;
            } else {
                run.request = request;
            }
        }
        let unanswered = std::mem::take(&mut run.tries.unanswered);
        run.tries.claimed_until = None;
        let takes_calls = run
            .destination
            .as_ref()
            .is_none_or(|name| decision.destinations.is_closed(name, self.limits.urgent, decision.now));
        run.tries.failed_at = None;
        match cause {
            Cause::Panicked | Cause::Conflict => run.tries.counted += 1,
            // The failure counts only if others are served before the next attempt, so this is decided then.
            _ if takes_calls && cause != Cause::Throttled => run.tries.failed_at = Some(decision.now),
            _ => {}
        }
        let at = if takes_calls {
            self.limits.retry.next(run.tries.attempts, after, decision.jitter, decision.now)
        } else {
            decision.now
        };
        if let Some(entry) = run.untold.last_mut() {
            entry.next_at = Some(at);
        }
        let (tries, request) = (run.tries, run.request.clone());
        Some(if leaving || unanswered >= SUSPICIOUS || at.since(decision.now) > PARK_BEYOND {
            ChangeKind::Park { until: at, tries, request }
        } else {
            ChangeKind::Retry { at, tries, request }
        })
    }
}

/// Returns the entry of an attempt in the run's story. One that succeeded has none, because its effect tells of it.
fn failed_attempt(
    run: &Run,
    step: &str,
    outcome: &Outcome,
    seen: Option<AttemptSeen>,
    request: Option<&Vec<u8>>,
) -> Option<StoryEntry> {
    let seen = seen.filter(|_| !matches!(outcome, Outcome::Done(_)))?;
    Some(StoryEntry {
        pass: run.rerun,
        step: run.step,
        name: step.to_owned(),
        number: run.tries.attempts,
        at: seen.at,
        took: seen.took,
        outcome: outcome.label(),
        answer: seen.answer,
        next_at: None,
        sent: request.cloned(),
    })
}

/// Adds to the run's story that its present step was passed over.
fn tell(run: &mut Run, step: String, why: &'static str, now: Timestamp) {
    run.tell(StoryEntry {
        pass: run.rerun,
        step: run.step,
        name: step,
        number: 0,
        at: now,
        took: Duration::ZERO,
        outcome: why,
        answer: None,
        next_at: None,
        sent: None,
    });
}

/// The result of a finished step.
enum StepResult {
    /// The step did not apply.
    NotApplicable,
    /// The step was skipped.
    HeldBack(SkipReason),
    /// The step of this name is done: the time that its attempt took, and the effect.
    Done { step: String, took: Option<Duration>, effect: Effect },
}

/// Returns the change after a finished step. A run that skipped a step ends with the last such reason as its note.
fn continue_run(run: &Run, came: StepResult, next: NextStep) -> ChangeKind {
    let mut results = run.results.clone();
    let effect = match came {
        StepResult::NotApplicable => None,
        StepResult::HeldBack(held) => {
            results.insert(run.step, held.result());
            None
        }
        StepResult::Done { step: name, took, effect } => {
            results.insert(run.step, effect.result.clone());
            let (connector, attempt) = (run.destination.clone().unwrap_or_default(), run.tries.attempts);
            Some(StepEffect { step: run.step, name, connector, attempt, took, effect })
        }
    };
    match next {
        NextStep::End => {
            let note = results.values().rev().find_map(SkipReason::of_result).map(SkipReason::label);
            ChangeKind::End { state: RunState::Done, effect, note, verdict: None, in_doubt: false }
        }
        NextStep::Step(destination) => ChangeKind::Advance { to: run.step + 1, destination, effect, results },
    }
}
