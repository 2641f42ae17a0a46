//! Lanes: the runs of one key, in order. The head works; the rest waits its turn. All lanes go on at the same time.
//!
//! Memory holds only the first few runs of a lane; the others are in the store and are loaded when their turn is near,
//! so one user's long lane takes no room from anybody.

use std::collections::{BTreeMap, HashMap, VecDeque};

use usher_proto::{EventId, Key, Partition, Timestamp};

use super::Run;

/// How many runs of a lane are held in memory.
pub const WINDOW: usize = 8;

/// What a lane's head is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Nothing yet; it is in the queue of lanes that could begin.
    Ready,
    /// A step is under way, or being written.
    Busy,
    /// It waits for its next attempt.
    Resting(Timestamp),
}

#[derive(Debug)]
struct Lane {
    partition: Partition,
    runs: VecDeque<Run>,
    head: Head,
    /// Whether the store holds more runs of this lane than are here.
    more: bool,
    /// Whether those have been asked for.
    loading: bool,
    /// Whether a run was left to the store meanwhile, which the answer may not hold.
    missed: bool,
}

/// All lanes of a flow.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<Key, Lane>,
    /// Lanes whose head could begin, in the order in which that became so.
    ready: VecDeque<Key>,
    resting: BTreeMap<(Timestamp, Key), ()>,
    loaded: usize,
    busy: usize,
}

impl Lanes {
    /// Runs in memory.
    pub fn loaded(&self) -> usize {
        self.loaded
    }

    /// Puts a run in its place. One that is there already is left as it is; one for which the lane has no room stays in
    /// the store.
    pub fn push(&mut self, run: Run) {
        let key = run.event.key.clone();
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| {
            self.ready.push_back(key);
            Lane {
                partition: run.partition,
                runs: VecDeque::new(),
                head: Head::Ready,
                more: false,
                loading: false,
                missed: false,
            }
        });
        if let Some(known) = lane.runs.iter().position(|known| known.event.id == run.event.id) {
            // The one at work may be about to leave for a wait that the store has ended meanwhile: look there after it.
            lane.more |= known == 0 && lane.head == Head::Busy;
            return;
        }
        // A run that waited comes back between those that stayed, but never before the one at work.
        let earliest = usize::from(lane.head != Head::Ready && !lane.runs.is_empty());
        let place = lane.runs.partition_point(|known| known.position <= run.position).max(earliest);
        let beyond_memory = lane.more && place == lane.runs.len();
        if beyond_memory || place >= WINDOW {
            lane.more = true;
            lane.missed = lane.loading;
            return;
        }
        lane.runs.insert(place, run);
        self.loaded += 1;
        if lane.runs.len() > WINDOW {
            lane.runs.pop_back();
            lane.more = true;
            self.loaded -= 1;
        }
    }

    /// The next run that may begin, in fair order. Its lane is busy from now on.
    pub fn begin(&mut self) -> Option<&mut Run> {
        let key = loop {
            let key = self.ready.pop_front()?;
            if self.lanes.get(&key).is_some_and(|lane| lane.head == Head::Ready && !lane.runs.is_empty()) {
                break key;
            }
        };
        let lane = self.lanes.get_mut(&key)?;
        lane.head = Head::Busy;
        self.busy += 1;
        lane.runs.front_mut()
    }

    /// The run at work on this event, if it is still ours.
    pub fn at_work(&mut self, key: &Key, event: &EventId) -> Option<&mut Run> {
        let lane = self.lanes.get_mut(key).filter(|lane| lane.head == Head::Busy)?;
        lane.runs.front_mut().filter(|run| run.event.id == *event)
    }

    /// The head goes on at once with what it has next.
    pub fn go_on(&mut self, key: &Key) {
        if let Some(lane) = self.lanes.get_mut(key) {
            self.busy -= usize::from(lane.head == Head::Busy);
            lane.head = Head::Ready;
            self.ready.push_back(key.clone());
        }
    }

    /// The head rests until `until`, and with it its lane.
    pub fn rest(&mut self, key: &Key, until: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(key) {
            self.busy -= usize::from(lane.head == Head::Busy);
            lane.head = Head::Resting(until);
            self.resting.insert((until, key.clone()), ());
        }
    }

    /// Wakes the lanes that have rested long enough.
    pub fn wake(&mut self, now: Timestamp) {
        while let Some(entry) = self.resting.first_entry().filter(|entry| entry.key().0 <= now) {
            let (until, key) = entry.remove_entry().0;
            if self.lanes.get(&key).is_some_and(|lane| lane.head == Head::Resting(until)) {
                self.go_on(&key);
            }
        }
    }

    /// The head has left, and the next one's turn comes. Returns the key if the store must be asked for more of its lane.
    #[must_use]
    pub fn leave(&mut self, key: &Key) -> Option<Key> {
        let lane = self.lanes.get_mut(key)?;
        let left = lane.runs.pop_front();
        self.loaded -= usize::from(left.is_some());
        self.busy -= usize::from(lane.head == Head::Busy);
        lane.head = Head::Ready;
        self.after_removal(key)
    }

    /// Takes out a run that is not at work. Returns the key if the store must be asked for more of its lane.
    #[must_use]
    pub fn cancel(&mut self, key: &Key, event: &EventId) -> Option<Key> {
        let lane = self.lanes.get_mut(key)?;
        let at_work = usize::from(lane.head == Head::Busy);
        let place = at_work + lane.runs.iter().skip(at_work).position(|run| run.event.id == *event)?;
        lane.runs.remove(place);
        self.loaded -= 1;
        if place > 0 {
            return None;
        }
        lane.head = Head::Ready;
        self.after_removal(key)
    }

    fn after_removal(&mut self, key: &Key) -> Option<Key> {
        let lane = self.lanes.get_mut(key)?;
        if !lane.runs.is_empty() {
            self.ready.push_back(key.clone());
        } else if lane.more {
            let first = !std::mem::replace(&mut lane.loading, true);
            return first.then(|| key.clone());
        } else {
            self.lanes.remove(key);
        }
        None
    }

    /// What the store had for a lane, oldest first, and whether there is still more. Returns the key if the store must be
    /// asked again.
    #[must_use]
    pub fn loaded_from_store(&mut self, key: &Key, runs: Vec<Run>, more: bool) -> Option<Key> {
        let lane = self.lanes.get_mut(key)?;
        let missed = std::mem::take(&mut lane.missed);
        (lane.loading, lane.more) = (false, false);
        for run in runs {
            self.push(run);
        }
        let lane = self.lanes.get_mut(key)?;
        lane.more |= more || missed;
        if lane.head == Head::Ready { self.after_removal(key) } else { None }
    }

    /// Forgets everything of a partition: somebody else works on it now.
    pub fn drop_partition(&mut self, partition: Partition) {
        self.lanes.retain(|_, lane| {
            let stays = lane.partition != partition;
            if !stays {
                self.busy -= usize::from(lane.head == Head::Busy);
                self.loaded -= lane.runs.len();
            }
            stays
        });
        self.resting.retain(|(_, key), ()| self.lanes.contains_key(key));
    }

    /// Lanes whose heads are at work.
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Heads that wait for their next attempt.
    pub fn resting(&self) -> usize {
        self.resting.len()
    }
}
