//! Carries out the steps of a flow's engine.

use usher_engine::{Input, LogCommand, Run, Step, StoreRequest, StoreWrite, dead_letter_change};
use usher_proto::{Epoch, Reason};
use usher_service::clock;

use super::JoinedConsumer;
use crate::delivery::catching_up::look;
use crate::delivery::dead_letters::DeadLetter;
use crate::delivery::error::DispatcherError;

impl JoinedConsumer {
    /// Carries out a step of the engine. What takes time runs in a task, whose result returns as an input.
    pub(super) fn carry_out(&mut self, step: Step) {
        match step {
            Step::Store(request) => {
                self.observe(&request);
                self.consumer.executor.store_handle.send(request);
            }
            Step::Look(number) => {
                let store = self.consumer.store.clone();
                let log = self.consumer.log.clone();
                let flow = self.consumer.flow.name.clone();
                let topic = self.consumer.layout.topics.events();
                self.tasks.spawn(async move {
                    let seen = look(&*store, &*log, &flow, &topic).await;
                    Some(Input::Looked { look: number, seen })
                });
            }
            Step::AskFrontiers => {
                let store = self.consumer.store.clone();
                let flow = self.consumer.flow.name.clone();
                self.tasks.spawn(async move {
                    let frontiers = store.frontiers(&flow).await;
                    let asked = frontiers.inspect_err(|error| {
                        tracing::debug!(flow, %error, "reading frontiers failed; retrying");
                    });
                    Some(Input::Frontiers(asked.ok()))
                });
            }
            Step::Log(command) => self.command(command),
            Step::Fail(partition, problem) => {
                let flow = self.consumer.flow.name.clone();
                self.fail(DispatcherError::CannotStart { flow, partition, problem });
            }
            Step::Execute { run, epoch, permit } => {
                let executor = self.consumer.executor.clone();
                self.tasks.spawn(async move {
                    let report = executor.work(&run, epoch).await;
                    let Run { event, partition, destination, .. } = *run;
                    let asked = destination.zip(permit);
                    Some(Input::Reported {
                        key: event.subject.clone(),
                        event: event.reference(),
                        partition,
                        epoch,
                        asked,
                        report,
                    })
                });
            }
            Step::DeadLetter { run, epoch, reason, error } => self.dead_letter(run, epoch, reason, error),
        }
    }

    /// Logs and measures a request before it is sent to the store.
    fn observe(&self, request: &StoreRequest) {
        let flow = self.consumer.flow.name.as_str();
        match request {
            StoreRequest::Write(StoreWrite::Admit(batch)) => {
                if let Some(newest) = batch.arrivals.last() {
                    let lag = clock::now().since(newest.event.received_at).as_secs();
                    let gauge = self.consumer.executor.metrics.lag_seconds.with_label_values(&[flow]);
                    gauge.set(i64::try_from(lag).unwrap_or(i64::MAX));
                }
            }
            StoreRequest::Write(StoreWrite::ConfirmPause { under_way, .. }) => {
                tracing::info!(flow, under_way, "flow paused; no step begins");
            }
            StoreRequest::Write(StoreWrite::Acquire { .. } | StoreWrite::Due(_))
            | StoreRequest::Change(_)
            | StoreRequest::Read(_) => {}
        }
    }

    /// Sends a command to the log.
    fn command(&mut self, command: LogCommand) {
        let flow = self.consumer.flow.name.as_str();
        let control = &self.subscription.control;
        match command {
            LogCommand::Start { assignment, offsets } => {
                tracing::info!(flow, partitions = ?offsets, "partitions assigned");
                control.start(assignment, offsets);
            }
            LogCommand::Commit(partition, offset) => control.commit(partition, offset),
            LogCommand::Pause(partition) => control.pause(partition),
            LogCommand::Resume(partition) => control.resume(partition),
            LogCommand::Release => control.release(),
            LogCommand::Rejoin(why) => {
                tracing::warn!(flow, why, "rejoining consumer group");
                self.consumer.executor.metrics.rejoins.with_label_values(&[flow]).inc();
                self.rejoin = true;
            }
        }
    }

    fn dead_letter(&mut self, run: Box<Run>, epoch: Epoch, reason: Reason, error: String) {
        let name = self.consumer.flow.name.clone();
        tracing::warn!(flow = name, event = %run.event.id, %reason, error, "a run is given up");
        let version = self.consumer.executor.versions.known(&run.flow_version);
        let step = version.steps.get(run.step).map(|step| step.name.clone()).unwrap_or_default();
        let log = self.consumer.log.clone();
        let layout = self.consumer.layout.clone();
        let store_handle = self.consumer.executor.store_handle.clone();
        let stop = self.consumer.stop.clone();
        self.tasks.spawn(async move {
            let letter = DeadLetter { flow: &name, step: &step, run: &run, reason, error: &error };
            if letter.publish(&log, &layout, &stop).await {
                store_handle.send(StoreRequest::Change(dead_letter_change(&run, epoch, reason, error)));
            }
            None
        });
    }
}
