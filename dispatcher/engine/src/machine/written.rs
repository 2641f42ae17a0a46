//! The consequences of a written change: the lane continues, or leaves memory.

use usher_proto::{Epoch, Reason};

use super::{Decision, Engine};
use crate::{Change, ChangeKind, Changed, Run, RunState, Step};

impl Engine {
    pub(super) fn written(&mut self, change: &Change, changed: Changed, decision: &mut Decision<'_>) {
        let Change { event, key, partition, epoch, kind, .. } = change;
        if self.partitions.epoch(*partition) != Some(*epoch) {
            return;
        }
        if changed == Changed::Fenced {
            return self.rejoin("a write says that a partition is somebody else's", decision);
        }
        self.due.written(kind, changed);
        if self.lanes.is_given_back(key, event) {
            return self.given_back(key, *partition, changed, decision);
        }
        let Some(run) = self.lanes.at_work(key, event) else { return };
        if changed == Changed::Refused {
            // The lane continues once the run is dead. The change to dead contains nothing that the store
            // could refuse again.
            let error = "the store refuses to record the result of this step".to_owned();
            let run = Box::new(run.clone());
            return decision.steps.push(Step::DeadLetter { run, epoch: *epoch, reason: Reason::Unstorable, error });
        }
        match kind {
            ChangeKind::Wait { until, .. } if changed == Changed::Awake => {
                run.wait_until = Some(*until);
                (run.tries, run.request) = Default::default();
                let asked = run.destination.clone();
                self.lanes.continue_run(key, &asked);
            }
            ChangeKind::Advance { to, destination, results, .. } if changed == Changed::Written => {
                let asked = std::mem::replace(&mut run.destination, destination.clone());
                run.step = *to;
                run.results.clone_from(results);
                (run.tries, run.request, run.wait_until) = Default::default();
                self.lanes.continue_run(key, &asked);
            }
            // If its destination takes no calls, the head is examined again at once, and then held.
            ChangeKind::Retry { at, .. } if changed == Changed::Written => self.lanes.rest(key, *at),
            // The run blocks its lane in the store, so the lane leaves memory.
            ChangeKind::Park { .. } if changed == Changed::Written => self.lanes.forget(key),
            _ => {
                if self.lanes.leave(key) {
                    self.load(key, *partition, decision);
                }
            }
        }
    }
}

/// Returns the change that writes a run dead, once its dead letter is published.
pub fn dead_letter_change(run: &Run, epoch: Epoch, reason: Reason, error: String) -> Change {
    let verdict = Some((reason, error));
    let in_doubt = run.request.is_some();
    let kind = ChangeKind::End { state: RunState::Dead, effect: None, note: None, verdict, in_doubt };
    Change {
        event: run.event.reference(),
        key: run.event.subject.clone(),
        partition: run.partition,
        epoch,
        kind,
        story: run.untold.clone().into_boxed_slice(),
    }
}
