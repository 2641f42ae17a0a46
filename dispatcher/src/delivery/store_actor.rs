//! Handles the engine's store requests and the claims of a flow in one task, batch after batch. The engine relies on answers
//! in the order of execution. Requests that have gathered form a batch, and its changes share a transaction.
//!
//! The order guarantees two things. A run that begins to wait and the news that would end its wait cannot miss each
//! other. It is certain whether an earlier run of the same key goes before an event.
//!
//! A request that the store does not answer is retried until it does; none is dropped. A record that the store refuses
//! for good is isolated and given up: see [`isolate`].

mod admissions;
mod turn;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use admissions::Isolating;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use turn::Turn;
use usher_engine::arrival::Batch;
use usher_engine::isolate::{self, StoreAnswer};
use usher_engine::{Change, Changed, FOUND_AT_ONCE, Input, StoreRead, StoreRequest, StoreWrite};
use usher_proto::{Epoch, Partition};
use usher_service::clock;
use usher_sql::Outage;
use usher_sql::fault::DatabaseFault;
use usher_store::{FirstClaims, HeadsQuery, LaneQuery, LaneRuns, RunStore, StoreError};

use crate::metrics::DispatcherMetrics;

/// Largest number of requests handled together, and therefore of changes in one transaction.
const MAX_BATCH: usize = 256;
/// Pause before the store is retried.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// Tries of a request whose error does not show whether time fixes it. After them it is isolated: if the store accepts
/// other requests meanwhile, the record is at fault.
const UNCLEAR_TRIES: u32 = 5;

/// A message to the actor.
enum Message {
    Request(StoreRequest),
    Claim(Change, oneshot::Sender<Changed>),
}

/// Handle that sends requests to a flow's [`StoreActor`].
#[derive(Clone)]
pub(super) struct StoreHandle {
    messages: mpsc::UnboundedSender<Message>,
    waits: Waits,
}

/// Instant since which the store has owed an answer; `None` while no request is pending.
#[derive(Debug, Clone, Default)]
struct Waits(Arc<Mutex<Option<Instant>>>);

impl Waits {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Begins now, unless an answer is owed already.
    fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
    }

    fn get(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// The process ends before this could be written; it will be found not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

impl StoreHandle {
    /// Starts the store actor of a flow. Its answers go to `answers`.
    pub(super) fn start(parts: StoreParts, answers: mpsc::UnboundedSender<Input>) -> Self {
        // Unbounded here: the engine and the size of the log's batches limit what can be in flight.
        let (messages, queue) = mpsc::unbounded_channel();
        let waits = Waits::default();
        let waiting = waits.clone();
        let actor = StoreActor { parts, answers, waits };
        tokio::spawn(actor.run(queue));
        Self { messages, waits: waiting }
    }

    /// Sends a request. Its answer goes to the flow's consumer.
    pub(super) fn send(&self, request: StoreRequest) {
        // Not only once the actor takes it: a flow that has looked in between would take itself for one at rest.
        self.waits.begin();
        // The actor is gone only after a stop, and then nothing waits for the answer.
        let _ = self.messages.send(Message::Request(request));
    }

    /// Returns the time that a pending request has been without an answer; zero while none is pending.
    pub(super) fn pending_for(&self) -> Duration {
        self.waits.get()
    }

    /// Writes a claim, in order with the other requests, and waits for the result.
    pub(super) async fn claim(&self, change: Change) -> Result<Changed, Stopped> {
        let (answer, answered) = oneshot::channel();
        // As above: then the receiver reports it.
        let _ = self.messages.send(Message::Claim(change, answer));
        answered.await.map_err(|_| Stopped)
    }
}

/// Receiver of the result of a change.
enum ReplyTo {
    FlowConsumer,
    Attempt(oneshot::Sender<Changed>),
}

/// The flow, its store, and the means to carry out the requests of one process.
pub(super) struct StoreParts {
    pub(super) flow: String,
    pub(super) owner: String,
    pub(super) store: Arc<dyn RunStore>,
    pub(super) claims: Arc<dyn FirstClaims>,
    pub(super) metrics: DispatcherMetrics,
    pub(super) outage: Outage,
    pub(super) stop: CancellationToken,
}

struct StoreActor {
    parts: StoreParts,
    answers: mpsc::UnboundedSender<Input>,
    waits: Waits,
}

impl StoreActor {
    async fn run(self, mut queue: mpsc::UnboundedReceiver<Message>) {
        let mut messages = Vec::with_capacity(MAX_BATCH);
        while queue.recv_many(&mut messages, MAX_BATCH).await > 0 {
            self.waits.set(Some(Instant::now()));
            let mut changes = Vec::new();
            let mut writes = Vec::new();
            let mut reads = Vec::new();
            for message in messages.drain(..) {
                match message {
                    Message::Claim(change, answer) => changes.push((change, ReplyTo::Attempt(answer))),
                    Message::Request(StoreRequest::Change(change)) => changes.push((change, ReplyTo::FlowConsumer)),
                    Message::Request(StoreRequest::Write(write)) => writes.push(write),
                    Message::Request(StoreRequest::Read(read)) => reads.push(read),
                }
            }
            // The order within a batch is free, as long as each answer reflects the store at its time. Changes come
            // first, all at once. Reads come last, because nothing is written between them and their answers.
            // Admissions are prepared while the changes are written.
            let turn = Turn::default();
            let (changed, written) =
                futures::join!(turn.after(self.apply_changes(changes)), turn.run(self.run_writes(writes, &turn)));
            if changed.is_none() || written.is_none() || self.run_reads(reads).await.is_none() {
                return;
            }
            self.waits.set(None);
        }
    }

    fn answer(&self, input: Input) {
        // The consumer is gone only after a stop.
        let _ = self.answers.send(input);
    }

    async fn apply_changes(&self, changes: Vec<(Change, ReplyTo)>) -> Option<()> {
        if changes.is_empty() {
            return Some(());
        }
        let (changes, replies): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
        let changed = isolate::change(&Isolating::news(self), &changes).await?;
        let refused = changed.iter().filter(|changed| **changed == Changed::Refused).count();
        self.count_refused("change", refused);
        for ((change, changed), reply_to) in changes.into_iter().zip(changed).zip(replies) {
            match reply_to {
                ReplyTo::FlowConsumer => self.answer(Input::Written { change, changed }),
                // The caller is gone only if the process is stopping.
                ReplyTo::Attempt(answer) => drop(answer.send(changed)),
            }
        }
        Some(())
    }

    async fn run_writes(&self, writes: Vec<StoreWrite>, turn: &Turn) -> Option<()> {
        let mut batches = Vec::new();
        let mut others = Vec::new();
        for write in writes {
            match write {
                StoreWrite::Admit(batch) => batches.push(batch),
                other => others.push(other),
            }
        }
        self.run_admissions(batches, turn).await?;
        if !others.is_empty() {
            turn.come().await;
        }
        for write in others {
            match write {
                StoreWrite::Acquire { assignment, partitions } => {
                    let (owned, _) = self
                        .retry(|| self.parts.store.acquire(&self.parts.flow, &partitions, &self.parts.owner))
                        .await?;
                    self.answer(Input::Acquired { assignment, owned });
                }
                StoreWrite::Admit(batch) => self.run_admissions(vec![batch], turn).await?,
                StoreWrite::Tell(batch) => {
                    let Batch { partition, epoch, frontier: below, .. } = batch;
                    let store = Isolating::news(self);
                    let isolated = isolate::admit(&store, batch).await?;
                    self.count_refused("news", isolated.refused);
                    let retried = isolated.in_parts || store.has_retried();
                    self.answer(Input::Told { partition, epoch, below, admission: isolated.admission, retried });
                }
                StoreWrite::Due(partitions) => {
                    let now = clock::now();
                    let (due, retried) =
                        self.retry(|| self.parts.store.due(&self.parts.flow, &partitions, now)).await?;
                    self.answer(Input::Due { heads: due.heads, behind: due.behind, next: due.next, retried });
                    for (partition, epoch) in due.fenced {
                        self.answer(Input::Fenced { partition, epoch });
                    }
                }
                StoreWrite::ConfirmPause { since, under_way } => {
                    self.retry(|| {
                        self.parts.store.confirm_pause(&self.parts.flow, &self.parts.owner, since, under_way)
                    })
                    .await?;
                }
            }
        }
        Some(())
    }

    /// Answers requests that change nothing. The result is `None` if the process stops.
    async fn run_reads(&self, reads: Vec<StoreRead>) -> Option<()> {
        let mut finds = Vec::new();
        let mut loads = Vec::new();
        for read in reads {
            match read {
                StoreRead::Find { partition, epoch, after, without } => {
                    finds.push(self.find(epoch, HeadsQuery { partition, after, without, limit: FOUND_AT_ONCE }));
                }
                StoreRead::Load { key, partition, epoch, limit } => {
                    loads.push((partition, epoch, LaneQuery { key, limit }));
                }
            }
        }
        let (found, loaded) = futures::join!(futures::future::join_all(finds), self.load(loads));
        for answer in found {
            self.answer(answer?);
        }
        loaded
    }

    async fn find(&self, epoch: Epoch, of: HeadsQuery) -> Option<Input> {
        let (heads, _) = self.retry(|| self.parts.store.heads(&self.parts.flow, &of)).await?;
        let all = heads.len() < FOUND_AT_ONCE;
        Some(Input::Found { partition: of.partition, epoch, heads, all })
    }

    /// Reads lanes, all at once.
    async fn load(&self, loads: Vec<(Partition, Epoch, LaneQuery)>) -> Option<()> {
        if loads.is_empty() {
            return Some(());
        }
        let queries: Vec<LaneQuery> = loads.iter().map(|(.., query)| query.clone()).collect();
        let (lanes, _) = self.retry(|| self.parts.store.lanes(&self.parts.flow, &queries)).await?;
        for ((partition, epoch, LaneQuery { key, .. }), LaneRuns { runs, more }) in loads.into_iter().zip(lanes) {
            self.answer(Input::Loaded { key, partition, epoch, runs, more });
        }
        Some(())
    }

    fn count_refused(&self, what: &str, records: usize) {
        if records > 0 {
            let counter = self.parts.metrics.unstorable.with_label_values(&[self.parts.flow.as_str(), what]);
            counter.inc_by(records as u64);
            tracing::error!(
                flow = self.parts.flow,
                what,
                records,
                "the store refuses records for good; they are given up"
            );
        }
    }

    /// Retries until the store answers. The flag is true if an earlier try may have been applied and its answer lost;
    /// then this result omits what that try did. Returns `None` if the process stops meanwhile.
    async fn retry<T, F: Future<Output = Result<T, StoreError>>>(&self, ask: impl Fn() -> F) -> Option<(T, bool)> {
        let mut retried = false;
        loop {
            match self.try_once(&ask).await {
                Ok(answer) => return Some((answer, retried)),
                // These requests hold no data that the store could refuse.
                Err(error) => self.back_off(&error).await?,
            }
            retried = true;
        }
    }

    /// Does the same as [`Self::retry`], for requests that the store may refuse. `retried` becomes true with the first retry.
    async fn retry_refusable<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        retried: &AtomicBool,
        ask: impl Fn() -> F,
    ) -> Option<StoreAnswer<T, StoreError>> {
        let mut unclear = 0;
        loop {
            let error = match self.try_once(&ask).await {
                Ok(answer) => return Some(StoreAnswer::Done(answer)),
                Err(error) => error,
            };
            match error.fault() {
                DatabaseFault::Refused => return Some(StoreAnswer::Refused(error)),
                DatabaseFault::Unclear if unclear + 1 >= UNCLEAR_TRIES => return Some(StoreAnswer::Refused(error)),
                DatabaseFault::Unclear => unclear += 1,
                DatabaseFault::Transient | DatabaseFault::NeedsOperator | DatabaseFault::Damaged => unclear = 0,
            }
            self.back_off(&error).await?;
            retried.store(true, Ordering::Relaxed);
        }
    }

    async fn try_once<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        ask: &impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let timer = self.parts.metrics.store_seconds.start_timer();
        let answer = ask().await;
        timer.observe_duration();
        if answer.is_ok() {
            self.parts.outage.record_success();
            self.waits.set(Some(Instant::now()));
        }
        answer
    }

    /// Reports the failure of the store and pauses. Returns `None` if the process is stopping.
    async fn back_off(&self, error: &StoreError) -> Option<()> {
        self.parts.outage.record_failure(error.fault(), &error.to_string()).await;
        if self.parts.stop.is_cancelled() {
            return None;
        }
        tokio::time::sleep(ASK_AGAIN).await;
        Some(())
    }
}
