//! Fires a scheduled flow: the replica that owns the flow's first partition makes the events of each firing, and appends them to
//! the log like those of any other source. It decides nothing itself; `usher_engine::firing` does.
//!
//! The progress is kept in the store under the partition's epoch. A predecessor that wakes up late changes nothing there, and
//! what it appends nevertheless has the ids of events that are known.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use usher_engine::clock::ClockState;
use usher_engine::firing::{Calendar as _, Firing, FiringDecision, ScheduleProgress, decide};
use usher_eventlog::{AppendError, Log, TopicSpec};
use usher_flows::{Flow, Schedule, firing_event};
use usher_proto::{Epoch, Partition, Source, SubjectId, Timestamp};
use usher_service::clock;
use usher_sql::Outage;
use usher_store::{LivingUser, Store, StoreError};

use crate::metrics::{DispatcherMetrics, MADE, SKIPPED_FIRING};

/// The partition whose owner fires the flow. Every topic has it.
pub(super) const FIRST: Partition = Partition(0);
/// Longest sleep before a time: the clock may be set meanwhile, or the machine suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// Pause after a failure of the store or the log.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Number of users that are read at a time.
const PAGE: usize = 500;
/// Largest number of events that are appended at a time. Together they are acknowledged as fast as one.
const AT_ONCE: usize = 64;
/// Longest time for which the cursor is not written while no user is selected.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Number of users that are looked at before other tasks get their turn.
const LOOKED_AT: usize = 32;

/// The scheduler of one flow in one process.
pub(super) struct FlowScheduler {
    pub(super) flow: Arc<Flow>,
    pub(super) schedule: Schedule,
    pub(super) store: Arc<dyn Store>,
    pub(super) log: Arc<dyn Log>,
    pub(super) topic: TopicSpec,
    /// The epoch of the first partition while this process owns it and may begin steps; otherwise absent.
    pub(super) ownership: watch::Receiver<Option<Epoch>>,
    /// Nothing is fired before the clock is proven right.
    pub(super) clock: watch::Receiver<ClockState>,
    pub(super) metrics: DispatcherMetrics,
    pub(super) outage: Outage,
}

/// The reason why a firing does not go on for now.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    /// This process may not fire at present: it lost the partition, the flow is paused or catches up, or its clock is doubtful.
    #[error("it may not fire now")]
    NotNow,
    /// Another replica has the partition already.
    #[error("another replica fires")]
    Fenced,
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Log(#[from] AppendError),
}

impl FlowScheduler {
    /// Runs until it is dropped. What is interrupted goes on at the place that the store holds.
    pub(super) async fn run(mut self) {
        loop {
            let epoch = self.may_fire().await;
            let Err(interrupted) = self.follow(epoch).await;
            match &interrupted {
                Interrupted::NotNow => continue,
                Interrupted::Fenced => {}
                Interrupted::Store(error) => self.outage.record_failure(error.fault(), &error.to_string()).await,
                Interrupted::Log(error) => {
                    tracing::warn!(flow = self.flow.name, %error, "a firing waits for the log; retrying");
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Waits until this process may fire. Returns its epoch.
    async fn may_fire(&mut self) -> Epoch {
        loop {
            let owned = *self.ownership.borrow_and_update();
            let is_right = *self.clock.borrow_and_update() == ClockState::Right;
            if let Some(epoch) = owned.filter(|_| is_right) {
                return epoch;
            }
            self.changed().await;
        }
    }

    async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.ownership.changed() => changed,
            changed = self.clock.changed() => changed,
        };
        if changed.is_err() {
            // The flow has ended, and so will this task.
            std::future::pending::<()>().await;
        }
    }

    fn still(&self, epoch: Epoch) -> Result<(), Interrupted> {
        let may = *self.ownership.borrow() == Some(epoch) && *self.clock.borrow() == ClockState::Right;
        if may { Ok(()) } else { Err(Interrupted::NotNow) }
    }

    /// Carries out what is due, and sleeps between, until something interrupts it.
    async fn follow(&mut self, epoch: Epoch) -> Result<Infallible, Interrupted> {
        let mut known = self.store.schedule_progress(&self.flow.name).await?;
        let plan = self.schedule.plan();
        let policy = self.flow.firing_policy();
        let flow = self.flow.clone();
        let flow = flow.name.as_str();
        loop {
            self.still(epoch)?;
            let now = clock::now();
            let decision = decide(known.as_ref(), &plan, &self.schedule, policy, now);
            let progress = known.unwrap_or_else(|| ScheduleProgress::new(&plan, now));
            known = Some(match decision {
                FiringDecision::Wait(next) => {
                    self.sleep(next).await;
                    progress
                }
                FiringDecision::Restart => {
                    let new = ScheduleProgress::new(&plan, now);
                    let next = self.schedule.next(now);
                    tracing::info!(flow, schedule = plan, ?next, "schedule is new or changed");
                    self.keep(epoch, new).await?
                }
                FiringDecision::Skip { until, times } => {
                    tracing::warn!(flow, %until, times, "firings missed and skipped");
                    let kept = self.keep(epoch, progress.settled(until)).await?;
                    self.count(SKIPPED_FIRING, times);
                    kept
                }
                FiringDecision::Begin { at, skipped } => {
                    let late = now.since(at);
                    tracing::info!(flow, scheduled_for = %at, late_ms = late.as_millis(), skipped, "firing begins");
                    let kept = self.keep(epoch, progress.firing(Firing { at, after: None })).await?;
                    self.count(SKIPPED_FIRING, skipped);
                    let lateness = self.metrics.firing_lateness.with_label_values(&[flow]);
                    lateness.set(i64::try_from(late.as_secs()).unwrap_or(i64::MAX));
                    kept
                }
                FiringDecision::Continue(firing) => {
                    let at = firing.at;
                    let (subjects, last) = self.fire(epoch, progress, firing).await?;
                    let kept = self.keep(epoch, last.settled(at)).await?;
                    self.count(MADE, 1);
                    tracing::info!(flow, scheduled_for = %at, subjects, "firing made");
                    kept
                }
            });
        }
    }

    /// Sleeps until this time, at most a few seconds, or until something changes.
    async fn sleep(&mut self, until: Option<Timestamp>) {
        let pause = until.map_or(LONGEST_SLEEP, |until| until.since(clock::now())).min(LONGEST_SLEEP);
        // The time is over when this ends, not a fraction of a millisecond before.
        let pause = pause + Duration::from_millis(1);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.changed() => {}
        }
    }

    async fn keep(&self, epoch: Epoch, progress: ScheduleProgress) -> Result<ScheduleProgress, Interrupted> {
        let next = self.schedule.next(clock::now().max(progress.settled));
        let owned = (FIRST, epoch);
        let kept = self.store.keep_schedule(&self.flow.name, owned, &progress, next).await?;
        if kept { Ok(progress) } else { Err(Interrupted::Fenced) }
    }

    fn count(&self, state: &str, times: u64) {
        self.metrics.firings.with_label_values(&[self.flow.name.as_str(), state]).inc_by(times);
    }

    /// Makes the events of a firing, from its cursor on. Returns the number of events that this process made, and the progress
    /// that it wrote last.
    async fn fire(
        &self,
        epoch: Epoch,
        mut progress: ScheduleProgress,
        mut firing: Firing,
    ) -> Result<(usize, ScheduleProgress), Interrupted> {
        if self.schedule.subjects.is_none() {
            let own: Vec<SubjectId> = self.flow.instances.iter().map(|it| self.flow.own_subject(it)).collect();
            self.append(firing.at, &own).await?;
            return Ok((own.len(), progress));
        }
        let pace = self.schedule.pace;
        // A tenth of a second's worth at a time, so that a fast pace is even.
        let at_once = ((pace.rate() / 10.0) as usize).clamp(1, AT_ONCE);
        let begun = Instant::now();
        let mut kept_at = begun;
        let mut made = 0;
        loop {
            let users = self.store.living_users(firing.after.as_ref(), PAGE).await?;
            let is_last = users.len() < PAGE;
            let last = users.last().map(|user| user.subject.clone());
            let selected = self.selected(users).await;
            for subjects in selected.chunks(at_once) {
                self.still(epoch)?;
                self.append(firing.at, subjects).await?;
                made += subjects.len();
                tokio::time::sleep_until(begun + pace.time_of(made)).await;
            }
            self.still(epoch)?;
            if is_last {
                return Ok((made, progress));
            }
            firing.after = last;
            if !selected.is_empty() || kept_at.elapsed() >= KEEP_EVERY {
                progress = self.keep(epoch, progress.firing(firing.clone())).await?;
                kept_at = Instant::now();
            }
        }
    }

    /// Returns those of the users whom the schedule selects. A user for whom that cannot be determined is one of them: the run
    /// determines it again, and is dead-lettered, where an operator sees it.
    async fn selected(&self, users: Vec<LivingUser>) -> Vec<SubjectId> {
        let mut selected = Vec::new();
        for (number, LivingUser { subject, snapshot }) in users.into_iter().enumerate() {
            if number % LOOKED_AT == LOOKED_AT - 1 {
                tokio::task::yield_now().await;
            }
            let is_served =
                subject.source() == Source::Clerk.label() && self.flow.instances.contains(subject.instance());
            if is_served && self.flow.selects(&snapshot).unwrap_or(true) {
                selected.push(subject);
            }
        }
        selected
    }

    async fn append(&self, at: Timestamp, subjects: &[SubjectId]) -> Result<(), Interrupted> {
        let now = clock::now();
        let event = |subject| firing_event(&self.flow, &self.schedule, at, subject, now).into_record();
        let appended = subjects.iter().map(|subject| self.log.append(&self.topic, event(subject)));
        for appended in join_all(appended).await {
            appended?;
        }
        Ok(())
    }
}
