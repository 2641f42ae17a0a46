//! What becomes of runs: attempts come back, changes are written.

use std::time::Duration;

use usher_proto::{EventRef, Partition, Reason, SubjectId, Timestamp};

use super::Engine;
use crate::engine::breaker::Health;
use crate::engine::{
    Cause, Change, ChangeKind, Changed, Destinations, Effect, Next, Outcome, Report, Run, RunState, SkipReason, Step,
    StepEffect,
};

/// A retry further away than this waits in the store.
const PARK_BEYOND: Duration = Duration::from_secs(5);
/// Attempts without an answer after which every outcome is written down, not only the last.
const SUSPICIOUS: u32 = 2;

/// What a report says of the destination.
pub(super) fn health(report: &Report) -> Health {
    match report {
        // A request that could not be made, or an attempt that fell over its own feet, says nothing.
        Report::Attempted { request: None, .. } => Health::None,
        Report::Attempted { outcome, .. } => match outcome {
            Outcome::Done(_) | Outcome::Overtaken | Outcome::Reject { .. } => Health::Serves,
            Outcome::Retry { cause: Cause::Throttled, after } => Health::Throttles(*after),
            Outcome::Retry { cause, .. } if cause.speaks_of_an_outage() => Health::Down,
            // A refusal of one mailbox, or what was kept from an earlier day, says nothing of how it is now.
            Outcome::Retry { cause: Cause::Panicked | Cause::Deferred | Cause::Replayed, .. } => Health::None,
            Outcome::Retry { .. } => Health::Serves,
        },
        _ => Health::None,
    }
}

impl Engine {
    #[expect(clippy::too_many_arguments, reason = "the parts of one input, and what every decision takes")]
    pub(super) fn reported(
        &mut self,
        key: &SubjectId,
        event: &EventRef,
        (partition, epoch): (Partition, i64),
        report: Report,
        now: Timestamp,
        jitter: f64,
        destinations: &mut Destinations,
        steps: &mut Vec<Step>,
    ) {
        let Some(run) = self.lanes.at_work(key, event) else { return };
        let end = |state, note| ChangeKind::End { state, effect: None, note, verdict: None, in_doubt: false };
        let kind = match report {
            Report::Skipped(next) => continue_run(run, Came::Nothing, next),
            Report::HeldBack { held, next } => continue_run(run, Came::SkipReason(held), next),
            Report::Wait { until, news_after } => ChangeKind::Wait { until, news_after },
            Report::NothingToDo => end(RunState::Done, Some("nothing_to_do")),
            Report::Superseded => end(RunState::Superseded, None),
            Report::Fenced => return self.rejoin("a claim says that a partition is somebody else's", steps),
            Report::Stopped => return self.lanes.forget(key),
            Report::UsedUp { until, whole } => {
                // It was not asked: as if it had not been tried, and the time until it is does not count.
                run.tries.attempts -= 1;
                run.tries.unanswered -= 1;
                run.tries.first_at = None;
                if run.request.is_none() {
                    run.tries.first_sent_at = None;
                }
                if !whole {
                    let kind = ChangeKind::Park { until, tries: run.tries, request: run.request.clone() };
                    return steps.push(Step::Write(Change {
                        event: event.clone(),
                        key: key.clone(),
                        partition,
                        epoch,
                        kind,
                    }));
                }
                if let Some(name) = &run.destination {
                    destinations.use_up(name, self.limits.urgent, until);
                }
                // Its turn comes again at once, where it is held.
                return self.lanes.rest(key, now);
            }
            Report::Ended => {
                if self.lanes.leave(key) {
                    self.load(key, partition, steps);
                }
                return;
            }
            Report::Attempted { outcome, request, step, next } => match outcome {
                Outcome::Done(effect) => {
                    // Until it is written that it had its effect, only a repetition of this very request is harmless.
                    run.request = request;
                    continue_run(run, Came::Done(step, effect), next)
                }
                Outcome::Overtaken => end(RunState::Superseded, None),
                Outcome::Reject { reason, error } => {
                    return steps.push(Step::DeadLetter { run: Box::new(run.clone()), epoch, reason, error });
                }
                Outcome::Retry { cause, after } => {
                    let Some(kind) = self.failed(key, event, cause, after, request, now, jitter, destinations) else {
                        return;
                    };
                    kind
                }
            },
        };
        steps.push(Step::Write(Change { event: event.clone(), key: key.clone(), partition, epoch, kind }));
    }

    /// An attempt is to be repeated: soon, later, or when its destination takes calls again. Returns what is to be written
    /// first, if anything is.
    #[expect(clippy::too_many_arguments, reason = "the parts of one input, and what every decision takes")]
    fn failed(
        &mut self,
        key: &SubjectId,
        event: &EventRef,
        cause: Cause,
        after: Option<Duration>,
        request: Option<Vec<u8>>,
        now: Timestamp,
        jitter: f64,
        destinations: &Destinations,
    ) -> Option<ChangeKind> {
        let leaving = self.stopping || self.lanes.is_leaving(key);
        let run = self.lanes.at_work(key, event)?;
        // An earlier attempt under this generation whose outcome is open stays open, whatever this one came to: its
        // request goes on being repeated as it is, until it is known that it had no effect.
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
        let takes_calls =
            run.destination.as_ref().is_none_or(|name| destinations.is_closed(name, self.limits.urgent, now));
        run.tries.failed_at = None;
        match cause {
            Cause::Panicked | Cause::Conflict => run.tries.counted += 1,
            // Whether it counts is known later, when others have been served or have not.
            _ if takes_calls && cause != Cause::Throttled => run.tries.failed_at = Some(now),
            _ => {}
        }
        let at = if takes_calls { self.limits.retry.next(run.tries.attempts, after, jitter, now) } else { now };
        if leaving || unanswered >= SUSPICIOUS || at.since(now) > PARK_BEYOND {
            return Some(ChangeKind::Park { until: at, tries: run.tries, request: run.request.clone() });
        }
        // Its turn comes again at once where its destination takes no calls; there it is held.
        self.lanes.rest(key, at);
        None
    }

    pub(super) fn written(&mut self, change: &Change, changed: Changed, steps: &mut Vec<Step>) {
        let Change { event, key, partition, epoch, kind } = change;
        if self.partitions.epoch(*partition) != Some(*epoch) {
            return;
        }
        if changed == Changed::Fenced {
            return self.rejoin("a write says that a partition is somebody else's", steps);
        }
        let Some(run) = self.lanes.at_work(key, event) else { return };
        if changed == Changed::Refused {
            // Its lane goes on once it is dead. That it is dead holds nothing that could be refused again.
            let error = "the store refuses what became of it".to_owned();
            let run = Box::new(run.clone());
            return steps.push(Step::DeadLetter { run, epoch: *epoch, reason: Reason::Unstorable, error });
        }
        match kind {
            ChangeKind::Wait { until, .. } if changed == Changed::Awake => {
                run.wait_until = Some(*until);
                (run.tries, run.request) = Default::default();
                let asked = run.destination.clone();
                self.lanes.continue_run(key, &asked);
            }
            ChangeKind::Advance { to, destination, results, .. } if changed == Changed::Written => {
                let asked = std::mem::replace(&mut run.destination, destination.clone());
                run.step = *to;
                run.results.clone_from(results);
                (run.tries, run.request, run.wait_until) = Default::default();
                self.lanes.continue_run(key, &asked);
            }
            // The lane waits for it, in the store.
            ChangeKind::Park { .. } if changed == Changed::Written => self.lanes.forget(key),
            _ => {
                if self.lanes.leave(key) {
                    self.load(key, *partition, steps);
                }
            }
        }
    }
}

/// What came of a step that is over.
enum Came {
    /// It did not apply.
    Nothing,
    /// It was left undone.
    SkipReason(SkipReason),
    /// The step of this name is done.
    Done(String, Effect),
}

/// A step is over. A run that left something undone says so when it ends, with the last reason.
fn continue_run(run: &Run, came: Came, next: Next) -> ChangeKind {
    let mut results = run.results.clone();
    let effect = match came {
        Came::Nothing => None,
        Came::SkipReason(held) => {
            results.insert(run.step, held.result());
            None
        }
        Came::Done(name, effect) => {
            results.insert(run.step, effect.result.clone());
            Some(StepEffect { step: run.step, name, connector: run.destination.clone().unwrap_or_default(), effect })
        }
    };
    match next {
        Next::End => {
            let note = results.values().rev().find_map(SkipReason::of_result).map(SkipReason::label);
            ChangeKind::End { state: RunState::Done, effect, note, verdict: None, in_doubt: false }
        }
        Next::Step(destination) => ChangeKind::Advance { to: run.step + 1, destination, effect, results },
    }
}

/// The change that writes a run dead, once its letter is published.
pub fn dead_letter_change(run: &Run, epoch: i64, reason: Reason, error: String) -> Change {
    let (verdict, in_doubt) = (Some((reason, error)), run.request.is_some());
    let kind = ChangeKind::End { state: RunState::Dead, effect: None, note: None, verdict, in_doubt };
    Change { event: run.event.reference(), key: run.event.subject.clone(), partition: run.partition, epoch, kind }
}
