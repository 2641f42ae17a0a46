//! Time, chance, and the ordered events of a simulated world.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use usher_proto::Timestamp;

use super::attempt::Attempt;
use super::checker::{Broken, Checker};
use super::destination::{Destination, DestinationTrouble};
use super::group::{SimulatedGroup, TURN};
use super::happening::{EventPlan, Fate};
use super::log::SimulatedLog;
use super::plan::Plan;
use super::replica::SimulatedReplica;
use super::store::SimulatedStore;
use super::store_queue::{Question, StoreReply};
use crate::{Change, Input, StoreRequest};

/// The longest time that the world may take to come to rest once it is calm, in ms.
const PATIENCE: i64 = 40 * 60_000;

/// Something that is scheduled to happen.
#[derive(Debug)]
pub(super) enum Occurrence {
    /// The next event arrives.
    Event,
    /// The source sends a webhook again.
    Again(u32),
    /// The log's client reads what there is.
    Poll {
        r: usize,
        incarnation: u32,
    },
    /// The time at which the engine has asked to be woken.
    Wakeup {
        r: usize,
        incarnation: u32,
        at: i64,
    },
    Told {
        r: usize,
        incarnation: u32,
        subscription: Option<u32>,
        input: Box<Input>,
    },
    StoreTurn {
        r: usize,
        incarnation: u32,
    },
    StoreAnswers {
        r: usize,
        incarnation: u32,
        answers: Vec<StoreReply>,
    },
    DeadLettered {
        r: usize,
        incarnation: u32,
        change: Box<Change>,
    },
    Arrives(usize),
    Reports(usize),
    GroupTurn,
    Join {
        r: usize,
        incarnation: u32,
    },
    Thaw {
        r: usize,
        incarnation: u32,
    },
    Restart {
        r: usize,
    },
    Misfortune,
    Trouble(usize, DestinationTrouble),
    Paused(bool),
    Calm,
}

#[derive(Debug)]
struct Scheduled {
    at: i64,
    number: u64,
    what: Occurrence,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The whole simulation.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: StdRng,
    /// The generator of the events, which are therefore the same whatever else happens.
    rng_of_events: StdRng,
    pub(super) now: i64,
    scheduled: BinaryHeap<Reverse<Scheduled>>,
    numbers: u64,
    pub(super) events: Vec<EventPlan>,
    pub(super) body: Bytes,
    /// Cumulative shares of all events, by user.
    shares: Vec<f64>,
    pub(super) log: SimulatedLog,
    pub(super) group: SimulatedGroup,
    pub(super) store: SimulatedStore,
    pub(super) store_back_at: i64,
    pub(super) destinations: Vec<Destination>,
    pub(super) replicas: Vec<SimulatedReplica>,
    pub(super) attempts: Vec<Option<Attempt>>,
    pub(super) free_attempts: Vec<usize>,
    pub(super) requests: u64,
    pub(super) checker: Checker,
    /// Number of inputs that engines have handled.
    pub(super) inputs: u64,
    pub(super) polls: u64,
    pub(super) rejoins: u64,
    pub(super) trace: bool,
    /// The time since which the flow is paused.
    pub(super) paused: Option<Timestamp>,
    pub(super) is_calm: bool,
    /// The attempts made: the time, the event and the step of each. Absent if it is not recorded.
    pub(super) timeline: Option<Vec<(i64, usize, usize)>>,
    /// Fates that are fixed in advance, by the event's number.
    pub(super) fates: Vec<(usize, Fate)>,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let body = Bytes::from(vec![b'x'; plan.body]);
        let mut shares: Vec<f64> = Vec::with_capacity(plan.users);
        for rank in 1..=plan.users {
            let before = shares.last().copied().unwrap_or(0.0);
            shares.push(before + f64::from(u32::try_from(rank).expect("few")).powf(-plan.zipf));
        }
        let mut world = Self {
            rng: StdRng::seed_from_u64(plan.seed),
            rng_of_events: StdRng::seed_from_u64(plan.seed.wrapping_add(1)),
            now: 0,
            scheduled: BinaryHeap::new(),
            numbers: 0,
            events: Vec::new(),
            shares,
            log: SimulatedLog::new(plan.partitions),
            group: SimulatedGroup::new(plan.partitions, plan.replicas),
            store: SimulatedStore::new(&plan, body.clone()),
            body,
            store_back_at: 0,
            destinations: plan.destinations.iter().map(|of| Destination::new(of.clone(), plan.defect)).collect(),
            replicas: (0..plan.replicas).map(|_| SimulatedReplica::new(&plan)).collect(),
            attempts: Vec::new(),
            free_attempts: Vec::new(),
            requests: 0,
            checker: Checker::new(plan.partitions),
            inputs: 0,
            polls: 0,
            rejoins: 0,
            trace: std::env::var("TRACE").is_ok(),
            paused: None,
            is_calm: false,
            timeline: None,
            fates: Vec::new(),
            plan,
        };
        for r in 0..world.plan.replicas {
            world.at(0, Occurrence::Poll { r, incarnation: 0 });
            world.at(0, Occurrence::Join { r, incarnation: 0 });
        }
        world.at(1, Occurrence::GroupTurn);
        if world.plan.events > 0 {
            world.at(10, Occurrence::Event);
        }
        if world.plan.chaos_every.is_some() {
            world.at(1_000, Occurrence::Misfortune);
        }
        world.at(world.plan.arrive_over + 20_000, Occurrence::Calm);
        world
    }

    /// Schedules something for this time.
    pub(super) fn at(&mut self, at: i64, what: Occurrence) {
        self.numbers += 1;
        self.scheduled.push(Reverse(Scheduled { at, number: self.numbers, what }));
    }

    /// Runs until every run has ended, or a promise is broken.
    pub(super) fn run(&mut self) -> Result<(), Broken> {
        self.run_until(i64::MAX)?;
        self.checker.end(&self.events, &self.store, &self.log, &self.plan);
        self.checker.broken.take().map_or(Ok(()), Err)
    }

    /// Runs until this time, or until every run has ended, or a promise is broken.
    pub(super) fn run_until(&mut self, until: i64) -> Result<(), Broken> {
        let calm_at = self.plan.arrive_over + 20_000;
        while let Some(Reverse(next)) = self.scheduled.peek() {
            if next.at >= until {
                break;
            }
            let Some(Reverse(Scheduled { at, what, .. })) = self.scheduled.pop() else { break };
            self.now = at;
            if matches!(what, Occurrence::GroupTurn) && self.is_calm {
                if self.is_at_rest() {
                    break;
                }
                if at > calm_at + PATIENCE {
                    let how = self.unfinished();
                    self.checker.breaks("nothing lost", how);
                }
            }
            self.happens(what);
            if let Some(broken) = self.checker.broken.take() {
                return Err(broken);
            }
        }
        Ok(())
    }

    fn unfinished(&self) -> String {
        let live = self.events.iter().enumerate().find_map(|(number, of)| {
            let row = self.store.row(number);
            (of.starts && row.is_none_or(|row| !row.state.is_terminal())).then(|| format!("e{number} {of:?} {row:?}"))
        });
        let engines: Vec<_> = self.replicas.iter().map(|replica| (replica.up, replica.engine.numbers())).collect();
        let left = self.store.live;
        format!("{left} runs never end: {live:?}; {engines:?} {:?}", self.group)
    }

    fn is_at_rest(&self) -> bool {
        let read = |p: usize| {
            let last = self.log.0[p].records.last().map_or(0, |(offset, _)| offset + 1);
            self.store.frontier(p).is_some_and(|frontier| frontier >= last)
        };
        self.store.live == 0 && self.events.len() == self.plan.events && (0..self.plan.partitions).all(read)
    }

    /// Returns the replica that this happens to, and the incarnation of that replica.
    fn whose(what: &Occurrence, attempts: &[Option<Attempt>]) -> Option<(usize, u32)> {
        match what {
            Occurrence::Poll { r, incarnation }
            | Occurrence::Wakeup { r, incarnation, .. }
            | Occurrence::Told { r, incarnation, .. }
            | Occurrence::StoreTurn { r, incarnation }
            | Occurrence::StoreAnswers { r, incarnation, .. }
            | Occurrence::DeadLettered { r, incarnation, .. }
            | Occurrence::Join { r, incarnation } => Some((*r, *incarnation)),
            Occurrence::Reports(attempt) => attempts[*attempt].as_ref().map(|attempt| (attempt.r, attempt.incarnation)),
            _ => None,
        }
    }

    fn happens(&mut self, what: Occurrence) {
        if let Some((r, incarnation)) = Self::whose(&what, &self.attempts) {
            let replica = &mut self.replicas[r];
            if replica.incarnation == incarnation
                && let Some(frozen) = &mut replica.frozen
            {
                return frozen.push(what);
            }
            if replica.incarnation != incarnation || !replica.up {
                if let Occurrence::Reports(attempt) = what {
                    self.reports(attempt);
                }
                return;
            }
            // The replica is no longer frozen; the group may have removed it meanwhile.
            if replica.up {
                replica.silent_since = None;
            }
        }
        match what {
            Occurrence::Event => self.event(),
            Occurrence::Again(number) => self.append(number),
            Occurrence::Poll { r, .. } => self.poll(r),
            Occurrence::Wakeup { r, at, .. } => self.wakes(r, at),
            Occurrence::Told { r, subscription, input, .. } => {
                if subscription.is_none_or(|subscription| self.replicas[r].subscription == subscription) {
                    self.told(r, *input);
                }
            }
            Occurrence::StoreTurn { r, .. } => self.store_turn(r),
            Occurrence::StoreAnswers { r, answers, .. } => {
                for answer in answers {
                    match answer {
                        StoreReply::Engine(input) => self.handle(r, *input),
                        StoreReply::Claim(attempt, changed) => self.claimed(attempt, changed),
                    }
                }
            }
            Occurrence::DeadLettered { r, change, .. } => self.ask(r, Question::Engine(StoreRequest::Change(*change))),
            Occurrence::Arrives(attempt) => self.arrives(attempt),
            Occurrence::Reports(attempt) => self.reports(attempt),
            Occurrence::GroupTurn => {
                self.group_turn();
                self.at(self.now + TURN, Occurrence::GroupTurn);
            }
            Occurrence::Join { r, .. } => self.joins(r),
            Occurrence::Thaw { r, incarnation } => {
                if self.replicas[r].incarnation == incarnation {
                    let frozen = self.replicas[r].frozen.take().unwrap_or_default();
                    frozen.into_iter().for_each(|what| self.happens(what));
                }
            }
            Occurrence::Restart { r } => self.restarts(r),
            Occurrence::Misfortune => {
                if let (false, Some(every)) = (self.is_calm, self.plan.chaos_every) {
                    self.misfortune();
                    let pause = self.rng.random_range(1..2 * every);
                    self.at(self.now + pause, Occurrence::Misfortune);
                }
            }
            Occurrence::Trouble(destination, trouble) => self.destinations[destination].trouble = trouble,
            Occurrence::Paused(paused) => self.pause(paused),
            Occurrence::Calm => self.calm_down(),
        }
    }

    /// Creates the next event of a random user.
    fn event(&mut self) {
        let rng = &mut self.rng_of_events;
        let total = self.shares.last().copied().unwrap_or(1.0);
        let share = rng.random::<f64>() * total;
        let user = self.shares.partition_point(|shares| *shares < share).min(self.plan.users - 1);
        let mut of = EventPlan {
            user: u32::try_from(user).expect("few"),
            starts: true,
            cancels: false,
            snapshot: true,
            suppresses: None,
            fate: Fate::Fine,
            skips: 0,
            needs: 0,
            at: self.now,
        };
        if self.plan.odd_events {
            let step = rng.random_range(0..self.plan.steps.len());
            of.fate = match rng.random_range(0..200) {
                0..=1 => Fate::Fails(step),
                2..=3 => Fate::FailsUntil(self.now + rng.random_range(0..30_000)),
                4..=5 => Fate::Rejected(step),
                6 => Fate::Overtaken(step),
                7 => Fate::Superseded(step),
                8 => Fate::Malformed,
                9 => Fate::Unstorable,
                10 => Fate::Unwritable(step),
                _ => Fate::Fine,
            };
            of.snapshot = rng.random_bool(0.6);
            of.cancels = rng.random_bool(0.03);
            of.starts = !of.cancels || rng.random_bool(0.3);
            of.suppresses =
                rng.random_bool(0.015).then(|| rng.random_range(0..u32::try_from(self.plan.users).expect("few")));
            of.skips = if rng.random_bool(0.1) { rng.random() } else { 0 };
            of.needs = if rng.random_bool(0.7) { 0 } else { self.store.revision(of.user) + rng.random_range(0..3) };
        }
        let number = self.events.len();
        if let Some((_, fate)) = self.fates.iter().find(|(event, _)| *event == number) {
            of.fate = *fate;
        }
        self.events.push(of);
        self.append(u32::try_from(number).expect("few"));
        if self.plan.odd_events && self.rng_of_events.random_bool(0.04) {
            let later = self.rng_of_events.random_range(0..30_000);
            self.at(self.now + later, Occurrence::Again(u32::try_from(number).expect("few")));
        }
        if self.events.len() < self.plan.events {
            let events = i64::try_from(self.plan.events).expect("few");
            // As evenly spaced as whole milliseconds allow.
            let next = 10 + self.plan.arrive_over * i64::try_from(number + 1).expect("few") / events;
            self.at(next.max(self.now), Occurrence::Event);
        }
    }

    fn append(&mut self, number: u32) {
        let user = self.events[number as usize].user as usize;
        let gap = if self.rng_of_events.random_bool(0.1) { self.rng_of_events.random_range(1..5) } else { 0 };
        if let Some(suppressed) = self.events[number as usize].suppresses {
            self.checker.suppressed(suppressed as usize, self.now);
        }
        self.log.append(user % self.plan.partitions, number, &self.events[number as usize], gap);
    }
}
