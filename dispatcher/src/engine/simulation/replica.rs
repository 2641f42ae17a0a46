//! One process: its engine, and what carries out the engine's steps.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rand::Rng as _;
use usher_proto::{EventRef, Partition, SubjectId, Timestamp};

use super::group::partition;
use super::happening::{self, Fate, event_number, user_number};
use super::plan::{Breakage, Plan, StepPlan};
use super::refusal;
use super::world::{Happens, World};
use crate::engine::arrival::{Arrival, Batch};
use crate::engine::start::From;
use crate::engine::{Change, Changed, Destinations, Engine, Input, Limits, Looked, Seen, Step, dead_letter_change};
use crate::subject::Snapshot;

/// How many questions the store answers in one turn.
const MAX_WRITE_BATCH: usize = 64;
/// How long until a question is asked again whose answer was lost.
const ASK_AGAIN: i64 = 300;
/// How long a process may take to stop.
const STOP: i64 = 6_000;

/// Where a partition is read.
#[derive(Debug)]
struct Reader {
    assignment: u64,
    next: i64,
    paused: bool,
}

/// A question that waits for the store.
#[derive(Debug)]
pub(super) enum Question {
    Acquire(u64, Vec<Partition>),
    Admit(Batch),
    Find(Partition, i64, Option<(i64, EventRef)>, Vec<String>),
    Load(SubjectId, Partition, i64, usize),
    Due(Vec<(Partition, i64)>),
    Write(Change),
    Claim(usize, Change),
}

/// What the store answers.
#[derive(Debug)]
pub(super) enum Answer {
    Engine(Box<Input>),
    Claim(usize, Changed),
}

/// One process.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) engine: Engine,
    pub(super) destinations: Destinations,
    /// Counts its lives.
    pub(super) incarnation: u32,
    pub(super) up: bool,
    /// It stands still, and all that happens to it waits here.
    pub(super) frozen: Option<Vec<Happens>>,
    /// Since when the group has heard nothing of it.
    pub(super) silent_since: Option<i64>,
    pub(super) paused: bool,
    /// When it was given partitions or resumed last.
    pub(super) news_at: i64,
    /// It is to stop, by then.
    pub(super) stopping: Option<i64>,
    /// Counts its subscriptions to the log.
    pub(super) subscription: u32,
    /// The assignment of each partition, as the log's client has it.
    held: BTreeMap<usize, u64>,
    readers: BTreeMap<usize, Reader>,
    /// Partitions that are to be handed back.
    leaving: Vec<usize>,
    questions: VecDeque<Question>,
    turn_is_due: bool,
    asked_again: bool,
    pub(super) last_told: i64,
    last_answered: i64,
    /// Attempts that the engine has begun and counts, by partition.
    pub(super) at_work: Vec<Vec<usize>>,
    /// Users of whom something is under way, at work or in the store.
    busy: HashMap<usize, usize>,
    /// Users of whom something was cancelled in an answer that was lost: the engine finds that out when it claims.
    cancelled_unheard: Vec<usize>,
}

impl Replica {
    pub(super) fn new(plan: &Plan) -> Self {
        let limits = Limits {
            urgent: false,
            in_flight: plan.in_flight,
            destinations: plan.destinations.len(),
            retry: plan.retry,
            from: Some(From::Beginning),
            partitions: i32::try_from(plan.partitions).expect("few"),
            stall: std::time::Duration::from_secs(60),
        };
        Self {
            engine: Engine::new(limits, "1", plan.asked_at(0)),
            destinations: Destinations::default(),
            incarnation: 0,
            up: true,
            frozen: None,
            silent_since: None,
            paused: false,
            news_at: 0,
            stopping: None,
            subscription: 0,
            held: BTreeMap::new(),
            readers: BTreeMap::new(),
            leaving: Vec::new(),
            questions: VecDeque::new(),
            turn_is_due: false,
            asked_again: false,
            last_told: 0,
            last_answered: 0,
            at_work: vec![Vec::new(); plan.partitions],
            busy: HashMap::new(),
            cancelled_unheard: Vec::new(),
        }
    }

    fn unbusy(&mut self, key: &SubjectId) {
        let user = user_number(key);
        if let Some(count) = self.busy.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(&user);
            }
        }
    }
}

impl Plan {
    /// Whom a step asks.
    pub(super) fn asked_at(&self, step: usize) -> Option<String> {
        match self.steps.get(step)? {
            StepPlan::Call { destination, .. } => Some(self.destinations[*destination].name.clone()),
            StepPlan::Wait(_) => None,
        }
    }
}

fn index(partition: Partition) -> usize {
    usize::try_from(partition.0).expect("from 0")
}

impl World {
    /// The log's client tells the engine something, in order.
    pub(super) fn tell(&mut self, r: usize, input: Input) {
        let delay = if self.plan.chaos_every.is_some() { self.rng.random_range(0..30) } else { 0 };
        let replica = &mut self.replicas[r];
        replica.last_told = replica.last_told.max(self.now + delay);
        let (incarnation, subscription, at) = (replica.incarnation, replica.subscription, replica.last_told);
        self.at(at, Happens::Told { r, incarnation, subscription: Some(subscription), input: Box::new(input) });
    }

    pub(super) fn told(&mut self, r: usize, input: Input) {
        let replica = &mut self.replicas[r];
        match &input {
            Input::Given { assignment, partitions } => {
                if !partitions.is_empty() {
                    replica.news_at = self.now;
                }
                replica.held.extend(partitions.iter().map(|given| (index(given.partition), *assignment)));
            }
            Input::Taken { partitions, lost } => {
                for p in partitions.iter().map(|partition| index(*partition)) {
                    replica.readers.remove(&p);
                    if *lost {
                        replica.held.remove(&p);
                        replica.at_work[p].clear();
                    } else {
                        replica.leaving.push(p);
                    }
                }
            }
            Input::Paused(since) => {
                if replica.paused && since.is_none() {
                    replica.news_at = self.now;
                }
                replica.paused = since.is_some();
            }
            _ => {}
        }
        self.handle(r, input);
    }

    pub(super) fn tick(&mut self, r: usize) {
        self.read(r);
        self.ticks += 1;
        if self.ticks.is_multiple_of(64) {
            let held = self.replicas[r].held.keys();
            let ends = held.map(|p| (partition(*p), self.log.0[*p].end)).collect();
            self.handle(r, Input::Ends(ends));
        }
        self.handle(r, Input::Tick);
        let replica = &self.replicas[r];
        if replica.stopping.is_some_and(|by| self.now >= by || replica.engine.is_idle()) {
            return self.goes_down(r);
        }
        let incarnation = replica.incarnation;
        self.at(self.now + self.plan.tick, Happens::Tick { r, incarnation });
    }

    /// Fetches what there is to read.
    fn read(&mut self, r: usize) {
        let mut read = Vec::new();
        for (p, reader) in self.replicas[r].readers.iter_mut().filter(|(_, reader)| !reader.paused) {
            if reader.next >= self.log.0[*p].end {
                continue;
            }
            let (records, next) = self.log.read(*p, reader.next, self.plan.read_at_once);
            let arrival = |(offset, number): &(i64, u32)| {
                let of = &self.events[*number as usize];
                let at = of.at;
                let snapshot =
                    of.snapshot.then(|| Snapshot { updated_at: at, occurred_at: at, data: Some(String::new()) });
                Arrival {
                    offset: *offset,
                    event: happening::event(*number as usize, of, &self.body),
                    starts: of.starts,
                    cancels: of.cancels,
                    snapshot,
                    remember: None,
                    expires_at: self.plan.expires_after.map(|life| Timestamp::from_millis(at).plus(life)),
                    command: None,
                    suppression: None,
                    verdict: (of.fate == Fate::Malformed).then(|| (usher_proto::Reason::Malformed, String::new())),
                }
            };
            let arrivals = records.iter().map(arrival).collect();
            reader.next = next;
            read.push(Input::Read {
                assignment: reader.assignment,
                partition: partition(*p),
                next,
                arrivals,
                refused: Vec::new(),
            });
        }
        read.into_iter().for_each(|input| self.tell(r, input));
    }

    /// Hands an input to the engine, and carries out what it says.
    pub(super) fn handle(&mut self, r: usize, input: Input) {
        self.inputs += 1;
        let jitter: f64 = self.rng.random();
        let replica = &mut self.replicas[r];
        match &input {
            Input::Written { change, .. } => replica.unbusy(&change.key),
            Input::Loaded { key, .. } | Input::Reported { key, .. } => replica.unbusy(key),
            _ => {}
        }
        let holding = replica.engine.is_holding();
        let new = if holding { Vec::new() } else { replica.to_begin_at_once(&input) };
        if self.trace && !matches!(input, Input::Tick | Input::Ends(_)) {
            eprintln!("{} r{r} <- {input:?}", self.now);
        }
        let now = Timestamp::from_millis(self.now);
        let steps = replica.engine.handle(input, now, jitter, &mut replica.destinations);
        let begins = |key: &SubjectId| {
            steps.iter().any(
                |step| matches!(step, Step::Work { run, .. } | Step::DeadLetter { run, .. } if run.event.subject == *key),
            )
        };
        let numbers = replica.engine.numbers();
        // An answer that comes too late is none of its business any more; otherwise it commits.
        let is_current = steps.iter().any(|step| matches!(step, Step::Commit(..)));
        let max_concurrent = new.iter().filter(|_| is_current).find(|(key, destination)| {
            let room = numbers.in_flight < self.plan.in_flight - self.plan.in_flight / 4;
            let healthy = destination.as_ref().is_none_or(|name| replica.destinations.is_closed(name, false, now));
            room && healthy && !begins(key)
        });
        if let Some((key, _)) = max_concurrent {
            let how = format!("a head of u{} does not begin at {}, with room for it", user_number(key), self.now);
            self.checker.breaks("no other key is delayed", how);
        }
        for step in steps {
            if self.trace {
                eprintln!("{} r{r}    -> {step:?}", self.now);
            }
            self.carry_out(r, step);
        }
        let at_work = self.replicas[r].at_work.iter().map(Vec::len).sum();
        self.checker.numbers(&numbers, at_work, &self.plan);
    }

    fn carry_out(&mut self, r: usize, step: Step) {
        match step {
            Step::Acquire { assignment, partitions } => self.ask(r, Question::Acquire(assignment, partitions)),
            Step::Admit(batch) => self.ask(r, Question::Admit(batch)),
            Step::Find { partition, epoch, after, without } => {
                self.ask(r, Question::Find(partition, epoch, after, without));
            }
            Step::Load { key, partition, epoch, limit } => {
                self.replicas[r].is_busy(&key);
                self.ask(r, Question::Load(key, partition, epoch, limit));
            }
            Step::Due(partitions) => self.ask(r, Question::Due(partitions)),
            Step::Write(change) => {
                self.replicas[r].is_busy(&change.key);
                self.ask(r, Question::Write(change));
            }
            Step::DeadLetter { run, epoch, reason, error } => {
                self.replicas[r].is_busy(&run.event.subject);
                let change = Box::new(dead_letter_change(&run, epoch, reason, error));
                let incarnation = self.replicas[r].incarnation;
                self.at(self.now + 3, Happens::Buried { r, incarnation, change });
            }
            Step::Work { run, epoch, permit } => {
                self.replicas[r].is_busy(&run.event.subject);
                self.work(r, *run, epoch, permit);
            }
            Step::Look(look) => {
                let end = |p: usize| if self.plan.breakage == Breakage::NoEnds { 0 } else { self.log.0[p].end };
                let seen = |p| Seen { partition: partition(p), low: 0, end: end(p) };
                let ends = (0..self.plan.partitions).map(seen).collect();
                let seen = self.is_answered().then_some(Looked { paused: self.paused, ends });
                self.answers_later(r, Input::Looked { look, seen });
            }
            Step::AskFrontiers => {
                let frontier = |p: usize| match self.plan.breakage {
                    Breakage::NoFrontiers => Some(i64::MAX),
                    _ => self.store.frontier(p),
                };
                let frontiers = (0..self.plan.partitions).map(|p| (partition(p), frontier(p))).collect();
                let frontiers = self.is_answered().then_some(frontiers);
                self.answers_later(r, Input::Frontiers(frontiers));
            }
            Step::ConfirmPause { .. } => {}
            Step::Start { assignment, offsets } => {
                let replica = &mut self.replicas[r];
                for (partition, next) in offsets {
                    let p = index(partition);
                    if replica.held.get(&p) == Some(&assignment) && !replica.leaving.contains(&p) {
                        replica.readers.insert(p, Reader { assignment, next, paused: false });
                    }
                }
            }
            Step::Commit(partition, at) => {
                let p = index(partition);
                // A commit of somebody who is no member any more is refused, and now and then one is lost.
                if self.group.owner[p] == Some(r) && !self.rng.random_bool(0.02) {
                    self.log.0[p].committed = Some(at);
                    if self.plan.breakage != Breakage::FrontierFirstUnseen {
                        self.checker.frontier("commit", p, at, &self.log, &self.events, &self.store);
                    }
                }
            }
            Step::Pause(partition) => self.replicas[r].pause_reading(partition, true),
            Step::Resume(partition) => self.replicas[r].pause_reading(partition, false),
            Step::Release => {
                let replica = &mut self.replicas[r];
                for p in std::mem::take(&mut replica.leaving) {
                    replica.held.remove(&p);
                    replica.at_work[p].clear();
                }
                self.released(r);
            }
            Step::Rejoin(_) => {
                self.rejoins += 1;
                self.resubscribes(r);
                self.leaves(r);
                self.joins_later(r);
            }
            Step::Fail(partition, problem) => {
                self.checker.breaks("nothing lost", format!("partition {partition} cannot start: {problem}"));
            }
        }
    }

    /// Whether the log and the store answer what changes nothing.
    fn is_answered(&mut self) -> bool {
        self.now >= self.store_back_at && !self.rng.random_bool(self.plan.answers_lost)
    }

    /// The answer to a question that stands in no order with others.
    fn answers_later(&mut self, r: usize, input: Input) {
        let latency = if self.plan.store_latency == 0 { 0 } else { self.rng.random_range(1..=self.plan.store_latency) };
        let incarnation = self.replicas[r].incarnation;
        self.at(self.now + latency, Happens::Told { r, incarnation, subscription: None, input: Box::new(input) });
    }

    fn resubscribes(&mut self, r: usize) {
        let replica = &mut self.replicas[r];
        replica.subscription += 1;
        replica.held.clear();
        replica.readers.clear();
        replica.leaving.clear();
        replica.at_work.iter_mut().for_each(Vec::clear);
    }

    /// Puts a question to the store.
    pub(super) fn ask(&mut self, r: usize, question: Question) {
        let replica = &mut self.replicas[r];
        replica.questions.push_back(question);
        if !replica.turn_is_due {
            replica.turn_is_due = true;
            self.turn_later(r);
        }
    }

    fn turn_later(&mut self, r: usize) {
        let incarnation = self.replicas[r].incarnation;
        let latency = if self.plan.store_latency == 0 { 0 } else { self.rng.random_range(1..=self.plan.store_latency) };
        self.at((self.now + latency).max(self.store_back_at), Happens::StoreTurn { r, incarnation });
    }

    /// The store carries out what has gathered.
    pub(super) fn store_turn(&mut self, r: usize) {
        if self.now < self.store_back_at {
            return self.turn_later(r);
        }
        let incarnation = self.replicas[r].incarnation;
        let mut answers = Vec::new();
        while answers.len() < MAX_WRITE_BATCH
            && let Some(question) = self.replicas[r].questions.pop_front()
        {
            let again = std::mem::take(&mut self.replicas[r].asked_again);
            if self.plan.breakage == Breakage::RefusalIsOutage && self.is_refused(&question) {
                self.replicas[r].questions.push_front(question);
                self.replicas[r].asked_again = true;
                break;
            }
            let mut answer = self.answer(&question, again);
            if self.plan.answers_lost > 0.0 && self.rng.random_bool(self.plan.answers_lost) {
                let replica = &mut self.replicas[r];
                if let Some(Answer::Engine(input)) = answer.first()
                    && let Input::Admitted { admission: Some(admission), .. } = &**input
                {
                    replica.cancelled_unheard.extend(admission.cancelled.iter().map(|(key, _)| user_number(key)));
                }
                replica.questions.push_front(question);
                replica.asked_again = true;
                break;
            }
            answers.append(&mut answer);
        }
        if self.plan.breakage == Breakage::AnswersOutOfOrder {
            answers.reverse();
        }
        let latency = if self.plan.store_latency == 0 { 0 } else { self.rng.random_range(1..=self.plan.store_latency) };
        let replica = &mut self.replicas[r];
        replica.last_answered = replica.last_answered.max(self.now + latency);
        let (at, asked_again) = (replica.last_answered, replica.asked_again);
        replica.turn_is_due = !replica.questions.is_empty();
        if replica.turn_is_due && asked_again {
            self.at(self.now + ASK_AGAIN, Happens::StoreTurn { r, incarnation });
        } else if replica.turn_is_due {
            self.turn_later(r);
        }
        if !answers.is_empty() {
            self.at(at, Happens::StoreAnswers { r, incarnation, answers });
        }
    }

    fn answer(&mut self, question: &Question, asked_again: bool) -> Vec<Answer> {
        let store = &mut self.store;
        let mut fenced = Vec::new();
        let answer = match question {
            Question::Acquire(assignment, partitions) => {
                Input::Acquired { assignment: *assignment, owned: store.acquire(partitions) }
            }
            Question::Admit(batch) => {
                let (admission, in_parts) = refusal::admit(store, &self.events, batch);
                let asked_again = asked_again || in_parts;
                let p = index(batch.partition);
                if let Some(frontier) =
                    store.frontier(p).filter(|_| self.plan.breakage != Breakage::FrontierFirstUnseen)
                {
                    self.checker.frontier("frontier", p, frontier, &self.log, &self.events, &self.store);
                }
                let Batch { partition, epoch, frontier, .. } = *batch;
                Input::Admitted { partition, epoch, frontier, admission, asked_again }
            }
            Question::Find(partition, epoch, after, without) => {
                let (heads, all) = store.find(*partition, after.as_ref(), without, &self.events);
                Input::Found { partition: *partition, epoch: *epoch, heads, all }
            }
            Question::Load(key, partition, epoch, limit) => {
                let (runs, more) = store.load(key, *limit, &self.events);
                Input::Loaded { key: key.clone(), partition: *partition, epoch: *epoch, runs, more }
            }
            Question::Due(partitions) => {
                let due = store.due(partitions, self.now, &self.events);
                fenced = due.fenced;
                Input::Due { heads: due.heads, behind: due.behind, asked_again }
            }
            Question::Write(change) => {
                let changed = self.write(change);
                Input::Written { change: change.clone(), changed }
            }
            Question::Claim(attempt, change) => return vec![Answer::Claim(*attempt, self.write(change))],
        };
        let fenced = fenced.into_iter().map(|(partition, epoch)| Input::Fenced { partition, epoch });
        std::iter::once(answer).chain(fenced).map(|input| Answer::Engine(Box::new(input))).collect()
    }

    fn write(&mut self, change: &Change) -> Changed {
        use crate::engine::ChangeKind::{Claim, End, Park};
        if self.refuses(change) {
            return Changed::Refused;
        }
        let changed = self.store.write(change);
        if let Claim { tries, .. } | Park { tries, .. } = &change.kind {
            self.checker.most_spent = self.checker.most_spent.max(tries.counted);
        }
        if let (Changed::Written, End { verdict: Some((reason, _)), .. }) = (changed, &change.kind) {
            let number = event_number(&change.event);
            let row = self.store.row(number).expect("it is stored");
            self.checker.died(number, *reason, row, &self.events[number], &self.plan);
        }
        changed
    }

    /// The process is told to stop.
    pub(super) fn stops(&mut self, r: usize) {
        self.replicas[r].stopping = Some(self.now + STOP);
        self.handle(r, Input::Stop);
    }

    /// The process is gone, with all it had in memory. It may have put its last question without hearing the answer.
    pub(super) fn goes_down(&mut self, r: usize) {
        if self.rng.random_bool(0.5)
            && let Some(question) = self.replicas[r].questions.pop_front()
        {
            self.answer(&question, false);
        }
        self.store.lose_what_is_owed();
        let incarnation = self.replicas[r].incarnation + 1;
        let stopped = self.replicas[r].stopping.is_some();
        self.replicas[r] = Replica {
            incarnation,
            up: false,
            silent_since: Some(self.now),
            last_told: self.now,
            last_answered: self.now,
            ..Replica::new(&self.plan)
        };
        if stopped {
            self.leaves(r);
        }
        let pause = self.rng.random_range(500..15_000);
        self.at(self.now + pause, Happens::Restart { r });
    }

    pub(super) fn restarts(&mut self, r: usize) {
        self.leaves(r);
        self.resubscribes(r);
        let replica = &mut self.replicas[r];
        (replica.up, replica.silent_since) = (true, None);
        let incarnation = replica.incarnation;
        self.told(r, Input::Paused(self.paused));
        self.at(self.now, Happens::Tick { r, incarnation });
        self.joins_later(r);
    }
}

impl Replica {
    fn is_busy(&mut self, key: &SubjectId) {
        *self.busy.entry(user_number(key)).or_default() += 1;
    }

    fn pause_reading(&mut self, partition: Partition, paused: bool) {
        if let Some(reader) = self.readers.get_mut(&index(partition)) {
            reader.paused = paused;
        }
    }

    /// New heads that must begin as soon as they are known, if their destinations serve and there is room.
    fn to_begin_at_once(&self, input: &Input) -> Vec<(SubjectId, Option<String>)> {
        let Input::Admitted { partition, admission: Some(admission), .. } = input else { return Vec::new() };
        let p = index(*partition);
        if self.paused || self.stopping.is_some() || self.leaving.contains(&p) || !self.held.contains_key(&p) {
            return Vec::new();
        }
        // What is under way of a lane, or has just been cancelled, is done with first.
        let cancelled = |key: &SubjectId| admission.cancelled.iter().any(|(of, _)| of == key);
        let is_free = |key: &SubjectId| {
            let user = user_number(key);
            !self.busy.contains_key(&user) && !cancelled(key) && !self.cancelled_unheard.contains(&user)
        };
        let free = admission.heads.iter().filter(|run| is_free(&run.event.subject));
        free.map(|run| (run.event.subject.clone(), run.destination.clone())).collect()
    }
}
