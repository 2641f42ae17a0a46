//! Attempts with a fake connector and a real store.

mod first_claim;
mod passed_over;
mod recipients;
mod spans;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use usher_connectors::{Connector, Connectors, Idempotency, Lookup, PrepareError, StepInput, SubjectChange};
use usher_engine::arrival::{Arrival, Batch};
use usher_engine::clock::ClockState;
use usher_engine::{AttemptState, Effect};
use usher_flows::{Flow, FlowSource};
use usher_proto::{Epoch, Event, EventId, Instance, Key, Offset, Partition, Snapshot, Source, SubjectId, Timestamp};
use usher_quota::{LimitedAccount, Quota};
use usher_service::Readiness;
use usher_service::options::Environment;
use usher_sql::{Database, DatabaseAddress, Outage};
use usher_store::{SqlStore, Store};

use super::*;
use crate::delivery::destinations::SharedDestinations;
use crate::delivery::gathered_read;
use crate::delivery::store_actor::StoreParts;
use crate::delivery::versions::Versions;

const FLOW: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "mail"
use = "resend.send"
to = "a@b.test"
subject = "hello"
text = "hello"
from = "c@d.test"
timeout = "200ms"
"#;

/// A fake destination: its behaviour, and a record of the calls to it.
struct Fake {
    part: Option<String>,
    idempotency: Idempotency,
    found: Lookup,
    does: fn() -> Outcome,
    asked: AtomicUsize,
    keys: Mutex<Vec<String>>,
    requests: Mutex<Vec<Vec<u8>>>,
}

#[async_trait]
impl Connector for Fake {
    fn idempotency(&self) -> Idempotency {
        self.idempotency
    }

    async fn lookup(&self, _: &[u8], _: &str, _: &CallGate) -> Lookup {
        self.found.clone()
    }

    fn sub_account(&self, _: &[u8]) -> Option<String> {
        self.part.clone()
    }

    fn subject_change(&self, inputs: &StepInput<'_>) -> SubjectChange {
        // Its subject is a text, and so is the change.
        match (inputs.known, inputs.params.get("text")) {
            (Some(known), Some(text)) if *text == known => SubjectChange::Nothing,
            _ => SubjectChange::Unknown,
        }
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        Ok(serde_json::to_vec(inputs.params).expect("JSON"))
    }

    async fn attempt(&self, request: &[u8], key: &str, _: &CallGate) -> Outcome {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.requests.lock().expect("no panic while it is held").push(request.to_vec());
        self.keys.lock().expect("no panic while it is held").push(key.to_owned());
        (self.does)()
    }
}

impl Default for Fake {
    fn default() -> Self {
        let idempotency = Idempotency::None;
        let found = Lookup::Unknown;
        let asked = AtomicUsize::new(0);
        Self { part: None, idempotency, found, does: done, asked, keys: Mutex::default(), requests: Mutex::default() }
    }
}

fn done() -> Outcome {
    Outcome::Done(Effect::new("1", json!({})))
}

struct Scene {
    store: Arc<dyn Store>,
    executor: StepExecutor,
    flow: Arc<Flow>,
    fake: Arc<Fake>,
    run: Run,
    epoch: Epoch,
    sharing: JoinHandle<()>,
    _folder: TempDir,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.sharing.abort();
    }
}

async fn scene(flow: &str, idempotency: Idempotency, found: Lookup, does: fn() -> Outcome) -> Scene {
    let fake = Fake { part: None, idempotency, found, does, ..Fake::default() };
    scene_of(fake, "none", flow).await
}

/// Builds a scene in which the destination's account, or a part of it, has a quota.
async fn scene_within(quota: &str, part: Option<&str>) -> Scene {
    scene_of(Fake { part: part.map(str::to_owned), ..Fake::default() }, quota, FLOW).await
}

async fn scene_of(fake: Fake, quota: &str, flow: &str) -> Scene {
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("sqlite:{}", folder.path().join("store.db").display());
    let address = DatabaseAddress::parse("USHER_STORE", &address).expect("an address");
    let database = Database::open(&address).expect("a file");
    let store: Arc<dyn Store> = Arc::new(SqlStore::open(database.clone(), 1).await.expect("tables are made"));
    let source =
        FlowSource { name: "test".into(), file: "test.toml".into(), toml: flow.to_owned(), templates: BTreeMap::new() };
    let flow = Arc::new(Flow::read(source).expect("it can run"));
    let epoch = store.acquire("test", &[Partition(0)], "me").await.expect("it is ours")[0].epoch;
    let now = clock::now();
    let event = Event {
        id: EventId::new("msg_1"),
        kind: "user.created".into(),
        source: Source::Clerk,
        subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1")),
        occurred_at: now,
        received_at: now,
        provenance: Vec::new(),
        body: Bytes::from_static(b"{\"data\":{}}"),
    };
    let arrival = Arrival::starting(Offset(0), event);
    let flow_version = flow.version.clone();
    let connector = flow.connector(0).map(str::to_owned);
    let batch = Batch {
        partition: Partition(0),
        epoch,
        frontier: Offset(1),
        arrivals: vec![arrival],
        refused: Vec::new(),
        flow_version,
        connector,
        begins: BTreeSet::new(),
    };
    let run = store.admit("test", &batch).await.expect("it is admitted").heads.remove(0);

    let metrics = DispatcherMetrics::register(&prometheus::Registry::new()).expect("metrics");
    let stop = CancellationToken::new();
    let (answers, _) = mpsc::unbounded_channel();
    let outage = Outage::of(&database, "store", Readiness::needing(["store"]));
    let fake = Arc::new(fake);
    let connectors: Connectors =
        ["resend", "novu", "stripe"].map(|name| (name.to_owned(), fake.clone() as Arc<dyn Connector>)).into();
    let versions = Versions::new(flow.clone(), store.clone(), Environment::from_vars([]));
    let quota: Quota = quota.parse().expect("a quota");
    let destination = "resend".to_owned();
    let account = fake.part.as_ref().map_or_else(|| destination.clone(), |part| quotas::part(&destination, part));
    let limited = LimitedAccount { account, destination, quota, assumed: false, serves_urgent: false };
    let quotas = Arc::new(Quotas::new(vec![limited], metrics.clone()));
    let sharing = tokio::spawn(quotas.clone().run("me".into(), store.clone(), SharedDestinations::new()));
    let connectors = Arc::new(connectors);
    let suppression = Arc::default();
    let clock = tokio::sync::watch::Sender::new(ClockState::Right).subscribe();
    let requests = Arc::new(RequestMaker {
        versions,
        people: store.clone(),
        suppressions: gathered_read::suppressions(store.clone()),
        connectors,
        suppression,
        clock,
        wait_speed: 1,
        outage: outage.clone(),
        stop: stop.clone(),
    });
    let parts = StoreParts {
        flow: "test".into(),
        owner: "me".into(),
        store: store.clone(),
        claims: requests.clone(),
        metrics: metrics.clone(),
        outage,
        stop: stop.clone(),
    };
    let store_handle = StoreHandle::start(parts, answers);
    let subjects = gathered_read::subjects(store.clone());
    let slots = CallSlots::new(&crate::delivery::limits(&flow, 1));
    let executor = StepExecutor { requests, subjects, quotas, slots, store_handle, metrics, stop };
    Scene { executor, flow, store, fake, run, epoch, sharing, _folder: folder }
}

impl Scene {
    async fn outcome(&self) -> Outcome {
        match self.executor.work(&self.run, self.epoch).await {
            StepReport::Attempted { outcome, .. } => outcome,
            other => panic!("an attempt, not {other:?}"),
        }
    }

    fn asked(&self) -> usize {
        self.fake.asked.load(Ordering::SeqCst)
    }

    /// Adds an earlier attempt, made `ago` before now, whose outcome is unknown.
    fn in_doubt_since(mut self, ago: Duration) -> Self {
        let asked_at = clock::now().millis() - i64::try_from(ago.as_millis()).expect("not long");
        self.run.request = Some(b"exact".to_vec());
        self.run.tries.first_sent_at = Some(Timestamp::from_millis(asked_at));
        self
    }
}

#[tokio::test]
async fn a_panic_in_a_connector_is_a_retry() {
    let scene = scene(FLOW, Idempotency::Natural, Lookup::Unknown, || panic!("a bug")).await;
    assert_eq!(scene.outcome().await, Outcome::retry(Cause::Panicked));
    assert_eq!(scene.outcome().await, Outcome::retry(Cause::Panicked), "and everything else goes on");
}

#[tokio::test]
async fn an_attempt_is_claimed_first_and_not_made_by_who_has_lost_the_partition() {
    let scene = scene(FLOW, Idempotency::None, Lookup::Unknown, done).await;
    scene.store.acquire("test", &[Partition(0)], "somebody else").await.expect("it is taken over");
    assert_eq!(scene.executor.work(&scene.run, scene.epoch).await, StepReport::Fenced);
    assert_eq!(scene.asked(), 0);
}

#[tokio::test]
async fn only_a_destination_that_forgets_makes_a_successor_wait() {
    for (idempotency, waits) in [
        (Idempotency::None, true),
        (Idempotency::Natural, false),
        (Idempotency::KeyFor(Duration::from_secs(60)), false),
    ] {
        let scene = scene(FLOW, idempotency, Lookup::Unknown, done).await;
        assert_eq!(scene.outcome().await, done());
        let of = usher_store::HeadsQuery { partition: Partition(0), after: None, without: Vec::new(), limit: 1 };
        let claimed = scene.store.heads("test", &of).await.expect("the run").remove(0);
        let until = claimed.tries.claimed_until.map(|until| until.since(clock::now()));
        assert_eq!(until.is_some_and(|until| until > Duration::from_secs(4)), waits, "{idempotency:?}");
    }
}

#[tokio::test]
async fn doubt_is_resolved_by_looking_and_else_as_the_flow_says() {
    let life = Duration::from_secs(60);
    let found = Lookup::Found(Effect::new("there", json!({})));
    let in_doubt = |outcome: &Outcome| matches!(outcome, Outcome::Reject { reason: Reason::InDoubt, .. });
    let send = FLOW.to_owned() + "on_unknown_outcome = \"send\"\n";

    // (flow, idempotency, lookup result, age of the earlier attempt) -> (further calls, dead)
    for (flow, idempotency, looked_up, ago, again, dead) in [
        (FLOW, Idempotency::Natural, Lookup::Unknown, 2 * life, 1, false),
        (FLOW, Idempotency::KeyFor(life), Lookup::Unknown, life / 2, 1, false),
        (FLOW, Idempotency::KeyFor(life), Lookup::Unknown, 2 * life, 0, true),
        (FLOW, Idempotency::None, Lookup::Unknown, Duration::ZERO, 0, true),
        (FLOW, Idempotency::None, Lookup::Absent, Duration::ZERO, 1, false),
        (FLOW, Idempotency::None, found, Duration::ZERO, 0, false),
        (&send, Idempotency::None, Lookup::Unknown, Duration::ZERO, 1, false),
    ] {
        let scene = scene(flow, idempotency, looked_up, done).await.in_doubt_since(ago);
        let outcome = scene.outcome().await;
        assert_eq!((scene.asked(), in_doubt(&outcome)), (again, dead), "{idempotency:?} {ago:?} {outcome:?}");
    }
}

#[tokio::test]
async fn what_a_flow_starts_on_is_looked_at_again_when_its_run_is_worked_on() {
    let with = |expression: &str| format!("if = \"{expression}\"\n{FLOW}");
    let of = async |flow: &str| scene(flow, Idempotency::Natural, Lookup::Unknown, done).await;
    let scene = of(&with("event.data.one.two")).await;
    assert!(matches!(scene.outcome().await, Outcome::Reject { reason: Reason::Template, .. }), "it cannot be said");
    assert_eq!(scene.asked(), 0);
    let scene = of(&with("event.data.one")).await;
    assert_eq!((scene.executor.work(&scene.run, scene.epoch).await, scene.asked()), (StepReport::NothingToDo, 0));
    let scene = of(&with("event.id")).await;
    assert_eq!((scene.outcome().await, scene.asked()), (done(), 1));
}

#[tokio::test]
async fn of_who_was_deleted_only_the_steps_that_say_so_are_made() {
    let gone = |epoch, event: Event| {
        let occurred_at = event.occurred_at.millis();
        let snapshot = Some(Snapshot { updated_at: occurred_at, occurred_at, data: None });
        let arrivals = vec![Arrival { starts: false, snapshot, ..Arrival::starting(Offset(1), event) }];
        Batch {
            partition: Partition(0),
            epoch,
            frontier: Offset(2),
            arrivals,
            refused: Vec::new(),
            flow_version: "1".into(),
            connector: None,
            begins: BTreeSet::new(),
        }
    };
    for (flow, expected) in [(FLOW.to_owned(), 0), (format!("{FLOW}for_deleted = true\n"), 1)] {
        let scene = scene(&flow, Idempotency::Natural, Lookup::Unknown, done).await;
        let event = Event { id: EventId::new("msg_2"), kind: "user.deleted".into(), ..scene.run.event.clone() };
        scene.store.admit("test", &gone(scene.epoch, event)).await.expect("it is admitted");
        let report = scene.executor.work(&scene.run, scene.epoch).await;
        assert_eq!((report == StepReport::Superseded, scene.asked()), (expected == 0, expected), "{report:?}");
    }
}

#[tokio::test]
async fn a_first_attempt_is_in_no_doubt() {
    let scene = scene(FLOW, Idempotency::None, Lookup::Unknown, done).await;
    assert_eq!((scene.outcome().await, scene.asked()), (done(), 1));
}

#[tokio::test]
async fn the_key_tells_step_event_generation_and_times_apart() {
    let mut scene = scene(FLOW, Idempotency::Natural, Lookup::Unknown, done).await;
    assert_eq!(scene.outcome().await, done());
    scene.run.tries.generation = 1;
    assert_eq!(scene.outcome().await, done());
    scene.run.tries.generation = 0;
    scene.run.rerun = 1;
    assert_eq!(scene.outcome().await, done());
    let keys = scene.fake.keys.lock().expect("no panic while it is held").clone();
    assert_eq!(keys, ["usher/test/mail/msg_1/0", "usher/test/mail/msg_1/1", "usher/test/mail/msg_1/1.0"]);
}

#[tokio::test]
async fn who_cannot_be_asked_now_is_asked_later_and_nothing_is_given_up() {
    let later = Lookup::Later(Outcome::retry(Cause::Unavailable));
    let scene = scene(FLOW, Idempotency::None, later, done).await.in_doubt_since(Duration::ZERO);
    assert_eq!((scene.outcome().await, scene.asked()), (Outcome::retry(Cause::Unavailable), 0));
}

#[tokio::test]
async fn what_has_expired_while_it_waited_for_its_turn_is_not_sent() {
    let mut scene = scene(FLOW, Idempotency::None, Lookup::Unknown, done).await;
    scene.run.expires_at = Some(Timestamp::from_millis(clock::now().millis() - 1));
    assert_eq!((scene.outcome().await, scene.asked()), (Outcome::reject(Reason::Expired, ""), 0));
}

#[tokio::test]
async fn what_is_used_up_is_not_asked_for_and_not_claimed() {
    let scene = scene_within("1/d", None).await;
    assert!(matches!(scene.outcome().await, Outcome::Done(_)));
    let report = scene.executor.work(&scene.run, scene.epoch).await;
    let StepReport::QuotaExhausted { until, whole: true } = report else { panic!("{report:?}") };
    assert!(until > clock::now() && scene.asked() == 1);
}

#[tokio::test]
async fn of_an_account_with_parts_one_that_is_used_up_holds_nobody_but_its_own() {
    let scene = scene_within("1/d", Some("box")).await;
    assert!(matches!(scene.outcome().await, Outcome::Done(_)));
    let report = scene.executor.work(&scene.run, scene.epoch).await;
    assert!(matches!(report, StepReport::QuotaExhausted { whole: false, .. }) && scene.asked() == 1, "{report:?}");
}

#[tokio::test]
async fn who_is_stopped_while_waiting_for_a_turn_has_certainly_sent_nothing() {
    // One call a minute: the permit is not near, and the attempt is not claimed. One a second, the first of its lease:
    // the attempt is claimed, and known not to have been sent.
    for (quota, claimed) in [("1/min", false), ("1/s", true)] {
        let scene = scene_within(quota, None).await;
        while claimed && !scene.executor.quotas.is_near("resend") {
            tokio::task::yield_now().await;
        }
        let stop = scene.executor.stop.clone();
        let waits = async {
            while scene.executor.quotas.waiting("resend") == 0 {
                tokio::task::yield_now().await;
            }
            stop.cancel();
        };
        let (report, ()) = tokio::join!(scene.executor.work(&scene.run, scene.epoch), waits);
        match report {
            StepReport::Stopped if !claimed => {}
            StepReport::Attempted { outcome, .. } if claimed => assert_eq!(outcome, Outcome::retry(Cause::Throttled)),
            other => panic!("{quota}: {other:?}"),
        }
        assert_eq!(scene.asked(), 0);
    }
}

#[tokio::test]
async fn who_waits_for_a_slot_has_decided_nothing_and_sends_nothing_if_it_is_stopped() {
    let flow = format!("concurrency = 2\n{FLOW}");
    for claimed in [false, true] {
        let mut scene = scene(&flow, Idempotency::None, Lookup::Unknown, done).await;
        scene.run.claimed = claimed.then(clock::since_boot);
        scene.run.request = claimed.then(|| b"{}".to_vec());
        let mut taken = Vec::new();
        while let Some(slot) = scene.executor.slots.take("resend").now_or_never() {
            taken.push(slot);
        }
        let mut work = Box::pin(scene.executor.work(&scene.run, scene.epoch));
        let waits = Duration::from_millis(50);
        assert!(tokio::time::timeout(waits, &mut work).await.is_err(), "no slot is free");
        scene.executor.stop.cancel();
        match work.await {
            StepReport::Stopped if !claimed => {}
            StepReport::Attempted { outcome, request: None, .. } if claimed => {
                assert_eq!(outcome, Outcome::retry(Cause::Throttled));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(scene.asked(), 0);
    }
}
