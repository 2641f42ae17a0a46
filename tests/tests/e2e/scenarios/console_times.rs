//! The time that pages take with many runs in Postgres, and the cost of an open page. Measurements, which mean something in a
//! release build on a machine without other work:
//! `cargo test --release --test e2e -- --ignored --nocapture scenarios::console_times`.

use std::time::{Duration, Instant};

use reqwest::Client;
use usher_lab::Fault;
use usher_tests::backend::{Backend, log_once};
use usher_tests::events::User;
use usher_tests::needs;
use usher_tests::test_env::{Options, SOON, TestEnv};

/// Number of requests of a page; the median counts.
const TIMES: usize = 9;

const MAIL: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
needs = "user.email"
subject = "Hello"
text = "hello"
"#;

/// Copies a run so many times, numbered from `first`: the newest was received now, the others a second before each other.
async fn copy(pool: &sqlx::AnyPool, table: &str, event: &str, first: i64, count: i64) {
    let sql = format!(
        "SELECT string_agg(column_name, ',')::text FROM information_schema.columns \
         WHERE table_name = '{table}' AND table_schema = current_schema() AND is_generated = 'NEVER'"
    );
    let (columns,): (String,) = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await.unwrap();
    let now = usher_service::clock::now().millis();
    let value = |column: &str| match column {
        "event_ref" => "'clerk/default/msg_copy' || n".to_owned(),
        "subject" => "'clerk/default/user_copy' || (n % 20000)".to_owned(),
        "received_at" | "admitted_at" | "occurred_at" => format!("{now} - (n - {first}) * 1000"),
        "ended_at" => format!("{now} - (n - {first}) * 1000 + 100"),
        "origin" | "position" => "n".to_owned(),
        other => other.to_owned(),
    };
    let values: Vec<String> = columns.split(',').map(value).collect();
    let sql = format!(
        "INSERT INTO {table} ({columns}) SELECT {} FROM {table}, generate_series({first}, {}) AS n WHERE event_ref = '{event}'",
        values.join(", "),
        first + count - 1
    );
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
}

/// Returns the median time of a page.
async fn time(client: &Client, address: &str) -> Duration {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let begun = Instant::now();
        let answer = client.get(address).send().await.unwrap();
        assert!(answer.status().is_success() || answer.status().is_redirection(), "{address}: {}", answer.status());
        answer.bytes().await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    times[TIMES / 2]
}

#[needs(kafka, postgres)]
#[ignore = "a measurement of a minute, in a release build"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_a_store_with_many_runs_come_at_once() {
    let mut env = TestEnv::with(Backend::real(), Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    let users: Vec<User> = (0..3).map(|_| User::new()).collect();
    env.send(&users[0].created()).await;
    env.all_ended(1, SOON).await;
    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    env.send(&users[1].created()).await;
    let ended = env.all_ended(2, SOON).await;
    let (code, out, err) = env.usher(&["pause", "mail"]);
    assert_eq!(code, 0, "{out}{err}");
    let webhook = users[2].created();
    env.send(&webhook).await;
    let pool = env.pool().await;
    usher_tests::eventually("it is admitted", SOON, || async {
        let sql = "SELECT event_ref FROM usher_open_run";
        let found: Option<(String,)> = sqlx::query_as(sql).fetch_optional(&pool).await.unwrap();
        found
    })
    .await;
    // Nothing is to carry the copies out.
    env.stop_delivering().await;
    let open = format!("clerk/default/{}", webhook.id);
    let reference = |state: &str| ended.iter().find(|run| run.state == state).unwrap().reference.as_str().to_owned();
    let (done, dead) = (reference("done"), reference("dead"));

    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut program = env.start_console();
    let at = format!("http://{}", program.says("usher console is ready: http://").await);
    let mut first = 1;
    for (size, dead_letters, limit) in [(100_000, 1_000, 200), (1_000_000, 9_000, 300)] {
        let more = size - first + 1;
        copy(&pool, "usher_open_run", &open, first, more / 10).await;
        copy(&pool, "usher_ended_run", &done, first + more / 10, more - more / 10 - dead_letters).await;
        copy(&pool, "usher_ended_run", &dead, first + more - dead_letters, dead_letters).await;
        sqlx::query("ANALYZE").execute(&pool).await.unwrap();
        first = size + 1;
        let event = done.replace('/', "%2F");
        for path in [
            "/",
            "/events",
            "/events?flow=mail&state=done",
            "/events?account=resend",
            &format!("/event?ref={event}"),
            "/person?id=clerk/default/user_copy5",
            "/search?q=user_copy5",
            "/dead",
            "/dead?list=1",
            "/dead?list=1&person=user_copy5",
            "/dead/redrive",
            "/redrives",
            "/flows",
            "/flow?name=mail",
        ] {
            let took = time(&client, &format!("{at}{path}")).await;
            log_once(&format!("{size} runs, {path}: {:.1} ms", took.as_secs_f64() * 1000.0));
            let is_bound = size == 100_000 || matches!(path, "/" | "/events" | "/dead" | "/flows" | "/redrives");
            assert!(
                cfg!(debug_assertions) || !is_bound || took < Duration::from_millis(limit),
                "{size} runs, {path}: {took:?}"
            );
        }
    }
    program.terminate();
    assert!(program.ended(SOON).await.success(), "{}", program.output());
    pool.close().await;
    env.end().await;
}

/// Returns the CPU time of a process so far.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    // Linux reports ticks of 10 ms to programs, whatever its own are.
    Duration::from_millis(ticks * 10)
}

#[ignore = "a measurement of two minutes, in a release build"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_page_costs_the_dispatcher_hardly_anything() {
    const MEASURED: Duration = Duration::from_secs(40);
    let mut env = TestEnv::start(Backend::Embedded).await;
    let users: Vec<User> = (0..100).map(|_| User::new()).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let pid = env.ingest().pid().unwrap();
    let mut shares = Vec::new();
    let client = Client::new();
    let admin = format!("http://{}", env.admin());
    for is_open in [false, true] {
        let stream = match is_open {
            false => None,
            true => Some(client.get(format!("{admin}/live")).send().await.unwrap()),
        };
        let before = cpu_time(pid);
        tokio::time::sleep(MEASURED).await;
        shares.push((cpu_time(pid) - before).as_secs_f64() / MEASURED.as_secs_f64());
        drop(stream);
    }
    env.end().await;
    let cost = shares[1] - shares[0];
    log_once(&format!("CPU of a core without a page {:.3} %, with one {:.3} %", shares[0] * 100.0, shares[1] * 100.0));
    assert!(cfg!(debug_assertions) || cost < 0.01, "an open page costs {:.2} % of a core", cost * 100.0);
}
