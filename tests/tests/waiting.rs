//! Runs that wait cost next to nothing: memory does not grow with them, an idle process asks the store as little as without
//! them, and those that are due at about the same time go out in that time. `just waiting` tests it with a million runs in
//! Postgres and a hundred thousand in SQLite; `USHER_WAITING` sets their number.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::AnyPool;
use tokio::sync::Mutex;
use usher_proto::Timestamp;
use usher_service::clock;
use usher_tests::backend::{Backend, log_once};
use usher_tests::events::Webhook;
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    waiting_runs_cost_nothing_and_end_in_time,
    #[ignore = "it measures, for minutes: just waiting"]
    very_many_waiting_runs_cost_nothing_and_end_in_time,
);

/// The tests measure and therefore run one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A number of runs, and those of them that become due.
#[derive(Debug, Clone, Copy)]
struct Size {
    waiting: usize,
    due: usize,
    /// Time in which they become due, evenly.
    within: Duration,
    /// Time from the start of the program until the last of what it does at a start is done. It is part of the schedule, because
    /// the times of the runs are written before the start.
    settling: Duration,
    /// Time for which the idle process is watched.
    watched: Duration,
}

/// The size of the usual tests.
const SMALL: Size = Size {
    waiting: 20_000,
    due: 500,
    within: Duration::from_secs(5),
    settling: Duration::from_secs(10),
    watched: Duration::from_secs(10),
};
/// The runs that are due in the full measurement, within a minute.
const DUE: usize = 10_000;

/// Time by which the last mail may be later than the end of its wait. Mails are sent while this test, the doubles and the
/// program share a machine with others.
const LATE: Duration = Duration::from_secs(10);
const MIB: u64 = 1024 * 1024;
/// Allowed difference of the idle process's memory with very many and with hardly any waiting runs, in bytes. A run in memory
/// takes more than a kilobyte, so 20,000 of them would be more.
const MOODS: u64 = 12 * MIB;
/// Largest number of transactions in a second of an idle process with one flow. A process of three flows without waiting runs
/// has three.
const TRANSACTIONS: f64 = 3.0;
/// Largest number of rows that the store returns in a second to an idle process. It depends on the partitions, and not on the
/// runs.
const ROWS: f64 = 500.0;

const FLOW: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "until"
wait_until = "{{ event.data.updated_at | plus('30d') }}"
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
subject = "It is time"
text = "hello"
tags = { clerk_user_id = "{{ user.id }}" }
"#;

/// The id of the user whose run the others are copies of. No other text of the event contains it.
const PATTERN: &str = "user_pattern";

async fn waiting_runs_cost_nothing_and_end_in_time(backend: Backend) {
    check(backend, SMALL).await;
}

async fn very_many_waiting_runs_cost_nothing_and_end_in_time(backend: Backend) {
    let usual = match backend {
        Backend::Embedded => 100_000,
        Backend::Real(_) => 1_000_000,
    };
    let waiting = std::env::var("USHER_WAITING").map_or(usual, |text| text.parse().unwrap());
    let minute = Duration::from_secs(60);
    let due = DUE.min(waiting / 2);
    check(backend, Size { waiting, due, within: minute, settling: minute, watched: minute }).await;
}

async fn check(backend: Backend, size: Size) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let name = backend.name();
    let real = matches!(backend, Backend::Real(_));
    let mut env = TestEnv::with(backend, Options { flows: vec![("later", FLOW)], ..Options::default() }).await;
    let pool = env.pool().await;
    env.send(&pattern()).await;
    eventually("the first run waits", SOON, || async { (waiting(&pool).await == 1).then_some(()) }).await;
    env.stop_delivering().await;
    env.go_on_delivering().await;
    tokio::time::sleep(SMALL.settling).await;
    let plain = env.deliverer().resident_memory();
    env.stop_delivering().await;

    let seeding = Instant::now();
    seed(&pool, size.waiting - 1).await;
    log_once(&format!("waiting on {name}: {} runs written in {:.0?}", size.waiting, seeding.elapsed()));
    let start = clock::now().plus(size.settling + size.watched + Duration::from_secs(5));
    become_due(&pool, size, start).await;
    let starting = Instant::now();
    env.go_on_delivering().await;
    log_once(&format!("waiting on {name}: ready after {:.1?}", starting.elapsed()));

    tokio::time::sleep(size.settling.saturating_sub(starting.elapsed())).await;
    let counted = if real { (env.transactions().await, env.rows_read().await) } else { (0, 0) };
    let (begun, processor) = (Instant::now(), env.deliverer().processor_time());
    tokio::time::sleep(size.watched).await;
    let seconds = begun.elapsed().as_secs_f64();
    let share = (env.deliverer().processor_time() - processor).as_secs_f64() / seconds * 100.0;
    let after = if real { (env.transactions().await, env.rows_read().await) } else { (0, 0) };
    let a_second = |before: i64, after: i64| f64::from(i32::try_from(after - before).unwrap()) / seconds;
    let transactions = a_second(counted.0, after.0);
    let rows = a_second(counted.1, after.1);
    let idle = env.deliverer().resident_memory();
    assert!(clock::now() < start, "the start took too long for the schedule");
    assert_eq!(env.effects("resend").len(), 0, "nothing is due");

    let end = start.plus(size.within);
    tokio::time::sleep(end.since(clock::now())).await;
    let all_sent = || async { (env.effects("resend").len() >= size.due).then_some(()) };
    eventually("all that is due is sent", 6 * LATE, all_sent).await;
    let mails = env.effects("resend");
    let late = mails.iter().map(|mail| mail.at.since(end)).max().unwrap();
    let users: HashSet<_> = mails.iter().map(|mail| mail.user.clone().unwrap()).collect();
    assert_eq!((mails.len(), users.len()), (size.due, size.due), "each once");
    assert!(mails.iter().all(|mail| mail.at >= start), "none before its time");
    let have_ended = || async { (waiting(&pool).await == size.waiting - size.due).then_some(()) };
    eventually("they have ended", SOON, have_ended).await;
    let peak = env.deliverer().peak_memory();
    log_once(&format!(
        "waiting on {name}: idle {} ({} with one run), {share:.2} % of a core, {transactions:.1} transactions and {rows:.0} rows a \
         second; {} due in {:?}, the last {late:.1?} after its end, at most {}",
        mib(idle),
        mib(plain),
        size.due,
        size.within,
        mib(peak)
    ));
    assert!(idle <= plain + MOODS, "memory grows with what waits: {} and {}", mib(plain), mib(idle));
    assert!(transactions <= TRANSACTIONS && rows <= ROWS, "{transactions} transactions and {rows} rows a second");
    assert!(late <= LATE, "{late:?} after the end of the last wait");
    pool.close().await;
    env.end().await;
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}

fn pattern() -> Webhook {
    let data = json!({
        "id": PATTERN, "object": "user", "username": null, "first_name": "Ann", "last_name": "Lee",
        "primary_email_address_id": "idn_primary",
        "email_addresses": [{"id": "idn_primary", "email_address": format!("{PATTERN}@mail.test")}],
        "phone_numbers": [], "primary_phone_number_id": null, "public_metadata": {"plan": "free"},
        "created_at": 1_767_261_600_000_i64, "updated_at": clock::now().millis(),
    });
    Webhook { id: "msg_0".into(), ..Webhook::new("user.created", PATTERN, &data) }
}

async fn waiting(pool: &AnyPool) -> usize {
    let sql = "SELECT count(*) FROM usher_open_run WHERE state = 'waiting'";
    let (count,): (i64,) = sqlx::query_as(sql).fetch_one(pool).await.unwrap();
    usize::try_from(count).unwrap()
}

/// Copies the waiting run and its subject, each copy with an event and a user of its own, over all partitions. This is what the
/// dispatcher would write, and takes seconds in place of hours.
async fn seed(pool: &AnyPool, count: usize) {
    let numbers = "WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < $1)";
    let runs = format!(
        "{numbers} INSERT INTO usher_open_run (flow, event_ref, subject, partition, position, origin, type, occurred_at, \
           received_at, admitted_at, digest, provenance, body, flow_version, state, step, destination, changed_at, due_at, wakes_at, \
           results) \
         SELECT r.flow, 'clerk/default/msg_' || n.i, 'clerk/default/user_' || n.i, \
           n.i % (SELECT count(*) FROM usher_ownership WHERE flow = r.flow), r.position, r.origin, r.type, r.occurred_at, \
           r.received_at, r.admitted_at, r.digest, r.provenance, replace(r.body, '{PATTERN}', 'user_' || n.i), r.flow_version, \
           r.state, r.step, r.destination, r.changed_at, r.due_at, r.wakes_at, r.results \
         FROM n, usher_open_run r WHERE r.subject = 'clerk/default/{PATTERN}'"
    );
    let subjects = format!(
        "{numbers} INSERT INTO usher_subject (subject, updated_at, occurred_at, event, snapshot, revision) \
         SELECT 'clerk/default/user_' || n.i, s.updated_at, s.occurred_at, s.event, \
           replace(s.snapshot, '{PATTERN}', 'user_' || n.i), s.revision \
         FROM n, usher_subject s WHERE s.subject = 'clerk/default/{PATTERN}'"
    );
    for sql in [runs, subjects] {
        let sql = sqlx::AssertSqlSafe(sql);
        sqlx::query(sql).bind(i64::try_from(count).unwrap()).execute(pool).await.unwrap();
    }
}

/// Lets runs become due from `start` on, evenly.
async fn become_due(pool: &AnyPool, size: Size, start: Timestamp) {
    let sql = "UPDATE usher_open_run SET due_at = $1 + CAST(substr(event_ref, 19) AS BIGINT) * $2 / $3, \
                 wakes_at = $1 + CAST(substr(event_ref, 19) AS BIGINT) * $2 / $3 \
               WHERE subject <> $4 AND CAST(substr(event_ref, 19) AS BIGINT) <= $3";
    let within = i64::try_from(size.within.as_millis()).unwrap();
    let due = i64::try_from(size.due).unwrap();
    let pattern = format!("clerk/default/{PATTERN}");
    let updated =
        sqlx::query(sql).bind(start.millis()).bind(within).bind(due).bind(pattern).execute(pool).await.unwrap();
    assert_eq!(updated.rows_affected(), size.due as u64);
}
