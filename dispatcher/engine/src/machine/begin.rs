//! Beginning of steps: those of held heads first, then those of the queue, within the flow's and the destinations' limits.

use std::time::Duration;

use usher_proto::{Reason, SubjectId, Timestamp};

use super::{Decision, Engine, FlowLimits};
use crate::{Destinations, Run, Step};

/// Heads kept in memory for each destination that takes no calls, or only as many as its quota allows. Further heads
/// stay in the store and are searched for when few are left in memory.
pub(super) const HELD_KEPT: usize = 256;
/// Number of consecutive crashes during a run's attempts after which the run is given up.
const MAX_CRASHES: u32 = 4;
/// Number of consecutive crashes after which a run is quarantined: retried alone, after [`QUARANTINE_DELAY`].
const QUARANTINE_AFTER_CRASHES: u32 = 2;
/// Delay of a quarantined run. If something external kills the process repeatedly, it hits the runs that are begun
/// first after each start; only a run that itself crashes the process still does so when it is begun much later.
const QUARANTINE_DELAY: Duration = Duration::from_secs(10);
/// Number of steps in flight or with results to be written, for each slot.
const UNWRITTEN: usize = 2;
/// Delay before a run is examined again that would have expired by an unproven clock, or that a record may end.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

impl Engine {
    /// Begins every step that may begin now.
    pub(super) fn begin(&mut self, decision: &mut Decision<'_>) {
        if self.is_holding() || self.stopping {
            return;
        }
        // Heads that wait for their destination are older than those in the queue, so they begin first.
        for destination in self.lanes.held_destinations() {
            while self.has_slot(&Some(destination.clone()), 0, decision)
                && decision.destinations.admits(&destination, self.limits.urgent, decision.now)
                && self.lanes.release(&destination)
            {
                self.begin_next(decision);
            }
        }
        for _ in 0..self.lanes.ready() {
            if self.slots_of(self.limits.in_flight, 0) == 0 {
                break;
            }
            self.begin_next(decision);
        }
    }

    /// Returns true if one more step may call this destination. A run that would only wait for its quota does not begin,
    /// unless it is urgent and takes precedence over the others.
    /// `ahead` is the number of slots that count although they are not free yet.
    pub(super) fn has_slot(&self, destination: &Option<String>, ahead: usize, decision: &Decision<'_>) -> bool {
        let own = self.slots() + ahead;
        let room =
            destination.as_deref().filter(|_| !self.limits.urgent).map_or(own, |name| decision.destinations.room(name));
        self.slots_of(self.limits.in_flight, ahead) > 0 && self.lanes.busy_with(destination) < own.min(room)
    }

    /// Returns the number of slots that are free if there are so many, and `ahead` more soon. A slow store holds steps up, too,
    /// because the results that it has not written are bounded.
    pub(super) fn slots_of(&self, all: usize, ahead: usize) -> usize {
        let busy = self.lanes.busy();
        let unwritten = UNWRITTEN * self.limits.in_flight;
        (all + ahead).saturating_sub(busy).min((unwritten + ahead).saturating_sub(busy + self.lanes.writing()))
    }

    fn begin_next(&mut self, decision: &mut Decision<'_>) {
        let time_ends = self.time_ends();
        let Some((key, run)) = self.lanes.next_ready() else { return };
        let partition = run.partition;
        let destination = run.destination.clone();
        let Some(epoch) = self.partitions.epoch(partition) else { return self.lanes.forget(&key) };
        if let Some(until) = run.tries.claimed_until.filter(|until| *until > decision.now) {
            // A replica that has lost the partition may still be calling; without idempotency keys the destination
            // would act twice.
            return self.lanes.rest(&key, until);
        }
        if self.partitions.may_end(partition, &run.event, run.position) {
            // What ends it is read and not admitted. Its admission ends the run, or lets it go on.
            return self.lanes.rest(&key, decision.now.plus(LOOK_AGAIN));
        }
        count_own_failure(run, decision.destinations);
        let verdict = verdict(run, &self.limits, decision.now);
        if ends_by_time(&verdict) && !time_ends {
            // The run is neither ended nor sent before the clock is trusted.
            return self.lanes.rest(&key, decision.now.plus(LOOK_AGAIN));
        }
        if let Some((reason, error)) = verdict {
            if let Some(run) = self.lanes.begin(&key) {
                decision.steps.push(Step::DeadLetter { run: Box::new(run.clone()), epoch, reason, error });
            }
            return;
        }
        let suspicious = run.tries.unanswered >= QUARANTINE_AFTER_CRASHES;
        if suspicious && !std::mem::replace(&mut run.quarantined, true) {
            return self.lanes.rest(&key, decision.now.plus(QUARANTINE_DELAY));
        }
        if suspicious && self.suspect.is_some() {
            return self.lanes.put_back(key);
        }
        let permit = match &destination {
            None => None,
            Some(name) => {
                let slot = self.has_slot(&destination, 0, decision);
                let permit =
                    if slot { decision.destinations.permit(name, self.limits.urgent, decision.now) } else { None };
                if permit.is_none() {
                    return self.hold(key, name, decision);
                }
                permit
            }
        };
        let Some(run) = self.lanes.begin(&key) else { return };
        run.tries.attempts += 1;
        run.tries.unanswered += 1;
        run.tries.first_at.get_or_insert(decision.now);
        run.tries.first_sent_at.get_or_insert(decision.now);
        if suspicious {
            self.suspect = Some(run.event.reference());
        }
        decision.steps.push(Step::Execute { run: Box::new(run.clone()), epoch, permit });
    }

    /// Holds a head until its destination takes calls: in memory, or in the store if too many are held in memory.
    fn hold(&mut self, key: SubjectId, destination: &str, decision: &Decision<'_>) {
        let takes_calls = decision.destinations.is_closed(destination, self.limits.urgent, decision.now);
        if self.lanes.held_for(destination) >= HELD_KEPT
            && (!takes_calls || decision.destinations.has_quota(destination))
        {
            self.lanes.forget(&key);
            self.deferred_destinations.insert(destination.to_owned());
            self.deferred_heads += 1;
        } else {
            if !takes_calls {
                // The wait may be long, so only the head stays in memory. Otherwise a few hundred deep lanes would fill
                // half of it, and reading would stay paused until the destination is back.
                self.lanes.behind(&key);
            }
            self.lanes.hold(key, destination);
        }
    }
}

/// Counts a failure against a run if its destination has served others since. Called before the next attempt.
fn count_own_failure(run: &mut Run, destinations: &Destinations) {
    if let (Some(failed_at), Some(destination)) = (run.tries.failed_at, &run.destination)
        && destinations.served_others_since(destination, failed_at)
    {
        run.tries.counted += 1;
        run.tries.failed_at = None;
    }
}

/// Returns the reason for which a run is to be given up instead of being worked on, if there is one.
pub(super) fn verdict(run: &Run, limits: &FlowLimits, now: Timestamp) -> Option<(Reason, String)> {
    if run.verdict.is_some() {
        run.verdict.clone()
    } else if run.tries.unanswered >= MAX_CRASHES {
        Some((Reason::WorkerCrashed, format!("{MAX_CRASHES} attempts ended with the process")))
    } else if run.expires_at.is_some_and(|expires| now > expires) {
        Some((Reason::Expired, String::new()))
    } else if limits.retry.is_spent(&run.tries, now) {
        Some((Reason::RetriesSpent, format!("{} attempts", run.tries.attempts)))
    } else {
        None
    }
}

/// Returns true if a run ends only because of the time that has passed.
fn ends_by_time(verdict: &Option<(Reason, String)>) -> bool {
    matches!(verdict, Some((Reason::Expired | Reason::RetriesSpent, _)))
}
