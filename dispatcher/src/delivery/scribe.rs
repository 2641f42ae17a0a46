//! All of a flow's writes to the store, in one order: what has gathered shares a transaction.
//!
//! One order matters: a run that begins to wait and the news that would end its wait cannot miss each other. A store that
//! does not answer is asked again until it does; nothing is dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use usher_proto::{Partition, Timestamp};
use usher_service::Readiness;

use crate::engine::Run;
use crate::metrics::Metrics;
use crate::store::{Admission, Batch, Change, Changed, Store, StoreError};

/// How many changes share a transaction at most.
const GROUP: usize = 256;
/// The pause before the store is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(300);

enum Order {
    Admit(Batch, oneshot::Sender<Result<Answer<Admission>, StoreError>>),
    Change(Change, oneshot::Sender<Changed>),
    Due(Vec<(Partition, i64)>, Timestamp, oneshot::Sender<Answer<Vec<Run>>>),
}

/// What the store answered.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) answer: T,
    /// It had to be asked again. An earlier asking may have been carried out and its answer lost, and then this one leaves
    /// out what that one did.
    pub(super) asked_again: bool,
}

/// Hands over what is to be written.
#[derive(Clone)]
pub(super) struct Scribe {
    orders: mpsc::UnboundedSender<Order>,
}

/// The process ends before this could be written; it will be found undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

impl Scribe {
    pub(super) fn start(
        flow: String,
        store: Arc<dyn Store>,
        metrics: Metrics,
        readiness: Readiness,
        stop: CancellationToken,
    ) -> Self {
        // Not bounded here: what may be under way is bounded by the engine and by the batches of the log.
        let (orders, queue) = mpsc::unbounded_channel();
        let desk = Desk { flow, store, metrics, readiness, stop };
        tokio::spawn(desk.run(queue));
        Self { orders }
    }

    pub(super) async fn admit(&self, batch: Batch) -> Result<Result<Answer<Admission>, StoreError>, Stopped> {
        self.hand_over(|answer| Order::Admit(batch, answer)).await
    }

    pub(super) async fn change(&self, change: Change) -> Result<Changed, Stopped> {
        self.hand_over(|answer| Order::Change(change, answer)).await
    }

    pub(super) async fn due(
        &self,
        partitions: Vec<(Partition, i64)>,
        now: Timestamp,
    ) -> Result<Answer<Vec<Run>>, Stopped> {
        self.hand_over(|answer| Order::Due(partitions, now, answer)).await
    }

    async fn hand_over<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(order(answer)).map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

struct Desk {
    flow: String,
    store: Arc<dyn Store>,
    metrics: Metrics,
    readiness: Readiness,
    stop: CancellationToken,
}

impl Desk {
    async fn run(self, mut queue: mpsc::UnboundedReceiver<Order>) {
        let mut orders = Vec::with_capacity(GROUP);
        while queue.recv_many(&mut orders, GROUP).await > 0 {
            let (mut changes, mut answers) = (Vec::new(), Vec::new());
            for order in orders.drain(..) {
                match order {
                    Order::Change(change, answer) => {
                        changes.push(change);
                        answers.push(answer);
                    }
                    Order::Admit(batch, answer) => {
                        self.change(&mut changes, &mut answers).await;
                        if let Some(admitted) = self.ask(|| self.store.admit(&self.flow, &batch)).await {
                            reply(answer, admitted);
                        }
                    }
                    Order::Due(partitions, now, answer) => {
                        self.change(&mut changes, &mut answers).await;
                        if let Some(Ok(runs)) = self.ask(|| self.store.due(&self.flow, &partitions, now)).await {
                            reply(answer, runs);
                        }
                    }
                }
            }
            self.change(&mut changes, &mut answers).await;
        }
    }

    async fn change(&self, changes: &mut Vec<Change>, answers: &mut Vec<oneshot::Sender<Changed>>) {
        if changes.is_empty() {
            return;
        }
        // A change that is written twice is written once, so it does not matter whether it was asked again.
        if let Some(Ok(changed)) = self.ask(|| self.store.change(&self.flow, changes)).await {
            for (answer, changed) in answers.drain(..).zip(changed.answer) {
                reply(answer, changed);
            }
        }
        changes.clear();
        answers.clear();
    }

    /// Asks until there is an answer; a fence is one. None when the process stops meanwhile.
    async fn ask<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Option<Result<Answer<T>, StoreError>> {
        let mut asked_again = false;
        loop {
            let timer = self.metrics.store_seconds.start_timer();
            let answer = ask().await;
            timer.observe_duration();
            match answer {
                Ok(answer) => {
                    self.readiness.met("store");
                    return Some(Ok(Answer { answer, asked_again }));
                }
                Err(error @ StoreError::Fenced(_)) => return Some(Err(error)),
                Err(error) => {
                    tracing::warn!(flow = self.flow, %error, "the store does not take a write; trying again");
                    self.readiness.lost("store");
                    asked_again = true;
                    if self.stop.is_cancelled() {
                        return None;
                    }
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            }
        }
    }
}

fn reply<T>(answer: oneshot::Sender<T>, value: T) {
    // Whoever asked belongs to a partition that is somebody else's now.
    let _ = answer.send(value);
}
