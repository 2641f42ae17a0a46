//! Gathers the rows of calls that run at the same time, and writes them with one statement a table and one commit.
//!
//! While a batch is being written, the next calls gather, so a call that is alone waits for nothing. A batch that the
//! database refuses changed nothing, and does not show which of its rows is at fault: every call then writes its own row in a
//! transaction of its own, and learns its own outcome.

use std::collections::{HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use tokio::sync::oneshot;
use usher_engine::{DestinationAnswer, Outcome};
use usher_sql::fault::DatabaseFault;
use usher_sql::{Database, SqlError};

use super::classify::{answer, classify, failed};
use super::request::TableRow;
use super::write;
use crate::CallGate;

/// Largest number of rows of a batch. Each row takes up to three locks of the server, which has 6,400 by default for all
/// sessions.
const MAX_ROWS: usize = 128;
/// Size of the requests of a batch above which it takes no further row, in bytes.
const MAX_BYTES: usize = 4 << 20;
/// Longest time that a batch may take. It bounds how long a lost connection delays the calls that wait for the next batch.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Longest wait of a transaction for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockWait {
    /// That of a batch: short, because it delays all of its calls and those that gather meanwhile.
    Short,
    /// That of every connection.
    Long,
}

/// Writes rows to their tables.
#[async_trait]
pub(super) trait RowWriter: Send + Sync {
    /// Writes the rows in one transaction. Returns for each, in order, true if it was written, and false if a newer state
    /// or a deletion took precedence. No two rows are of the same object.
    ///
    /// # Errors
    ///
    /// The database does not answer or refuses a row. Nothing is written then, unless the answer to the commit was lost.
    async fn write(&self, rows: &[Arc<TableRow>], wait: LockWait) -> Result<Vec<bool>, SqlError>;
}

#[async_trait]
impl RowWriter for Database {
    async fn write(&self, rows: &[Arc<TableRow>], wait: LockWait) -> Result<Vec<bool>, SqlError> {
        write::upsert(self, rows, wait).await
    }
}

/// The end of a batch for one of its calls.
enum BatchEnd {
    Written(bool),
    /// The outcome of every call of the batch.
    Failed(Outcome, DestinationAnswer),
    /// Nothing is known of this row: its call writes it alone.
    Alone,
}

struct WaitingRow {
    row: Arc<TableRow>,
    /// Size of the request, in bytes.
    size: usize,
    answer: oneshot::Sender<BatchEnd>,
}

#[derive(Default)]
struct RowQueue {
    waiting: VecDeque<WaitingRow>,
    /// True while a task writes batches. It ends when nothing waits.
    is_writing: bool,
}

/// The calls that wait to be written, and the writer. Clones share both.
#[derive(Clone)]
pub(super) struct RowBatches {
    writer: Arc<dyn RowWriter>,
    queue: Arc<Mutex<RowQueue>>,
}

impl RowBatches {
    pub(super) fn new(writer: impl RowWriter + 'static) -> Self {
        Self { writer: Arc::new(writer), queue: Arc::default() }
    }

    /// Writes a row, together with those of other calls. `size` is that of its request, in bytes. Returns true if it was
    /// written, and false if a newer state or a deletion took precedence. A row whose caller has gone before its batch
    /// begins is not written.
    ///
    /// # Errors
    ///
    /// The outcome of the call if the row was not written, or if that is unknown.
    pub(super) async fn upsert(&self, row: Arc<TableRow>, size: usize, gate: &CallGate) -> Result<bool, Outcome> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(WaitingRow { row: row.clone(), size, answer });
        match answered.await {
            Ok(BatchEnd::Written(written)) => Ok(written),
            Ok(BatchEnd::Failed(outcome, answer)) => {
                gate.refused(answer);
                Err(outcome)
            }
            // A batch without an answer has panicked, perhaps over another row.
            Ok(BatchEnd::Alone) | Err(_) => {
                let written = self.writer.write(&[row], LockWait::Long).await.map_err(|error| failed(&error, gate))?;
                Ok(written.first().copied().unwrap_or(false))
            }
        }
    }

    fn enqueue(&self, waiting: WaitingRow) {
        let mut queue = self.locked();
        queue.waiting.push_back(waiting);
        if !queue.is_writing {
            queue.is_writing = true;
            // A task of its own, because a batch must not end with the caller that began it.
            tokio::spawn(self.clone().run());
        }
    }

    async fn run(self) {
        while let Some(batch) = self.next_batch() {
            // The calls of a batch that panics notice that their answer is gone.
            let _ = AssertUnwindSafe(self.write(batch)).catch_unwind().await;
        }
    }

    /// Takes the rows that wait, in the order of their arrival. Returns `None`, and lets the next call begin a new task, if
    /// nothing waits.
    fn next_batch(&self) -> Option<Vec<WaitingRow>> {
        let mut queue = self.locked();
        let mut batch: Vec<WaitingRow> = Vec::new();
        let mut later = VecDeque::new();
        let mut objects = HashSet::new();
        let mut bytes = 0;
        while let Some(waiting) = queue.waiting.pop_front() {
            if waiting.answer.is_closed() {
                continue;
            }
            if !objects.insert((waiting.row.kind, waiting.row.id().to_owned())) {
                // A statement cannot write a row twice, and the order of its two states must be kept.
                later.push_back(waiting);
                continue;
            }
            bytes += waiting.size;
            batch.push(waiting);
            if batch.len() >= MAX_ROWS || bytes >= MAX_BYTES {
                break;
            }
        }
        later.append(&mut queue.waiting);
        queue.waiting = later;
        queue.is_writing = !batch.is_empty();
        queue.is_writing.then_some(batch)
    }

    async fn write(&self, batch: Vec<WaitingRow>) {
        let rows: Vec<Arc<TableRow>> = batch.iter().map(|waiting| waiting.row.clone()).collect();
        let written = tokio::time::timeout(MAX_TIME, self.writer.write(&rows, LockWait::Short)).await;
        let ends: Vec<BatchEnd> = match written {
            Ok(Ok(written)) => written.into_iter().map(BatchEnd::Written).collect(),
            Ok(Err(error)) if concerns_all(&error) => {
                let outcome = classify(&error);
                let answer = answer(&error);
                rows.iter().map(|_| BatchEnd::Failed(outcome.clone(), answer.clone())).collect()
            }
            Ok(Err(error)) => {
                tracing::info!(rows = rows.len(), fault = ?DatabaseFault::of(&error), "batch refused: writing each row alone");
                rows.iter().map(|_| BatchEnd::Alone).collect()
            }
            Err(_) => {
                tracing::info!(rows = rows.len(), "batch timed out: writing each row alone");
                rows.iter().map(|_| BatchEnd::Alone).collect()
            }
        };
        for (waiting, end) in batch.into_iter().zip(ends) {
            // A caller that has gone no longer needs its answer.
            let _ = waiting.answer.send(end);
        }
    }

    fn locked(&self) -> MutexGuard<'_, RowQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns true if an error says nothing about single rows: there is no connection, or it was lost.
const fn concerns_all(error: &SqlError) -> bool {
    match error {
        SqlError::Io(_) | SqlError::NoConnection | SqlError::Tls(_) | SqlError::Setting(_) => true,
        SqlError::Answer(_) | SqlError::Parameter(_) | SqlError::Column(_) | SqlError::NoRow | SqlError::Driver(_) => {
            false
        }
    }
}

#[cfg(test)]
mod tests;
