//! A backlog is worked off inside a bound of memory, however long it is. `just backlog` does it with a million events, in a
//! release build; `USHER_BACKLOG` says how many.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::json;
use sqlx::AnyPool;
use tokio::sync::Mutex;
use usher_lab::Fault;
use usher_tests::backend::{Backend, log_once};
use usher_tests::events::Webhook;
use usher_tests::test_env::{Options, TestEnv};

usher_tests::on_both_backends!(
    #[ignore = "it measures, for minutes: just backlog"]
    a_backlog_is_worked_off_in_bounded_memory,
    #[ignore = "it measures, for minutes: just backlog"]
    a_backlog_for_a_destination_that_is_down_is_held_in_bounded_memory,
);

/// They measure, each by itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How long the backlog is, unless it is said; and the shorter one that a longer one is compared with. Enough to fill
/// whatever is bounded.
const EVENTS: usize = 20_000;
/// Of a destination that is down, so many: the lab keeps all that it is sent, in the memory of this test.
const HELD: usize = 100_000;
/// Whom the events concern, each user several times.
const USERS: usize = 50_000;
/// Fills the body up to some two kilobytes, and does not repeat itself for compression's sake.
const FILLING: usize = 1_300;
/// How many appends are under way at once.
const APPENDS: usize = 1_000;

const MIB: u64 = 1024 * 1024;
/// What the process takes with nothing to do: code, runtime, connections, statements, clients.
const IDLE: u64 = 48 * MIB;
/// What librdkafka fetches ahead (`queued.max.messages.kbytes`). The embedded log's page caches are smaller.
const FETCHED: u64 = 16 * MIB;
/// What one event of this backlog takes on its way: some two kilobytes of body, and what is kept with it.
const EVENT: u64 = 4 * 1024;
/// What a flow may hold: 4096 runs and waiting events, or 64 MiB where they are larger.
const RUNS: u64 = 4096 * EVENT;
/// Batches of 256 events under way: four between log and flow, one of each of eight partitions in the flow, and the texts
/// that they are turned into on their way into the database.
const BATCHES: u64 = (4 + 8 + 4) * 256 * EVENT;
/// The allocator keeps as much again of what comes and goes.
const BOUND: u64 = IDLE + 2 * (FETCHED + RUNS + BATCHES);
/// By how much the peak may differ between two runs: the allocator's moods, not the length of the backlog, which would take
/// fifty times as much.
const MOODS: u64 = 24 * MIB;

/// Every run is done without asking anybody, so that it is the machinery that is measured.
const NOTHING: &str = r#"
on = ["clerk/user.*"]
[[step]]
name = "mail"
when = "false"
use = "resend.send"
to = "nobody@mail.test"
subject = "hello"
text = "hello"
"#;

const MAIL: &str = r#"
on = ["clerk/user.*"]
[[step]]
name = "mail"
use = "resend.send"
to = "nobody@mail.test"
subject = "hello"
text = "hello"
tags = { clerk_user_id = "{{ user.id }}" }
"#;

/// How many events, up to `most`; and before them a shorter backlog, where there is one.
fn lengths(most: usize) -> Vec<usize> {
    let long = std::env::var("USHER_BACKLOG").map_or(EVENTS, |text| text.parse().unwrap()).min(most);
    if long > EVENTS { vec![EVENTS, long] } else { vec![long] }
}

async fn a_backlog_is_worked_off_in_bounded_memory(backend: Backend) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let name = backend.name();
    let mut peaks = Vec::new();
    for events in lengths(usize::MAX) {
        let mut backlog = Backlog::new(backend.clone(), NOTHING, events).await;
        let began = Instant::now();
        backlog.env.go_on_delivering().await;
        backlog.is_done().await;
        let peak = backlog.env.deliverer().peak_memory();
        log_once(&format!("backlog on {name}: {}, at most {}", per_second(events, began), mib(peak)));
        peaks.push(peak);
        backlog.end().await;
    }
    bounded(&peaks);
}

async fn a_backlog_for_a_destination_that_is_down_is_held_in_bounded_memory(backend: Backend) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let name = backend.name();
    let mut peaks = Vec::new();
    for events in lengths(HELD) {
        let mut backlog = Backlog::new(backend.clone(), MAIL, events).await;
        backlog.env.lab().set_fault("resend", Fault { status: Some(503), ..Fault::default() }).unwrap();
        let began = Instant::now();
        backlog.env.go_on_delivering().await;
        backlog.is_admitted().await;
        let (held, peak) = (per_second(events, began), backlog.env.deliverer().peak_memory());
        log_once(&format!("backlog on {name}: destination down, held {held}, at most {}", mib(peak)));

        backlog.env.lab().end_fault("resend").unwrap();
        let began = Instant::now();
        backlog.is_done().await;
        let (done, peak) = (per_second(events, began), backlog.env.deliverer().peak_memory());
        log_once(&format!("backlog on {name}: destination back, done {done}, at most {}", mib(peak)));
        assert_eq!(backlog.env.effects("resend").len(), events, "each once");
        peaks.push(peak);
        backlog.end().await;
    }
    bounded(&peaks);
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}

fn per_second(events: usize, began: Instant) -> String {
    let took = began.elapsed();
    format!("{events} events in {:.1} s, {} a second", took.as_secs_f64(), events as u128 * 1000 / took.as_millis())
}

/// Inside the bound, and no more for a longer backlog than for a shorter one.
fn bounded(peaks: &[u64]) {
    assert!(peaks.iter().all(|peak| *peak <= BOUND), "{peaks:?} of {BOUND}");
    assert!(peaks.is_sorted_by(|short, long| *long <= *short + MOODS), "it grows with the backlog: {peaks:?}");
}

/// Events that are in the log and that nobody has read.
struct Backlog {
    env: TestEnv,
    pool: AnyPool,
    events: usize,
}

impl Backlog {
    /// An environment whose flow has begun and been stopped before the events came.
    async fn new(backend: Backend, flow: &'static str, events: usize) -> Self {
        let mut env = TestEnv::with(backend, Options { flows: vec![("flow", flow)], ..Options::default() }).await;
        let pool = env.pool().await;
        env.stop_delivering().await;
        let (log, topic) = (env.log().await, env.layout().events());
        let users = USERS.min(events / 4);
        futures::stream::iter(0..events)
            .for_each_concurrent(APPENDS, |number| {
                let record = webhook(number, users).record();
                async { _ = log.append(&topic, record).await.expect("it is kept") }
            })
            .await;
        Self { env, pool, events }
    }

    /// Waits until all of it has left the log for the store.
    async fn is_admitted(&self) {
        let sql = "SELECT CAST(coalesce(sum(frontier), 0) AS BIGINT) FROM usher_ownership";
        self.until("the store holds all", async || {
            let (admitted,): (i64,) = sqlx::query_as(sql).fetch_one(&self.pool).await.ok()?;
            (usize::try_from(admitted).unwrap() >= self.events).then_some(())
        })
        .await;
    }

    /// Waits until all of it is done.
    async fn is_done(&self) {
        self.is_admitted().await;
        let sql = "SELECT 1 FROM usher_run WHERE ended_at IS NULL LIMIT 1";
        self.until("all is done", async || {
            sqlx::query(sql).fetch_optional(&self.pool).await.ok()?.is_none().then_some(())
        })
        .await;
        let sql = "SELECT count(*) FROM usher_run WHERE state = 'done'";
        let (done,): (i64,) = sqlx::query_as(sql).fetch_one(&self.pool).await.unwrap();
        assert_eq!(usize::try_from(done).unwrap(), self.events);
    }

    async fn until(&self, what: &str, mut so: impl AsyncFnMut() -> Option<()>) {
        // Fifty a second would be a bug.
        let deadline = Duration::from_secs(120) + Duration::from_millis(20) * u32::try_from(self.events).unwrap();
        let began = Instant::now();
        while so().await.is_none() {
            assert!(began.elapsed() < deadline, "after {deadline:?} still not: {what}");
            // Often enough to tell seconds, and seldom enough to leave the database alone.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn end(self) {
        self.pool.close().await;
        self.env.end().await;
    }
}

/// The event of this number. Users take turns.
fn webhook(number: usize, users: usize) -> Webhook {
    let user = format!("user_{:06}", number % users);
    let mut filling = String::with_capacity(FILLING + 16);
    while filling.len() < FILLING {
        filling += &format!("{:016x}", rand::random::<u64>());
    }
    let data = json!({
        "id": user, "object": "user", "username": null, "first_name": "Ann", "last_name": "Lee",
        "primary_email_address_id": "idn_primary",
        "email_addresses": [{"id": "idn_primary", "email_address": format!("{user}@mail.test")}],
        "phone_numbers": [], "primary_phone_number_id": null,
        "public_metadata": {"seq": number / users + 1, "filling": filling},
        "created_at": 1_767_261_600_000_i64, "updated_at": 1_767_261_600_000_i64 + i64::try_from(number).unwrap(),
    });
    let webhook = Webhook::new("user.updated", &user, &data);
    Webhook { id: format!("msg_{number:09}"), ..webhook }
}
