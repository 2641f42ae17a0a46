//! Carrying out what the engine says: attempts, writes, dead letters, loads. Each is a task that comes back as something
//! that has happened.

use usher_proto::{Key, Partition, Reason};

use super::{Happened, Worker};
use crate::delivery::attempt::Gone;
use crate::delivery::letters::Letter;
use crate::engine::lanes::WINDOW;
use crate::engine::{Effect, Run, RunState, Settlement, Step};
use crate::flows::Action;
use crate::store::{Change, ChangeKind, StepEffect};

impl Worker {
    pub(super) fn carry_out(&mut self, step: Step) {
        match step {
            // What has not begun when the process stops begins at the next start.
            Step::Work(_) | Step::Bury { .. } | Step::Load(_) if self.stop.is_cancelled() => {}
            Step::Work(run) => {
                let Some(epoch) = self.epoch(run.partition) else { return };
                let workshop = self.workshop.clone();
                self.tasks.spawn(async move {
                    match workshop.work(&run, epoch).await {
                        Ok(report) => Happened::Worked { run, epoch, report },
                        Err(Gone::Fenced) => Happened::Fenced { partition: run.partition, epoch },
                        Err(Gone::Stopped) => Happened::Nothing,
                    }
                });
            }
            Step::Settle { run, settlement } => self.settle(run, settlement),
            Step::Bury { run, reason, error } => self.bury(run, reason, error),
            Step::Load(key) => self.load(key),
        }
    }

    fn epoch(&self, partition: Partition) -> Option<i64> {
        self.partitions.0.get(&partition).map(|owned| owned.epoch)
    }

    fn settle(&mut self, run: Box<Run>, settlement: Settlement) {
        let Some(epoch) = self.epoch(run.partition) else { return };
        let kind = match &settlement {
            Settlement::Advance(effect) => {
                let mut results = run.results.clone();
                if let Some(effect) = effect {
                    results.insert(run.step, effect.result.clone());
                }
                let effect = effect.clone().map(|effect| self.step_effect(&run, effect));
                // A map of numbers to JSON values is always JSON.
                let results = serde_json::to_string(&results).unwrap_or_default();
                ChangeKind::Advance { to: run.step + 1, effect, results }
            }
            Settlement::Wait { until, news_after } => ChangeKind::Wait { until: *until, news_after: *news_after },
            Settlement::End { state, effect, note } => {
                self.count(*state, 1);
                let effect = effect.clone().map(|effect| self.step_effect(&run, effect));
                ChangeKind::End { state: *state, effect, note: *note, verdict: None }
            }
        };
        let change = Change { event: run.event.id.clone(), partition: run.partition, epoch, kind };
        let scribe = self.workshop.scribe.clone();
        self.tasks.spawn(async move {
            match scribe.change(change).await {
                Ok(changed) => Happened::Settled { run, epoch, settlement, changed },
                Err(_) => Happened::Nothing,
            }
        });
    }

    fn step_effect(&self, run: &Run, effect: Effect) -> StepEffect {
        let flow = self.workshop.versions.known(&run.flow_version);
        let step = flow.steps.get(run.step);
        let connector = match step.map(|step| &step.action) {
            Some(Action::Call(call)) => call.connector.clone(),
            Some(Action::Wait(_)) | None => String::new(),
        };
        StepEffect { step: run.step, name: step.map(|step| step.name.clone()).unwrap_or_default(), connector, effect }
    }

    fn bury(&mut self, run: Box<Run>, reason: Reason, error: String) {
        let Some(epoch) = self.epoch(run.partition) else { return };
        tracing::warn!(flow = self.flow.name, event = %run.event.id, %reason, error, "a run is given up");
        self.count(RunState::Dead, 1);
        let version = self.workshop.versions.known(&run.flow_version);
        let step = version.steps.get(run.step).map(|step| step.name.clone()).unwrap_or_default();
        let (flow, log, layout) = (self.flow.name.clone(), self.log.clone(), self.layout.clone());
        let (scribe, stop) = (self.workshop.scribe.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let letter = Letter { flow: &flow, step: &step, run: &run, reason, error: &error };
            if !letter.publish(&log, &layout, &stop).await {
                return Happened::Nothing;
            }
            let verdict = Some((reason, error));
            let kind = ChangeKind::End { state: RunState::Dead, effect: None, note: None, verdict };
            let change = Change { event: run.event.id.clone(), partition: run.partition, epoch, kind };
            match scribe.change(change).await {
                Ok(changed) => Happened::Buried { run, epoch, changed },
                Err(_) => Happened::Nothing,
            }
        });
    }

    fn load(&mut self, key: Key) {
        let workshop = self.workshop.clone();
        let limit = u32::try_from(WINDOW + 1).unwrap_or(u32::MAX);
        self.tasks.spawn(async move {
            match workshop.ask(|| workshop.store.lane(workshop.versions.name(), &key, limit)).await {
                Ok(runs) => Happened::Loaded { key, runs },
                Err(_) => Happened::Nothing,
            }
        });
    }

    pub(super) fn count(&self, state: RunState, runs: usize) {
        self.workshop.metrics.runs.with_label_values(&[self.flow.name.as_str(), state.label()]).inc_by(runs as u64);
    }
}
