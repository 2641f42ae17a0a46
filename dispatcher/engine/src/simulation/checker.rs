//! The checker of the promises. The first broken promise ends the world.

use usher_proto::Reason;

use super::destination::TIMEOUT;
use super::happening::{EventPlan, Fate};
use super::log::SimulatedLog;
use super::plan::{Plan, StepPlan};
use super::store::{SimulatedStore, StoredRun};
use crate::{Counts, FOUND_AT_ONCE, RunState};

/// Limits that the checker allows for runs in memory and their bytes: above the engine's own, because a batch that has arrived
/// is taken in whole.
const MAX_LOADED: usize = 4096;
const MAX_WEIGHT: usize = 64 * 1024 * 1024;
/// Maximum number of steps of a flow.
const STEPS: usize = 4;

/// A promise that was broken, with the details.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) promise: &'static str,
    pub(super) how: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    effects: u8,
    /// The time until which an attempt that was sent may still arrive.
    open_until: i64,
    /// Number of attempts that were sent and have not arrived.
    on_the_way: u8,
}

/// The observations so far.
#[derive(Debug, Default)]
pub(super) struct Checker {
    asked: Vec<[Asked; STEPS]>,
    /// For each partition, the number of records that are known to be stored.
    stored: Vec<usize>,
    /// For each suppressed user, the time at which the log first held a suppression.
    suppressed: std::collections::HashMap<usize, i64>,
    pub(super) broken: Option<Broken>,
    /// The largest number of runs that was ever in memory.
    pub(super) most_loaded: usize,
    pub(super) most_weight: usize,
    pub(super) most_spent: u32,
    pub(super) died: usize,
    /// Runs that were given up as `worker_crashed`, although none of their attempts crashed its process.
    pub(super) crashed: usize,
}

impl Checker {
    pub(super) fn new(partitions: usize) -> Self {
        Self { stored: vec![0; partitions], ..Self::default() }
    }

    pub(super) fn breaks(&mut self, promise: &'static str, how: String) {
        self.broken.get_or_insert(Broken { promise, how });
    }

    /// Records that the log now suppresses this user.
    pub(super) fn suppressed(&mut self, user: usize, now: i64) {
        self.suppressed.entry(user).or_insert(now);
    }

    /// Checks a call that a replica begins. Its last assignment or resume was at `news_at`: it must know the log
    /// up to then. What `examined` runs need was examined before, when the store did not know of a suppression.
    pub(super) fn begun(&mut self, event: usize, news_at: i64, now: i64, examined: bool, store: &SimulatedStore) {
        let user = store.row(event).expect("it was admitted").user;
        let said_at = self.suppressed.get(&(user as usize)).filter(|said_at| **said_at <= news_at);
        if let Some(said_at) = said_at.filter(|_| examined || !store.is_suppressed(user)) {
            let how =
                format!("e{event} is begun at {now}, on the news of {news_at}, though the log said no at {said_at}");
            self.breaks("no old news", how);
        }
    }

    /// Checks that no event has cancelled a run that the log held at `news_at`, when its replica was assigned the partition.
    pub(super) fn not_cancelled(
        &mut self,
        event: usize,
        news_at: i64,
        now: i64,
        store: &SimulatedStore,
        (log, events): (&SimulatedLog, &[EventPlan]),
    ) {
        let row = store.row(event).expect("it was admitted");
        let partition = &log.0[row.partition];
        if partition.cancels.get(&row.user).is_none_or(|last| *last <= row.position) {
            return;
        }
        let cancels = |(offset, other): &&(i64, u32)| {
            let of = &events[*other as usize];
            of.cancels && of.user == row.user && of.at <= news_at && *offset > row.position
        };
        let cancelled =
            partition.records.iter().filter(cancels).find(|(offset, other)| partition.first(*other) == Some(*offset));
        if let Some((_, other)) = cancelled {
            let how = format!(
                "e{event} is sent at {now}, on the news of {news_at}, though e{other} has cancelled it: {row:?}"
            );
            self.breaks("no old news", how);
        }
    }

    fn asked(&mut self, event: usize, step: usize) -> &mut Asked {
        if self.asked.len() <= event {
            self.asked.resize(event + 1, [Asked::default(); STEPS]);
        }
        &mut self.asked[event][step]
    }

    /// Checks an attempt that is made now. No earlier run of its key may be unfinished, unless one of the
    /// two has waited.
    pub(super) fn sent(
        &mut self,
        event: usize,
        step: usize,
        remembers: bool,
        arrives: bool,
        now: i64,
        store: &SimulatedStore,
    ) {
        let row = store.row(event).expect("it was admitted");
        if !row.has_waited {
            let ahead = store.lane(row.user).find(|(_, other)| other.position < row.position && !other.has_waited);
            if let Some((other, _)) = ahead {
                self.breaks("order", format!("e{event} is attempted at {now} before e{other} of its key has ended"));
            }
        }
        let recorded = row.recorded & (1 << step) != 0;
        let asked = self.asked(event, step);
        if !remembers {
            if asked.on_the_way > 0 {
                let how = format!("e{event} asks for step {step} at {now} while it is being asked already");
                return self.breaks("effects", how);
            }
            if recorded {
                return self.breaks("effects", format!("e{event} asks at {now} for step {step}, which is done"));
            }
        }
        asked.on_the_way += u8::from(arrives);
        asked.open_until = asked.open_until.max(now + TIMEOUT);
    }

    /// Checks an attempt that has arrived. `had_effect` is true if it changed something.
    pub(super) fn arrived(
        &mut self,
        event: usize,
        step: usize,
        remembers: bool,
        had_effect: bool,
        now: i64,
        store: &SimulatedStore,
    ) {
        let recorded = store.row(event).is_some_and(|row| row.recorded & (1 << step) != 0);
        let asked = self.asked(event, step);
        asked.on_the_way = asked.on_the_way.saturating_sub(1);
        if had_effect {
            asked.effects = asked.effects.saturating_add(1);
            let twice = asked.effects > 1 && (remembers || recorded);
            if twice {
                self.breaks("effects", format!("step {step} of e{event} has a second effect at {now}"));
            }
        }
    }

    /// Checks that everything below `frontier` is in the store.
    pub(super) fn frontier(
        &mut self,
        what: &str,
        partition: usize,
        frontier: i64,
        log: &SimulatedLog,
        events: &[EventPlan],
        store: &SimulatedStore,
    ) {
        let records = &log.0[partition].records;
        while let Some((offset, event)) = records.get(self.stored[partition]).filter(|(offset, _)| *offset < frontier) {
            if events[*event as usize].starts && store.row(*event as usize).is_none() {
                let how = format!("e{event} at offset {offset} is below the {what} {frontier} and not stored");
                return self.breaks("frontier", how);
            }
            self.stored[partition] += 1;
        }
    }

    /// Checks the counts of one replica's engine against the limits of memory and of steps in flight.
    pub(super) fn numbers(&mut self, numbers: &Counts, at_work: usize, plan: &Plan) {
        self.most_loaded = self.most_loaded.max(numbers.loaded);
        self.most_weight = self.most_weight.max(numbers.weight);
        // One batch and one page beyond the limit, and the runs that the lanes in flight load.
        let loaded = MAX_LOADED + 2 * FOUND_AT_ONCE + 8 * plan.in_flight;
        if numbers.loaded > loaded {
            self.breaks("memory", format!("{} runs are loaded", numbers.loaded));
        }
        let weight =
            MAX_WEIGHT + (2 * FOUND_AT_ONCE + 8 * plan.in_flight + plan.partitions * 256) * (plan.body * 2 + 512);
        if numbers.weight > weight {
            self.breaks("memory", format!("{} bytes are loaded", numbers.weight));
        }
        // As many again may wait for a slot, claimed with their admission; the process makes no more calls than it has slots.
        if numbers.in_flight > 2 * plan.in_flight || at_work > 2 * plan.in_flight {
            let how = format!("{at_work} steps are under way, {} by the engine's count", numbers.in_flight);
            self.breaks("in flight", how);
        }
    }

    /// Checks that a run that is given up has the matching fault.
    pub(super) fn died(&mut self, event: usize, reason: Reason, row: &StoredRun, of: &EventPlan, plan: &Plan) {
        self.died += 1;
        let own = match reason {
            Reason::RetriesSpent => matches!(of.fate, Fate::Fails(_) | Fate::FailsUntil(_)),
            Reason::InvalidRequest => matches!(of.fate, Fate::Rejected(_)),
            Reason::Malformed => of.fate == Fate::Malformed,
            Reason::Unstorable => matches!(of.fate, Fate::Unstorable | Fate::Unwritable(_)),
            Reason::Expired => plan.expires_after.is_some(),
            Reason::WorkerCrashed => {
                self.crashed += 1;
                row.interrupted >= 4
            }
            _ => false,
        };
        if !own {
            let tries = row.tries;
            let interrupted = row.interrupted;
            let how = format!("e{event} is given up as {reason}: {of:?}, {tries:?}, {interrupted} times interrupted");
            self.breaks("no fault of its own", how);
        }
    }

    /// Checks that a cancelled run precedes the first occurrence of an event of its own user that cancels.
    fn cancelled(&mut self, number: usize, row: &StoredRun, events: &[EventPlan], log: &SimulatedLog) {
        let partition = &log.0[row.partition];
        let cancels = |event: &u32| {
            let of = &events[*event as usize];
            of.cancels && of.user == row.user
        };
        let came_later = |event: &u32| partition.first(*event).is_some_and(|offset| offset > row.position);
        if !partition.records.iter().any(|(_, event)| cancels(event) && came_later(event)) {
            self.breaks("cancelled by its own", format!("e{number} is cancelled by no event of its user: {row:?}"));
        }
    }

    /// Checks that every run has ended, and that every finished run has had all its effects.
    pub(super) fn end(&mut self, events: &[EventPlan], store: &SimulatedStore, log: &SimulatedLog, plan: &Plan) {
        for (number, of) in events.iter().enumerate().filter(|(_, of)| of.starts) {
            let Some(row) = store.row(number) else {
                return self.breaks("nothing lost", format!("e{number} was never stored"));
            };
            if !row.state.is_terminal() {
                return self.breaks("nothing lost", format!("e{number} has not ended: {row:?}"));
            }
            if row.state == RunState::Cancelled {
                self.cancelled(number, row, events, log);
            }
            let seen = row.state == RunState::Cancelled || row.reason == Some(Reason::Unstorable);
            if of.fate == Fate::Unstorable && !seen {
                return self.breaks("given up visibly", format!("e{number} cannot be stored: {row:?}"));
            }
            if row.state != RunState::Done || row.note.is_some() {
                continue;
            }
            for (step, what) in plan.steps.iter().enumerate() {
                let asks = matches!(what, StepPlan::Call { .. }) && of.skips & (1 << step) == 0;
                if asks && self.asked(number, step).effects == 0 {
                    return self
                        .breaks("nothing lost", format!("e{number} is done, and its step {step} had no effect"));
                }
            }
        }
    }
}
