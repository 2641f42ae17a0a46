//! All that a flow asks of the store, in one order, and answered in that order: the engine relies on both. What has
//! gathered shares a transaction.
//!
//! One order matters: a run that begins to wait and the news that would end its wait cannot miss each other, and whether
//! something of a key goes before an event is known for certain. A store that does not answer is asked again until it
//! does; nothing is dropped. A record that it refuses for good is isolated and given up: see [`isolate`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use usher_proto::{EventRef, Partition, SubjectId, Timestamp};
use usher_service::clock;

use crate::engine::arrival::{Admission, Batch};
use crate::engine::{Change, Changed, FOUND_AT_ONCE, Input};
use crate::metrics::Metrics;
use crate::sql::Outage;
use crate::sql::fault::Fault;
use crate::store::isolate::{self, RetryingStore, StoreAnswer};
use crate::store::{HeadsOf, Store, StoreError};

/// How many orders are looked at together, and so how many changes share a transaction at most.
const MAX_WRITE_BATCH: usize = 256;
/// The pause before the store is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// How often the same is asked whose error does not tell whether time mends it. Then it is isolated: where others are
/// taken meanwhile, the record is at fault.
const UNCLEAR_TRIES: u32 = 5;

/// What is asked of the store. See the steps of the engine of the same names.
pub(super) enum StoreRequest {
    Acquire { assignment: u64, partitions: Vec<Partition> },
    Admit(Batch),
    Find { partition: Partition, epoch: i64, after: Option<(i64, EventRef)>, without: Vec<String> },
    Load { key: SubjectId, partition: Partition, epoch: i64, limit: usize },
    Due(Vec<(Partition, i64)>),
    Write(Change),
    ConfirmPause { since: Timestamp, under_way: usize },
    Claim(Change, oneshot::Sender<Changed>),
}

/// Hands over what is asked.
#[derive(Clone)]
pub(super) struct StoreWriter {
    orders: mpsc::UnboundedSender<StoreRequest>,
    waits: Waits,
}

/// Since when the store has been asked for something without an answer.
#[derive(Debug, Clone, Default)]
struct Waits(Arc<Mutex<Option<Instant>>>);

impl Waits {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn get(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// The process ends before this could be written; it will be found undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

impl StoreWriter {
    /// Starts the store_writer of a flow; it answers to `answers`.
    pub(super) fn start(
        flow: String,
        owner: String,
        store: Arc<dyn Store>,
        metrics: Metrics,
        outage: Outage,
        stop: CancellationToken,
        answers: mpsc::UnboundedSender<Input>,
    ) -> Self {
        // Not bounded here: what may be under way is bounded by the engine and by the batches of the log.
        let (orders, queue) = mpsc::unbounded_channel();
        let waits = Waits::default();
        let (asked_again, waiting) = (AtomicBool::new(false), waits.clone());
        let limiter = StoreActor { flow, owner, store, metrics, outage, stop, answers, asked_again, waits };
        tokio::spawn(limiter.run(queue));
        Self { orders, waits: waiting }
    }

    /// Hands an order over; its answer comes to the flow's worker.
    pub(super) fn order(&self, order: StoreRequest) {
        // A limiter that is gone has been stopped, and so is whoever would wait for the answer.
        let _ = self.orders.send(order);
    }

    /// For how long the store has not answered what it was asked; zero while nothing is asked.
    pub(super) fn waits_for(&self) -> Duration {
        self.waits.get()
    }

    /// Writes a claim, in its turn, and waits for it.
    pub(super) async fn claim(&self, change: Change) -> Result<Changed, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.order(StoreRequest::Claim(change, answer));
        answered.await.map_err(|_| Stopped)
    }
}

/// Who is to hear what came of a change.
enum ReplyTo {
    FlowConsumer,
    Attempt(oneshot::Sender<Changed>),
}

struct StoreActor {
    flow: String,
    owner: String,
    store: Arc<dyn Store>,
    metrics: Metrics,
    outage: Outage,
    stop: CancellationToken,
    answers: mpsc::UnboundedSender<Input>,
    /// Whether something of the present order had to be asked again.
    asked_again: AtomicBool,
    waits: Waits,
}

impl StoreActor {
    async fn run(self, mut queue: mpsc::UnboundedReceiver<StoreRequest>) {
        let mut orders = Vec::with_capacity(MAX_WRITE_BATCH);
        while queue.recv_many(&mut orders, MAX_WRITE_BATCH).await > 0 {
            self.waits.set(Some(Instant::now()));
            let (mut changes, mut hear) = (Vec::new(), Vec::new());
            let (mut others, mut reads) = (Vec::new(), Vec::new());
            for order in orders.drain(..) {
                match order {
                    StoreRequest::Write(change) => {
                        changes.push(change);
                        hear.push(ReplyTo::FlowConsumer);
                    }
                    StoreRequest::Claim(change, answer) => {
                        changes.push(change);
                        hear.push(ReplyTo::Attempt(answer));
                    }
                    StoreRequest::Find { .. } | StoreRequest::Load { .. } => reads.push(order),
                    StoreRequest::Acquire { .. }
                    | StoreRequest::Admit(_)
                    | StoreRequest::Due(_)
                    | StoreRequest::ConfirmPause { .. } => {
                        others.push(order);
                    }
                }
            }
            // The order within a group is ours to choose, as long as the answers tell of the store as it then was: the
            // changes first, all at once, and the reads last, for nothing is written between them and their answers.
            let done = self.change(changes, hear).await.is_some()
                && self.write(others).await.is_some()
                && self.read(reads).await.is_some();
            if !done {
                return;
            }
            self.waits.set(None);
        }
    }

    fn answer(&self, input: Input) {
        // A worker that is gone has been stopped.
        let _ = self.answers.send(input);
    }

    async fn change(&self, changes: Vec<Change>, hear: Vec<ReplyTo>) -> Option<()> {
        if changes.is_empty() {
            return Some(());
        }
        let changed = isolate::change(self, &changes).await?;
        let refused = changed.iter().filter(|changed| **changed == Changed::Refused).count();
        self.gave_up("change", refused);
        for ((change, changed), hears) in changes.into_iter().zip(changed).zip(hear) {
            match hears {
                ReplyTo::FlowConsumer => self.answer(Input::Written { change, changed }),
                // Whoever asked is gone with the process.
                ReplyTo::Attempt(answer) => drop(answer.send(changed)),
            }
        }
        Some(())
    }

    async fn write(&self, orders: Vec<StoreRequest>) -> Option<()> {
        for order in orders {
            match order {
                StoreRequest::Acquire { assignment, partitions } => {
                    let (owned, _) = self.ask(|| self.store.acquire(&self.flow, &partitions, &self.owner)).await?;
                    self.answer(Input::Acquired { assignment, owned });
                }
                StoreRequest::Admit(batch) => {
                    let (partition, epoch, frontier) = (batch.partition, batch.epoch, batch.frontier);
                    self.asked_again.store(false, Ordering::Relaxed);
                    let isolated = isolate::admit(self, batch).await?;
                    self.gave_up("admission", isolated.refused);
                    // In parts, what is a head may have been taken up by a later part: it is looked for again.
                    let asked_again = isolated.in_parts || self.asked_again.load(Ordering::Relaxed);
                    let admission = isolated.admission;
                    self.answer(Input::Admitted { partition, epoch, frontier, admission, asked_again });
                }
                StoreRequest::Due(partitions) => {
                    let now = clock::now();
                    let (due, asked_again) = self.ask(|| self.store.due(&self.flow, &partitions, now)).await?;
                    self.answer(Input::Due { heads: due.heads, behind: due.behind, asked_again });
                    for (partition, epoch) in due.fenced {
                        self.answer(Input::Fenced { partition, epoch });
                    }
                }
                StoreRequest::ConfirmPause { since, under_way } => {
                    self.ask(|| self.store.confirm_pause(&self.flow, &self.owner, since, under_way)).await?;
                }
                StoreRequest::Find { .. }
                | StoreRequest::Load { .. }
                | StoreRequest::Write(_)
                | StoreRequest::Claim(..) => {}
            }
        }
        Some(())
    }

    async fn read(&self, orders: Vec<StoreRequest>) -> Option<()> {
        let answers = futures::future::join_all(orders.into_iter().map(|order| self.look(order))).await;
        for answer in answers {
            if let Some(input) = answer? {
                self.answer(input);
            }
        }
        Some(())
    }

    /// The answer to a question that changes nothing.
    async fn look(&self, order: StoreRequest) -> Option<Option<Input>> {
        Some(match order {
            StoreRequest::Find { partition, epoch, after, without } => {
                let of = HeadsOf { partition, after, without, limit: FOUND_AT_ONCE };
                let (heads, _) = self.ask(|| self.store.heads(&self.flow, &of)).await?;
                let all = heads.len() < FOUND_AT_ONCE;
                Some(Input::Found { partition, epoch, heads, all })
            }
            StoreRequest::Load { key, partition, epoch, limit } => {
                let ((runs, more), _) = self.ask(|| self.store.lane(&self.flow, &key, limit)).await?;
                Some(Input::Loaded { key, partition, epoch, runs, more })
            }
            StoreRequest::Acquire { .. }
            | StoreRequest::Admit(_)
            | StoreRequest::Due(_)
            | StoreRequest::Write(_)
            | StoreRequest::ConfirmPause { .. }
            | StoreRequest::Claim(..) => None,
        })
    }

    fn gave_up(&self, what: &str, records: usize) {
        if records > 0 {
            let counter = self.metrics.unstorable.with_label_values(&[self.flow.as_str(), what]);
            counter.inc_by(records as u64);
            tracing::error!(flow = self.flow, what, records, "the store refuses records for good; they are given up");
        }
    }

    /// Asks until there is an answer, and says whether it had to be asked again: an earlier asking may have been carried
    /// out and its answer lost, and then this one leaves out what that one did. None when the process stops meanwhile.
    async fn ask<T, F: Future<Output = Result<T, StoreError>>>(&self, ask: impl Fn() -> F) -> Option<(T, bool)> {
        let mut asked_again = false;
        loop {
            match self.ask_once(&ask).await {
                Ok(answer) => return Some((answer, asked_again)),
                // What only asks holds no data that could be refused.
                Err(error) => self.wait(&error).await?,
            }
            asked_again = true;
        }
    }

    /// The same where the store may refuse what it is asked.
    async fn ask_for<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Option<StoreAnswer<T>> {
        let mut unclear = 0;
        loop {
            let error = match self.ask_once(&ask).await {
                Ok(answer) => return Some(StoreAnswer::Done(answer)),
                Err(error) => error,
            };
            match error.fault() {
                Fault::Refused => return Some(StoreAnswer::Refused(error)),
                Fault::Unclear if unclear + 1 >= UNCLEAR_TRIES => return Some(StoreAnswer::Refused(error)),
                Fault::Unclear => unclear += 1,
                Fault::Passing | Fault::Setting | Fault::Damaged => unclear = 0,
            }
            self.wait(&error).await?;
            self.asked_again.store(true, Ordering::Relaxed);
        }
    }

    async fn ask_once<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        ask: &impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let timer = self.metrics.store_seconds.start_timer();
        let answer = ask().await;
        timer.observe_duration();
        if answer.is_ok() {
            self.outage.over();
            self.waits.set(Some(Instant::now()));
        }
        answer
    }

    /// Says that the store does not do as asked, and lets some time pass. None when the process stops.
    async fn wait(&self, error: &StoreError) -> Option<()> {
        self.outage.failed(error.fault(), &error.to_string()).await;
        if self.stop.is_cancelled() {
            return None;
        }
        tokio::time::sleep(ASK_AGAIN).await;
        Some(())
    }
}

#[async_trait]
impl RetryingStore for StoreActor {
    async fn admit(&self, batch: &Batch) -> Option<StoreAnswer<Option<Admission>>> {
        let admit = || async {
            match self.store.admit(&self.flow, batch).await {
                Ok(admission) => Ok(Some(admission)),
                Err(StoreError::Fenced(_)) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.ask_for(admit).await
    }

    async fn change(&self, changes: &[Change]) -> Option<StoreAnswer<Vec<Changed>>> {
        // A change that is written twice is written once, so it does not matter whether it was asked again.
        self.ask_for(|| self.store.change(&self.flow, changes)).await
    }

    async fn refuses_everything(&self, error: &StoreError) -> Option<()> {
        self.wait(error).await
    }
}
