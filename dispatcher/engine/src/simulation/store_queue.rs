//! The requests of a process on their way to the store and back: in order, late, and sometimes without an answer.

use std::collections::VecDeque;

use rand::Rng as _;
use usher_proto::Timestamp;

use super::happening::{event_number, user_number};
use super::plan::Defect;
use super::refusal;
use super::replica::index;
use super::world::{Occurrence, World};
use crate::arrival::{Batch, FirstClaim};
use crate::{Change, Changed, Input, Run, StoreRead, StoreRequest, StoreWrite};

/// Maximum number of questions that the store answers in one turn.
const MAX_WRITE_BATCH: usize = 64;
/// Delay before a question is repeated whose answer was lost, in ms.
const ASK_AGAIN: i64 = 300;

/// A request that waits for the store.
#[derive(Debug)]
pub(super) enum Question {
    Engine(StoreRequest),
    Claim(usize, Change),
}

/// An answer of the store.
#[derive(Debug)]
pub(super) enum StoreReply {
    Engine(Box<Input>),
    Claim(usize, Changed),
}

/// The requests of a process that the store has not answered yet.
#[derive(Debug, Default)]
pub(super) struct StoreQueue {
    pub(super) questions: VecDeque<Question>,
    turn_is_due: bool,
    /// True if the first question was asked before and its answer was lost.
    retried: bool,
    /// The time of the latest answer: answers arrive in order.
    last_answered: i64,
    /// Runs that were admitted with claims in answers that were lost.
    claims_lost: Vec<Run>,
    /// Users of whom a run was cancelled in an answer that was lost: the engine discovers that when it claims.
    pub(super) cancelled_unacknowledged: Vec<usize>,
}

impl StoreQueue {
    /// An empty queue whose answers arrive from `now` on.
    pub(super) fn from(now: i64) -> Self {
        Self { last_answered: now, ..Self::default() }
    }
}

impl World {
    /// Sends a question to the store.
    pub(super) fn ask(&mut self, r: usize, question: Question) {
        let queue = &mut self.replicas[r].queue;
        queue.questions.push_back(question);
        if !queue.turn_is_due {
            queue.turn_is_due = true;
            self.turn_later(r);
        }
    }

    fn turn_later(&mut self, r: usize) {
        let incarnation = self.replicas[r].incarnation;
        let latency = if self.plan.store_latency == 0 { 0 } else { self.rng.random_range(1..=self.plan.store_latency) };
        self.at((self.now + latency).max(self.store_back_at), Occurrence::StoreTurn { r, incarnation });
    }

    /// Lets the store carry out the questions that have accumulated.
    pub(super) fn store_turn(&mut self, r: usize) {
        if self.now < self.store_back_at {
            return self.turn_later(r);
        }
        let incarnation = self.replicas[r].incarnation;
        let mut answers = Vec::new();
        while answers.len() < MAX_WRITE_BATCH
            && let Some(question) = self.replicas[r].queue.questions.pop_front()
        {
            let again = std::mem::take(&mut self.replicas[r].queue.retried);
            if self.plan.defect == Defect::RefusalIsOutage && self.is_refused(&question) {
                self.replicas[r].queue.questions.push_front(question);
                self.replicas[r].queue.retried = true;
                break;
            }
            let mut answer = self.answer(&question, again);
            self.give_back_lost_claims(r, &answer);
            if self.plan.answers_lost > 0.0 && self.rng.random_bool(self.plan.answers_lost) {
                let queue = &mut self.replicas[r].queue;
                if let Some(StoreReply::Engine(input)) = answer.first()
                    && let Input::Admitted { admission: Some(admission), .. } = &**input
                {
                    queue.cancelled_unacknowledged.extend(admission.cancelled.iter().map(|(key, _)| user_number(key)));
                    queue.claims_lost.extend(admission.heads.iter().filter(|run| run.claimed.is_some()).cloned());
                }
                queue.questions.push_front(question);
                queue.retried = true;
                break;
            }
            answers.append(&mut answer);
        }
        if self.plan.defect == Defect::AnswersOutOfOrder {
            answers.reverse();
        }
        let latency = if self.plan.store_latency == 0 { 0 } else { self.rng.random_range(1..=self.plan.store_latency) };
        let queue = &mut self.replicas[r].queue;
        queue.last_answered = queue.last_answered.max(self.now + latency);
        let at = queue.last_answered;
        let retried = queue.retried;
        queue.turn_is_due = !queue.questions.is_empty();
        if queue.turn_is_due && retried {
            self.at(self.now + ASK_AGAIN, Occurrence::StoreTurn { r, incarnation });
        } else if queue.turn_is_due {
            self.turn_later(r);
        }
        if !answers.is_empty() {
            self.at(at, Occurrence::StoreAnswers { r, incarnation, answers });
        }
    }

    /// Gives back the claims of an admission whose answer was lost, as the dispatcher does once it is answered.
    fn give_back_lost_claims(&mut self, r: usize, answer: &[StoreReply]) {
        if let Some(StoreReply::Engine(input)) = answer.first()
            && let Input::Admitted { partition, epoch, admission: Some(_), .. } = **input
        {
            let now = Timestamp::from_millis(self.now);
            let lost = &mut self.replicas[r].queue.claims_lost;
            for run in lost.extract_if(.., |run| run.partition == partition).collect::<Vec<_>>() {
                let of = (partition, epoch);
                let change = FirstClaim::give_back(run.event.reference(), run.event.subject, of, now);
                self.write(&change);
            }
        }
    }

    pub(super) fn answer(&mut self, question: &Question, retried: bool) -> Vec<StoreReply> {
        let store = &mut self.store;
        let mut fenced = Vec::new();
        let answer = match question {
            Question::Claim(attempt, change) => return vec![StoreReply::Claim(*attempt, self.write(change))],
            Question::Engine(StoreRequest::Change(change)) => {
                let changed = self.write(change);
                Input::Written { change: change.clone(), changed }
            }
            Question::Engine(StoreRequest::Write(write)) => match write {
                StoreWrite::Acquire { assignment, partitions } => {
                    Input::Acquired { assignment: *assignment, owned: store.acquire(partitions) }
                }
                StoreWrite::Admit(batch) => {
                    let (admission, in_parts) = refusal::admit(store, &self.events, batch, self.now);
                    let retried = retried || in_parts;
                    let p = index(batch.partition);
                    let frontier = store.frontier(p).filter(|_| self.plan.defect != Defect::FrontierFirstUnseen);
                    if let Some(frontier) = frontier {
                        self.checker.frontier("frontier", p, frontier, &self.log, &self.events, &self.store);
                    }
                    let Batch { partition, epoch, frontier, .. } = *batch;
                    Input::Admitted { partition, epoch, frontier, admission, retried }
                }
                StoreWrite::Tell(batch) => {
                    let (admission, in_parts) = refusal::tell(store, &self.events, batch);
                    let retried = retried || in_parts;
                    let Batch { partition, epoch, frontier: below, .. } = *batch;
                    Input::Told { partition, epoch, below, admission, retried }
                }
                StoreWrite::Due(partitions) => {
                    let due = store.due(partitions, self.now, &self.events);
                    fenced = due.fenced;
                    Input::Due { heads: due.heads, behind: due.behind, next: due.next, retried }
                }
                // Operators read it, no replica does.
                StoreWrite::ConfirmPause { .. } => return Vec::new(),
            },
            Question::Engine(StoreRequest::Read(read)) => match read {
                StoreRead::Find { partition, epoch, after, without } => {
                    let (heads, all) = store.find(*partition, after.as_ref(), without, &self.events);
                    Input::Found { partition: *partition, epoch: *epoch, heads, all }
                }
                StoreRead::Load { key, partition, epoch, limit } => {
                    let (runs, more) = store.load(key, *limit, &self.events);
                    Input::Loaded { key: key.clone(), partition: *partition, epoch: *epoch, runs, more }
                }
            },
        };
        let fenced = fenced.into_iter().map(|(partition, epoch)| Input::Fenced { partition, epoch });
        std::iter::once(answer).chain(fenced).map(|input| StoreReply::Engine(Box::new(input))).collect()
    }

    fn write(&mut self, change: &Change) -> Changed {
        use crate::ChangeKind::{Claim, End, Park, Retry};
        if self.refuses(change) {
            return Changed::Refused;
        }
        let changed = self.store.write(change);
        if let Claim { tries, .. } | Retry { tries, .. } | Park { tries, .. } = &change.kind {
            self.checker.most_spent = self.checker.most_spent.max(tries.counted);
        }
        if let (Changed::Written, End { verdict: Some((reason, _)), .. }) = (changed, &change.kind) {
            let number = event_number(&change.event);
            let row = self.store.row(number).expect("it is stored");
            self.checker.died(number, *reason, row, &self.events[number], &self.plan);
        }
        changed
    }
}
