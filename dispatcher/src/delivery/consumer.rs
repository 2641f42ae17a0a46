//! Runs one flow. A single task owns the engine. Everything that takes time runs in other tasks and comes back to this
//! one as an input. `lifecycle` reports on the flow, rejoins the group and ends.

mod lifecycle;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use usher_engine::clock::ClockState;
use usher_engine::start::CannotStart;
use usher_engine::{
    AheadRange, ChangeKind, Changed, Engine, Input, LogCommand, Run, RunState, Step, StoreRequest, StoreWrite,
    dead_letter_change,
};
use usher_eventlog::{Log, LogEvent, LogLayout, Subscription};
use usher_flows::Flow;
use usher_proto::{Epoch, Partition, Reason};
use usher_service::{ConfigError, Readiness, clock, exit, telemetry};
use usher_store::FlowStore;

use super::arrivals::{self, Meaning};
use super::catching_up::{CatchingUp, look};
use super::dead_letters::DeadLetter;
use super::destinations::{Decided, SharedDestinations};
use super::error::DispatcherError;
use super::execute::StepExecutor;
use super::housekeeping::HalfRetentionOffsets;
use super::schedules::FIRST;

/// Shortest interval of the gauges. They are set after something has happened.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Longest time until the engine is woken that has asked to be woken: the clock may be set meanwhile, or the machine suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

pub(super) struct FlowConsumer {
    pub(super) flow: Arc<Flow>,
    pub(super) executor: Arc<StepExecutor>,
    pub(super) store: Arc<dyn FlowStore>,
    pub(super) log: Arc<dyn Log>,
    pub(super) layout: LogLayout,
    pub(super) engine: Engine,
    pub(super) destinations: SharedDestinations,
    /// Answers of the store writer and findings of housekeeping.
    pub(super) answers: mpsc::UnboundedReceiver<Input>,
    /// The reader of records that are not admitted yet.
    pub(super) ahead: mpsc::UnboundedSender<Vec<AheadRange>>,
    pub(super) half_retention_offsets: HalfRetentionOffsets,
    pub(super) clock: watch::Receiver<ClockState>,
    /// Tells the flow's scheduler whether this process fires: the epoch of the first partition, or none.
    pub(super) owns_first: watch::Sender<Option<Epoch>>,
    /// Signals that the flow has its first partitions, or stands by because other replicas own them all.
    pub(super) ready: Option<oneshot::Sender<()>>,
    pub(super) readiness: Readiness,
    pub(super) stop: CancellationToken,
}

/// A consumer with the state that changes as it joins and rejoins the group.
struct JoinedConsumer {
    consumer: FlowConsumer,
    subscription: Subscription,
    tasks: JoinSet<Option<Input>>,
    catching_up: CatchingUp,
    /// The time at which the engine is to be woken; absent if only an input can change anything.
    wakeup: Option<Instant>,
    /// The time at which the gauges are to be set; absent if nothing has happened since.
    report_at: Option<Instant>,
    reported_at: Instant,
    /// True if the group is to be left and joined again.
    rejoin: bool,
    failed: Option<DispatcherError>,
}

impl FlowConsumer {
    /// Runs until it is stopped. Returns an error if the flow cannot continue.
    pub(super) async fn run(self) -> Result<(), DispatcherError> {
        let subscription = self.subscribe().await?;
        let catching_up = CatchingUp::default();
        let joined = JoinedConsumer {
            consumer: self,
            subscription,
            tasks: JoinSet::new(),
            catching_up,
            wakeup: None,
            report_at: None,
            reported_at: Instant::now(),
            rejoin: false,
            failed: None,
        };
        joined.run().await
    }

    async fn subscribe(&self) -> Result<Subscription, DispatcherError> {
        let topics = &self.layout.topics;
        Ok(self.log.subscribe(&topics.group(&self.flow.name), &topics.events()).await?)
    }

    fn count(&self, state: RunState, runs: usize) {
        self.executor.metrics.runs.with_label_values(&[self.flow.name.as_str(), state.label()]).inc_by(runs as u64);
        if state == RunState::Done {
            self.executor
                .metrics
                .last_success
                .with_label_values(&[self.flow.name.as_str()])
                .set(clock::now().seconds());
        }
    }
}

/// Returns the numbers of partitions as a short text, such as `0-5 7`.
fn ranges(partitions: impl Iterator<Item = Partition>) -> String {
    let numbers: BTreeSet<i32> = partitions.map(|partition| partition.0).collect();
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |(first, last): &(i32, i32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// Sleeps until this time; for ever if there is none.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl JoinedConsumer {
    async fn run(mut self) -> Result<(), DispatcherError> {
        let mut changes = self.consumer.destinations.changes();
        let stop = self.consumer.stop.clone();
        self.on_clock();
        while self.failed.is_none() && !stop.is_cancelled() {
            // Finished work comes first, because it frees capacity. Log events come last of what can be waited for.
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(input) = self.consumer.answers.recv() => self.answered(input),
                Some(done) = self.tasks.join_next() => self.done(done),
                () = sleep_until(self.wakeup) => self.handle(Input::Wakeup),
                Ok(()) = changes.changed() => self.handle(Input::Wakeup),
                () = sleep_until(self.report_at) => self.report(),
                Ok(()) = self.consumer.clock.changed() => self.on_clock(),
                event = self.subscription.events.recv() => match event {
                    Some(event) => self.on_log_event(event),
                    None => self.fail(DispatcherError::SubscriptionEnded(self.consumer.flow.name.clone())),
                },
            }
            if self.rejoin && self.failed.is_none() {
                self.rejoin().await;
            }
        }
        self.finish().await
    }

    fn on_clock(&mut self) {
        let clock = *self.consumer.clock.borrow_and_update();
        self.handle(Input::Clock(clock));
    }

    fn fail(&mut self, error: DispatcherError) {
        tracing::error!(flow = self.consumer.flow.name, error = exit::chain(&error), "flow failed");
        self.failed.get_or_insert(error);
    }

    fn on_log_event(&mut self, event: LogEvent) {
        match event {
            LogEvent::Assigned { assignment, partitions } => {
                self.handle(Input::Assigned { assignment, partitions });
                if self.consumer.engine.is_standby() {
                    // Other replicas own all partitions, and started long ago.
                    self.signal_ready();
                }
            }
            LogEvent::Records { assignment, partition, records } => {
                let Some((last, _)) = records.last() else { return };
                let next = last.next();
                let flow = &self.consumer.flow;
                let events = &self.consumer.executor.metrics.events;
                events.with_label_values(&[flow.name.as_str()]).inc_by(records.len() as u64);
                let mut arrivals = Vec::new();
                let mut refused = Vec::new();
                for (offset, record) in records {
                    match arrivals::meaning(flow, offset, record) {
                        Meaning::Nothing => {}
                        Meaning::Arrival(arrival) => arrivals.push(*arrival),
                        Meaning::Refused(record) => refused.push(record),
                    }
                }
                self.handle(Input::Read { assignment, partition, next, arrivals, refused });
            }
            LogEvent::Reached { assignment, partition, next } => {
                self.handle(Input::Read { assignment, partition, next, arrivals: Vec::new(), refused: Vec::new() });
            }
            LogEvent::Revoked { partitions, lost } => {
                let flow = self.consumer.flow.name.as_str();
                let numbers = ranges(partitions.iter().copied());
                tracing::info!(flow, partitions = numbers, lost, "partitions revoked");
                self.handle(Input::Revoked { partitions, lost });
            }
            LogEvent::Failed(error) => {
                self.fail(DispatcherError::Subscription { flow: self.consumer.flow.name.clone(), source: error });
            }
        }
    }

    /// Handles an answer of the store or a finding of housekeeping.
    fn answered(&mut self, input: Input) {
        let metrics = &self.consumer.executor.metrics;
        let flow = self.consumer.flow.name.as_str();
        match &input {
            Input::Admitted { admission: Some(admission), .. } => {
                self.consumer.count(RunState::Cancelled, admission.cancelled.len());
                metrics.repeated.with_label_values(&[flow]).inc_by(admission.repeated as u64);
                if admission.refused > 0 {
                    metrics.refused_records.inc_by(admission.refused as u64);
                    tracing::error!(flow, records = admission.refused, "records refused: usher dlq list shows why");
                }
            }
            Input::Written { change, changed } => match (&change.kind, changed) {
                (ChangeKind::End { state, .. }, Changed::Written) => self.consumer.count(*state, 1),
                (ChangeKind::Park { .. }, Changed::Written) => metrics.runs_parked.with_label_values(&[flow]).inc(),
                _ => {}
            },
            Input::Ends(ends) => metrics.lag_events.with_label_values(&[flow]).set(self.consumer.engine.lag(ends)),
            _ => {}
        }
        self.handle(input);
        if self.consumer.engine.has_begun() {
            self.signal_ready();
        }
    }

    fn done(&mut self, done: Result<Option<Input>, tokio::task::JoinError>) {
        match done {
            Ok(Some(input)) => self.handle(input),
            Ok(None) => {}
            Err(error) if error.is_cancelled() => {}
            Err(source) => self.fail(DispatcherError::Task { flow: self.consumer.flow.name.clone(), source }),
        }
    }

    /// Passes an input to the engine and carries out the steps that it returns.
    fn handle(&mut self, input: Input) {
        let Decided { steps, wakeup } = self.consumer.destinations.decide(&mut self.consumer.engine, input);
        self.wakeup = wakeup.map(|at| Instant::now() + at.since(clock::now()).min(LONGEST_SLEEP));
        self.report_at.get_or_insert(self.reported_at + REPORT_EVERY);
        for step in steps {
            self.carry_out(step);
        }
        let epoch = self.consumer.engine.working_epoch(FIRST);
        self.consumer.owns_first.send_if_modified(|known| std::mem::replace(known, epoch) != epoch);
        self.catching_up.follow(&self.consumer.flow.name, &self.consumer.engine);
    }

    /// Carries out a step of the engine. What takes time runs in a task, whose result returns as an input.
    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Store(request) => {
                self.observe(&request);
                self.consumer.executor.store_handle.send(request);
            }
            Step::ReadAhead(ranges) => {
                // The reader ends only after this consumer.
                let _ = self.consumer.ahead.send(ranges);
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
                let error = DispatcherError::CannotStart { flow, partition, problem };
                // This one is mended in the flow's file. It is an invalid configuration, as a mistake in the file is.
                let is_setting = problem == CannotStart::FromRequired;
                self.fail(if is_setting { ConfigError(error.to_string()).into() } else { error });
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

    /// Logs a request before it is sent to the store.
    fn observe(&self, request: &StoreRequest) {
        let flow = self.consumer.flow.name.as_str();
        match request {
            StoreRequest::Write(StoreWrite::ConfirmPause { under_way, .. }) => {
                tracing::info!(flow, under_way, "flow paused; no step begins");
            }
            StoreRequest::Write(
                StoreWrite::Acquire { .. } | StoreWrite::Admit(_) | StoreWrite::Tell(_) | StoreWrite::Due(_),
            )
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
                let numbers = ranges(offsets.iter().map(|(partition, _)| *partition));
                tracing::info!(target: telemetry::DETAIL, flow, partitions = numbers, "partitions assigned");
                tracing::debug!(flow, ?offsets, "partitions begin at these offsets");
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
        self.consumer.executor.metrics.dead_letters.with_label_values(&[name.as_str(), reason.label()]).inc();
        let version = self.consumer.executor.requests.versions.known(&run.flow_version);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_partitions_are_told_as_ranges() {
        let told = |numbers: &[i32]| ranges(numbers.iter().copied().map(Partition));
        assert_eq!(told(&[0, 1, 2, 3]), "0-3");
        assert_eq!(told(&[7, 0, 2, 1, 4]), "0-2 4 7");
        assert_eq!(told(&[]), "");
    }
}
