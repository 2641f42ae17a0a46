//! One flow's state machine: what to do next, given what has happened.

use std::collections::VecDeque;

use usher_proto::{EventId, Key, Partition, Reason, Timestamp};

use super::lanes::Lanes;
use super::{Effect, Outcome, RetryPolicy, Run, RunState};

/// The bounds of one flow in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Steps that may be under way at once.
    pub in_flight: usize,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// How old an event may become before its run is worth nothing.
    pub expires_after: Option<std::time::Duration>,
}

/// What came of working on a run's present step.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// The destination was asked, with this request.
    Attempted {
        /// What it came to.
        outcome: Outcome,
        /// What was sent, to be repeated as it is while its outcome is not known; none if it did not come to that.
        request: Option<Vec<u8>>,
        /// Whether this is the run's last step.
        last: bool,
    },
    /// The step does not apply; the next one's turn comes.
    Skipped {
        /// Whether this is the run's last step.
        last: bool,
    },
    /// The run waits: for the time, or for news of its subject.
    Wait {
        /// Until when at most.
        until: Timestamp,
        /// For news: the subject's revision that was looked at. None waits for the time alone.
        news_after: Option<i64>,
    },
    /// What it waited for did not come; there is nothing to do.
    NothingToDo,
    /// Its subject is gone, or something newer has taken effect.
    Superseded,
    /// It has ended meanwhile, in the store: there is nothing left to write.
    Ended,
}

/// What is to be written about a run before it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// The step is done (with an effect) or skipped (without); more follow.
    Advance(Option<Effect>),
    /// The run waits and leaves its lane.
    Wait {
        /// Until when at most.
        until: Timestamp,
        /// The subject's revision after which it need not wait.
        news_after: Option<i64>,
    },
    /// The run has ended.
    End {
        /// How.
        state: RunState,
        /// The effect of its last step.
        effect: Option<Effect>,
        /// In a word why, where the state does not say it all.
        note: Option<&'static str>,
    },
}

/// What has happened.
#[derive(Debug)]
pub enum Input {
    /// Runs to be worked on: new ones, those that go on after a wait, and those found unfinished.
    Admitted(Vec<Run>),
    /// Runs that an event has cancelled.
    Cancelled(Vec<(Key, EventId)>),
    /// More of a lane, as [`Step::Load`] asked.
    Loaded {
        /// The lane.
        key: Key,
        /// Its next runs, oldest first.
        runs: Vec<Run>,
        /// Whether the store holds still more.
        more: bool,
    },
    /// What came of [`Step::Work`].
    Reported {
        /// The lane.
        key: Key,
        /// The run.
        event: EventId,
        /// What came of it.
        report: Report,
    },
    /// A [`Step::Settle`] is written. `awake` if the run need not wait after all.
    Settled {
        /// The lane.
        key: Key,
        /// The run.
        event: EventId,
        /// What was written.
        settlement: Settlement,
        /// News came while it was being written.
        awake: bool,
    },
    /// A [`Step::Bury`] is published and written.
    Buried {
        /// The lane.
        key: Key,
        /// The run.
        event: EventId,
    },
    /// Somebody else works on the partition now.
    Dropped(Partition),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Work on the run's present step and report.
    Work(Box<Run>),
    /// Write this about the run.
    Settle {
        /// The run, as it stood before.
        run: Box<Run>,
        /// What to write.
        settlement: Settlement,
    },
    /// Publish the run's dead letter, then write that it is dead.
    Bury {
        /// The run.
        run: Box<Run>,
        /// Why.
        reason: Reason,
        /// In the destination's words.
        error: String,
    },
    /// Load more of this lane.
    Load(Key),
}

/// One flow's lanes and what they are doing.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    lanes: Lanes,
}

impl Engine {
    /// An engine with nothing to do.
    pub fn new(limits: Limits) -> Self {
        Self { limits, lanes: Lanes::default() }
    }

    /// Takes in what has happened and says what is to be done. `jitter` is random in 0..1.
    pub fn handle(&mut self, input: Input, now: Timestamp, jitter: f64) -> Vec<Step> {
        let mut steps = Vec::new();
        match input {
            Input::Admitted(runs) => runs.into_iter().for_each(|run| self.lanes.push(run)),
            Input::Cancelled(runs) => {
                let loads = runs.iter().filter_map(|(key, event)| self.lanes.cancel(key, event));
                steps.extend(loads.map(Step::Load));
            }
            Input::Loaded { key, runs, more } => {
                steps.extend(self.lanes.loaded_from_store(&key, runs, more).map(Step::Load));
            }
            Input::Reported { key, event, report } => steps.extend(self.reported(&key, &event, report, now, jitter)),
            Input::Settled { key, event, settlement, awake } => {
                steps.extend(self.settled(&key, &event, &settlement, awake));
            }
            Input::Buried { key, event } => {
                if self.lanes.at_work(&key, &event).is_some() {
                    steps.extend(self.lanes.leave(&key).map(Step::Load));
                }
            }
            Input::Dropped(partition) => self.lanes.drop_partition(partition),
            Input::Tick => {}
        }
        self.lanes.wake(now);
        steps.extend(self.begin(now));
        steps
    }

    /// Runs in memory.
    pub fn loaded(&self) -> usize {
        self.lanes.loaded()
    }

    /// Steps under way.
    pub fn in_flight(&self) -> usize {
        self.lanes.busy()
    }

    /// Runs that wait in memory for their next attempt.
    pub fn resting(&self) -> usize {
        self.lanes.resting()
    }

    fn begin(&mut self, now: Timestamp) -> VecDeque<Step> {
        let mut steps = VecDeque::new();
        let mut free = self.limits.in_flight.saturating_sub(self.lanes.busy());
        while free > 0 {
            let Some(run) = self.lanes.begin() else { break };
            let expires = self.limits.expires_after.map(|life| run.event.occurred_at.plus(life));
            steps.push_back(if let Some((reason, error)) = run.verdict.clone() {
                Step::Bury { run: Box::new(run.clone()), reason, error }
            } else if expires.is_some_and(|expires| now > expires) {
                Step::Bury { run: Box::new(run.clone()), reason: Reason::Expired, error: String::new() }
            } else {
                run.attempts += 1;
                Step::Work(Box::new(run.clone()))
            });
            free -= 1;
        }
        steps
    }

    fn reported(&mut self, key: &Key, event: &EventId, report: Report, now: Timestamp, jitter: f64) -> Option<Step> {
        let run = self.lanes.at_work(key, event)?;
        let settle = |run: &Run, settlement| Some(Step::Settle { run: Box::new(run.clone()), settlement });
        let ended = |state, effect, note| Settlement::End { state, effect, note };
        match report {
            Report::Skipped { last: false } => settle(run, Settlement::Advance(None)),
            Report::Skipped { last: true } => settle(run, ended(RunState::Done, None, None)),
            Report::Wait { until, news_after } => settle(run, Settlement::Wait { until, news_after }),
            Report::NothingToDo => settle(run, ended(RunState::Done, None, Some("nothing_to_do"))),
            Report::Superseded => settle(run, ended(RunState::Superseded, None, None)),
            Report::Ended => self.lanes.leave(key).map(Step::Load),
            Report::Attempted { outcome, request, last } => match outcome {
                Outcome::Done(effect) if last => settle(run, ended(RunState::Done, Some(effect), None)),
                Outcome::Done(effect) => settle(run, Settlement::Advance(Some(effect))),
                Outcome::Overtaken => settle(run, ended(RunState::Superseded, None, None)),
                Outcome::Reject { reason, error } => Some(Step::Bury { run: Box::new(run.clone()), reason, error }),
                Outcome::Retry { cause, after } => {
                    // An earlier attempt under this generation whose outcome is open stays open, whatever this one came
                    // to: its request goes on being repeated as it is.
                    if run.request.is_none() {
                        if cause.nothing_happened() {
                            run.generation += 1;
                        } else {
                            run.request = request;
                        }
                    }
                    match self.limits.retry.next(run.attempts, after, jitter, now) {
                        Some(at) => {
                            self.lanes.rest(key, at);
                            None
                        }
                        None => {
                            let error = cause.label().to_owned();
                            Some(Step::Bury { run: Box::new(run.clone()), reason: Reason::RetriesSpent, error })
                        }
                    }
                }
            },
        }
    }

    fn settled(&mut self, key: &Key, event: &EventId, settlement: &Settlement, awake: bool) -> Option<Step> {
        let run = self.lanes.at_work(key, event)?;
        match settlement {
            Settlement::Wait { until, .. } if awake => {
                run.wait_until = Some(*until);
                self.lanes.go_on(key);
                None
            }
            Settlement::Advance(effect) => {
                if let Some(effect) = effect {
                    run.results.insert(run.step, effect.result.clone());
                }
                run.step += 1;
                (run.attempts, run.generation, run.request, run.wait_until) = (0, 0, None, None);
                self.lanes.go_on(key);
                None
            }
            Settlement::Wait { .. } | Settlement::End { .. } => self.lanes.leave(key).map(Step::Load),
        }
    }
}

#[cfg(test)]
mod tests;
