//! One flow at work. One task owns the engine; everything that takes time happens elsewhere and comes back as something
//! that has happened.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use usher_eventlog::{Log, LogEvent, LogLayout, Subscription};
use usher_service::{Readiness, clock};

use super::arrivals::{self, Meaning};
use super::attempt::StepExecutor;
use super::catching_up::{CatchingUp, look};
use super::dead_letters::DeadLetter;
use super::housekeeping::HalfKept;
use super::store_actor::StoreRequest;
use crate::engine::clock::ClockState;
use crate::engine::{
    ChangeKind, Changed, Destinations, Engine, Given, Input, News, Run, RunState, Step, dead_letter_change,
};
use crate::flows::Flow;

/// How often timers and gauges are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long what is under way may take after the process was told to stop. Below the process's own deadline, for the last
/// commit comes after it.
const DRAIN_DEADLINE: Duration = Duration::from_secs(6);
/// Time without an answer from the store after which a flow is not ready.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// The pause before the log is joined anew, and how long leaving may take.
const REJOIN_AFTER: Duration = Duration::from_secs(1);
const LEAVE_DEADLINE: Duration = Duration::from_secs(8);

pub(super) struct FlowConsumer {
    pub(super) flow: Arc<Flow>,
    pub(super) executor: Arc<StepExecutor>,
    pub(super) log: Arc<dyn Log>,
    pub(super) layout: LogLayout,
    pub(super) engine: Engine,
    pub(super) destinations: Arc<Mutex<Destinations>>,
    /// What the store_writer answers and what housekeeping finds.
    pub(super) answers: mpsc::UnboundedReceiver<Input>,
    pub(super) half_kept: HalfKept,
    pub(super) clock: watch::Receiver<ClockState>,
    /// Says that the flow has its first partitions.
    pub(super) ready: Option<oneshot::Sender<()>>,
    pub(super) readiness: Readiness,
    pub(super) stop: CancellationToken,
}

/// What of a consumer changes as the log is joined and joined anew.
struct JoinedConsumer {
    consumer: FlowConsumer,
    subscription: Subscription,
    tasks: JoinSet<Option<Input>>,
    catching_up: CatchingUp,
    /// The log is to be joined anew.
    rejoin: bool,
    failed: Option<anyhow::Error>,
}

impl FlowConsumer {
    /// Works until it is stopped. An error means that the flow cannot go on.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let subscription = self.subscribe().await?;
        let catching_up = CatchingUp::default();
        let working = JoinedConsumer {
            consumer: self,
            subscription,
            tasks: JoinSet::new(),
            catching_up,
            rejoin: false,
            failed: None,
        };
        working.run().await
    }

    async fn subscribe(&self) -> anyhow::Result<Subscription> {
        let topics = &self.layout.topics;
        Ok(self.log.subscribe(&topics.group(&self.flow.name), &topics.events()).await?)
    }

    fn count(&self, state: RunState, runs: usize) {
        self.executor.metrics.runs.with_label_values(&[self.flow.name.as_str(), state.label()]).inc_by(runs as u64);
    }
}

impl JoinedConsumer {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.consumer.stop.clone();
        self.on_clock();
        while self.failed.is_none() && !stop.is_cancelled() {
            // What is finished first: it makes room. News of the log last among what can be waited for.
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(input) = self.consumer.answers.recv() => self.answered(input),
                Some(done) = self.tasks.join_next() => self.done(done),
                _ = tick.tick() => self.tick(),
                Ok(()) = self.consumer.clock.changed() => self.on_clock(),
                event = self.subscription.events.recv() => match event {
                    Some(event) => self.on_log_event(event),
                    None => self.fail(anyhow!("the subscription of flow {} has ended", self.consumer.flow.name)),
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

    /// Lets what is under way come to its end and be written, begins nothing new, and leaves the group.
    async fn finish(mut self) -> anyhow::Result<()> {
        self.consumer.stop.cancel();
        let flow = self.consumer.flow.name.clone();
        self.handle(Input::Stop);
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while !self.consumer.engine.is_idle() {
            tokio::select! {
                Some(input) = self.consumer.answers.recv() => self.answered(input),
                Some(done) = self.tasks.join_next() => self.done(done),
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(flow, "steps were still under way; their requests are kept and repeated");
                    self.tasks.abort_all();
                    break;
                }
            }
        }
        self.subscription.control.close().await;
        self.failed.map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: anyhow::Error) {
        tracing::error!(flow = self.consumer.flow.name, error = %format!("{error:#}"), "a flow cannot go on");
        self.failed.get_or_insert(error);
    }

    /// Leaves the group and joins it anew. Everything was forgotten; the log tells what is ours.
    async fn rejoin(&mut self) {
        let (flow, stop) = (self.consumer.flow.name.clone(), self.consumer.stop.clone());
        if tokio::time::timeout(LEAVE_DEADLINE, self.subscription.control.close()).await.is_err() {
            tracing::warn!(flow, "the group could not be left in time; joining it anew all the same");
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
                Err(error) => tracing::warn!(flow, %error, "the log cannot be joined yet"),
            }
        }
    }

    fn on_log_event(&mut self, event: LogEvent) {
        match event {
            LogEvent::Assigned { epoch: assignment, partitions } => {
                let given = |it: usher_eventlog::Assigned| Given {
                    partition: it.partition,
                    committed: it.committed,
                    low: it.low,
                    end: it.end,
                };
                self.handle(Input::Given { assignment, partitions: partitions.into_iter().map(given).collect() });
                if self.consumer.engine.stands_by() {
                    // Others have them all, and have begun long ago.
                    self.say_ready();
                }
            }
            LogEvent::Records { epoch: assignment, partition, records } => {
                let Some((last, _)) = records.last() else { return };
                let (next, flow) = (last + 1, &self.consumer.flow);
                let events = &self.consumer.executor.metrics.events;
                events.with_label_values(&[flow.name.as_str()]).inc_by(records.len() as u64);
                let (mut arrivals, mut refused) = (Vec::new(), Vec::new());
                for (offset, record) in records {
                    match arrivals::meaning(flow, offset, record) {
                        Meaning::Nothing => {}
                        Meaning::Arrival(arrival) => arrivals.push(*arrival),
                        Meaning::Refused(record) => refused.push(record),
                    }
                }
                self.handle(Input::Read { assignment, partition, next, arrivals, refused });
            }
            LogEvent::Reached { epoch: assignment, partition, next } => {
                self.handle(Input::Read { assignment, partition, next, arrivals: Vec::new(), refused: Vec::new() });
            }
            LogEvent::Revoked { partitions, lost } => {
                tracing::info!(flow = self.consumer.flow.name, ?partitions, lost, "partitions are taken away");
                self.handle(Input::Taken { partitions, lost });
            }
            LogEvent::Failed(error) => {
                self.fail(anyhow::Error::new(error).context(format!("flow {}", self.consumer.flow.name)));
            }
        }
    }

    /// The store has answered, or housekeeping has found something.
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
            self.say_ready();
        }
    }

    fn done(&mut self, done: Result<Option<Input>, tokio::task::JoinError>) {
        match done {
            Ok(Some(input)) => self.handle(input),
            Ok(None) => {}
            Err(error) if error.is_cancelled() => {}
            Err(error) => self.fail(anyhow!("a task of flow {} failed: {error}", self.consumer.flow.name)),
        }
    }

    fn say_ready(&mut self) {
        if let Some(ready) = self.consumer.ready.take() {
            // Nobody listens where the process is stopping.
            let _ = ready.send(());
        }
    }

    fn tick(&mut self) {
        self.handle(Input::Tick);
        let (metrics, numbers) = (&self.consumer.executor.metrics, self.consumer.engine.numbers());
        let set = |gauge: &prometheus::IntGaugeVec, value: usize| {
            gauge.with_label_values(&[self.consumer.flow.name.as_str()]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&metrics.in_flight, numbers.in_flight);
        set(&metrics.retrying, numbers.resting);
        set(&metrics.lanes_blocked, numbers.held);
        set(&metrics.loaded, numbers.loaded);
        set(&metrics.loaded_bytes, numbers.weight);
        let half_kept = self.consumer.half_kept.lock().unwrap_or_else(PoisonError::into_inner);
        let late = metrics.lag_half_kept.with_label_values(&[self.consumer.flow.name.as_str()]);
        late.set(self.consumer.engine.lag(&half_kept));
        let unread = self.consumer.engine.catching_up();
        set(&metrics.paused, usize::from(self.consumer.engine.is_paused()));
        set(&metrics.catching_up, usize::from(unread.is_some()));
        set(&metrics.catching_up_events, unread.map_or(0, |unread| usize::try_from(unread.events).unwrap_or(0)));
        let waits_for = self.consumer.executor.store_writer.waits_for();
        set(&metrics.stalled_seconds, usize::try_from(waits_for.as_secs()).unwrap_or(usize::MAX));
        self.consumer.readiness.set(format!("flow {}", self.consumer.flow.name), waits_for < STALLED_AFTER);
        let mut destinations = self.consumer.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, closed) in destinations.states() {
            metrics.breaker_open.with_label_values(&[name]).set(i64::from(!closed));
        }
        let now = clock::now();
        for news in destinations.news(now) {
            match news {
                News::Trouble { destination, since, next_probe } => {
                    let (held, for_seconds) = (metrics.held_by_all_flows(), now.since(since).as_secs());
                    let next_probe = next_probe.map(tracing::field::display);
                    tracing::warn!(
                        destination,
                        held,
                        for_seconds,
                        next_probe,
                        "destination is in trouble; its runs are held"
                    );
                }
                News::Over { destination, since } => {
                    let for_seconds = now.since(since).as_secs();
                    tracing::warn!(destination, for_seconds, "destination serves again; its runs go on");
                }
            }
        }
    }

    /// Tells the engine, and carries out what it says.
    fn handle(&mut self, input: Input) {
        let steps = {
            let mut destinations = self.consumer.destinations.lock().unwrap_or_else(PoisonError::into_inner);
            self.consumer.engine.handle(input, clock::now(), rand::random(), &mut destinations)
        };
        for step in steps {
            self.carry_out(step);
        }
        self.catching_up.follow(&self.consumer.flow.name, &self.consumer.engine);
    }

    fn carry_out(&mut self, step: Step) {
        let (store_writer, control) = (&self.consumer.executor.store_writer, &self.subscription.control);
        match step {
            Step::Acquire { assignment, partitions } => {
                store_writer.order(StoreRequest::Acquire { assignment, partitions })
            }
            Step::Admit(batch) => {
                if let Some(newest) = batch.arrivals.last() {
                    let lag = clock::now().since(newest.event.received_at).as_secs();
                    let gauge = &self.consumer.executor.metrics.lag_seconds;
                    let gauge = gauge.with_label_values(&[self.consumer.flow.name.as_str()]);
                    gauge.set(i64::try_from(lag).unwrap_or(i64::MAX));
                }
                store_writer.order(StoreRequest::Admit(batch));
            }
            Step::Find { partition, epoch, after, without } => {
                store_writer.order(StoreRequest::Find { partition, epoch, after, without });
            }
            Step::Load { key, partition, epoch, limit } => {
                store_writer.order(StoreRequest::Load { key, partition, epoch, limit })
            }
            Step::Due(partitions) => store_writer.order(StoreRequest::Due(partitions)),
            Step::Write(change) => store_writer.order(StoreRequest::Write(change)),
            Step::Look(number) => {
                let (store, log) = (self.consumer.executor.store.clone(), self.consumer.log.clone());
                let (flow, topic) = (self.consumer.flow.name.clone(), self.consumer.layout.topics.events());
                self.tasks.spawn(async move {
                    let seen = look(&*store, &*log, &flow, &topic).await;
                    Some(Input::Looked { look: number, seen })
                });
            }
            Step::AskFrontiers => {
                let (store, flow) = (self.consumer.executor.store.clone(), self.consumer.flow.name.clone());
                self.tasks.spawn(async move {
                    let frontiers = store.frontiers(&flow).await;
                    let asked = frontiers.inspect_err(|error| {
                        tracing::debug!(flow, %error, "frontiers cannot be asked for yet; asking again");
                    });
                    Some(Input::Frontiers(asked.ok()))
                });
            }
            Step::ConfirmPause { since, under_way } => {
                tracing::info!(flow = self.consumer.flow.name, under_way, "flow is paused; nothing is begun");
                store_writer.order(StoreRequest::ConfirmPause { since, under_way });
            }
            Step::Start { assignment, offsets } => {
                tracing::info!(flow = self.consumer.flow.name, partitions = ?offsets, "partitions are ours");
                control.start(assignment, offsets);
            }
            Step::Commit(partition, offset) => control.commit(partition, offset),
            Step::Pause(partition) => control.pause(partition),
            Step::Resume(partition) => control.resume(partition),
            Step::Release => control.release(),
            Step::Rejoin(why) => {
                tracing::warn!(flow = self.consumer.flow.name, why, "joining the group anew");
                self.consumer.executor.metrics.rejoins.with_label_values(&[self.consumer.flow.name.as_str()]).inc();
                self.rejoin = true;
            }
            Step::Fail(partition, problem) => {
                self.fail(anyhow!("flow {}, partition {partition}: {problem}", self.consumer.flow.name));
            }
            Step::Work { run, epoch, permit } => {
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

    fn dead_letter(&mut self, run: Box<Run>, epoch: i64, reason: usher_proto::Reason, error: String) {
        let name = self.consumer.flow.name.clone();
        tracing::warn!(flow = name, event = %run.event.id, %reason, error, "a run is given up");
        let version = self.consumer.executor.versions.known(&run.flow_version);
        let step = version.steps.get(run.step).map(|step| step.name.clone()).unwrap_or_default();
        let (log, layout) = (self.consumer.log.clone(), self.consumer.layout.clone());
        let (store_writer, stop) = (self.consumer.executor.store_writer.clone(), self.consumer.stop.clone());
        self.tasks.spawn(async move {
            let letter = DeadLetter { flow: &name, step: &step, run: &run, reason, error: &error };
            if letter.publish(&log, &layout, &stop).await {
                store_writer.order(StoreRequest::Write(dead_letter_change(&run, epoch, reason, error)));
            }
            None
        });
    }
}
