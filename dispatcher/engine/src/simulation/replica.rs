//! One process: its engine, and the parts that carry out the engine's steps.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rand::Rng as _;
use usher_proto::{Assignment, Offset, Partition, SubjectId, Timestamp};

use super::group::partition;
use super::happening::user_number;
use super::plan::{Defect, Plan, StepPlan};
use super::reading::ReadPosition;
use super::store_queue::{Question, StoreQueue};
use super::world::{Occurrence, World};
use crate::start::StartFrom;
use crate::{
    CatchUpTarget, Change, Destinations, Engine, FlowLimits, Input, LogCommand, Seen, Step, StoreRead, StoreRequest,
    dead_letter_change,
};

/// The longest time that a process may take to stop, in ms.
const STOP: i64 = 6_000;

/// The calls of a process that are in flight, and the claimed attempts that wait for a slot.
#[derive(Debug, Default)]
pub(super) struct CallsInFlight {
    pub(super) taken: usize,
    pub(super) waiting: VecDeque<usize>,
}

/// A simulated process.
#[derive(Debug)]
pub(super) struct SimulatedReplica {
    pub(super) engine: Engine,
    pub(super) destinations: Destinations,
    /// Number of times the process has gone down.
    pub(super) incarnation: u32,
    pub(super) up: bool,
    /// Everything that happens to the process while it is frozen; absent if it is not frozen.
    pub(super) frozen: Option<Vec<Occurrence>>,
    /// The time since which the group has received nothing from it.
    pub(super) silent_since: Option<i64>,
    pub(super) paused: bool,
    /// The time at which it was last assigned partitions or resumed.
    pub(super) news_at: i64,
    /// The deadline for its stop; absent if it is not stopping.
    pub(super) stopping: Option<i64>,
    /// Number of its subscriptions to the log.
    pub(super) subscription: u32,
    /// The assignment of each partition, as the log's client sees it.
    held: BTreeMap<usize, Assignment>,
    pub(super) readers: BTreeMap<usize, ReadPosition>,
    /// Partitions that must be handed back.
    leaving: Vec<usize>,
    /// Its requests on their way to the store.
    pub(super) queue: StoreQueue,
    pub(super) last_told: i64,
    /// The time at which the engine is to be woken; absent if it has not asked for that.
    wakeup_at: Option<i64>,
    /// Attempts that the engine has begun and counts, by partition.
    pub(super) at_work: Vec<Vec<usize>>,
    /// Calls of destinations that it makes.
    pub(super) calls: CallsInFlight,
    /// Users with something in flight or being written, with the number.
    busy: HashMap<usize, usize>,
}

impl SimulatedReplica {
    pub(super) fn new(plan: &Plan) -> Self {
        let limits = FlowLimits {
            urgent: false,
            in_flight: plan.in_flight,
            destinations: plan.destinations.len(),
            retry: plan.retry,
            from: Some(StartFrom::Beginning),
            partitions: i32::try_from(plan.partitions).expect("few"),
            stall: std::time::Duration::from_secs(60),
            far_behind: plan.far_behind,
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
            queue: StoreQueue::default(),
            last_told: 0,
            wakeup_at: None,
            at_work: vec![Vec::new(); plan.partitions],
            calls: CallsInFlight::default(),
            busy: HashMap::new(),
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
    /// Returns the name of the destination that a step calls; absent for a wait.
    pub(super) fn asked_at(&self, step: usize) -> Option<String> {
        match self.steps.get(step)? {
            StepPlan::Call { destination, .. } => Some(self.destinations[*destination].name.clone()),
            StepPlan::Wait(_) => None,
        }
    }
}

pub(super) fn index(partition: Partition) -> usize {
    usize::try_from(partition.0).expect("from 0")
}

impl World {
    /// Delivers an input from the log's client to the engine, in order.
    pub(super) fn tell(&mut self, r: usize, input: Input) {
        let delay = if self.plan.chaos_every.is_some() { self.rng.random_range(0..30) } else { 0 };
        let replica = &mut self.replicas[r];
        replica.last_told = replica.last_told.max(self.now + delay);
        let incarnation = replica.incarnation;
        let subscription = replica.subscription;
        let at = replica.last_told;
        self.at(at, Occurrence::Told { r, incarnation, subscription: Some(subscription), input: Box::new(input) });
    }

    pub(super) fn told(&mut self, r: usize, input: Input) {
        let replica = &mut self.replicas[r];
        match &input {
            Input::Assigned { assignment, partitions } => {
                if !partitions.is_empty() {
                    replica.news_at = self.now;
                }
                replica.held.extend(partitions.iter().map(|given| (index(given.partition), *assignment)));
            }
            Input::Revoked { partitions, lost } => {
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

    pub(super) fn poll(&mut self, r: usize) {
        self.needs_no_wakeup(r);
        self.read(r);
        self.polls += 1;
        if self.polls.is_multiple_of(64) {
            let held = self.replicas[r].held.keys();
            let ends = held.map(|p| (partition(*p), Offset(self.log.0[*p].end))).collect();
            self.handle(r, Input::Ends(ends));
        }
        let replica = &self.replicas[r];
        if replica.stopping.is_some_and(|by| self.now >= by || replica.engine.is_idle()) {
            return self.goes_down(r);
        }
        let incarnation = replica.incarnation;
        self.at(self.now + self.plan.poll_every, Occurrence::Poll { r, incarnation });
    }

    /// Hands an input to the engine, and carries out its steps.
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
        let mut new = if holding { Vec::new() } else { replica.to_begin_at_once(&input) };
        if let Input::Admitted { partition, .. } = &input {
            new.retain(|(key, _)| !self.may_be_ended(index(*partition), user_number(key)));
        }
        let replica = &mut self.replicas[r];
        if self.trace && !matches!(input, Input::Wakeup | Input::Ends(_)) {
            eprintln!("{} r{r} <- {input:?}", self.now);
        }
        let now = Timestamp::from_millis(self.now);
        let steps = replica.engine.handle(input, now, jitter, &mut replica.destinations);
        let begins = |key: &SubjectId| {
            steps.iter().any(
                |step| matches!(step, Step::Execute { run, .. } | Step::DeadLetter { run, .. } if run.event.subject == *key),
            )
        };
        let numbers = replica.engine.numbers();
        // The engine ignores an answer that arrives too late; otherwise it commits.
        let is_current = steps.iter().any(|step| matches!(step, Step::Log(LogCommand::Commit(..))));
        let stalled = new.iter().filter(|_| is_current).find(|(key, destination)| {
            let slots = self.plan.in_flight - self.plan.in_flight / 4;
            let room = numbers.in_flight < slots && numbers.in_flight + numbers.writing < 2 * self.plan.in_flight;
            let healthy = destination.as_ref().is_none_or(|name| replica.destinations.is_closed(name, false, now));
            room && healthy && !begins(key)
        });
        if let Some((key, _)) = stalled {
            let how = format!("a head of u{} does not begin at {}, with room for it", user_number(key), self.now);
            self.checker.breaks("no other key is delayed", how);
        }
        self.schedule_wakeup(r);
        for step in steps {
            if self.trace {
                eprintln!("{} r{r}    -> {step:?}", self.now);
            }
            self.carry_out(r, step);
        }
        let at_work = self.replicas[r].at_work.iter().map(Vec::len).sum();
        self.checker.numbers(&numbers, at_work, &self.plan);
    }

    /// Returns true if a record that is not admitted cancels runs of this user: they wait for it.
    fn may_be_ended(&self, p: usize, user: usize) -> bool {
        let user = u32::try_from(user).expect("few");
        let cancels = self.log.0[p].cancels.get(&user);
        cancels.is_some_and(|offset| self.store.frontier(p).is_none_or(|frontier| *offset >= frontier))
    }

    /// Schedules the time at which the engine wants to be woken. Nothing else lets time pass for it.
    fn schedule_wakeup(&mut self, r: usize) {
        let replica = &mut self.replicas[r];
        let now = Timestamp::from_millis(self.now);
        let Some(at) = replica.engine.next_wakeup(now, &replica.destinations).map(Timestamp::millis) else { return };
        if replica.wakeup_at.is_none_or(|known| at < known) {
            replica.wakeup_at = Some(at);
            let incarnation = replica.incarnation;
            self.at(at, Occurrence::Wakeup { r, incarnation, at });
        }
    }

    /// Wakes the engine before the time for which it has asked: it must have nothing to do.
    fn needs_no_wakeup(&mut self, r: usize) {
        let replica = &mut self.replicas[r];
        if replica.wakeup_at.is_some_and(|at| at <= self.now) {
            return;
        }
        let now = Timestamp::from_millis(self.now);
        let steps = replica.engine.handle(Input::Wakeup, now, 0.5, &mut replica.destinations);
        if !steps.is_empty() {
            let how = format!("at {} it would have slept until {:?}: {steps:?}", self.now, replica.wakeup_at);
            self.checker.breaks("the engine says when it needs to be woken", how);
        }
    }

    pub(super) fn wakes(&mut self, r: usize, at: i64) {
        // One that was scheduled before an earlier one is superfluous.
        if self.replicas[r].wakeup_at.take_if(|known| *known == at).is_some() {
            self.handle(r, Input::Wakeup);
        }
    }

    fn carry_out(&mut self, r: usize, step: Step) {
        match step {
            Step::Store(request) => {
                match &request {
                    StoreRequest::Change(Change { key, .. }) | StoreRequest::Read(StoreRead::Load { key, .. }) => {
                        self.replicas[r].is_busy(key);
                    }
                    StoreRequest::Write(_) | StoreRequest::Read(StoreRead::Find { .. }) => {}
                }
                self.ask(r, Question::Engine(request));
            }
            Step::DeadLetter { run, epoch, reason, error } => {
                self.replicas[r].is_busy(&run.event.subject);
                let change = Box::new(dead_letter_change(&run, epoch, reason, error));
                let incarnation = self.replicas[r].incarnation;
                self.at(self.now + 3, Occurrence::DeadLettered { r, incarnation, change });
            }
            Step::Execute { run, epoch, permit } => {
                self.replicas[r].is_busy(&run.event.subject);
                self.work(r, *run, epoch, permit);
            }
            Step::ReadAhead(ranges) => self.reads_ahead(r, &ranges),
            Step::Look(look) => {
                let end = |p: usize| if self.plan.defect == Defect::NoEnds { 0 } else { self.log.0[p].end };
                let seen = |p| Seen { partition: partition(p), low: Offset(0), end: Offset(end(p)) };
                let ends = (0..self.plan.partitions).map(seen).collect();
                let seen = self.is_answered().then_some(CatchUpTarget { paused: self.paused, ends });
                self.answers_later(r, Input::Looked { look, seen });
            }
            Step::AskFrontiers => {
                let frontier = |p: usize| match self.plan.defect {
                    Defect::NoFrontiers => Some(i64::MAX),
                    _ => self.store.known(p),
                };
                let frontiers = (0..self.plan.partitions).map(|p| (partition(p), frontier(p).map(Offset))).collect();
                let frontiers = self.is_answered().then_some(frontiers);
                self.answers_later(r, Input::Frontiers(frontiers));
            }
            Step::Log(LogCommand::Start { assignment, offsets }) => {
                let replica = &mut self.replicas[r];
                for (partition, next) in offsets {
                    let p = index(partition);
                    if replica.held.get(&p) == Some(&assignment) && !replica.leaving.contains(&p) {
                        replica.readers.insert(p, ReadPosition { assignment, next: next.0, paused: false });
                    }
                }
            }
            Step::Log(LogCommand::Commit(partition, at)) => {
                let p = index(partition);
                // The commit of a replica that is no longer a member is refused, and sometimes one is lost.
                if self.group.owner[p] == Some(r) && !self.rng.random_bool(0.02) {
                    self.log.0[p].committed = Some(at.0);
                    if self.plan.defect != Defect::FrontierFirstUnseen {
                        self.checker.frontier("commit", p, at.0, &self.log, &self.events, &self.store);
                    }
                }
            }
            Step::Log(LogCommand::Pause(partition)) => self.replicas[r].pause_reading(partition, true),
            Step::Log(LogCommand::Resume(partition)) => self.replicas[r].pause_reading(partition, false),
            Step::Log(LogCommand::Release) => {
                let replica = &mut self.replicas[r];
                for p in std::mem::take(&mut replica.leaving) {
                    replica.held.remove(&p);
                    replica.at_work[p].clear();
                }
                self.released(r);
            }
            Step::Log(LogCommand::Rejoin(_)) => {
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

    /// Returns true if the log and the store answer a query that changes nothing.
    pub(super) fn is_answered(&mut self) -> bool {
        self.now >= self.store_back_at && !self.rng.random_bool(self.plan.answers_lost)
    }

    /// Delivers the answer to a query that has no order relative to others.
    pub(super) fn answers_later(&mut self, r: usize, input: Input) {
        let latency = if self.plan.store_latency == 0 { 0 } else { self.rng.random_range(1..=self.plan.store_latency) };
        let incarnation = self.replicas[r].incarnation;
        self.at(self.now + latency, Occurrence::Told { r, incarnation, subscription: None, input: Box::new(input) });
    }

    fn resubscribes(&mut self, r: usize) {
        let replica = &mut self.replicas[r];
        replica.subscription += 1;
        replica.held.clear();
        replica.readers.clear();
        replica.leaving.clear();
        replica.at_work.iter_mut().for_each(Vec::clear);
    }

    /// Requests the process to stop.
    pub(super) fn stops(&mut self, r: usize) {
        self.replicas[r].stopping = Some(self.now + STOP);
        self.handle(r, Input::Stop);
    }

    /// Ends the process, with everything in its memory. Its last question may have been carried out without an answer.
    pub(super) fn goes_down(&mut self, r: usize) {
        if self.rng.random_bool(0.5)
            && let Some(question) = self.replicas[r].queue.questions.pop_front()
        {
            self.answer(&question, false);
        }
        self.store.lose_what_is_owed();
        for unsent in std::mem::take(&mut self.replicas[r].calls.waiting) {
            self.attempts[unsent] = None;
            self.free_attempts.push(unsent);
        }
        let incarnation = self.replicas[r].incarnation + 1;
        let stopped = self.replicas[r].stopping.is_some();
        self.replicas[r] = SimulatedReplica {
            incarnation,
            up: false,
            silent_since: Some(self.now),
            last_told: self.now,
            queue: StoreQueue::from(self.now),
            ..SimulatedReplica::new(&self.plan)
        };
        if stopped {
            self.leaves(r);
        }
        let pause = self.rng.random_range(500..15_000);
        self.at(self.now + pause, Occurrence::Restart { r });
    }

    pub(super) fn restarts(&mut self, r: usize) {
        self.leaves(r);
        self.resubscribes(r);
        let replica = &mut self.replicas[r];
        replica.up = true;
        replica.silent_since = None;
        let incarnation = replica.incarnation;
        self.told(r, Input::Paused(self.paused));
        self.at(self.now, Occurrence::Poll { r, incarnation });
        self.joins_later(r);
    }
}

impl SimulatedReplica {
    fn is_busy(&mut self, key: &SubjectId) {
        *self.busy.entry(user_number(key)).or_default() += 1;
    }

    fn pause_reading(&mut self, partition: Partition, paused: bool) {
        if let Some(reader) = self.readers.get_mut(&index(partition)) {
            reader.paused = paused;
        }
    }

    /// Returns the new heads that must begin as soon as they are known, if their destinations serve and there is room.
    fn to_begin_at_once(&self, input: &Input) -> Vec<(SubjectId, Option<String>)> {
        let Input::Admitted { partition, admission: Some(admission), .. } = input else { return Vec::new() };
        let p = index(*partition);
        if self.paused || self.stopping.is_some() || self.leaving.contains(&p) || !self.held.contains_key(&p) {
            return Vec::new();
        }
        // A lane with something in flight, or with a run that has just been cancelled, must finish that first.
        let cancelled = |key: &SubjectId| admission.cancelled.iter().any(|(of, _)| of == key);
        let is_free = |key: &SubjectId| {
            let user = user_number(key);
            !self.busy.contains_key(&user) && !cancelled(key) && !self.queue.cancelled_unacknowledged.contains(&user)
        };
        let free = admission.heads.iter().filter(|run| is_free(&run.event.subject));
        free.map(|run| (run.event.subject.clone(), run.destination.clone())).collect()
    }
}
