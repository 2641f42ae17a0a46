//! The knowledge of a partition's records before they are admitted.
//!
//! A backlog is read twice: ahead, for what it tells of people and for what ends runs; and then in order, for the runs
//! themselves, no faster than they are worked on.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};

use usher_proto::{Event, Offset};

use crate::arrival::{Arrival, CommandKind};

/// Number of noted records below which those that are admitted are kept.
const KEPT: usize = 4096;

/// The progress of reading ahead in a partition.
#[derive(Debug)]
pub(super) struct Ahead {
    /// The offset below which everything is read.
    pub(super) read: Offset,
    /// The offset below which everything is read, and the store has taken the news.
    pub(super) known: Offset,
    /// The offset below which the store has taken the news, in this ownership or in an earlier one.
    pub(super) told: Offset,
    /// Number of writes of news on their way.
    pub(super) writing: usize,
    /// For each key or run, as a hash, the last record that ends runs of it. A hash that two have in common delays one
    /// of them.
    endings: HashMap<u64, Offset>,
    hasher: RandomState,
    /// The highest of these offsets.
    last: Option<Offset>,
    /// Number of endings above which those that are admitted are dropped.
    most: usize,
}

impl Ahead {
    /// Begins at the frontier. The store has taken the news below `told`.
    pub(super) fn new(frontier: Offset, told: Offset) -> Self {
        let hasher = RandomState::new();
        let endings = HashMap::new();
        Self { read: frontier, known: frontier, told, writing: 0, endings, hasher, last: None, most: KEPT }
    }

    fn hash(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    /// Notes which of these records end runs, and returns those that have news for the store.
    pub(super) fn note(&mut self, next: Offset, arrivals: Vec<Arrival>) -> Vec<Arrival> {
        for arrival in &arrivals {
            let ended = match &arrival.command {
                Some(command) if matches!(command.order, CommandKind::Cancel) => self.hash(&command.run),
                _ if arrival.cancels => self.hash(&arrival.event.subject),
                _ => continue,
            };
            self.endings.insert(ended, arrival.offset);
            self.last = self.last.max(Some(arrival.offset));
        }
        self.read = next;
        let told = self.told;
        let news = |arrival: &Arrival| arrival.snapshot.is_some() || arrival.suppression.is_some();
        arrivals.into_iter().filter(|arrival| arrival.offset >= told && news(arrival)).map(only_news).collect()
    }

    /// Records that the store has taken the news below this offset.
    pub(super) fn told(&mut self, below: Offset) {
        self.told = self.told.max(below);
        self.known = self.known.max(below);
    }

    /// Records that everything below the frontier is admitted.
    pub(super) fn admitted(&mut self, frontier: Offset) {
        self.read = self.read.max(frontier);
        self.known = self.known.max(frontier);
        if self.last.is_some_and(|last| last < frontier) {
            self.endings = HashMap::new();
            self.last = None;
            self.most = KEPT;
        } else if self.endings.len() > self.most {
            self.endings.retain(|_, offset| *offset >= frontier);
            self.most = KEPT.max(2 * self.endings.len());
        }
    }

    /// Returns true if a record that is read and not admitted may end the run of this event at this position.
    pub(super) fn may_end(&self, event: &Event, position: i64, frontier: Offset) -> bool {
        let ending = |hash| self.endings.get(&hash).filter(|offset| **offset >= frontier);
        !self.endings.is_empty()
            && (ending(self.hash(&event.subject)).is_some_and(|offset| offset.0 > position)
                || ending(self.hash(event.reference())).is_some())
    }

    /// Returns an arrival without the news that the store has taken from it.
    pub(super) fn without_news(&self, arrival: Arrival) -> Arrival {
        if arrival.offset < self.told { Arrival { snapshot: None, suppression: None, ..arrival } } else { arrival }
    }
}

/// Returns only what an arrival tells of its subject and of addresses.
fn only_news(arrival: Arrival) -> Arrival {
    Arrival { starts: false, cancels: false, command: None, remember: None, verdict: None, ..arrival }
}
