//! The store: every run, the owner of each partition, and the state of subjects. Carries out one question at a time.

mod change;
mod first_claim;
mod news;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use serde_json::Value;
use usher_proto::{Epoch, EventRef, Offset, Partition, Reason, SubjectId, Timestamp};

use self::first_claim::{FIRST_CLAIMS, FirstStep};
use super::happening::{self, EventPlan, event_number, user_number, user_of_key};
use super::plan::{Defect, Plan, StepPlan};
use crate::arrival::{Admission, Arrival, Batch, FirstClaim, Ownership};
use crate::{AttemptState, FOUND_AT_ONCE, Run, RunState};

/// Maximum number of waits and pauses that are ended at once, in each partition.
const DUE_AT_ONCE: usize = 256;

/// A run in the store.
#[derive(Debug, Clone)]
pub(super) struct StoredRun {
    pub(super) user: u32,
    pub(super) partition: usize,
    pub(super) position: i64,
    pub(super) state: RunState,
    pub(super) step: usize,
    /// The index of its step's destination; absent for a wait.
    pub(super) destination: Option<usize>,
    pub(super) tries: AttemptState,
    pub(super) request: Option<Vec<u8>>,
    pub(super) results: BTreeMap<usize, Value>,
    pub(super) verdict: Option<(Reason, String)>,
    pub(super) due_at: Option<i64>,
    pub(super) wait_until: Option<i64>,
    pub(super) awaits_news: bool,
    /// True if an attempt is in flight, as far as the store knows.
    pub(super) claimed: bool,
    pub(super) cancel_asked: bool,
    /// True if it has ever left its lane to wait, and so lost its place.
    pub(super) has_waited: bool,
    pub(super) note: Option<&'static str>,
    pub(super) reason: Option<Reason>,
    /// The steps whose effect is recorded, one bit each.
    pub(super) recorded: u8,
    /// Number of times its partition changed its owner while an attempt was in flight.
    pub(super) interrupted: u32,
}

/// A place in a lane's order: runs that have begun come first.
type Place = (bool, i64, u32);

impl StoredRun {
    fn place(&self, number: u32) -> Option<Place> {
        match self.state {
            RunState::Queued => Some((true, self.position, number)),
            RunState::Running | RunState::Parked => Some((false, self.position, number)),
            _ => None,
        }
    }

    fn due(&self) -> Option<i64> {
        self.due_at.filter(|_| matches!(self.state, RunState::Waiting | RunState::Parked))
    }
}

/// Waits and pauses that are over.
#[derive(Debug, Default)]
pub(super) struct DueRuns {
    pub(super) heads: Vec<Run>,
    pub(super) behind: Vec<SubjectId>,
    pub(super) next: Option<Timestamp>,
    /// Partitions that the caller does not own any more, with the epochs that it named.
    pub(super) fenced: Vec<(Partition, Epoch)>,
}

#[derive(Debug, Default)]
struct LaneRows {
    order: BTreeSet<Place>,
    waiting: Vec<u32>,
    /// The index entry of its head: partition, destination, position and number; absent if the head must not be found.
    head: Option<(usize, usize, i64, u32)>,
}

#[derive(Debug)]
struct PartitionRows {
    epoch: Epoch,
    frontier: Option<i64>,
    /// The offset below which the store has taken the news.
    told: Option<i64>,
    /// Heads that are queued or running, by destination (the last set is for those without one), then by position.
    heads: Vec<BTreeSet<(i64, u32)>>,
    due: BTreeSet<(i64, u32)>,
}

/// The state of a user: the newest snapshot's time and event, and the number of its changes.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    updated_at: i64,
    event: Option<u32>,
    revision: i64,
}

/// The simulated store.
#[derive(Debug)]
pub(super) struct SimulatedStore {
    rows: Vec<Option<Box<StoredRun>>>,
    lanes: Vec<LaneRows>,
    partitions: Vec<PartitionRows>,
    users: Vec<Known>,
    /// Users who are suppressed.
    suppressed: BTreeSet<u32>,
    destinations: Vec<String>,
    body: Bytes,
    /// Maximum age of an event; absent if events do not expire.
    life: Option<std::time::Duration>,
    defect: Defect,
    /// The flow's first step, if it calls a destination; else absent.
    pub(super) first: Option<FirstStep>,
    /// The number of the last request that was made with an admission.
    claims: u64,
    /// Runs that have not ended.
    pub(super) live: usize,
    /// Number of runs that have ended, by state.
    pub(super) ended: BTreeMap<&'static str, usize>,
    /// Events that have been admitted.
    seen: HashSet<usize>,
    /// Batches whose frontier has been stored and whose runs have not; used only in a world with that defect.
    owed: Vec<Batch>,
}

impl SimulatedStore {
    pub(super) fn new(plan: &Plan, body: Bytes) -> Self {
        let destinations: Vec<String> = plan.destinations.iter().map(|of| of.name.clone()).collect();
        let first = match plan.steps.first() {
            Some(StepPlan::Call { destination, needs }) => {
                Some(FirstStep { needs: *needs, remembers: plan.destinations[*destination].remembers })
            }
            Some(StepPlan::Wait(_)) | None => None,
        };
        let partition = || PartitionRows {
            epoch: Epoch(0),
            frontier: None,
            told: None,
            heads: vec![BTreeSet::new(); destinations.len() + 1],
            due: BTreeSet::new(),
        };
        Self {
            rows: Vec::new(),
            lanes: (0..plan.users).map(|_| LaneRows::default()).collect(),
            partitions: (0..plan.partitions).map(|_| partition()).collect(),
            users: vec![Known::default(); plan.users],
            suppressed: BTreeSet::new(),
            destinations,
            body,
            life: plan.expires_after,
            defect: plan.defect,
            first,
            claims: FIRST_CLAIMS,
            live: 0,
            ended: BTreeMap::new(),
            seen: HashSet::new(),
            owed: Vec::new(),
        }
    }

    pub(super) fn row(&self, number: usize) -> Option<&StoredRun> {
        self.rows.get(number)?.as_deref()
    }

    pub(super) fn frontier(&self, partition: usize) -> Option<i64> {
        self.partitions[partition].frontier
    }

    /// Returns the offset below which everything is admitted, or at least its news is taken.
    pub(super) fn known(&self, partition: usize) -> Option<i64> {
        let rows = &self.partitions[partition];
        rows.frontier.max(rows.told)
    }

    pub(super) fn is_suppressed(&self, user: u32) -> bool {
        self.suppressed.contains(&user)
    }

    pub(super) fn revision(&self, user: u32) -> i64 {
        self.users[user as usize].revision
    }

    /// Returns the runs of a user's lane in its order: number and row.
    pub(super) fn lane(&self, user: u32) -> impl Iterator<Item = (usize, &StoredRun)> {
        let order = &self.lanes[user as usize].order;
        order.iter().filter_map(|(_, _, number)| Some((*number as usize, self.row(*number as usize)?)))
    }

    fn index(partition: Partition) -> usize {
        usize::try_from(partition.0).expect("partitions are numbered from 0")
    }

    pub(super) fn owns(&self, partition: Partition, epoch: Epoch) -> bool {
        self.defect == Defect::NoFence || self.partitions[Self::index(partition)].epoch == epoch
    }

    fn destination(&self, name: Option<&String>) -> Option<usize> {
        let name = name?;
        Some(self.destinations.iter().position(|known| known == name).expect("a destination of this world"))
    }

    fn run(&self, number: u32, events: &[EventPlan]) -> Run {
        let row = self.row(number as usize).expect("it is in an index");
        let event = happening::event(number as usize, &events[number as usize], &self.body);
        Run {
            expires_at: self.life.map(|life| event.occurred_at.plus(life)),
            before: None,
            event,
            partition: Partition(i32::try_from(row.partition).expect("few")),
            position: row.position,
            flow_version: "1".to_owned(),
            step: row.step,
            destination: row.destination.map(|destination| self.destinations[destination].clone()),
            begun: matches!(row.state, RunState::Running | RunState::Parked),
            rerun: 0,
            tries: row.tries,
            request: row.request.clone(),
            results: row.results.clone(),
            wait_until: row.wait_until.map(Timestamp::from_millis),
            verdict: row.verdict.clone(),
            quarantined: false,
            untold: Vec::new(),
            claimed: None,
        }
    }

    /// Changes a row and updates the indexes.
    fn update(&mut self, number: u32, change: impl FnOnce(&mut StoredRun)) {
        let row = self.rows[number as usize].as_mut().expect("a row");
        let before = (row.place(number), row.due(), row.state);
        change(row);
        let after = (row.place(number), row.due(), row.state);
        let user = row.user as usize;
        let partition = row.partition;
        let lane = &mut self.lanes[user];
        if before.0 != after.0 {
            before.0.map(|place| lane.order.remove(&place));
            after.0.map(|place| lane.order.insert(place));
        }
        let due = &mut self.partitions[partition].due;
        if before.1 != after.1 {
            before.1.map(|at| due.remove(&(at, number)));
            after.1.map(|at| due.insert((at, number)));
        }
        if before.2 != after.2 {
            lane.waiting.retain(|waiting| *waiting != number);
            if after.2 == RunState::Waiting {
                lane.waiting.push(number);
            }
            if after.2.is_terminal() {
                self.live -= 1;
                *self.ended.entry(after.2.label()).or_default() += 1;
            }
        }
        self.refresh(user);
    }

    /// Determines a lane's head again.
    fn refresh(&mut self, user: usize) {
        let first = self.lanes[user].order.first().map(|(_, _, number)| *number);
        let head = first.and_then(|number| {
            let row = self.row(number as usize)?;
            let slot = row.destination.unwrap_or(self.destinations.len());
            (row.state != RunState::Parked).then_some((row.partition, slot, row.position, number))
        });
        let before = std::mem::replace(&mut self.lanes[user].head, head);
        if before != head {
            if let Some((partition, slot, position, number)) = before {
                self.partitions[partition].heads[slot].remove(&(position, number));
            }
            if let Some((partition, slot, position, number)) = head {
                self.partitions[partition].heads[slot].insert((position, number));
            }
        }
    }

    fn is_first(&self, number: u32) -> bool {
        let row = self.row(number as usize).expect("a row");
        self.lanes[row.user as usize].order.first().is_some_and(|(_, _, first)| *first == number)
    }

    pub(super) fn acquire(&mut self, partitions: &[Partition]) -> Vec<Ownership> {
        let mut owned = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let index = Self::index(*partition);
            self.interrupt(index);
            let rows = &mut self.partitions[index];
            rows.epoch = Epoch(rows.epoch.0 + 1);
            owned.push(Ownership {
                partition: *partition,
                epoch: rows.epoch,
                frontier: rows.frontier.map(Offset),
                told: rows.told.map(|told| (Offset(told), "1".to_owned())),
                operator_offset: None,
                late: false,
            });
        }
        owned
    }

    /// Records a change of owner: the results of attempts in flight will not arrive.
    fn interrupt(&mut self, partition: usize) {
        let heads: Vec<u32> = self.partitions[partition].heads.iter().flatten().map(|(_, number)| *number).collect();
        for number in heads {
            let row = self.rows[number as usize].as_mut().expect("a row");
            row.interrupted += u32::from(row.claimed);
            if self.defect == Defect::NoEffects && row.step > 0 {
                self.update(number, |row| {
                    row.step -= 1;
                    row.destination = Some(0);
                });
            }
        }
    }

    pub(super) fn admit(&mut self, batch: &Batch, events: &[EventPlan], now: i64) -> Option<Admission> {
        let index = Self::index(batch.partition);
        if !self.owns(batch.partition, batch.epoch) {
            return None;
        }
        self.partitions[index].frontier = Some(batch.frontier.0);
        if matches!(self.defect, Defect::FrontierFirst | Defect::FrontierFirstUnseen) {
            // The deferred batch is stored with the next one.
            let owed = std::mem::replace(&mut self.owed, vec![batch.clone()]);
            owed.iter().for_each(|batch| drop(self.insert(batch, events, now)));
            return Some(Admission::default());
        }
        Some(self.insert(batch, events, now))
    }

    /// Discards the deferred batches, as the end of the process that sent them does.
    pub(super) fn lose_what_is_owed(&mut self) {
        self.owed.clear();
    }

    fn insert(&mut self, batch: &Batch, events: &[EventPlan], now: i64) -> Admission {
        let mut admission = Admission::default();
        let partition = Self::index(batch.partition);
        let destination = self.destination(batch.connector.as_ref());
        let mut new = Vec::new();
        let mut alone = Vec::new();
        let sees = |arrival: &&Arrival| {
            let number = event_number(&arrival.event.reference());
            self.seen.insert(number) || self.defect == Defect::RepeatedEffects
        };
        let fresh: Vec<&Arrival> = batch.arrivals.iter().filter(sees).collect();
        admission.repeated = batch.arrivals.len() - fresh.len();
        for arrival in fresh.iter().filter(|arrival| arrival.starts) {
            let number = event_number(&arrival.event.reference());
            if self.rows.len() <= number {
                self.rows.resize_with(number + 1, || None);
            }
            if self.rows[number].is_some() {
                continue;
            }
            self.rows[number] = Some(Box::new(StoredRun {
                user: u32::try_from(user_number(&arrival.event.subject)).expect("few"),
                partition,
                position: arrival.offset.0,
                // It enters the indexes with its first change, which makes it queued.
                state: RunState::Done,
                step: 0,
                destination,
                tries: AttemptState::default(),
                request: None,
                results: BTreeMap::new(),
                verdict: arrival.verdict.clone(),
                due_at: None,
                wait_until: None,
                awaits_news: false,
                claimed: false,
                cancel_asked: false,
                has_waited: false,
                note: None,
                reason: None,
                recorded: 0,
                interrupted: 0,
            }));
            self.live += 1;
            let number = u32::try_from(number).expect("few");
            if batch.begins.contains(&arrival.offset) && self.is_alone(number) {
                alone.push(number);
            }
            self.update(number, |row| row.state = RunState::Queued);
            new.push(number);
        }
        let woken = self.take_news(&fresh, events);
        let claim = |number| Some((number, self.claim_first(number, events, now)?));
        let mut claims: BTreeMap<u32, FirstClaim> = alone.into_iter().filter_map(claim).collect();
        for arrival in fresh.iter().filter(|arrival| arrival.cancels) {
            self.cancel(&arrival.event.subject, arrival.offset.0, &mut admission.cancelled);
        }
        self.put_in_lanes(&new, &woken, &mut admission, events);
        let claimed = |run: Run| {
            let number = u32::try_from(event_number(&run.event.reference())).expect("few");
            claims.remove(&number).map_or_else(|| run.clone(), |claim| claim.begin(run.clone()))
        };
        admission.heads = admission.heads.into_iter().map(claimed).collect();
        admission
    }

    /// Adds the new and the woken runs to an admission, by their place in their lanes.
    fn put_in_lanes(&self, new: &[u32], woken: &[u32], admission: &mut Admission, events: &[EventPlan]) {
        let live = |number: &&u32| !self.row(**number as usize).expect("a row").state.is_terminal();
        let (heads, behind): (Vec<u32>, Vec<u32>) =
            new.iter().chain(woken).filter(live).partition(|number| self.is_first(**number));
        let run = |number: &u32| self.run(*number, events);
        admission.heads = heads.iter().filter(|head| !woken.contains(head)).map(run).collect();
        admission.woken = heads.iter().filter(|head| woken.contains(head)).map(run).collect();
        let (followers, behind): (Vec<u32>, Vec<u32>) = behind.into_iter().partition(|number| !woken.contains(number));
        admission.followers = followers.iter().map(run).collect();
        let users: BTreeSet<u32> =
            behind.iter().map(|number| self.row(*number as usize).expect("a row").user).collect();
        admission.behind = users.into_iter().map(happening::key).collect();
    }

    fn cancel(&mut self, key: &SubjectId, before: i64, cancelled: &mut Vec<(SubjectId, EventRef)>) {
        let user = if self.defect == Defect::OneInstance { user_of_key(key) } else { user_number(key) };
        let lane = &self.lanes[user];
        let numbers: Vec<u32> = lane.order.iter().map(|(_, _, number)| *number).chain(lane.waiting.clone()).collect();
        for number in numbers {
            let row = self.row(number as usize).expect("a row");
            if row.position >= before {
                continue;
            }
            let row_user = row.user;
            if row.claimed && row.state == RunState::Running {
                self.update(number, |row| row.cancel_asked = true);
            } else {
                self.update(number, |row| row.state = RunState::Cancelled);
                cancelled.push((happening::key(row_user), happening::reference(number, row_user)));
            }
        }
    }

    pub(super) fn find(
        &self,
        partition: Partition,
        after: Option<&(i64, EventRef)>,
        without: &[String],
        events: &[EventPlan],
    ) -> (Vec<Run>, bool) {
        let from = after.map_or((i64::MIN, 0), |(position, event)| {
            (*position, u32::try_from(event_number(event)).expect("few") + 1)
        });
        let mut found: Vec<(i64, u32)> = Vec::new();
        for (slot, heads) in self.partitions[Self::index(partition)].heads.iter().enumerate() {
            if self.destinations.get(slot).is_none_or(|name| !without.contains(name)) {
                found.extend(heads.range(from..).take(FOUND_AT_ONCE));
            }
        }
        found.sort_unstable();
        found.truncate(FOUND_AT_ONCE);
        (found.iter().map(|(_, number)| self.run(*number, events)).collect(), found.len() < FOUND_AT_ONCE)
    }

    pub(super) fn load(&self, key: &SubjectId, limit: usize, events: &[EventPlan]) -> (Vec<Run>, bool) {
        let order = &self.lanes[user_number(key)].order;
        let first = order.first().and_then(|(_, _, number)| self.row(*number as usize));
        if first.is_some_and(|row| row.state == RunState::Parked) {
            return (Vec::new(), false);
        }
        (order.iter().take(limit).map(|(_, _, number)| self.run(*number, events)).collect(), order.len() > limit)
    }

    pub(super) fn due(&mut self, partitions: &[(Partition, Epoch)], now: i64, events: &[EventPlan]) -> DueRuns {
        let DueRuns { mut heads, mut behind, mut next, mut fenced } = DueRuns::default();
        for (partition, epoch) in partitions {
            if !self.owns(*partition, *epoch) {
                fenced.push((*partition, *epoch));
                continue;
            }
            let due = &self.partitions[Self::index(*partition)].due;
            let over: Vec<u32> = due.range(..=(now, u32::MAX)).take(DUE_AT_ONCE).map(|(_, number)| *number).collect();
            for number in &over {
                self.update(*number, |row| {
                    row.state = if row.state == RunState::Parked { RunState::Running } else { RunState::Queued };
                });
            }
            for number in over {
                if self.is_first(number) {
                    heads.push(self.run(number, events));
                } else {
                    behind.push(happening::key(self.row(number as usize).expect("a row").user));
                }
            }
            let left = self.partitions[Self::index(*partition)].due.first().map(|(at, _)| Timestamp::from_millis(*at));
            next = next.into_iter().chain(left).min();
        }
        DueRuns { heads, behind, next, fenced }
    }
}
