//! The state machine of one flow: decides the next steps from what has happened.
//!
//! This file holds the state. `ownership` takes partitions over and hands them back, `admission` turns records into
//! admissions, `ahead` reads what a backlog tells before it is admitted, `memory` decides which runs of the store are in memory, `begin` begins steps, `first_claim` those of runs that begin with their admission, `holding` decides when
//! nothing may begin, `due` which waits end, `work` handles the results of attempts, `written` the changes that the store has written, and
//! `wakeup` says when time alone changes something.

mod admission;
mod ahead;
mod begin;
mod due;
mod first_claim;
mod holding;
mod memory;
mod ownership;
mod wakeup;
mod work;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use admission::{Records, Turnover};
use due::DueWatch;
use holding::Pause;
use ownership::Unchecked;
use usher_proto::{AssignedPartition, Assignment, Epoch, EventRef, Offset, Partition, Timestamp};
pub use written::dead_letter_change;

use super::catch_up::CatchUp;
use super::clock::ClockState;
use super::lanes::Lanes;
use super::partitions::{Owned, Partitions};
use super::start::StartFrom;
use super::{Destinations, Input, RetryPolicy, Step};

/// Maximum number of lane heads in one answer of the store.
pub const FOUND_AT_ONCE: usize = 256;

/// The limits of one flow in one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowLimits {
    /// Maximum number of steps in flight. Runs that begin with their admission may be twice as many: a slot will be free by
    /// the time that they are written, and until it is, they wait for it outside of the engine.
    pub in_flight: usize,
    /// True if its calls take precedence over those of other flows.
    pub urgent: bool,
    /// Number of different destinations that the flow calls.
    pub destinations: usize,
    /// The retry policy of failed attempts.
    pub retry: RetryPolicy,
    /// The starting point if the flow has never read the log; absent if its file names none.
    pub from: Option<StartFrom>,
    /// Number of partitions in the topic's layout.
    pub partitions: i32,
    /// Stall timeout: the subscription counts as stuck if a partition with records to read delivers none for this long.
    pub stall: Duration,
    /// Number of records that are not admitted above which a partition is read ahead.
    pub far_behind: i64,
}

impl FlowLimits {
    /// Returns the number of steps in flight that may call one destination. If there are several, none may take all slots,
    /// because one that hangs would block the others.
    pub fn slots_of_each(&self) -> usize {
        let all = self.in_flight;
        if self.destinations > 1 { all - all / 4 } else { all }
    }
}

/// Counts of what is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Steps in flight.
    pub in_flight: usize,
    /// Results of steps that are being written.
    pub writing: usize,
    /// Runs that wait in memory for their next attempt.
    pub resting: usize,
    /// Runs that wait in memory for their destination to take calls.
    pub held: usize,
    /// Runs in memory.
    pub loaded: usize,
    /// Approximate size of the runs and of the events that wait for admission, in bytes.
    pub weight: usize,
}

/// The engine of one flow: its partitions and lanes, and their state.
#[derive(Debug)]
pub struct Engine {
    limits: FlowLimits,
    /// The flow's present version, and the connector of its first step.
    first: (String, Option<String>),
    lanes: Lanes,
    partitions: Partitions,
    /// Partitions that are being taken over in the store. A partition that the log revokes meanwhile is removed.
    acquiring: BTreeMap<Partition, (Assignment, AssignedPartition)>,
    /// Partitions that the store has given, and whose ends are being read again.
    unchecked: Vec<Unchecked>,
    /// True if the log waits for revoked partitions to be handed back.
    handing_back: bool,
    /// Destinations for which heads were left to the store.
    deferred_destinations: BTreeSet<String>,
    /// Number of heads left to the store, for their destinations or for lack of room.
    deferred_heads: usize,
    /// True if reading is paused by backpressure.
    reading_paused: bool,
    /// The operator's pause of the flow.
    pause: Pause,
    catch_up: CatchUp,
    /// The time at which events were last admitted.
    admitted_at: Timestamp,
    turnover: Turnover,
    /// True if the flow was far behind at the last look at the log.
    was_far_behind: bool,
    /// True if a page was requested and has not arrived.
    awaits_page: bool,
    clock: ClockState,
    stopping: bool,
    /// A quarantined run in flight. There is only one at a time, so that a crash can be attributed to it.
    suspect: Option<EventRef>,
    due: DueWatch,
}

/// The circumstances of one decision, and the steps that it leads to.
struct Decision<'a> {
    now: Timestamp,
    /// Random in 0..1.
    jitter: f64,
    destinations: &'a mut Destinations,
    steps: Vec<Step>,
}

impl Engine {
    /// Returns an engine with nothing to do. New runs begin with this version of the flow, whose first
    /// step uses `connector`.
    pub fn new(limits: FlowLimits, flow_version: &str, connector: Option<String>) -> Self {
        Self {
            limits,
            first: (flow_version.to_owned(), connector),
            lanes: Lanes::default(),
            partitions: Partitions::default(),
            acquiring: BTreeMap::new(),
            unchecked: Vec::new(),
            handing_back: false,
            deferred_destinations: BTreeSet::new(),
            deferred_heads: 0,
            reading_paused: false,
            pause: Pause::Unknown,
            catch_up: CatchUp::new(),
            admitted_at: Timestamp::from_millis(0),
            turnover: Turnover::default(),
            was_far_behind: false,
            awaits_page: false,
            clock: ClockState::Right,
            stopping: false,
            suspect: None,
            due: DueWatch::new(),
        }
    }

    /// Handles an input and returns the steps to carry out. `jitter` is random in 0..1.
    pub fn handle(&mut self, input: Input, now: Timestamp, jitter: f64, destinations: &mut Destinations) -> Vec<Step> {
        let mut decision = Decision { now, jitter, destinations, steps: Vec::new() };
        self.apply(input, &mut decision);
        self.continue_work(&mut decision);
        decision.steps
    }

    /// Takes in what has happened, and does what follows from this input alone.
    fn apply(&mut self, input: Input, decision: &mut Decision<'_>) {
        match input {
            Input::Assigned { assignment, partitions } => self.assigned(assignment, partitions, decision),
            Input::Acquired { assignment, owned } => self.acquired(assignment, owned, decision),
            Input::Revoked { partitions, lost } => self.taken(&partitions, lost, decision.now),
            Input::Read { assignment, partition, next, arrivals, refused } => {
                self.read(assignment, partition, next, Records { arrivals, refused }, decision.now);
            }
            Input::Ends(ends) => self.ends(&ends, decision),
            Input::Admitted { partition, epoch, frontier, admission, retried } => {
                self.admitted(partition, epoch, frontier, admission, retried, decision);
            }
            Input::Ahead(page) => self.page(page, decision),
            Input::Told { partition, epoch, below, admission, retried } => {
                self.told((partition, epoch), below, admission, retried, decision);
            }
            Input::Found { partition, epoch, heads, all } => self.found(partition, epoch, heads, all),
            Input::Loaded { key, partition, epoch, runs, more } => {
                if self.partitions.current(partition, epoch).is_some() {
                    self.lanes.loaded_from_store(&key, runs, more);
                }
            }
            Input::Due { heads, behind, next, retried } => self.due(heads, &behind, next, retried),
            Input::Fenced { partition, epoch } => {
                if self.partitions.current(partition, epoch).is_some() {
                    self.rejoin("the store says that a partition is somebody else's", decision);
                }
            }
            Input::Written { change, changed } => self.written(&change, changed, decision),
            Input::Reported { key, event, partition, epoch, asked, report } => {
                self.turnover.ended = self.turnover.ended.wrapping_add(1);
                self.suspect.take_if(|suspect| *suspect == event);
                if let Some((destination, permit)) = asked {
                    let health = work::health(&report);
                    let Decision { now, jitter, .. } = *decision;
                    decision.destinations.answered(&destination, permit, health, number(&event), now, jitter);
                }
                if self.partitions.epoch(partition) == Some(epoch) {
                    let epoch_of = (partition, epoch);
                    self.reported(&key, &event, epoch_of, report, decision);
                }
            }
            Input::Clock(clock) => self.clock = clock,
            Input::Paused(since) => self.paused(since),
            Input::Looked { look, seen } => {
                self.ends_read(look, seen.as_ref(), decision);
                self.looked(look, seen, decision.now);
            }
            Input::Frontiers(known) => {
                let ours = |partition| self.partitions.known(partition);
                self.catch_up.told(known.as_ref(), self.limits.partitions, ours);
            }
            Input::Stop => {
                self.stopping = true;
                let ours: Vec<Partition> = self.partitions.0.keys().copied().collect();
                ours.into_iter().for_each(|partition| self.lanes.leave_partition(partition));
            }
            Input::Wakeup => {}
        }
    }

    /// Continues everything that may have become possible.
    fn continue_work(&mut self, decision: &mut Decision<'_>) {
        self.hand_back(decision);
        self.catch_up(decision);
        self.read_ahead(decision);
        self.confirm_pause(decision);
        self.lanes.wake(decision.now);
        self.begin(decision);
        self.admit_next(decision);
        self.apply_backpressure(decision);
        self.search(decision);
        self.ask_due(decision);
    }

    /// Returns the counts of what is in memory now.
    pub fn numbers(&self) -> Counts {
        Counts {
            in_flight: self.lanes.busy(),
            writing: self.lanes.writing(),
            resting: self.lanes.resting(),
            held: self.lanes.held(),
            loaded: self.lanes.loaded(),
            weight: self.lanes.weight() + self.partitions.waiting().1,
        }
    }

    /// Returns true if there are partitions, and the store has recorded the starting offset of each: no event that is
    /// accepted from now on can be missed.
    pub fn has_begun(&self) -> bool {
        self.acquiring.is_empty() && !self.partitions.0.is_empty() && self.partitions.0.values().all(Owned::has_started)
    }

    /// Returns true if this process owns no partition and is not taking one over.
    pub fn is_standby(&self) -> bool {
        self.acquiring.is_empty() && self.partitions.0.is_empty()
    }

    /// Returns the epoch of a partition while this process owns it and steps may begin; `None` while the flow is paused or
    /// catches up, and if the partition is not owned or is leaving.
    pub fn working_epoch(&self, partition: Partition) -> Option<Epoch> {
        let owned = self.partitions.0.get(&partition).filter(|owned| owned.has_started());
        owned.filter(|_| !self.is_holding() && !self.stopping).map(|owned| owned.epoch)
    }

    /// Returns true if no step is in flight, and neither a result nor a batch is being written.
    pub fn is_idle(&self) -> bool {
        self.lanes.busy() == 0 && self.lanes.writing() == 0 && self.partitions.0.values().all(|owned| !owned.admitting)
    }

    /// Returns the total number of offsets that this process's partitions have still to admit, given the end of each.
    pub fn lag(&self, ends: &[(Partition, Offset)]) -> i64 {
        let lag =
            |(partition, end): &(Partition, Offset)| Some((*end - self.partitions.0.get(partition)?.frontier).max(0));
        ends.iter().filter_map(lag).sum()
    }
}

/// Returns a number that distinguishes runs.
fn number(event: &EventRef) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
