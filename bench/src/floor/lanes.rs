//! Order: of each user's runs only the first one is sent.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use super::FloorRun;

/// All runs in memory, by user.
pub(super) struct FloorLanes {
    /// Runs of each user in order; the first one is in flight or in `ready`.
    by_user: HashMap<String, VecDeque<Rc<FloorRun>>>,
    /// First runs of their users that wait for a permit.
    ready: VecDeque<Rc<FloorRun>>,
    permits: usize,
    held: usize,
}

/// New runs, by what becomes of them.
#[derive(Default)]
pub(super) struct FloorTurns {
    /// Runs that are sent at once.
    pub(super) started: Vec<Rc<FloorRun>>,
    /// Runs that wait.
    pub(super) waiting: Vec<Rc<FloorRun>>,
    /// The next offset of each partition that was read from.
    pub(super) frontiers: Vec<(i32, i64)>,
}

impl FloorLanes {
    /// Lanes of which this many run at once.
    pub(super) fn new(permits: usize) -> Self {
        Self { by_user: HashMap::new(), ready: VecDeque::new(), permits, held: 0 }
    }

    /// Number of runs in memory.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// True if a run waits for nothing but its claim.
    pub(super) fn can_start(&self) -> bool {
        self.permits > 0 && !self.ready.is_empty()
    }

    /// Removes the run of a user that has ended, and returns its permit.
    pub(super) fn end(&mut self, user: &str) {
        self.permits += 1;
        self.held -= 1;
        let Some(lane) = self.by_user.get_mut(user) else { return };
        lane.pop_front();
        match lane.front() {
            Some(next) => self.ready.push_back(next.clone()),
            None => drop(self.by_user.remove(user)),
        }
    }

    /// Takes the runs that can be sent now.
    pub(super) fn start(&mut self) -> Vec<Rc<FloorRun>> {
        let count = self.ready.len().min(self.permits);
        self.permits -= count;
        self.ready.drain(..count).collect()
    }

    /// Adds new runs, in the order of their offsets.
    pub(super) fn admit(&mut self, arrived: Vec<FloorRun>) -> FloorTurns {
        let mut turns = FloorTurns::default();
        let mut frontiers = BTreeMap::new();
        for run in arrived {
            frontiers.insert(run.partition, run.offset + 1);
            self.held += 1;
            let run = Rc::new(run);
            let is_first = match self.by_user.entry(run.user.clone()) {
                Entry::Vacant(lane) => {
                    lane.insert(VecDeque::from([run.clone()]));
                    true
                }
                Entry::Occupied(mut lane) => {
                    lane.get_mut().push_back(run.clone());
                    false
                }
            };
            if is_first && self.permits > 0 {
                self.permits -= 1;
                turns.started.push(run);
                continue;
            }
            if is_first {
                self.ready.push_back(run.clone());
            }
            turns.waiting.push(run);
        }
        turns.frontiers = frontiers.into_iter().collect();
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(offset: i64, user: &str) -> FloorRun {
        let user = user.to_owned();
        FloorRun { id: offset, partition: 0, offset, event: String::new(), user, updated_at: 0, body: Vec::new() }
    }

    fn ids(runs: &[Rc<FloorRun>]) -> Vec<i64> {
        runs.iter().map(|run| run.id).collect()
    }

    #[test]
    fn a_user_has_one_run_in_flight_and_the_next_one_starts_when_it_ends() {
        let mut lanes = FloorLanes::new(10);
        let turns = lanes.admit(vec![run(0, "ann"), run(1, "ann"), run(2, "bob")]);
        assert_eq!((ids(&turns.started), ids(&turns.waiting)), (vec![0, 2], vec![1]));
        assert_eq!(turns.frontiers, [(0, 3)]);
        assert!(!lanes.can_start());
        lanes.end("ann");
        assert_eq!(ids(&lanes.start()), [1]);
        lanes.end("ann");
        lanes.end("bob");
        assert_eq!(lanes.held(), 0);
    }

    #[test]
    fn no_more_runs_start_than_there_are_permits() {
        let mut lanes = FloorLanes::new(1);
        let turns = lanes.admit(vec![run(0, "ann"), run(1, "bob")]);
        assert_eq!((ids(&turns.started), ids(&turns.waiting)), (vec![0], vec![1]));
        assert!(lanes.start().is_empty());
        lanes.end("ann");
        assert_eq!(ids(&lanes.start()), [1]);
    }
}
