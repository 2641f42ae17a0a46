//! The times at which something changes by itself.

use usher_proto::Timestamp;

use super::Engine;
use crate::Destinations;

impl Engine {
    /// Returns the time at which the engine needs [`Input::Wakeup`](crate::Input::Wakeup), unless another input arrives
    /// before. `None` if only another input can change anything. To be asked again after every input, and after every
    /// change of `destinations`.
    pub fn next_wakeup(&self, now: Timestamp, destinations: &Destinations) -> Option<Timestamp> {
        let drained =
            self.partitions.0.values().filter(|_| self.handing_back).filter_map(|owned| owned.drain_deadline());
        let read = self.may_catch_up().then(|| self.catch_up.next_try(|p| self.partitions.known(p).is_some()));
        let times = drained.min().into_iter().chain(read.flatten()).chain(self.lanes.next_rest());
        let waiting = !self.stopping && !self.partitions.admissible().is_empty();
        let times = times.chain(self.admits_from().filter(|_| waiting));
        let times = times.chain(self.next_due_query(now)).chain(self.next_opening(now, destinations));
        // What is possible now has been done.
        times.filter(|at| *at > now).min()
    }

    /// Returns the time at which a destination takes calls again that heads wait for.
    fn next_opening(&self, now: Timestamp, destinations: &Destinations) -> Option<Timestamp> {
        if self.is_holding() || self.stopping {
            return None;
        }
        let held = self.lanes.held_destinations();
        let names = held.iter().chain(&self.deferred_destinations);
        names.filter_map(|name| destinations.opens_at(name, self.limits.urgent, now)).min()
    }
}
