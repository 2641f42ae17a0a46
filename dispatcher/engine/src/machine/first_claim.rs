//! Runs that begin with their admission. The first claim of such a run is written in the transaction that admits it, which
//! saves a round trip and a write for each run. Its request is made before, from what is known then.

use std::collections::{BTreeSet, HashSet};

use usher_proto::{Epoch, Offset, Partition, SubjectId};

use super::begin::verdict;
use super::{Decision, Engine};
use crate::arrival::{Arrival, Batch, FirstClaim};
use crate::{Changed, Run, Step, StoreRequest};

impl Engine {
    /// Returns the offsets of events of a batch whose runs may begin with their admission: the first of each key, for which
    /// there is a slot, and a destination that takes calls at once.
    pub(super) fn may_begin(&self, batch: &Batch, decision: &Decision<'_>) -> BTreeSet<Offset> {
        let free = self.slots_of(self.slots(), self.soon_free());
        let free = free.saturating_sub(self.lanes.ready() + self.partitions.beginning());
        let changes_addresses = batch.arrivals.iter().any(|arrival| arrival.suppression.is_some());
        if free == 0 || self.is_holding() || changes_addresses {
            return BTreeSet::new();
        }
        let ends = |arrival: &&Arrival| arrival.cancels || arrival.command.is_some();
        let ended: HashSet<_> = batch.arrivals.iter().filter(ends).map(|arrival| &arrival.event.subject).collect();
        let mut keys = HashSet::new();
        let mut begins = BTreeSet::new();
        for arrival in batch.arrivals.iter().filter(|arrival| arrival.starts) {
            let key = &arrival.event.subject;
            let first = keys.insert(key) && !ended.contains(key) && !self.lanes.has(key);
            if first && begins.len() < free && self.takes_at_once(batch, arrival, decision) {
                begins.insert(arrival.offset);
            }
        }
        begins
    }

    /// Returns true if an attempt at the first step of the event's run can be made at once.
    fn takes_at_once(&self, batch: &Batch, arrival: &Arrival, decision: &Decision<'_>) -> bool {
        let Arrival { event, offset, expires_at, verdict, .. } = arrival;
        let Some(destination) = batch.destination(event) else { return false };
        verdict.is_none()
            && expires_at.is_none_or(|expires| decision.now <= expires)
            && !decision.destinations.has_quota(&destination)
            && decision.destinations.is_closed(&destination, self.limits.urgent, decision.now)
            && !self.partitions.may_end(batch.partition, event, offset.0)
    }

    /// Begins a run that was admitted with its first claim. If it cannot begin now, its claim is given back, because its
    /// request would be old by the time that it can. `ahead` is the number of slots that were expected to become free meanwhile;
    /// `None` if what the claim was made from no longer holds.
    pub(super) fn begin_admitted(&mut self, run: Run, epoch: Epoch, ahead: Option<usize>, decision: &mut Decision<'_>) {
        if self.lanes.has(&run.event.subject) {
            // Only records of one key in two partitions can cause this.
            return self.take_in(run, true);
        }
        let may_begin = ahead.is_some_and(|ahead| self.has_slot(&run.destination, ahead, decision))
            && !self.is_holding()
            && !self.partitions.may_end(run.partition, &run.event, run.position)
            && verdict(&run, &self.limits, decision.now).is_none();
        let urgent = self.limits.urgent;
        let destination = run.destination.as_ref().filter(|_| may_begin);
        let permit = destination.and_then(|name| decision.destinations.permit(name, urgent, decision.now));
        if permit.is_some() {
            // As after every claim: until the attempt is answered, only it has the request.
            self.lanes.begun(Run { request: None, claimed: None, ..run.clone() });
            return decision.steps.push(Step::Execute { run: Box::new(run), epoch, permit });
        }
        let change = FirstClaim::give_back(
            run.event.reference(),
            run.event.subject.clone(),
            (run.partition, epoch),
            decision.now,
        );
        decision.steps.push(Step::Store(StoreRequest::Change(change)));
        self.lanes.given_back(run);
    }

    /// Takes the store's answer to a claim that is given back.
    pub(super) fn given_back(
        &mut self,
        key: &SubjectId,
        partition: Partition,
        changed: Changed,
        decision: &mut Decision<'_>,
    ) {
        match changed {
            Changed::Ended if self.lanes.leave(key) => self.load(key, partition, decision),
            Changed::Ended => {}
            Changed::Refused => {
                // The run is found with its claim.
                self.lanes.forget(key);
                if let Some(owned) = self.partitions.0.get_mut(&partition) {
                    owned.search_again();
                }
            }
            Changed::Written | Changed::Awake | Changed::Fenced => self.lanes.forget(key),
        }
    }
}
