//! Changes of runs, as the store writes them.

use super::SimulatedStore;
use crate::simulation::happening::event_number;
use crate::simulation::plan::Defect;
use crate::{Change, ChangeKind, Changed, RunState, StepEffect};

impl SimulatedStore {
    pub(in crate::simulation) fn write(&mut self, change: &Change) -> Changed {
        if !self.owns(change.partition, change.epoch) {
            return Changed::Fenced;
        }
        let number = u32::try_from(event_number(&change.event)).expect("few");
        let row = self.row(number as usize).expect("what is changed is stored");
        let ended = row.state.is_terminal();
        let cancel_asked = row.cancel_asked;
        let is_end = matches!(change.kind, ChangeKind::End { .. });
        if let ChangeKind::Advance { effect, .. } | ChangeKind::End { effect, .. } = &change.kind {
            self.record(number, effect.as_ref());
        }
        if ended {
            return Changed::Ended;
        }
        if cancel_asked && !is_end {
            self.update(number, |row| row.state = RunState::Cancelled);
            return Changed::Ended;
        }
        match &change.kind {
            ChangeKind::Claim { tries, request } => self.update(number, |row| {
                (row.state, row.claimed, row.tries, row.request) =
                    (RunState::Running, true, *tries, Some(request.clone()));
            }),
            ChangeKind::Advance { to, destination, results, .. } => {
                let destination = self.destination(destination.as_ref());
                self.update(number, |row| {
                    row.state = RunState::Running;
                    row.claimed = false;
                    row.step = *to;
                    row.destination = destination;
                    (row.tries, row.request, row.due_at, row.wait_until) = Default::default();
                    row.awaits_news = false;
                    row.results.clone_from(results);
                });
            }
            ChangeKind::Wait { until, news_after } => {
                let user = self.row(number as usize).expect("a row").user;
                let awake = news_after.is_some_and(|after| self.revision(user) > after);
                self.update(number, |row| {
                    row.state = if awake { RunState::Queued } else { RunState::Waiting };
                    row.has_waited |= !awake;
                    row.due_at = Some(until.millis());
                    row.wait_until = row.due_at;
                    row.awaits_news = news_after.is_some();
                    row.claimed = false;
                    (row.tries, row.request) = Default::default();
                });
                if awake {
                    return Changed::Awake;
                }
            }
            ChangeKind::Retry { tries, request, .. } => self.update(number, |row| {
                (row.tries, row.request, row.claimed) = (*tries, request.clone(), false);
            }),
            ChangeKind::Park { until, tries, request } => {
                let leaves = self.defect == Defect::ParkLeavesLane;
                self.update(number, |row| {
                    row.state = if leaves { RunState::Waiting } else { RunState::Parked };
                    row.due_at = Some(until.millis());
                    row.tries = *tries;
                    row.request = request.clone();
                    row.claimed = false;
                    row.awaits_news = false;
                });
            }
            ChangeKind::End { state, note, verdict, .. } => self.update(number, |row| {
                row.state = *state;
                row.note = *note;
                row.claimed = false;
                row.reason = verdict.as_ref().map(|(reason, _)| *reason);
            }),
        }
        Changed::Written
    }

    fn record(&mut self, number: u32, effect: Option<&StepEffect>) {
        if let Some(effect) = effect {
            let row = self.rows[number as usize].as_mut().expect("a row");
            row.recorded |= 1 << effect.step;
        }
    }
}
