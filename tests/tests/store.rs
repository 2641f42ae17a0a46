//! What every store must do: one suite, run against SQLite and against Postgres.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use serde_json::json;
use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;
use usher_dispatcher::engine::{Effect, RunState};
use usher_dispatcher::sql::{Database, DatabaseAddress};
use usher_dispatcher::store::{
    Admission, Arrival, Batch, Change, ChangeKind, Changed, RunFilter, SqlStore, StepEffect, Store as _, StoreError,
};
use usher_dispatcher::subject::Snapshot;
use usher_proto::{Event, EventId, Key, Partition, Reason, Source, Timestamp};
use usher_tests::pair::{say, setting};
use usher_tests::unique;

const FLOW: &str = "test";
const PARTITIONS: i32 = 4;
const ZERO: Partition = Partition(0);

/// A store of its own.
struct Subject {
    store: SqlStore,
    address: DatabaseAddress,
    _folder: TempDir,
}

async fn subject(postgres: bool) -> Option<Subject> {
    let folder = tempfile::tempdir().unwrap();
    let address = if postgres {
        let server = setting("USHER_TEST_POSTGRES")?;
        let name = unique("usher_test_");
        let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        format!("{}/{name}", server.rsplit_once('/').unwrap().0)
    } else {
        format!("sqlite:{}", folder.path().join("store.db").display())
    };
    say(&format!("store: {}", if postgres { "Postgres" } else { "SQLite" }));
    let address = DatabaseAddress::parse("USHER_STORE", &address).unwrap();
    let store = SqlStore::open(Database::open(&address).unwrap(), PARTITIONS).await.unwrap();
    Some(Subject { store, address, _folder: folder })
}

macro_rules! on_every_store {
    ($($claim:ident),+ $(,)?) => {
        $(mod $claim {
            #[tokio::test]
            async fn sqlite() {
                super::$claim(super::subject(false).await.unwrap()).await;
            }

            #[tokio::test]
            async fn postgres() {
                if let Some(subject) = super::subject(true).await {
                    super::$claim(subject).await;
                }
            }
        })+
    };
}

on_every_store!(
    an_event_is_admitted_once_however_often_it_comes,
    an_admitted_run_is_found_again_whole,
    a_predecessor_that_wakes_up_late_changes_nothing,
    a_batch_is_admitted_whole_or_not_at_all,
    the_frontier_is_kept_with_the_runs,
    a_claim_keeps_the_exact_request,
    an_advance_can_be_written_twice,
    an_end_keeps_the_effect_and_drops_the_body,
    a_dead_run_keeps_its_body_and_its_reason,
    newer_snapshots_win_and_a_deletion_is_final,
    news_end_a_wait_and_are_not_missed,
    a_wait_ends_when_it_is_due,
    a_cancellation_ends_what_came_before_and_has_not_begun,
    a_lane_is_read_in_order,
    another_number_of_partitions_is_refused_by_the_store,
    a_version_of_a_flow_is_kept,
);

fn event(id: &str, key: &str) -> Event {
    Event {
        id: EventId::new(id),
        kind: "user.created".into(),
        source: Source::Clerk,
        instance: "default".into(),
        key: Key::new(key),
        occurred_at: Timestamp::from_millis(1_767_261_600_250),
        received_at: Timestamp::from_millis(1_767_261_601_000),
        provenance: vec![("svix-id".into(), id.into())],
        body: Bytes::from_static("{\"data\": {\"name\": \"Zo\u{eb} \\u0000 'quoted'\"} }\n".as_bytes()),
    }
}

fn arrival(offset: i64, id: &str, key: &str) -> Arrival {
    Arrival { offset, event: event(id, key), starts: true, cancels: false, snapshot: None, verdict: None }
}

fn news(offset: i64, id: &str, key: &str, updated_at: i64, alive: bool) -> Arrival {
    let data = alive.then(|| format!("{{\"v\":{updated_at}}}"));
    let snapshot = Some(Snapshot { updated_at, occurred_at: updated_at, data });
    Arrival { starts: false, snapshot, ..arrival(offset, id, key) }
}

fn batch(epoch: i64, arrivals: Vec<Arrival>) -> Batch {
    let frontier = arrivals.iter().map(|arrival| arrival.offset + 1).max().unwrap_or(0);
    Batch { partition: ZERO, epoch, frontier, arrivals, flow_version: "v1".into() }
}

impl Subject {
    async fn own(&self) -> i64 {
        self.store.acquire(FLOW, &[ZERO], "me").await.unwrap()[0].epoch
    }

    async fn admit(&self, epoch: i64, arrivals: Vec<Arrival>) -> Admission {
        self.store.admit(FLOW, &batch(epoch, arrivals)).await.unwrap()
    }

    async fn change(&self, epoch: i64, event: &str, kind: ChangeKind) -> Changed {
        let change = Change { event: EventId::new(event), partition: ZERO, epoch, kind };
        self.store.change(FLOW, &[change]).await.unwrap()[0]
    }

    async fn unfinished(&self) -> Vec<String> {
        let runs = self.store.unfinished(FLOW, ZERO, None, 100).await.unwrap();
        runs.iter().map(|run| run.event.id.to_string()).collect()
    }

    async fn state(&self, event: &str) -> String {
        let filter = RunFilter { event: Some(event.into()), ..RunFilter::default() };
        self.store.runs(&filter, 10).await.unwrap().remove(0).state
    }
}

fn claim(attempts: u32, generation: u32, request: &[u8]) -> ChangeKind {
    ChangeKind::Claim { attempts, generation, request: request.to_vec(), until: Timestamp::from_seconds(9) }
}

fn effect(id: &str) -> Option<StepEffect> {
    let effect = Effect { id: id.into(), result: json!({"id": id}) };
    Some(StepEffect { step: 0, name: "first".into(), connector: "resend".into(), effect })
}

fn end(state: RunState) -> ChangeKind {
    ChangeKind::End { state, effect: None, note: None, verdict: None }
}

async fn an_event_is_admitted_once_however_often_it_comes(subject: Subject) {
    let epoch = subject.own().await;
    let first = subject.admit(epoch, vec![arrival(0, "e1", "a"), arrival(1, "e2", "b"), arrival(2, "e1", "a")]).await;
    assert_eq!(first.runs.iter().map(|run| run.position).collect::<Vec<_>>(), [0, 1]);
    let again = subject.admit(epoch, vec![arrival(3, "e1", "a"), arrival(4, "e3", "a")]).await;
    assert_eq!((again.runs.len(), again.repeated), (1, 1));
    subject.change(epoch, "e1", end(RunState::Done)).await;
    let ended = subject.admit(epoch, vec![arrival(5, "e1", "a")]).await;
    assert_eq!((ended.runs.len(), ended.repeated), (0, 1), "what has ended does not begin again");
}

async fn an_admitted_run_is_found_again_whole(subject: Subject) {
    let epoch = subject.own().await;
    let dead = Arrival { verdict: Some((Reason::Malformed, "why".into())), ..arrival(8, "e2", "") };
    let admitted = subject.admit(epoch, vec![arrival(7, "e1", "a"), dead]).await.runs;
    let found = subject.store.unfinished(FLOW, ZERO, None, 100).await.unwrap();
    assert_eq!(found, admitted);
    let after = subject.store.unfinished(FLOW, ZERO, Some((7, EventId::new("e1"))), 100).await.unwrap();
    assert_eq!(after, found[1..]);
}

async fn a_predecessor_that_wakes_up_late_changes_nothing(subject: Subject) {
    let old = subject.own().await;
    subject.admit(old, vec![arrival(0, "e1", "a")]).await;
    let new = subject.own().await;
    assert!(new > old);
    assert_eq!(subject.change(old, "e1", claim(1, 0, b"x")).await, Changed::Fenced);
    assert_eq!(subject.change(old, "e1", end(RunState::Done)).await, Changed::Fenced);
    let late = subject.store.admit(FLOW, &batch(old, vec![arrival(1, "e2", "a")])).await;
    assert!(matches!(late, Err(StoreError::Fenced(ZERO))), "{late:?}");
    let wait = ChangeKind::Wait { until: Timestamp::default(), news_after: None };
    subject.change(new, "e1", wait).await;
    assert!(subject.store.due(FLOW, &[(ZERO, old)], Timestamp::from_seconds(1)).await.unwrap().is_empty());
    assert_eq!((subject.state("e1").await.as_str(), subject.unfinished().await.len()), ("waiting", 0));
}

async fn a_batch_is_admitted_whole_or_not_at_all(subject: Subject) {
    let epoch = subject.own().await;
    subject.own().await;
    let late = batch(epoch, vec![news(0, "n1", "a", 5, true), arrival(1, "e1", "a")]);
    assert!(subject.store.admit(FLOW, &late).await.is_err());
    assert!(subject.unfinished().await.is_empty());
    assert_eq!(subject.store.subject(&Key::new("a")).await.unwrap(), None);
}

async fn the_frontier_is_kept_with_the_runs(subject: Subject) {
    let owned = subject.store.acquire(FLOW, &[ZERO, Partition(3)], "me").await.unwrap();
    assert_eq!(
        owned.iter().map(|o| (o.partition, o.frontier)).collect::<Vec<_>>(),
        [(ZERO, None), (Partition(3), None)]
    );
    subject.admit(owned[0].epoch, vec![arrival(41, "e1", "a")]).await;
    let owned = subject.store.acquire(FLOW, &[ZERO, Partition(3)], "you").await.unwrap();
    assert_eq!(owned.iter().map(|o| o.frontier).collect::<Vec<_>>(), [Some(42), None]);
}

async fn a_claim_keeps_the_exact_request(subject: Subject) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "a")]).await;
    subject.change(epoch, "e1", claim(2, 1, b"\x00\xffexact")).await;
    let run = subject.store.unfinished(FLOW, ZERO, None, 1).await.unwrap().remove(0);
    assert_eq!((run.attempts, run.generation, run.request), (2, 1, Some(b"\x00\xffexact".to_vec())));
    assert_eq!(subject.state("e1").await, "running");
}

async fn an_advance_can_be_written_twice(subject: Subject) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "a")]).await;
    subject.change(epoch, "e1", claim(3, 2, b"x")).await;
    for _ in 0..2 {
        let results = r#"{"0":{"id":"m1"}}"#.to_owned();
        subject.change(epoch, "e1", ChangeKind::Advance { to: 1, effect: effect("m1"), results }).await;
    }
    let run = subject.store.unfinished(FLOW, ZERO, None, 1).await.unwrap().remove(0);
    assert_eq!((run.step, run.attempts, run.generation, &run.request), (1, 0, 0, &None));
    assert_eq!(run.results[&0], json!({"id": "m1"}));
    let shown = subject.store.runs(&RunFilter::default(), 10).await.unwrap().remove(0);
    assert_eq!(shown.effects.len(), 1, "one effect");
}

async fn an_end_keeps_the_effect_and_drops_the_body(subject: Subject) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "user_a")]).await;
    assert!(subject.store.body(FLOW, "e1").await.unwrap().is_some());
    let note = Some("nothing_to_do");
    subject
        .change(epoch, "e1", ChangeKind::End { state: RunState::Done, effect: effect("m1"), note, verdict: None })
        .await;
    assert_eq!(subject.store.body(FLOW, "e1").await.unwrap(), None);
    // A word that comes after the end changes nothing.
    subject.change(epoch, "e1", end(RunState::Dead)).await;
    let run = subject.store.runs(&RunFilter::default(), 10).await.unwrap().remove(0);
    assert_eq!((run.state.as_str(), run.note.as_deref(), run.user.as_deref()), ("done", note, Some("user_a")));
    let effect = &run.effects[0];
    assert_eq!((effect.connector.as_str(), effect.step.as_str(), effect.id.as_str()), ("resend", "first", "m1"));
}

async fn a_dead_run_keeps_its_body_and_its_reason(subject: Subject) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "a"), arrival(1, "e2", "a")]).await;
    let verdict = Some((Reason::InvalidRequest, "422 validation_error".to_owned()));
    subject.change(epoch, "e1", ChangeKind::End { state: RunState::Dead, effect: None, note: None, verdict }).await;
    assert!(subject.store.body(FLOW, "e1").await.unwrap().is_some());
    let filter =
        RunFilter { reason: Some(Reason::InvalidRequest), state: Some(RunState::Dead), ..RunFilter::default() };
    let dead = subject.store.runs(&filter, 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].error.as_deref()), (1, Some("422 validation_error")));
}

async fn newer_snapshots_win_and_a_deletion_is_final(subject: Subject) {
    let epoch = subject.own().await;
    let known = async || {
        let found = subject.store.subject(&Key::new("a")).await.unwrap().unwrap();
        (found.snapshot, found.deleted)
    };
    let version = |v: i64| (Some(format!("{{\"v\":{v}}}")), false);
    subject.admit(epoch, vec![news(0, "n1", "a", 5, true), news(1, "n2", "a", 3, true)]).await;
    assert_eq!(known().await, version(5), "within a batch");
    subject.admit(epoch, vec![news(2, "n3", "a", 4, true)]).await;
    assert_eq!(known().await, version(5), "and across batches");
    subject.admit(epoch, vec![news(3, "n4", "a", 6, true)]).await;
    assert_eq!(known().await, version(6));
    let revision = subject.store.subject(&Key::new("a")).await.unwrap().unwrap().revision;
    subject.admit(epoch, vec![news(4, "n4", "a", 6, true)]).await;
    let again = subject.store.subject(&Key::new("a")).await.unwrap().unwrap().revision;
    assert_eq!(again, revision, "the same event again is no news");
    subject.admit(epoch, vec![news(5, "n5", "a", 1, false)]).await;
    assert_eq!(known().await, (None, true));
    subject.admit(epoch, vec![news(6, "n6", "a", 9, true)]).await;
    assert_eq!(known().await, (None, true), "a deleted user never comes back");
}

async fn news_end_a_wait_and_are_not_missed(subject: Subject) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "a"), arrival(1, "e2", "b")]).await;
    let wait = |news_after| ChangeKind::Wait { until: Timestamp::from_seconds(1_000), news_after };
    assert_eq!(subject.change(epoch, "e1", wait(Some(0))).await, Changed::Written);
    assert_eq!(subject.change(epoch, "e2", wait(None)).await, Changed::Written);
    let woken = subject.admit(epoch, vec![news(2, "n1", "a", 5, true), news(3, "n2", "b", 5, true)]).await.runs;
    assert_eq!(
        woken.iter().map(|run| run.event.id.as_str()).collect::<Vec<_>>(),
        ["e1"],
        "the other waits for the time"
    );
    assert_eq!(woken[0].wait_until, Some(Timestamp::from_seconds(1_000)), "the bound stays");
    // News that came between the look and the wait.
    assert_eq!(subject.change(epoch, "e1", wait(Some(0))).await, Changed::Awake);
    assert_eq!(subject.change(epoch, "e1", wait(Some(1))).await, Changed::Written);
}

async fn a_wait_ends_when_it_is_due(subject: Subject) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "a")]).await;
    subject.change(epoch, "e1", ChangeKind::Wait { until: Timestamp::from_seconds(10), news_after: None }).await;
    let due =
        async |seconds| subject.store.due(FLOW, &[(ZERO, epoch)], Timestamp::from_seconds(seconds)).await.unwrap();
    assert!(due(9).await.is_empty());
    assert_eq!(due(10).await.len(), 1);
    assert!(due(11).await.is_empty(), "once");
    assert_eq!(subject.unfinished().await, ["e1"], "it is found again after a crash");
}

async fn a_cancellation_ends_what_came_before_and_has_not_begun(subject: Subject) {
    let epoch = subject.own().await;
    subject.admit(epoch, (0..4).map(|n| arrival(n, &format!("e{n}"), "a")).collect()).await;
    subject.admit(epoch, vec![arrival(4, "other", "b")]).await;
    subject.change(epoch, "e0", claim(1, 0, b"x")).await;
    subject.change(epoch, "e1", ChangeKind::Wait { until: Timestamp::from_seconds(10), news_after: None }).await;
    let cancel = Arrival { starts: false, cancels: true, ..arrival(5, "c", "a") };
    let same_batch = arrival(6, "e6", "a");
    let admission = subject.admit(epoch, vec![cancel, same_batch]).await;
    let mut cancelled: Vec<String> = admission.cancelled.iter().map(|(_, event)| event.to_string()).collect();
    cancelled.sort();
    assert_eq!(cancelled, ["e1", "e2", "e3"]);
    assert_eq!(subject.unfinished().await, ["e0", "other", "e6"], "one under way finishes, later ones begin");
    assert_eq!(subject.change(epoch, "e2", claim(1, 0, b"x")).await, Changed::Ended, "and is not attempted any more");

    // News and the cancellation in one batch: what the news woke is cancelled, not begun.
    subject.change(epoch, "other", ChangeKind::Wait { until: Timestamp::from_seconds(10), news_after: Some(0) }).await;
    let gone = Arrival { cancels: true, ..news(8, "c2", "b", 5, false) };
    let admission = subject.admit(epoch, vec![news(7, "n1", "b", 4, true), gone]).await;
    assert_eq!((admission.runs.len(), admission.cancelled.len()), (0, 1));
}

async fn a_lane_is_read_in_order(subject: Subject) {
    let epoch = subject.own().await;
    let arrivals = [(3, "e3", "a"), (1, "e1", "a"), (2, "e2", "b")].map(|(o, e, k)| arrival(o, e, k)).to_vec();
    subject.admit(epoch, arrivals).await;
    let lane = subject.store.lane(FLOW, &Key::new("a"), 10).await.unwrap();
    assert_eq!(lane.iter().map(|run| run.position).collect::<Vec<_>>(), [1, 3]);
}

async fn another_number_of_partitions_is_refused_by_the_store(subject: Subject) {
    let again = SqlStore::open(Database::open(&subject.address).unwrap(), PARTITIONS + 1).await;
    let Err(StoreError::PartitionCount { found, wanted }) = again else { panic!("it is refused") };
    assert_eq!((found.as_str(), wanted), ("4", 5));
    SqlStore::open(Database::open(&subject.address).unwrap(), PARTITIONS).await.expect("the same number is fine");
}

async fn a_version_of_a_flow_is_kept(subject: Subject) {
    for _ in 0..2 {
        subject.store.keep_flow(FLOW, "v1", "on = []").await.unwrap();
    }
    assert_eq!(subject.store.flow(FLOW, "v1").await.unwrap().as_deref(), Some("on = []"));
    assert_eq!(subject.store.flow(FLOW, "v2").await.unwrap(), None);
}
