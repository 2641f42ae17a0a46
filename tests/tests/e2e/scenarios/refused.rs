//! Records that a database can never store, and databases that are missing or unusable.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use usher_tests::backend::{Backend, setting};
use usher_tests::database::OwnDatabase;
use usher_tests::events::{User, Webhook};
use usher_tests::program::Program;
use usher_tests::test_env::{SECRET, SOON, TestEnv};
use usher_tests::{eventually, free_port, needs, unique};

usher_tests::on_both_backends!(one_record_that_the_store_cannot_take_stops_nobody);

/// Returns random letters: a repetitive text would be compressed and fit.
fn long(length: usize) -> String {
    (0..length).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect()
}

async fn one_record_that_the_store_cannot_take_stops_nobody(backend: Backend) {
    let is_real = matches!(backend, Backend::Real(_));
    let env = TestEnv::start(backend).await;
    let webhooks: Vec<Webhook> = (0..120).map(|_| User::new().created()).collect();
    env.send_all(&webhooks[..60]).await;
    let long = User { id: format!("user_{}", long(6_000)), ..User::new() }.created();
    env.send(&long).await;
    env.send_all(&webhooks[60..]).await;
    let runs = env.all_ended(3 * 121, SOON).await;
    for flow in ["email", "trial", "db-sync"] {
        let done = |run: &&usher_store::RunRecord| run.flow == flow && run.state == "done";
        assert!(runs.iter().filter(done).count() >= 120, "{flow} goes on");
    }
    let (code, out, _) = env.usher(&["dlq", "list", "--json"]);
    assert_eq!(code, 0, "{out}");
    let letters: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(letters.iter().all(|letter| letter["event"] == long.id.as_str()), "it alone is given up: {out}");
    let flows: BTreeSet<&str> = letters.iter().filter_map(|letter| letter["flow"].as_str()).collect();
    // Resend and Stripe refuse an id of that length. SQLite accepts keys of any length; a Postgres index does not.
    let refusing: &[&str] = if is_real { &["db-sync", "email", "trial"] } else { &["email", "trial"] };
    assert_eq!(flows, refusing.iter().copied().collect(), "{out}");
    let (status, page) = env.admin_page("/readyz").await;
    assert_eq!(status, 200, "{page}");
    env.end().await;
}

/// Writes a file that only its owner can read, because a warning about its permissions would disturb the test.
fn write_private(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// Starts `usher up` or `dispatcher` with this store and no other dependency to wait for.
fn start(name: &str, store: &str, more: &[(&str, &str)], folder: &Path) -> Program {
    let data = folder.join("data").display().to_string();
    let up = ["up", "--no-lab", "--data", &data];
    let arguments: &[&str] = if name == "usher" { &up } else { &["--flow", "db-sync"] };
    let settings = [
        ("USHER_STORE", store),
        // Messages about the missing broker would disturb the test.
        ("RUST_LOG", "info,librdkafka=off,rdkafka=off,usher_eventlog=off"),
        ("USHER_LISTEN", "127.0.0.1:0"),
        ("USHER_ADMIN", "127.0.0.1:0"),
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
    ];
    let log = [("USHER_LOG", "kafka://127.0.0.1:1")];
    let settings = settings.iter().chain(log.iter().filter(|_| name != "usher")).chain(more);
    let environment: Vec<(String, String)> =
        settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Program::start(name, arguments, &environment, folder)
}

/// Asserts that both programs exit with code 64 and one error line that contains all of these parts.
async fn is_refused_in_one_line(store: &str, more: &[(&str, &str)], says: &[&str]) {
    for name in ["usher", "dispatcher"] {
        let folder = tempfile::tempdir().unwrap();
        let mut program = start(name, store, more, folder.path());
        let code = program.ended(SOON).await.code();
        let output = program.output();
        let lines: Vec<&str> = output.lines().filter(|line| !line.contains(" INFO ")).collect();
        let errors: Vec<&&str> = lines.iter().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!((code, errors.len()), (Some(64), 1), "{name}: {output}");
        for part in says {
            assert!(errors[0].contains(part), "{name} says {part:?}: {output}");
        }
        let others: Vec<&&str> =
            lines.iter().filter(|line| !line.starts_with("error: ") && !line.starts_with("flow ")).collect();
        assert!(others.is_empty(), "{name}: {output}");
        assert!(!output.contains("hunter2") && output.matches("while executing").count() == 0, "{name}: {output}");
    }
}

async fn execute(url: &str, sql: &str) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
}

#[needs(postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_only_a_person_mends_ends_the_start_in_one_line() {
    let server = setting("USHER_TEST_POSTGRES");
    let database = OwnDatabase::make(&server).await;
    let role = unique("usher_role_");
    let url = database.url();
    execute(&url, &format!("CREATE ROLE {role} LOGIN PASSWORD 'right'")).await;
    execute(&url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let host = server.rsplit_once('@').map_or(server.trim_start_matches("postgres://"), |(_, host)| host);
    let host = host.split('/').next().unwrap();
    let name = url.rsplit_once('/').unwrap().1;
    let of = |database: &str, password: &str| format!("postgres://{role}:{password}@{host}/{database}");

    is_refused_in_one_line(
        &of("no_such_database", "right"),
        &[],
        &["USHER_STORE: ", host, "3D000", "create the database"],
    )
    .await;
    is_refused_in_one_line(&of(name, "right"), &[], &["USHER_STORE: ", name, "42501", "USHER_STORE_SCHEMA"]).await;
    let schema = [("USHER_STORE_SCHEMA", "usher")];
    is_refused_in_one_line(&of(name, "right"), &schema, &["USHER_STORE: ", name, "42501"]).await;
    // If the server requires no password, a nonexistent role stands for a wrong password.
    let stranger = of(name, "hunter2").replace(&role, "nobody_of_this_name");
    is_refused_in_one_line(&stranger, &[], &["USHER_STORE: ", host, "28", "set a user and password"]).await;
    // Tables with Usher's names that Usher did not create.
    execute(&url, "CREATE TABLE usher_run (id int)").await;
    is_refused_in_one_line(&url, &[], &["USHER_STORE: ", name, "42P07", "not as Usher made them"]).await;

    execute(&url, &format!("DROP ROLE {role}")).await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_database_is_said_in_one_line_by_every_program() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage.db");
    write_private(&garbage, long(100_000).as_bytes());
    let store = format!("sqlite:{}", garbage.display());
    let says = ["USHER_STORE: ", "garbage.db", "damaged or no SQLite database"];
    is_refused_in_one_line(&store, &[], &says).await;

    // A store that was truncated.
    let whole = folder.path().join("whole.db");
    let address = format!("sqlite:{}", whole.display());
    let mut program = start("usher", &address, &[], folder.path());
    program.says("usher is ready").await;
    program.terminate();
    assert!(program.ended(SOON).await.success(), "{}", program.output());
    // The last writes may still be in the WAL file.
    let mut connection = sqlx::SqliteConnection::connect(&address).await.unwrap();
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    connection.close().await.unwrap();
    let bytes = std::fs::read(&whole).unwrap();
    let cut = folder.path().join("cut.db");
    write_private(&cut, &bytes[..bytes.len() / 2]);
    let cut = format!("sqlite:{}", cut.display());
    is_refused_in_one_line(&cut, &[], &["USHER_STORE: ", "cut.db", "damaged or no SQLite database"]).await;

    for store in [&store, &cut] {
        for arguments in [&["runs"][..], &["dlq", "list"], &["pause", "email"]] {
            let output = std::process::Command::new(usher_tests::program::programs().join("usher"))
                .args(arguments)
                .env_clear()
                .env("USHER_STORE", store)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!((output.status.code(), text.lines().count()), (Some(64), 1), "{arguments:?}: {text}");
            assert!(text.contains("USHER_STORE: ") && text.contains("damaged"), "{arguments:?}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_not_there_yet_is_waited_for_with_few_words() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    // Nothing listens on this port, and no other program takes it.
    let program = start("dispatcher", &format!("postgres://u:hunter2@127.0.0.1:{port}/d"), &[], folder.path());
    let line = format!("USHER_STORE: no connection to 127.0.0.1:{port}/d: connection refused; trying again");
    eventually("it says so again", SOON, || async {
        program.output().contains(&format!("{line}, for 1")).then_some(())
    })
    .await;
    let output = program.output();
    assert_eq!(output.matches("no connection").count(), 2, "{output}");
    assert!(!output.contains("hunter2") && !output.contains("pool timed out"), "{output}");
    program.kill().await;
    drop(TcpListener::bind(("127.0.0.1", port)).expect("it was free all the time"));
}

/// Starts `usher up` with the lab and every flow.
fn start_all(store: &str, folder: &Path) -> Program {
    let data = folder.join("data").display().to_string();
    let anywhere = "127.0.0.1:0";
    let arguments = ["up", "--data", &data, "--listen", anywhere, "--admin", anywhere, "--lab", anywhere];
    let environment = [("USHER_STORE", store), ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET), ("RUST_LOG", "info")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Program::start("usher", &arguments, &environment, folder)
}

#[needs(postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usher_up_says_why_a_flow_cannot_go_on_and_ends_with_an_error() {
    // With a slow store, the first flow fails before the last one is prepared.
    let server = setting("USHER_TEST_POSTGRES");
    let folder = tempfile::tempdir().unwrap();
    let database = OwnDatabase::make(&server).await;
    let store = database.url();
    let mut program = start_all(&store, folder.path());
    let address = program.says("usher is ready: webhooks on http://").await;
    let client = reqwest::Client::new();
    for _ in 0..8 {
        let webhook = User::new().created();
        let request = client.post(format!("http://{address}/webhooks/clerk")).body(webhook.body.clone());
        let headers = webhook.headers(SECRET);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        assert_eq!(request.send().await.unwrap().status(), 204);
    }
    let frontiers = "SELECT count(*) FROM usher_ownership WHERE frontier > 0";
    let mut connection = sqlx::PgConnection::connect(&store).await.unwrap();
    let started = Instant::now();
    loop {
        let (moved,): (i64,) = sqlx::query_as(frontiers).fetch_one(&mut connection).await.unwrap();
        if moved >= 8 {
            break;
        }
        program.assert_running();
        assert!(started.elapsed() < SOON, "{moved} partitions of all flows were read: {}", program.output());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    connection.close().await.unwrap();
    program.terminate();
    assert!(program.ended(SOON).await.success(), "{}", program.output());

    for file in std::fs::read_dir(folder.path().join("data")).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log.db")) {
            std::fs::remove_file(path).unwrap();
        }
    }
    let mut program = start_all(&store, folder.path());
    let ended = program.ended(SOON).await;
    let output = program.output();
    assert!(!ended.success(), "{output}");
    let errors: Vec<&str> = output.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains("the log was reset"), "{output}");
    assert!(!output.contains("already exists"), "{output}");
    database.remove().await;
}
