//! One flow at work. One task owns the engine and the partitions; everything that takes time happens in tasks of its own
//! and comes back as something that has happened.

mod steps;
mod takeover;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use usher_log::{Assigned, Log, LogEvent, LogLayout, Subscription};
use usher_proto::{Key, Partition, Record};
use usher_service::clock;

use super::attempt::Workshop;
use super::partitions::{self, Partitions};
use super::scribe::Answer;
use crate::engine::lanes::WINDOW;
use crate::engine::{Engine, Input, Limits, Report, Run, RunState, Settlement};
use crate::flows::Flow;
use crate::store::{Admission, Batch, Changed, Ownership, StoreError};

/// How often timers and gauges are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often the store is asked which waits are over.
const DUE_EVERY: Duration = Duration::from_millis(500);
/// How long what is under way may take after the process was told to stop. Below the process's own deadline, for the last
/// commit comes after it.
const DRAIN_DEADLINE: Duration = Duration::from_secs(6);
/// Runs in memory and events waiting for admission above which reading pauses; it goes on at half of it.
const MAX_LOADED: usize = 4096;
/// What has happened.
enum Happened {
    Acquired {
        assignment: u64,
        assigned: Vec<Assigned>,
        owned: Vec<Ownership>,
    },
    Found {
        partition: Partition,
        epoch: i64,
        runs: Vec<Run>,
        all: bool,
    },
    Admitted {
        partition: Partition,
        epoch: i64,
        frontier: i64,
        result: Result<Answer<Admission>, StoreError>,
    },
    Worked {
        run: Box<Run>,
        epoch: i64,
        report: Report,
    },
    Settled {
        run: Box<Run>,
        epoch: i64,
        settlement: Settlement,
        changed: Changed,
    },
    Buried {
        run: Box<Run>,
        epoch: i64,
        changed: Changed,
    },
    Loaded {
        key: Key,
        runs: Vec<Run>,
    },
    Due(Answer<Vec<Run>>),
    /// A claim was refused: somebody else has taken the partition over.
    Fenced {
        partition: Partition,
        epoch: i64,
    },
    /// The process stops.
    Nothing,
}

pub(super) struct Worker {
    flow: Arc<Flow>,
    workshop: Arc<Workshop>,
    log: Arc<dyn Log>,
    layout: LogLayout,
    subscription: Subscription,
    owner: String,
    engine: Engine,
    partitions: Partitions,
    /// Partitions that are being taken over in the store. One that the log takes away meanwhile is not ours.
    acquiring: BTreeSet<Partition>,
    tasks: JoinSet<Happened>,
    paused: bool,
    asking_due: bool,
    stop: CancellationToken,
    ready: Option<oneshot::Sender<()>>,
}

impl Worker {
    pub(super) fn new(
        flow: Arc<Flow>,
        workshop: Arc<Workshop>,
        log: Arc<dyn Log>,
        layout: LogLayout,
        subscription: Subscription,
        owner: String,
    ) -> Self {
        let limits = Limits { in_flight: flow.concurrency, retry: flow.retry, expires_after: flow.expires_after };
        Self {
            flow,
            workshop,
            log,
            layout,
            subscription,
            owner,
            engine: Engine::new(limits),
            partitions: Partitions::default(),
            acquiring: BTreeSet::new(),
            tasks: JoinSet::new(),
            paused: false,
            asking_due: false,
            stop: CancellationToken::new(),
            ready: None,
        }
    }

    /// Works until `stop`; says on `ready` when it has its first partitions. An error means that the flow cannot go on.
    pub(super) async fn run(mut self, ready: oneshot::Sender<()>, stop: CancellationToken) -> anyhow::Result<()> {
        self.ready = Some(ready);
        self.stop = stop.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = tokio::time::interval(DUE_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let result = loop {
            // What is finished first: it makes room. News of the log last among what can be waited for.
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                Some(happened) = self.tasks.join_next() => match happened {
                    Ok(happened) => if let Err(error) = self.happened(happened) { break Err(error) },
                    Err(error) => break Err(anyhow!("a task of flow {} failed: {error}", self.flow.name)),
                },
                _ = tick.tick() => self.tick(),
                _ = due.tick() => self.ask_due(),
                event = self.subscription.events.recv() => match event {
                    Some(event) => if let Err(error) = self.log_says(event) { break Err(error) },
                    None => break Err(anyhow!("the subscription of flow {} has ended", self.flow.name)),
                },
            }
        };
        self.finish().await;
        result
    }

    /// Lets what is under way come to its end and be written, begins nothing new, and leaves the group.
    async fn finish(mut self) {
        self.stop.cancel();
        let drained = tokio::time::timeout(DRAIN_DEADLINE, async {
            while let Some(happened) = self.tasks.join_next().await {
                match happened {
                    Ok(happened) => {
                        if let Err(error) = self.happened(happened) {
                            tracing::warn!(flow = self.flow.name, %error, "while stopping");
                        }
                    }
                    Err(error) => tracing::warn!(flow = self.flow.name, %error, "a task failed while stopping"),
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!(flow = self.flow.name, "steps were still under way; their requests are kept and repeated");
            self.tasks.abort_all();
        }
        self.subscription.control.close().await;
    }

    fn say_ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            // Nobody listens where the process is stopping.
            let _ = ready.send(());
        }
    }

    fn log_says(&mut self, event: LogEvent) -> anyhow::Result<()> {
        match event {
            LogEvent::Assigned { partitions, .. } if partitions.is_empty() => {
                // Others have them all, and have begun long ago.
                if self.partitions.0.is_empty() && self.acquiring.is_empty() {
                    self.say_ready();
                }
            }
            LogEvent::Assigned { epoch, partitions } => self.acquire(epoch, partitions),
            LogEvent::Records { epoch, partition, records } => self.records(epoch, partition, &records),
            LogEvent::Revoked { partitions, lost } => {
                for partition in &partitions {
                    self.forget(*partition);
                }
                tracing::info!(flow = self.flow.name, ?partitions, lost, "partitions were taken away");
                if !lost {
                    self.subscription.control.release();
                }
            }
            LogEvent::Failed(error) => {
                return Err(anyhow::Error::new(error).context(format!("flow {}", self.flow.name)));
            }
        }
        Ok(())
    }

    fn records(&mut self, assignment: u64, partition: Partition, records: &[(i64, Record)]) {
        self.workshop.metrics.events.with_label_values(&[self.flow.name.as_str()]).inc_by(records.len() as u64);
        let Some(owned) = self.partitions.0.get_mut(&partition).filter(|owned| owned.assignment == assignment) else {
            return; // of an assignment that is over
        };
        let Some((last, _)) = records.last() else { return };
        let arrivals = records
            .iter()
            .filter_map(|(offset, record)| partitions::arrival(&self.flow, partition, *offset, record))
            .collect();
        let (epoch, flow_version) = (owned.epoch, self.flow.version.clone());
        owned.waiting.push_back(Batch { partition, epoch, frontier: last + 1, arrivals, flow_version });
        self.admit_next(partition);
        self.mind_the_bound();
    }

    fn admit_next(&mut self, partition: Partition) {
        let Some(batch) = self.partitions.next_batch(partition) else { return };
        let (scribe, epoch, frontier) = (self.workshop.scribe.clone(), batch.epoch, batch.frontier);
        if let Some(newest) = batch.arrivals.last() {
            let lag = clock::now().since(newest.event.received_at).as_secs();
            let gauge = self.workshop.metrics.lag_seconds.with_label_values(&[self.flow.name.as_str()]);
            gauge.set(i64::try_from(lag).unwrap_or(i64::MAX));
        }
        self.tasks.spawn(async move {
            match scribe.admit(batch).await {
                Ok(result) => Happened::Admitted { partition, epoch, frontier, result },
                Err(_) => Happened::Nothing,
            }
        });
    }

    fn happened(&mut self, happened: Happened) -> anyhow::Result<()> {
        match happened {
            Happened::Acquired { assignment, assigned, owned } => self.acquired(assignment, &assigned, owned)?,
            Happened::Found { partition, epoch, runs, all } => {
                if self.partitions.current(partition, epoch).is_none() {
                    return Ok(());
                }
                let last = runs.last().map(|run| (run.position, run.event.id.clone()));
                self.handle(Input::Admitted(runs));
                if !all {
                    self.find(partition, epoch, last);
                } else if let Some(owned) = self.partitions.current(partition, epoch) {
                    owned.recovered = true;
                    self.admit_next(partition);
                }
            }
            Happened::Admitted { partition, epoch, frontier, result } => {
                self.admitted(partition, epoch, frontier, result)?;
            }
            Happened::Worked { run, epoch, report } => {
                if self.partitions.current(run.partition, epoch).is_some() {
                    self.handle(Input::Reported { key: run.event.key, event: run.event.id, report });
                }
            }
            Happened::Settled { run, epoch, settlement, changed } => {
                if self.still_ours(run.partition, epoch, changed)? {
                    let awake = changed == Changed::Awake;
                    self.handle(Input::Settled { key: run.event.key, event: run.event.id, settlement, awake });
                }
            }
            Happened::Buried { run, epoch, changed } => {
                if self.still_ours(run.partition, epoch, changed)? {
                    self.handle(Input::Buried { key: run.event.key, event: run.event.id });
                }
            }
            Happened::Loaded { key, mut runs } => {
                let more = runs.len() > WINDOW;
                runs.truncate(WINDOW);
                self.handle(Input::Loaded { key, runs, more });
            }
            Happened::Due(Answer { answer: runs, asked_again }) => {
                self.asking_due = false;
                let ours = runs.into_iter().filter(|run| self.partitions.0.contains_key(&run.partition)).collect();
                self.handle(Input::Admitted(ours));
                if asked_again {
                    let caught_up = self.partitions.caught_up();
                    caught_up.into_iter().for_each(|(partition, epoch)| self.look_again(partition, epoch));
                }
            }
            Happened::Fenced { partition, epoch } => {
                self.still_ours(partition, epoch, Changed::Fenced)?;
            }
            Happened::Nothing => {}
        }
        if self.partitions.all_begun() {
            self.say_ready();
        }
        self.mind_the_bound();
        Ok(())
    }

    /// Whether an answer concerns a partition as we hold it now. A fence where the log still says that it is ours means
    /// that two of us believe so: this one ends, joins anew, and is told the truth.
    fn still_ours(&mut self, partition: Partition, epoch: i64, changed: Changed) -> anyhow::Result<bool> {
        let current = self.partitions.current(partition, epoch).is_some();
        if current && changed == Changed::Fenced {
            return Err(self.fenced(partition));
        }
        Ok(current)
    }

    fn fenced(&self, partition: Partition) -> anyhow::Error {
        anyhow!("flow {}: partition {partition} was taken over by somebody else", self.flow.name)
    }

    fn admitted(
        &mut self,
        partition: Partition,
        epoch: i64,
        frontier: i64,
        result: Result<Answer<Admission>, StoreError>,
    ) -> anyhow::Result<()> {
        if self.partitions.current(partition, epoch).is_none() {
            return Ok(());
        }
        // The scribe asks again after every error but the fence.
        let Answer { answer: admission, asked_again } = result.map_err(|_| self.fenced(partition))?;
        let Some(owned) = self.partitions.current(partition, epoch) else { return Ok(()) };
        owned.admitting = false;
        owned.frontier = frontier;
        owned.kept = true;
        self.subscription.control.commit(partition, frontier);
        if !admission.cancelled.is_empty() {
            self.count(RunState::Cancelled, admission.cancelled.len());
            self.handle(Input::Cancelled(admission.cancelled));
        }
        self.count_repeated(admission.repeated);
        self.handle(Input::Admitted(admission.runs));
        if asked_again {
            self.look_again(partition, epoch);
        }
        self.admit_next(partition);
        Ok(())
    }

    /// Nothing new is admitted to the partition before its unfinished runs have been found (again).
    fn look_again(&mut self, partition: Partition, epoch: i64) {
        if let Some(owned) = self.partitions.current(partition, epoch) {
            owned.recovered = false;
            self.find(partition, epoch, None);
        }
    }

    fn count_repeated(&self, events: usize) {
        let repeated = &self.workshop.metrics.repeated;
        repeated.with_label_values(&[self.flow.name.as_str()]).inc_by(events as u64);
    }

    fn tick(&mut self) {
        self.handle(Input::Tick);
        let metrics = &self.workshop.metrics;
        let set = |gauge: &prometheus::IntGaugeVec, value: usize| {
            gauge.with_label_values(&[self.flow.name.as_str()]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&metrics.in_flight, self.engine.in_flight());
        set(&metrics.retrying, self.engine.resting());
        set(&metrics.loaded, self.engine.loaded());
    }

    fn ask_due(&mut self) {
        let partitions = self.partitions.caught_up();
        if self.asking_due || partitions.is_empty() {
            return;
        }
        self.asking_due = true;
        let scribe = self.workshop.scribe.clone();
        self.tasks.spawn(async move {
            match scribe.due(partitions, clock::now()).await {
                Ok(runs) => Happened::Due(runs),
                Err(_) => Happened::Nothing,
            }
        });
    }

    /// Reading pauses while there is too much in memory, and goes on when half of it is done.
    fn mind_the_bound(&mut self) {
        let loaded = self.engine.loaded() + self.partitions.waiting();
        let pause = if self.paused { loaded > MAX_LOADED / 2 } else { loaded > MAX_LOADED };
        if pause != self.paused {
            self.paused = pause;
            for partition in self.partitions.0.keys() {
                if pause {
                    self.subscription.control.pause(*partition);
                } else {
                    self.subscription.control.resume(*partition);
                }
            }
        }
    }

    /// Tells the engine, and carries out what it says.
    fn handle(&mut self, input: Input) {
        let steps = self.engine.handle(input, clock::now(), rand::random());
        for step in steps {
            self.carry_out(step);
        }
    }
}
