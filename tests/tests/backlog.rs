//! A backlog of any length is processed in bounded memory. `just backlog` tests it with a million events in a release
//! build; `USHER_BACKLOG` sets their number.
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

/// The tests measure and therefore run one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Default length of the backlog, and length of the shorter one that a longer one is compared with. Enough to fill
/// every bounded buffer.
const EVENTS: usize = 20_000;
/// Maximum number of events for a failing destination: the lab stores all requests in the memory of this test.
const HELD: usize = 100_000;
/// Maximum number of users; each has several events.
const USERS: usize = 50_000;
/// Extra bytes per body, for about 2 kB in all. Random, so that compression does not help.
const FILLING: usize = 1_300;
/// Maximum number of appends in flight.
const APPENDS: usize = 1_000;

const MIB: u64 = 1024 * 1024;
/// Memory of the idle process, in bytes: code, runtime, connections, statements, clients.
const IDLE: u64 = 48 * MIB;
/// Data that librdkafka prefetches (`queued.max.messages.kbytes`), in bytes. The page caches of the embedded
/// log are smaller.
const FETCHED: u64 = 16 * MIB;
/// Memory of one event in flight, in bytes: about 2 kB of body and its metadata.
const EVENT: u64 = 4 * 1024;
/// Memory limit of a flow, in bytes: 4096 runs and waiting events (64 MiB if they are larger).
const RUNS: u64 = 4096 * EVENT;
/// Batches of 256 events in flight, in bytes: four between log and flow, one for each of eight partitions in the flow,
/// and the text forms of batches on their way to the database.
const BATCHES: u64 = (4 + 8 + 4) * 256 * EVENT;
/// Upper bound of the peak, in bytes. The allocator may retain as much again as is freed.
const BOUND: u64 = IDLE + 2 * (FETCHED + RUNS + BATCHES);
/// Allowed difference between the peaks of two runs, in bytes. It covers variation of the allocator. Growth with the
/// length of the backlog would be fifty times as large.
const MOODS: u64 = 24 * MIB;

/// Every run is done without a request, so that only the dispatcher is measured.
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

/// Returns the lengths to test: the configured one, at most `most`, preceded by a shorter one if there is one.
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
        let held = per_second(events, began);
        let peak = backlog.env.deliverer().peak_memory();
        log_once(&format!("backlog on {name}: destination down, held {held}, at most {}", mib(peak)));

        backlog.env.lab().end_fault("resend").unwrap();
        let began = Instant::now();
        backlog.is_done().await;
        let done = per_second(events, began);
        let peak = backlog.env.deliverer().peak_memory();
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

/// Asserts that all peaks are below the bound and that a longer backlog needs no more than a shorter one.
fn bounded(peaks: &[u64]) {
    assert!(peaks.iter().all(|peak| *peak <= BOUND), "{peaks:?} of {BOUND}");
    assert!(peaks.is_sorted_by(|short, long| *long <= *short + MOODS), "it grows with the backlog: {peaks:?}");
}

/// Events in the log that no process has read.
struct Backlog {
    env: TestEnv,
    pool: AnyPool,
    events: usize,
}

impl Backlog {
    /// Starts an environment whose flow is started and stopped before the events are appended.
    async fn new(backend: Backend, flow: &'static str, events: usize) -> Self {
        let mut env = TestEnv::with(backend, Options { flows: vec![("flow", flow)], ..Options::default() }).await;
        let pool = env.pool().await;
        env.stop_delivering().await;
        let log = env.log().await;
        let topic = env.layout().events();
        let users = USERS.min(events / 4);
        futures::stream::iter(0..events)
            .for_each_concurrent(APPENDS, |number| {
                let record = webhook(number, users).record();
                async { _ = log.append(&topic, record).await.expect("it is kept") }
            })
            .await;
        Self { env, pool, events }
    }

    /// Waits until all events have been admitted to the store.
    async fn is_admitted(&self) {
        let sql = "SELECT CAST(coalesce(sum(frontier), 0) AS BIGINT) FROM usher_ownership";
        self.until("the store holds all", async || {
            let (admitted,): (i64,) = sqlx::query_as(sql).fetch_one(&self.pool).await.ok()?;
            (usize::try_from(admitted).unwrap() >= self.events).then_some(())
        })
        .await;
    }

    /// Waits until all runs are done.
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
        // Allows 20 ms per event: a rate as low as 50 events per second would be a bug.
        let deadline = Duration::from_secs(120) + Duration::from_millis(20) * u32::try_from(self.events).unwrap();
        let began = Instant::now();
        while so().await.is_none() {
            assert!(began.elapsed() < deadline, "after {deadline:?} still not: {what}");
            // Often enough to measure seconds, and rarely enough to put no load on the database.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn end(self) {
        self.pool.close().await;
        self.env.end().await;
    }
}

/// Returns the event with this number. Users alternate.
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
