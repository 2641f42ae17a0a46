//! Lanes: the runs of one key, in order. Only the head is worked on; the others wait. All lanes progress concurrently.
//!
//! The store holds every run. Memory holds the heads that could be worked on, and the next few runs of a lane that has
//! more. A lane that has to wait for long is not in memory: it is found in the store again when its time has come.

use std::collections::{BTreeMap, HashMap, VecDeque};

use usher_proto::{EventRef, Partition, SubjectId, Timestamp};

use super::Run;

/// The state of a lane's head.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Head {
    /// Not begun; it is in the queue of lanes that could begin.
    Ready,
    /// A step is in flight.
    Busy,
    /// The result of a step is being written.
    Writing,
    /// It waits for its next attempt.
    Resting(Timestamp),
    /// Its destination takes no calls.
    Blocked,
    /// It was admitted with a claim, which is being given back. Until that is written, nothing else is done with it.
    GivenBack,
}

impl Head {
    /// Returns true if a result is awaited before anything else is done with the head.
    fn is_pending(&self) -> bool {
        matches!(self, Self::Busy | Self::Writing | Self::GivenBack)
    }
}

#[derive(Debug)]
struct Lane {
    partition: Partition,
    /// The lane's runs in order. Empty while more are being loaded.
    runs: VecDeque<Run>,
    head: Head,
    /// True if the store may hold more runs of this lane than memory does.
    more: bool,
    /// True if nothing more may begin, because another replica is about to own the partition.
    leaving: bool,
}

/// Maximum number of runs of one lane that are read at once, or kept from their admission.
pub(super) const WINDOW: usize = 8;

/// All lanes of a flow that are in memory.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<SubjectId, Lane>,
    /// Lanes whose head could begin, in the order in which they became ready.
    ready: VecDeque<SubjectId>,
    resting: BTreeMap<(Timestamp, SubjectId), ()>,
    held: BTreeMap<String, VecDeque<SubjectId>>,
    busy: BTreeMap<Option<String>, usize>,
    /// Number of heads whose results are being written.
    writing: usize,
    loaded: usize,
    weight: usize,
}

impl Lanes {
    /// Returns the number of runs in memory.
    pub(super) fn loaded(&self) -> usize {
        self.loaded
    }

    /// Returns the approximate size of the runs in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Returns the number of heads that are being worked on.
    pub(super) fn busy(&self) -> usize {
        self.busy.values().sum()
    }

    /// Returns the number of heads whose results are being written.
    pub(super) fn writing(&self) -> usize {
        self.writing
    }

    /// Returns the number of heads being worked on that call this destination.
    pub(super) fn busy_with(&self, destination: &Option<String>) -> usize {
        self.busy.get(destination).copied().unwrap_or(0)
    }

    /// Returns the number of heads that wait for their next attempt.
    pub(super) fn resting(&self) -> usize {
        self.resting.len()
    }

    /// Returns the number of heads that wait for their destination to take calls again.
    pub(super) fn held(&self) -> usize {
        self.held.values().map(VecDeque::len).sum()
    }

    /// Returns the number of heads that wait for this destination.
    pub(super) fn held_for(&self, destination: &str) -> usize {
        self.held.get(destination).map_or(0, VecDeque::len)
    }

    /// Returns the destinations for which heads are held.
    pub(super) fn held_destinations(&self) -> Vec<String> {
        self.held.iter().filter(|(_, keys)| !keys.is_empty()).map(|(name, _)| name.clone()).collect()
    }

    /// Adds the head run of a key. A lane already in memory loads it in order instead. `more`: the store may hold
    /// further runs of the key.
    pub(super) fn head(&mut self, run: Run, more: bool) {
        let key = run.event.subject.clone();
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.more = true;
            return;
        }
        self.add(run, Head::Ready);
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.more = more;
        }
        self.ready.push_back(key);
    }

    /// Adds the only run of a key, which is being worked on.
    pub(super) fn begun(&mut self, run: Run) {
        *self.busy.entry(run.destination.clone()).or_default() += 1;
        self.add(run, Head::Busy);
    }

    /// Adds the only run of a key, whose claim is being given back.
    pub(super) fn given_back(&mut self, run: Run) {
        self.add(run, Head::GivenBack);
    }

    fn add(&mut self, run: Run, head: Head) {
        self.count_in(&run);
        let key = run.event.subject.clone();
        let partition = run.partition;
        self.lanes.insert(key, Lane { partition, runs: VecDeque::from([run]), head, more: false, leaving: false });
    }

    /// Returns true if this run's claim is being given back.
    pub(super) fn is_given_back(&self, key: &SubjectId, event: &EventRef) -> bool {
        let lane = self.lanes.get(key).filter(|lane| lane.head == Head::GivenBack);
        lane.and_then(|lane| lane.runs.front()).is_some_and(|run| event.is(&run.event))
    }

    /// Returns true if a lane is in memory.
    pub(super) fn has(&self, key: &SubjectId) -> bool {
        self.lanes.contains_key(key)
    }

    /// Records that the store has new runs of a lane, perhaps between those in memory. Runs that are not the head are
    /// dropped and read again in order.
    pub(super) fn behind(&mut self, key: &SubjectId) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.more = true;
        let dropped: Vec<Run> = lane.runs.drain(lane.runs.len().min(1)..).collect();
        dropped.iter().for_each(|run| self.count_out(run));
    }

    /// Takes a new run that another run of its key precedes. It is kept if memory has the whole lane, and the lane goes on;
    /// otherwise it is left to the store.
    pub(super) fn follow(&mut self, run: Run, keep: bool) {
        let Some(lane) = self.lanes.get_mut(&run.event.subject) else { return };
        let last = lane.runs.back().map(|last| last.position);
        let goes_on = matches!(lane.head, Head::Ready | Head::Busy | Head::Writing) && !lane.leaving;
        if last.is_some_and(|last| last >= run.position) {
            self.behind(&run.event.subject);
        } else if keep && goes_on && !lane.more && last.is_some() && lane.runs.len() < WINDOW {
            self.count_in(&run);
            if let Some(lane) = self.lanes.get_mut(&run.event.subject) {
                lane.runs.push_back(run);
            }
        } else {
            // Those in memory precede it.
            lane.more = true;
        }
    }

    /// Records that the store may have runs of any lane of a partition that memory has not.
    pub(super) fn unsure(&mut self, partition: Partition) {
        self.lanes.values_mut().filter(|lane| lane.partition == partition).for_each(|lane| lane.more = true);
    }

    /// Takes the runs of a lane that were requested from the store, in order. `more`: the store holds further runs.
    pub(super) fn loaded_from_store(&mut self, key: &SubjectId, runs: Vec<Run>, more: bool) {
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.runs.is_empty()) else { return };
        if runs.is_empty() {
            self.lanes.remove(key);
            return;
        }
        lane.more = more;
        lane.head = Head::Ready;
        lane.runs = runs.into();
        let weights: Vec<usize> = lane.runs.iter().map(Run::weight).collect();
        self.loaded += weights.len();
        self.weight += weights.iter().sum::<usize>();
        self.ready.push_back(key.clone());
    }

    /// Returns the length of the queue of lanes that could begin.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Removes and returns the next lane of the queue, with its head. The caller must begin, hold, rest, forget or
    /// put it back.
    pub(super) fn next_ready(&mut self) -> Option<(SubjectId, &mut Run)> {
        let key = loop {
            let key = self.ready.pop_front()?;
            if self.lanes.get(&key).is_some_and(|lane| lane.head == Head::Ready && !lane.runs.is_empty()) {
                break key;
            }
        };
        let run = self.lanes.get_mut(&key)?.runs.front_mut()?;
        Some((key, run))
    }

    /// Marks the head as being worked on.
    pub(super) fn begin(&mut self, key: &SubjectId) -> Option<&mut Run> {
        let lane = self.lanes.get_mut(key)?;
        lane.head = Head::Busy;
        let run = lane.runs.front_mut()?;
        *self.busy.entry(run.destination.clone()).or_default() += 1;
        Some(run)
    }

    /// Puts a lane back at the end of the queue.
    pub(super) fn put_back(&mut self, key: SubjectId) {
        self.ready.push_back(key);
    }

    /// Holds the head until its destination takes calls.
    pub(super) fn hold(&mut self, key: SubjectId, destination: &str) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        lane.head = Head::Blocked;
        self.held.entry(destination.to_owned()).or_default().push_back(key);
    }

    /// Moves the head that a destination has held longest to the front of the queue. Returns false if there is none.
    pub(super) fn release(&mut self, destination: &str) -> bool {
        let Some(keys) = self.held.get_mut(destination) else { return false };
        while let Some(key) = keys.pop_front() {
            if let Some(lane) = self.lanes.get_mut(&key).filter(|lane| lane.head == Head::Blocked) {
                lane.head = Head::Ready;
                self.ready.push_front(key);
                return true;
            }
        }
        false
    }

    /// Records that the result of the head's step is being written. Its slot is free.
    pub(super) fn write(&mut self, key: &SubjectId) {
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.head == Head::Busy) else { return };
        lane.head = Head::Writing;
        self.writing += 1;
        let asked = lane.runs.front().and_then(|run| run.destination.clone());
        self.no_longer_busy(&asked);
    }

    /// Returns the run that is being worked on for this event, if it is in memory.
    pub(super) fn at_work(&mut self, key: &SubjectId, event: &EventRef) -> Option<&mut Run> {
        let lane = self.lanes.get_mut(key).filter(|lane| matches!(lane.head, Head::Busy | Head::Writing))?;
        lane.runs.front_mut().filter(|run| event.is(&run.event))
    }

    /// Returns true if another replica is about to own the lane's partition.
    pub(super) fn is_leaving(&self, key: &SubjectId) -> bool {
        self.lanes.get(key).is_some_and(|lane| lane.leaving)
    }

    /// Queues the head again for its next step. `asked` is the destination of the previous step.
    pub(super) fn continue_run(&mut self, key: &SubjectId, asked: &Option<String>) {
        self.no_longer_pending(key, asked);
        let Some(lane) = self.lanes.get_mut(key) else { return };
        // Marked as not busy, so that it is not subtracted a second time, nor for the destination of its next step.
        lane.head = Head::Ready;
        if lane.leaving {
            self.forget(key);
        } else {
            self.ready.push_back(key.clone());
        }
    }

    /// Lets the head rest until `until`, and with it its lane.
    pub(super) fn rest(&mut self, key: &SubjectId, until: Timestamp) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.leaving {
            return self.forget(key);
        }
        let asked = lane.runs.front().and_then(|run| run.destination.clone());
        self.no_longer_pending(key, &asked);
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.head = Head::Resting(until);
            self.resting.insert((until, key.clone()), ());
        }
    }

    /// Returns the time at which the first of the resting heads is to be woken.
    pub(super) fn next_rest(&self) -> Option<Timestamp> {
        self.resting.first_key_value().map(|((until, _), ())| *until)
    }

    /// Wakes the lanes whose rest is over.
    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some(entry) = self.resting.first_entry().filter(|entry| entry.key().0 <= now) {
            let (until, key) = entry.remove_entry().0;
            if let Some(lane) = self.lanes.get_mut(&key).filter(|lane| lane.head == Head::Resting(until)) {
                lane.head = Head::Ready;
                self.ready.push_back(key);
            }
        }
    }

    /// Removes the head from its lane. Returns true if the store must be queried for more of the lane.
    #[must_use]
    pub(super) fn leave(&mut self, key: &SubjectId) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else { return false };
        if let Some(left) = lane.runs.pop_front() {
            self.count_out(&left);
            self.no_longer_pending(key, &left.destination);
        }
        self.after_removal(key)
    }

    /// Removes a run that is not being worked on. Returns true if the store must be queried for more of its lane.
    #[must_use]
    pub(super) fn cancel(&mut self, key: &SubjectId, event: &EventRef) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else { return false };
        let at_work = usize::from(lane.head.is_pending());
        let Some(place) = lane.runs.iter().skip(at_work).position(|run| event.is(&run.event)) else { return false };
        if let Some(run) = lane.runs.remove(at_work + place) {
            self.count_out(&run);
        }
        if at_work + place > 0 {
            return false;
        }
        self.no_longer_waits(key);
        self.after_removal(key)
    }

    /// Ends the head's wait for its time or for its destination.
    fn no_longer_waits(&mut self, key: &SubjectId) {
        match self.lanes.get(key).map(|lane| &lane.head) {
            Some(Head::Resting(until)) => drop(self.resting.remove(&(*until, key.clone()))),
            Some(Head::Blocked) => self.held.values_mut().for_each(|keys| keys.retain(|held| held != key)),
            Some(Head::Ready | Head::Busy | Head::Writing | Head::GivenBack) | None => {}
        }
    }

    fn after_removal(&mut self, key: &SubjectId) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else { return false };
        lane.head = Head::Ready;
        if lane.leaving || (lane.runs.is_empty() && !lane.more) {
            self.forget(key);
            return false;
        }
        if lane.runs.is_empty() {
            // The lane joins the queue once it is loaded.
            lane.more = false;
            return true;
        }
        self.ready.push_back(key.clone());
        false
    }

    /// Removes a lane from memory; the store holds it.
    pub(super) fn forget(&mut self, key: &SubjectId) {
        let Some(lane) = self.lanes.remove(key) else { return };
        lane.runs.iter().for_each(|run| self.count_out(run));
        match lane.head {
            Head::Busy => self.no_longer_busy(&lane.runs.front().and_then(|run| run.destination.clone())),
            Head::Writing => self.writing -= 1,
            Head::Resting(until) => drop(self.resting.remove(&(until, key.clone()))),
            Head::Blocked => self.held.values_mut().for_each(|keys| keys.retain(|held| held != key)),
            Head::Ready | Head::GivenBack => {}
        }
    }

    /// Forgets a partition's lanes, except those being worked on, which may finish their step.
    pub(super) fn leave_partition(&mut self, partition: Partition) {
        let (busy, idle) = self.of(partition).partition::<Vec<_>, _>(|key| self.lanes[key].head.is_pending());
        for key in busy {
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.leaving = true;
            }
        }
        idle.iter().for_each(|key| self.forget(key));
    }

    /// Returns true if a run of the partition is being worked on.
    pub(super) fn is_busy(&self, partition: Partition) -> bool {
        self.lanes.values().any(|lane| lane.partition == partition && lane.head.is_pending())
    }

    /// Forgets all lanes of a partition: another replica works on it now.
    pub(super) fn drop_partition(&mut self, partition: Partition) {
        let keys: Vec<SubjectId> = self.of(partition).collect();
        keys.iter().for_each(|key| self.forget(key));
    }

    fn of(&self, partition: Partition) -> impl Iterator<Item = SubjectId> {
        self.lanes.iter().filter(move |(_, lane)| lane.partition == partition).map(|(key, _)| key.clone())
    }

    fn count_in(&mut self, run: &Run) {
        self.loaded += 1;
        self.weight += run.weight();
    }

    fn count_out(&mut self, run: &Run) {
        self.loaded -= 1;
        self.weight = self.weight.saturating_sub(run.weight());
    }

    /// Ends the head's step, or the writing of its result.
    fn no_longer_pending(&mut self, key: &SubjectId, asked: &Option<String>) {
        match self.lanes.get(key).map(|lane| &lane.head) {
            Some(Head::Busy) => self.no_longer_busy(asked),
            Some(Head::Writing) => self.writing -= 1,
            Some(Head::Ready | Head::Resting(_) | Head::Blocked | Head::GivenBack) | None => {}
        }
    }

    fn no_longer_busy(&mut self, asked: &Option<String>) {
        if let Some(busy) = self.busy.get_mut(asked) {
            *busy = busy.saturating_sub(1);
        }
    }
}
