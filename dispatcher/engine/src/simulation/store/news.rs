//! The news that events have of users, as the store takes them: with their admission, or before.

use super::{Known, SimulatedStore};
use crate::RunState;
use crate::arrival::{Admission, Arrival, Batch};
use crate::simulation::happening::{EventPlan, event_number, user_number};
use crate::simulation::plan::Defect;

impl SimulatedStore {
    /// Takes the news of a batch that is not admitted yet; absent if another replica owns the partition.
    pub(in crate::simulation) fn tell(&mut self, batch: &Batch, events: &[EventPlan]) -> Option<Admission> {
        if !self.owns(batch.partition, batch.epoch) {
            return None;
        }
        let told = &mut self.partitions[Self::index(batch.partition)].told;
        *told = (*told).max(Some(batch.frontier.0));
        let is_new = |arrival: &&Arrival| !self.seen.contains(&event_number(&arrival.event.reference()));
        let new: Vec<&Arrival> = batch.arrivals.iter().filter(is_new).collect();
        let woken = if self.defect == Defect::NewsForgotten { Vec::new() } else { self.take_news(&new, events) };
        let mut admission = Admission::default();
        self.put_in_lanes(&[], &woken, &mut admission, events);
        Some(admission)
    }

    /// Applies snapshots and suppressions, and returns the runs that they wake.
    pub(super) fn take_news(&mut self, arrivals: &[&Arrival], events: &[EventPlan]) -> Vec<u32> {
        let mut woken = Vec::new();
        for arrival in arrivals {
            if arrival.suppression.is_some() {
                self.suppressed.extend(events[event_number(&arrival.event.reference())].suppresses);
            }
            let Some(snapshot) = &arrival.snapshot else { continue };
            let user = user_number(&arrival.event.subject);
            let event = u32::try_from(event_number(&arrival.event.reference())).expect("few");
            let known = &mut self.users[user];
            if known.event != Some(event) && snapshot.updated_at >= known.updated_at {
                *known = Known { updated_at: snapshot.updated_at, event: Some(event), revision: known.revision + 1 };
            }
            for number in self.lanes[user].waiting.clone() {
                if self.row(number as usize).is_some_and(|row| row.awaits_news) {
                    self.update(number, |row| row.state = RunState::Queued);
                    woken.push(number);
                }
            }
        }
        woken
    }
}
