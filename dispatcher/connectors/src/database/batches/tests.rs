use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use usher_engine::Cause;
use usher_proto::Reason;
use usher_sql::{Code, DatabaseAnswer};

use super::*;

/// A writer that writes each transaction when it is permitted to.
struct FakeWriter {
    permits: Semaphore,
    /// The ids of each transaction, and its wait for locks, in the order in which they begin.
    begun: Mutex<Vec<(Vec<String>, LockWait)>>,
    /// True if each row with the id `bad` is refused.
    refuses: AtomicBool,
    /// True if the connection is lost.
    loses: AtomicBool,
    /// True if a batch panics.
    panics: AtomicBool,
}

impl FakeWriter {
    fn new() -> Self {
        Self {
            permits: Semaphore::new(0),
            begun: Mutex::default(),
            refuses: AtomicBool::default(),
            loses: AtomicBool::default(),
            panics: AtomicBool::default(),
        }
    }
}

#[async_trait]
impl RowWriter for Arc<FakeWriter> {
    async fn write(&self, rows: &[Arc<TableRow>], wait: LockWait) -> Result<Vec<bool>, SqlError> {
        let ids: Vec<String> = rows.iter().map(|row| row.id().to_owned()).collect();
        self.begun.lock().expect("a list").push((ids.clone(), wait));
        self.permits.acquire().await.expect("permits").forget();
        assert!(!(self.panics.load(Ordering::SeqCst) && wait == LockWait::Short), "a bug");
        if self.loses.load(Ordering::SeqCst) {
            return Err(SqlError::Io(std::io::ErrorKind::ConnectionAborted.into()));
        }
        if self.refuses.load(Ordering::SeqCst) && ids.iter().any(|id| id == "bad") {
            let code = Code::Sqlstate("23514".to_owned());
            return Err(SqlError::Answer(DatabaseAnswer { code, message: String::new(), at: None }));
        }
        Ok(ids.iter().map(|id| id != "old").collect())
    }
}

struct Scene {
    writer: Arc<FakeWriter>,
    batches: RowBatches,
}

fn row(id: &str, name: &str) -> Arc<TableRow> {
    let row = json!({ "id": id, "first_name": name, "updated_at": 1, "event_at": 1, "extra": "{}" });
    Arc::new(serde_json::from_value(row).expect("a row"))
}

impl Scene {
    fn new() -> Self {
        let writer = Arc::new(FakeWriter::new());
        Self { batches: RowBatches::new(writer.clone()), writer }
    }

    /// Begins a call, and returns when it waits.
    async fn call(&self, id: &str) -> JoinHandle<Result<bool, Outcome>> {
        self.call_of_size(id, 1).await
    }

    async fn call_of_size(&self, id: &str, size: usize) -> JoinHandle<Result<bool, Outcome>> {
        let batches = self.batches.clone();
        let row = row(id, "Dana");
        let call = tokio::spawn(async move { batches.upsert(row, size, &CallGate::open()).await });
        tokio::task::yield_now().await;
        call
    }

    /// Returns when this number of transactions has begun, with the ids of each.
    async fn begun(&self, count: usize) -> Vec<Vec<String>> {
        loop {
            let begun: Vec<_> = self.writer.begun.lock().expect("a list").iter().map(|(ids, _)| ids.clone()).collect();
            if begun.len() >= count {
                return begun;
            }
            tokio::task::yield_now().await;
        }
    }

    fn permit(&self, transactions: usize) {
        self.writer.permits.add_permits(transactions);
    }
}

async fn ends(calls: Vec<JoinHandle<Result<bool, Outcome>>>) -> Vec<Result<bool, Outcome>> {
    let ended = tokio::time::timeout(Duration::from_secs(10), join_all(calls)).await;
    ended.expect("every call ends").into_iter().map(|end| end.expect("a call ends")).collect()
}

#[tokio::test]
async fn calls_that_gather_during_a_batch_form_the_next_one_in_the_order_of_their_arrival() {
    let scene = Scene::new();
    let mut calls = vec![scene.call("first").await];
    assert_eq!(scene.begun(1).await, [["first"]], "a call that is alone waits for no other");
    for id in ["c", "a", "old", "b"] {
        calls.push(scene.call(id).await);
    }
    scene.permit(2);
    assert_eq!(ends(calls).await, [Ok(true), Ok(true), Ok(true), Ok(false), Ok(true)]);
    assert_eq!(scene.begun(2).await[1..], [["c", "a", "old", "b"]]);
    // The task has ended; the next call begins another.
    scene.permit(1);
    assert_eq!(ends(vec![scene.call("later").await]).await, [Ok(true)]);
    assert_eq!(scene.begun(3).await[2..], [["later"]]);
}

#[tokio::test]
async fn a_row_that_is_refused_fails_its_own_call_only() {
    let scene = Scene::new();
    scene.writer.refuses.store(true, Ordering::SeqCst);
    let mut calls = vec![scene.call("first").await];
    scene.begun(1).await;
    for id in ["a", "bad", "old"] {
        calls.push(scene.call(id).await);
    }
    scene.permit(5);
    let mut ends = ends(calls).await;
    let bad = ends.remove(2).expect_err("it is refused");
    crate::assert_outcome(&bad, Err(Reason::InvalidRequest), "bad");
    assert_eq!(ends, [Ok(true), Ok(true), Ok(false)]);
    let begun = scene.writer.begun.lock().expect("a list").clone();
    assert!(begun[..2].iter().all(|(_, wait)| *wait == LockWait::Short), "{begun:?}");
    assert!(begun[2..].iter().all(|(ids, wait)| ids.len() == 1 && *wait == LockWait::Long), "{begun:?}");
    assert_eq!(begun.len(), 5);
}

#[tokio::test]
async fn a_lost_connection_is_the_outcome_of_every_call_of_its_batch() {
    let scene = Scene::new();
    let first = scene.call("first").await;
    scene.begun(1).await;
    let calls = vec![scene.call("a").await, scene.call("b").await];
    scene.permit(1);
    assert_eq!(ends(vec![first]).await, [Ok(true)]);
    scene.begun(2).await;
    scene.writer.loses.store(true, Ordering::SeqCst);
    scene.permit(1);
    for end in ends(calls).await {
        crate::assert_outcome(&end.expect_err("it is unknown"), Ok(Cause::Unavailable), "lost");
    }
    assert_eq!(scene.begun(2).await.len(), 2, "nothing is written again by itself");
}

#[tokio::test]
async fn a_caller_that_goes_takes_its_row_out_of_the_queue_and_nothing_from_others() {
    let scene = Scene::new();
    let first = scene.call("first").await;
    scene.begun(1).await;
    let calls = vec![scene.call("a").await, scene.call("gone").await, scene.call("b").await];
    let [a, gone, b]: [_; 3] = calls.try_into().expect("three calls");
    gone.abort();
    assert!(gone.await.is_err());
    // It began this batch, which another waits for.
    first.abort();
    assert!(first.await.is_err());
    scene.permit(2);
    assert_eq!(ends(vec![a, b]).await, [Ok(true), Ok(true)]);
    assert_eq!(scene.begun(2).await[1..], [["a", "b"]]);
}

#[tokio::test]
async fn two_states_of_an_object_are_written_one_after_the_other() {
    let scene = Scene::new();
    let mut calls = vec![scene.call("first").await];
    scene.begun(1).await;
    for id in ["a", "b", "a", "c", "a"] {
        calls.push(scene.call(id).await);
    }
    scene.permit(4);
    assert!(ends(calls).await.iter().all(|end| *end == Ok(true)));
    assert_eq!(scene.begun(4).await[1..], [vec!["a", "b", "c"], vec!["a"], vec!["a"]]);
}

#[tokio::test]
async fn a_batch_is_bounded_in_rows_and_in_bytes() {
    let scene = Scene::new();
    let mut calls = vec![scene.call("first").await];
    scene.begun(1).await;
    for number in 0..=MAX_ROWS {
        calls.push(scene.call(&format!("user_{number}")).await);
    }
    for id in ["large", "larger", "small"] {
        calls.push(scene.call_of_size(id, if id == "small" { 1 } else { MAX_BYTES / 2 }).await);
    }
    scene.permit(4);
    assert!(ends(calls).await.iter().all(|end| *end == Ok(true)));
    let begun = scene.begun(4).await;
    assert_eq!(begun.iter().map(Vec::len).collect::<Vec<_>>(), [1, MAX_ROWS, 3, 1]);
    assert_eq!(begun[3], ["small"]);
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_batch_that_hangs_write_their_rows_alone() {
    let scene = Scene::new();
    let mut calls = vec![scene.call("first").await];
    scene.begun(1).await;
    calls.push(scene.call("a").await);
    // The first transaction is given up after its time, and the second one, too.
    tokio::time::sleep(MAX_TIME * 3).await;
    scene.permit(2);
    assert_eq!(ends(calls).await, [Ok(true), Ok(true)]);
    let begun = scene.writer.begun.lock().expect("a list").clone();
    assert_eq!(begun.iter().filter(|(_, wait)| *wait == LockWait::Long).count(), 2, "{begun:?}");
}

#[tokio::test]
async fn after_a_panic_each_row_is_written_alone_and_the_next_batch_is_written() {
    let scene = Scene::new();
    scene.writer.panics.store(true, Ordering::SeqCst);
    let mut calls = vec![scene.call("first").await];
    scene.begun(1).await;
    calls.push(scene.call("a").await);
    calls.push(scene.call("b").await);
    scene.permit(5);
    assert_eq!(ends(calls).await, [Ok(true), Ok(true), Ok(true)]);
    assert_eq!(scene.begun(5).await.iter().map(Vec::len).collect::<Vec<_>>().iter().sum::<usize>(), 6);
}
