//! Runs one flow. A single task owns the engine. Everything that takes time runs in other tasks and comes back to this
//! one as an input. `steps` carries out what the engine says.

mod steps;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use usher_engine::clock::ClockState;
use usher_engine::{ChangeKind, Changed, Engine, Input, RunState};
use usher_eventlog::{Log, LogEvent, LogLayout, Subscription};
use usher_flows::Flow;
use usher_service::{Readiness, clock, exit};
use usher_store::FlowStore;

use super::arrivals::{self, Meaning};
use super::catching_up::CatchingUp;
use super::destinations::{Decided, SharedDestinations};
use super::error::DispatcherError;
use super::execute::StepExecutor;
use super::housekeeping::HalfRetentionOffsets;

/// Interval of the gauges.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Longest time until the engine is woken that has asked to be woken: the clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Time allowed for steps in flight to finish after a stop was requested. It is below the process's own deadline,
/// because the last commit comes after it.
const DRAIN_DEADLINE: Duration = Duration::from_secs(6);
/// Time without an answer from the store after which a flow is not ready.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// Pause before the consumer group is joined again.
const REJOIN_AFTER: Duration = Duration::from_secs(1);
/// Time allowed for leaving the consumer group.
const LEAVE_DEADLINE: Duration = Duration::from_secs(8);

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
    pub(super) half_retention_offsets: HalfRetentionOffsets,
    pub(super) clock: watch::Receiver<ClockState>,
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
    }
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
        let mut report = tokio::time::interval(REPORT_EVERY);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                _ = report.tick() => self.report(),
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

    /// Lets the steps in flight finish and be written, starts nothing new, and leaves the group. Steps that exceed
    /// [`DRAIN_DEADLINE`] are aborted.
    async fn finish(mut self) -> Result<(), DispatcherError> {
        self.consumer.stop.cancel();
        let flow = self.consumer.flow.name.clone();
        self.handle(Input::Stop);
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while !self.consumer.engine.is_idle() {
            tokio::select! {
                Some(input) = self.consumer.answers.recv() => self.answered(input),
                Some(done) = self.tasks.join_next() => self.done(done),
                () = sleep_until(self.wakeup) => self.handle(Input::Wakeup),
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(flow, "drain deadline passed with steps in flight; their requests are stored and repeated");
                    self.tasks.abort_all();
                    break;
                }
            }
        }
        self.subscription.control.close().await;
        self.failed.map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: DispatcherError) {
        tracing::error!(flow = self.consumer.flow.name, error = exit::chain(&error), "flow failed");
        self.failed.get_or_insert(error);
    }

    /// Leaves the group and joins it again. The engine has dropped its state; the log reports the partitions assigned
    /// next.
    async fn rejoin(&mut self) {
        let flow = self.consumer.flow.name.clone();
        let stop = self.consumer.stop.clone();
        if tokio::time::timeout(LEAVE_DEADLINE, self.subscription.control.close()).await.is_err() {
            tracing::warn!(flow, "leaving the consumer group timed out; joining again");
        }
        self.rejoin = false;
        loop {
            if stop.run_until_cancelled(tokio::time::sleep(REJOIN_AFTER)).await.is_none() {
                return;
            }
            match self.consumer.subscribe().await {
                Ok(subscription) => {
                    self.subscription = subscription;
                    return;
                }
                Err(error) => tracing::warn!(flow, %error, "joining the consumer group failed; retrying"),
            }
        }
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
                tracing::info!(flow = self.consumer.flow.name, ?partitions, lost, "partitions revoked");
                self.handle(Input::Revoked { partitions, lost });
            }
            LogEvent::Failed(error) => {
                self.fail(DispatcherError::Subscription { flow: self.consumer.flow.name.clone(), source: error });
            }
        }
    }

    /// Handles an answer of the store or a finding of housekeeping.
    fn answered(&mut self, input: Input) {
        let metrics = self.consumer.executor.metrics.clone();
        let flow = self.consumer.flow.name.clone();
        match &input {
            Input::Admitted { admission: Some(admission), .. } => {
                self.consumer.count(RunState::Cancelled, admission.cancelled.len());
                metrics.repeated.with_label_values(&[&flow]).inc_by(admission.repeated as u64);
                if admission.refused > 0 {
                    metrics.refused_records.inc_by(admission.refused as u64);
                    tracing::error!(flow, records = admission.refused, "records refused: usher dlq list shows why");
                }
            }
            Input::Written { change, changed } => match (&change.kind, changed) {
                (ChangeKind::End { state, .. }, Changed::Written) => self.consumer.count(*state, 1),
                (ChangeKind::Park { .. }, Changed::Written) => metrics.runs_parked.with_label_values(&[&flow]).inc(),
                _ => {}
            },
            Input::Ends(ends) => metrics.lag_events.with_label_values(&[&flow]).set(self.consumer.engine.lag(ends)),
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

    fn signal_ready(&mut self) {
        if let Some(ready) = self.consumer.ready.take() {
            // The receiver is gone only if the process is stopping.
            let _ = ready.send(());
        }
    }

    /// Sets the gauges and the readiness of the flow, and logs what it waits for.
    fn report(&mut self) {
        self.catching_up.follow(&self.consumer.flow.name, &self.consumer.engine);
        let metrics = &self.consumer.executor.metrics;
        let numbers = self.consumer.engine.numbers();
        let set = |gauge: &prometheus::IntGaugeVec, value: usize| {
            gauge.with_label_values(&[self.consumer.flow.name.as_str()]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&metrics.in_flight, numbers.in_flight);
        set(&metrics.retrying, numbers.resting);
        set(&metrics.lanes_blocked, numbers.held);
        set(&metrics.loaded, numbers.loaded);
        set(&metrics.loaded_bytes, numbers.weight);
        let half_retention_offsets =
            self.consumer.half_retention_offsets.lock().unwrap_or_else(PoisonError::into_inner);
        let late = metrics.lag_half_kept.with_label_values(&[self.consumer.flow.name.as_str()]);
        late.set(self.consumer.engine.lag(&half_retention_offsets));
        let unread = self.consumer.engine.catching_up();
        set(&metrics.paused, usize::from(self.consumer.engine.is_paused()));
        set(&metrics.catching_up, usize::from(unread.is_some()));
        set(&metrics.catching_up_events, unread.map_or(0, |unread| usize::try_from(unread.events).unwrap_or(0)));
        let pending_for = self.consumer.executor.store_handle.pending_for();
        set(&metrics.stalled_seconds, usize::try_from(pending_for.as_secs()).unwrap_or(usize::MAX));
        self.consumer.readiness.set(format!("flow {}", self.consumer.flow.name), pending_for < STALLED_AFTER);
    }

    /// Passes an input to the engine and carries out the steps that it returns.
    fn handle(&mut self, input: Input) {
        let Decided { steps, wakeup } = self.consumer.destinations.decide(&mut self.consumer.engine, input);
        self.wakeup = wakeup.map(|at| Instant::now() + at.since(clock::now()).min(LONGEST_SLEEP));
        for step in steps {
            self.carry_out(step);
        }
        self.catching_up.follow(&self.consumer.flow.name, &self.consumer.engine);
    }
}
