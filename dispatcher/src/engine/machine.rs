//! One flow's state machine: what to do next, given what has happened.
//!
//! This file holds the state and begins work; `ownership` follows partitions as they come and go, `holding` says when nothing
//! is begun, `memory` what of the store is in memory, `work` what becomes of runs.

mod holding;
mod memory;
mod ownership;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use usher_proto::{EventRef, Partition, Reason, SubjectId, Timestamp};

pub use work::dead_letter_change;

use super::catch_up::CatchUp;
use super::clock::ClockState;
use super::lanes::Lanes;
use super::partitions::Partitions;
use super::start::From;
use super::{Destinations, Given, Input, RetryPolicy, Run, Step};
use holding::Pause;

/// How many lane heads the store is asked for at once.
pub const FOUND_AT_ONCE: usize = 256;
/// Heads kept in memory for each destination that takes no calls, or only as many as its quota allows; the others are found
/// in the store when there are few left.
const HELD_KEPT: usize = 256;
/// How often the store is asked which waits and pauses are over.
const DUE_EVERY: Duration = Duration::from_millis(500);
/// How often a run may have ended its worker before it is given up.
const MAX_CRASHES: u32 = 4;
/// From so many on it is a suspect: tried by itself, and after a while.
const QUARANTINE_AFTER_CRASHES: u32 = 2;
/// How long a suspect is kept back. What ends a process from outside, again and again, finds whatever was begun first
/// after each start; only what ends it from inside is still there when it was begun much later.
const QUARANTINE_DELAY: Duration = Duration::from_secs(10);
/// Delay of a run that would have expired by an unproven clock.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The bounds of one flow in one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Steps that may be under way at once.
    pub in_flight: usize,
    /// Whether its calls go before those of other flows.
    pub urgent: bool,
    /// How many different destinations the flow asks.
    pub destinations: usize,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// Where it begins if it has never read the log.
    pub from: Option<From>,
    /// Number of partitions in the topic's layout.
    pub partitions: i32,
    /// How long a partition may have something to read, and deliver nothing, before its subscription counts as stuck.
    pub stall: Duration,
}

/// What is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// Steps under way.
    pub in_flight: usize,
    /// Runs that wait in memory for their next attempt.
    pub resting: usize,
    /// Runs that wait in memory for their destination to take calls.
    pub held: usize,
    /// Runs in memory.
    pub loaded: usize,
    /// Roughly the bytes that runs and waiting events take.
    pub weight: usize,
}

/// One flow's partitions and lanes, and what they are doing.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    /// The flow's present version, and the connector of its first step.
    first: (String, Option<String>),
    lanes: Lanes,
    partitions: Partitions,
    /// Partitions that are being taken over in the store. One that the log takes away meanwhile is not ours.
    acquiring: BTreeMap<Partition, (u64, Given)>,
    /// Whether the log waits for partitions that it has taken.
    handing_back: bool,
    /// Destinations for which heads were left to the store, and how many heads in all.
    left_out: BTreeSet<String>,
    left_out_heads: usize,
    /// Whether reading pauses for want of room.
    reading_paused: bool,
    /// Whether an operator has paused the flow.
    pause: Pause,
    catch_up: CatchUp,
    clock: ClockState,
    stopping: bool,
    /// A run that may have ended workers, at work: one at a time, so that it is known which one it was.
    suspect: Option<EventRef>,
    asking_due: bool,
    due_asked_at: Option<Timestamp>,
}

impl Engine {
    /// An engine with nothing to do. New runs begin with this version of the flow, whose first step uses `connector`.
    pub fn new(limits: Limits, flow_version: &str, connector: Option<String>) -> Self {
        Self {
            limits,
            first: (flow_version.to_owned(), connector),
            lanes: Lanes::default(),
            partitions: Partitions::default(),
            acquiring: BTreeMap::new(),
            handing_back: false,
            left_out: BTreeSet::new(),
            left_out_heads: 0,
            reading_paused: false,
            pause: Pause::Unknown,
            catch_up: CatchUp::new(),
            clock: ClockState::Right,
            stopping: false,
            suspect: None,
            asking_due: false,
            due_asked_at: None,
        }
    }

    /// Takes in what has happened and says what is to be done. `jitter` is random in 0..1.
    pub fn handle(&mut self, input: Input, now: Timestamp, jitter: f64, destinations: &mut Destinations) -> Vec<Step> {
        let mut steps = Vec::new();
        match input {
            Input::Given { assignment, partitions } => self.given(assignment, partitions, &mut steps),
            Input::Acquired { assignment, owned } => self.acquired(assignment, owned, now, &mut steps),
            Input::Taken { partitions, lost } => self.taken(&partitions, lost, now),
            Input::Read { assignment, partition, next, arrivals, refused } => {
                self.read(assignment, partition, next, (arrivals, refused), now);
            }
            Input::Ends(ends) => self.ends(&ends, now, &mut steps),
            Input::Admitted { partition, epoch, frontier, admission, asked_again } => {
                self.admitted(partition, epoch, frontier, admission, asked_again, &mut steps);
            }
            Input::Found { partition, epoch, heads, all } => self.found(partition, epoch, heads, all),
            Input::Loaded { key, partition, epoch, runs, more } => {
                if self.partitions.current(partition, epoch).is_some() {
                    self.lanes.loaded_from_store(&key, runs, more);
                }
            }
            Input::Due { heads, behind, asked_again } => self.due(heads, &behind, asked_again),
            Input::Fenced { partition, epoch } => {
                if self.partitions.current(partition, epoch).is_some() {
                    self.rejoin("the store says that a partition is somebody else's", &mut steps);
                }
            }
            Input::Written { change, changed } => self.written(&change, changed, &mut steps),
            Input::Reported { key, event, partition, epoch, asked, report } => {
                self.suspect.take_if(|suspect| *suspect == event);
                if let Some((destination, permit)) = asked {
                    let health = work::health(&report);
                    destinations.answered(&destination, permit, health, number(&event), now, jitter);
                }
                if self.partitions.epoch(partition) == Some(epoch) {
                    let epoch_of = (partition, epoch);
                    self.reported(&key, &event, epoch_of, report, now, jitter, destinations, &mut steps);
                }
            }
            Input::Clock(clock) => self.clock = clock,
            Input::Paused(since) => self.paused(since),
            Input::Looked { look, seen } => self.looked(look, seen, now),
            Input::Frontiers(frontiers) => self.catch_up.told(frontiers.as_ref(), self.limits.partitions),
            Input::Stop => {
                self.stopping = true;
                let ours: Vec<Partition> = self.partitions.0.keys().copied().collect();
                ours.into_iter().for_each(|partition| self.lanes.leave_partition(partition));
            }
            Input::Tick => {}
        }
        self.hand_back(now, &mut steps);
        self.catch_up(now, &mut steps);
        self.confirm_pause(&mut steps);
        self.lanes.wake(now);
        self.begin(now, destinations, &mut steps);
        self.admit_next(&mut steps);
        self.apply_backpressure(&mut steps);
        self.search(now, destinations, &mut steps);
        self.ask_due(now, &mut steps);
        steps
    }

    /// What is in memory now.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            in_flight: self.lanes.busy(),
            resting: self.lanes.resting(),
            held: self.lanes.held(),
            loaded: self.lanes.loaded(),
            weight: self.lanes.weight() + self.partitions.waiting().1,
        }
    }

    /// Whether there are partitions, and the store knows of each where it begins: nothing that is accepted from now on can
    /// be missed.
    pub fn has_begun(&self) -> bool {
        self.acquiring.is_empty() && !self.partitions.0.is_empty() && self.partitions.0.values().all(|owned| owned.kept)
    }

    /// Whether no partition is ours, nor about to be.
    pub fn stands_by(&self) -> bool {
        self.acquiring.is_empty() && self.partitions.0.is_empty()
    }

    /// Whether nothing is under way any more.
    pub fn is_idle(&self) -> bool {
        self.lanes.busy() == 0 && self.partitions.0.values().all(|owned| !owned.admitting)
    }

    /// How many events of the log each partition has still to read, given where each ends.
    pub fn lag(&self, ends: &[(Partition, i64)]) -> i64 {
        let lag = |(partition, end): &(Partition, i64)| Some((end - self.partitions.0.get(partition)?.frontier).max(0));
        ends.iter().filter_map(lag).sum()
    }

    fn begin(&mut self, now: Timestamp, destinations: &mut Destinations, steps: &mut Vec<Step>) {
        if self.is_holding() || self.stopping {
            return;
        }
        // Those that have waited for their destination came first.
        for destination in self.lanes.held_destinations() {
            while self.has_slot(&Some(destination.clone()), destinations)
                && destinations.admits(&destination, self.limits.urgent, now)
                && self.lanes.release(&destination)
            {
                self.begin_next(now, destinations, steps);
            }
        }
        for _ in 0..self.lanes.ready() {
            if self.lanes.busy() >= self.limits.in_flight {
                break;
            }
            self.begin_next(now, destinations, steps);
        }
    }

    /// Whether one more step may ask this destination. None of several may take all the slots: one that hangs would hold
    /// up the others. What would only wait for its quota is not begun, unless it is urgent and goes before the others.
    fn has_slot(&self, destination: &Option<String>, destinations: &Destinations) -> bool {
        let all = self.limits.in_flight;
        let own = if self.limits.destinations > 1 { all - all / 4 } else { all };
        let room = destination.as_deref().filter(|_| !self.limits.urgent).map_or(all, |name| destinations.room(name));
        let own = own.min(room);
        self.lanes.busy() < all && self.lanes.busy_with(destination) < own
    }

    fn begin_next(&mut self, now: Timestamp, destinations: &mut Destinations, steps: &mut Vec<Step>) {
        let time_ends = self.time_ends();
        let Some((key, run)) = self.lanes.next_ready() else { return };
        let (partition, destination) = (run.partition, run.destination.clone());
        let Some(epoch) = self.partitions.epoch(partition) else { return self.lanes.forget(&key) };
        if let Some(until) = run.tries.claimed_until.filter(|until| *until > now) {
            // Somebody who has lost the partition may still be asking; a destination without a memory would do it twice.
            return self.lanes.rest(&key, until);
        }
        count_own_failure(run, destinations);
        let verdict = verdict(run, &self.limits, now);
        if ends_by_time(&verdict) && !time_ends {
            // Neither ended nor sent before it is known what time it is.
            return self.lanes.rest(&key, now.plus(LOOK_AGAIN));
        }
        if let Some((reason, error)) = verdict {
            if let Some(run) = self.lanes.begin(&key) {
                steps.push(Step::DeadLetter { run: Box::new(run.clone()), epoch, reason, error });
            }
            return;
        }
        let suspicious = run.tries.unanswered >= QUARANTINE_AFTER_CRASHES;
        if suspicious && !std::mem::replace(&mut run.quarantined, true) {
            return self.lanes.rest(&key, now.plus(QUARANTINE_DELAY));
        }
        if suspicious && self.suspect.is_some() {
            return self.lanes.put_back(key);
        }
        let permit = match &destination {
            None => None,
            Some(name) => {
                let slot = self.has_slot(&destination, destinations);
                let permit = if slot { destinations.permit(name, self.limits.urgent, now) } else { None };
                if permit.is_none() {
                    return self.hold(key, name, now, destinations);
                }
                permit
            }
        };
        let Some(run) = self.lanes.begin(&key) else { return };
        run.tries.attempts += 1;
        run.tries.unanswered += 1;
        run.tries.first_at.get_or_insert(now);
        run.tries.first_sent_at.get_or_insert(now);
        if suspicious {
            self.suspect = Some(run.event.reference());
        }
        steps.push(Step::Work { run: Box::new(run.clone()), epoch, permit });
    }

    /// Puts a head aside until its destination takes calls; in memory, or where too many wait there, in the store.
    fn hold(&mut self, key: SubjectId, destination: &str, now: Timestamp, destinations: &Destinations) {
        let takes_calls = destinations.is_closed(destination, self.limits.urgent, now);
        if self.lanes.held_for(destination) >= HELD_KEPT && (!takes_calls || destinations.has_quota(destination)) {
            self.lanes.forget(&key);
            self.left_out.insert(destination.to_owned());
            self.left_out_heads += 1;
        } else {
            if !takes_calls {
                // It may take long: only the head stays, or a few hundred deep lanes would fill half of the memory, and
                // reading would stay paused until the destination is back.
                self.lanes.behind(&key);
            }
            self.lanes.hold(key, destination);
        }
    }

    fn ask_due(&mut self, now: Timestamp, steps: &mut Vec<Step>) {
        let recently = self.due_asked_at.is_some_and(|at| now.since(at) < DUE_EVERY);
        // Not while something in the log may still be unread that would cancel what waits.
        if self.asking_due || recently || self.is_holding() || self.stopping || !self.has_room() || !self.time_ends() {
            return;
        }
        let partitions = self.partitions.staying();
        if !partitions.is_empty() {
            (self.asking_due, self.due_asked_at) = (true, Some(now));
            steps.push(Step::Due(partitions));
        }
    }
}

/// A failure counts against a run if its destination has served others since. Looked at before the next attempt.
fn count_own_failure(run: &mut Run, destinations: &Destinations) {
    if let (Some(failed_at), Some(destination)) = (run.tries.failed_at, &run.destination)
        && destinations.served_others_since(destination, failed_at)
    {
        run.tries.counted += 1;
        run.tries.failed_at = None;
    }
}

/// Why a run is to be given up instead of being worked on.
fn verdict(run: &Run, limits: &Limits, now: Timestamp) -> Option<(Reason, String)> {
    if run.verdict.is_some() {
        run.verdict.clone()
    } else if run.tries.unanswered >= MAX_CRASHES {
        Some((Reason::WorkerCrashed, format!("{MAX_CRASHES} attempts ended with the process")))
    } else if run.expires_at.is_some_and(|expires| now > expires) {
        Some((Reason::Expired, String::new()))
    } else if limits.retry.is_spent(&run.tries, now) {
        Some((Reason::RetriesSpent, format!("{} attempts", run.tries.attempts)))
    } else {
        None
    }
}

/// Whether nothing but the time that has passed ends a run.
fn ends_by_time(verdict: &Option<(Reason, String)>) -> bool {
    matches!(verdict, Some((Reason::Expired | Reason::RetriesSpent, _)))
}

/// Tells runs quarantined.
fn number(event: &EventRef) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
