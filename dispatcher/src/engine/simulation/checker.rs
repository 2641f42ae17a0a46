//! The promises, looked at all the time. The first that is broken ends the world.

use usher_proto::Reason;

use super::destination::TIMEOUT;
use super::happening::{Fate, Happening};
use super::log::Log;
use super::plan::{Plan, StepPlan};
use super::store::{Row, Store};
use crate::engine::{FOUND_AT_ONCE, Numbers, RunState};

/// Runs in memory above which reading pauses, as the engine has it.
const MAX_LOADED: usize = 4096;
const MAX_WEIGHT: usize = 64 * 1024 * 1024;
/// Steps of a flow at most.
const STEPS: usize = 4;

/// A promise that was broken, and how.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) promise: &'static str,
    pub(super) how: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    effects: u8,
    /// Until when an attempt that was sent may still arrive.
    open_until: i64,
    /// Attempts that are on their way.
    on_the_way: u8,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Checker {
    asked: Vec<[Asked; STEPS]>,
    /// Per partition, how many records are known to be stored.
    stored: Vec<usize>,
    /// Since when the log says of a user that nobody is to write to them.
    suppressed: std::collections::HashMap<usize, i64>,
    pub(super) broken: Option<Broken>,
    /// The most that was ever in memory.
    pub(super) most_loaded: usize,
    pub(super) most_weight: usize,
    pub(super) most_spent: u32,
    pub(super) died: usize,
    /// Runs that died because of workers, though no process ended by itself during all of their attempts.
    pub(super) crashed: usize,
}

impl Checker {
    pub(super) fn new(partitions: usize) -> Self {
        Self { stored: vec![0; partitions], ..Self::default() }
    }

    pub(super) fn breaks(&mut self, promise: &'static str, how: String) {
        self.broken.get_or_insert(Broken { promise, how });
    }

    /// The log says that nobody is to write to this user any more.
    pub(super) fn suppressed(&mut self, user: usize, now: i64) {
        self.suppressed.entry(user).or_insert(now);
    }

    /// A call is begun by a replica whose last assignment or resume was at `news_at`: what stood in the log then is known.
    pub(super) fn begun(&mut self, event: usize, news_at: i64, now: i64, store: &Store) {
        let user = store.row(event).expect("it was admitted").user;
        let said_at = self.suppressed.get(&(user as usize)).filter(|said_at| **said_at <= news_at);
        if let Some(said_at) = said_at.filter(|_| !store.is_suppressed(user)) {
            let how =
                format!("e{event} is begun at {now}, on the news of {news_at}, though the log said no at {said_at}");
            self.breaks("no old news", how);
        }
    }

    fn asked(&mut self, event: usize, step: usize) -> &mut Asked {
        if self.asked.len() <= event {
            self.asked.resize(event + 1, [Asked::default(); STEPS]);
        }
        &mut self.asked[event][step]
    }

    /// An attempt is made now. Nothing of its key that came before it may be unfinished, unless one of the two has waited.
    pub(super) fn sent(&mut self, event: usize, step: usize, remembers: bool, arrives: bool, now: i64, store: &Store) {
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

    /// An attempt has arrived; `had_effect` says whether it changed something.
    pub(super) fn arrived(
        &mut self,
        event: usize,
        step: usize,
        remembers: bool,
        had_effect: bool,
        now: i64,
        store: &Store,
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

    /// Everything below `frontier` is in the store.
    pub(super) fn frontier(
        &mut self,
        what: &str,
        partition: usize,
        frontier: i64,
        log: &Log,
        events: &[Happening],
        store: &Store,
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

    /// What the engine of one replica has in memory.
    pub(super) fn numbers(&mut self, numbers: &Numbers, at_work: usize, plan: &Plan) {
        self.most_loaded = self.most_loaded.max(numbers.loaded);
        self.most_weight = self.most_weight.max(numbers.weight);
        // One batch and one page beyond the bound, and what the lanes at work load.
        let loaded = MAX_LOADED + 2 * FOUND_AT_ONCE + 8 * plan.in_flight;
        if numbers.loaded > loaded {
            self.breaks("memory", format!("{} runs are loaded", numbers.loaded));
        }
        let weight =
            MAX_WEIGHT + (2 * FOUND_AT_ONCE + 8 * plan.in_flight + plan.partitions * 256) * (plan.body * 2 + 512);
        if numbers.weight > weight {
            self.breaks("memory", format!("{} bytes are loaded", numbers.weight));
        }
        if numbers.in_flight > plan.in_flight || at_work > plan.in_flight {
            let how = format!("{at_work} steps are under way, {} by the engine's count", numbers.in_flight);
            self.breaks("in flight", how);
        }
    }

    /// A run is given up.
    pub(super) fn died(&mut self, event: usize, reason: Reason, row: &Row, of: &Happening, plan: &Plan) {
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
            let (tries, interrupted) = (row.tries, row.interrupted);
            let how = format!("e{event} is given up as {reason}: {of:?}, {tries:?}, {interrupted} times interrupted");
            self.breaks("no fault of its own", how);
        }
    }

    /// A run that was cancelled has come before an event of its own user that cancels: the first time that one came.
    fn cancelled(&mut self, number: usize, row: &Row, events: &[Happening], log: &Log) {
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

    /// Every run has ended, and what is done has had all its effects.
    pub(super) fn end(&mut self, events: &[Happening], store: &Store, log: &Log, plan: &Plan) {
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
