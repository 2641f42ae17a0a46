//! A machine with a wrong clock: nothing is pruned, given up or sent because of it, and new events are processed.

use std::path::Path;
use std::time::Duration;

use usher_store::RunFilter;
use usher_tests::backend::{Backend, setting};
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::needs;
use usher_tests::test_env::{Options, SOON, TestEnv};

/// Waits three days, then sends a mail. `SOON_OR_NEVER` waits for an address instead, and expires after ten minutes.
const LATER: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "wait"
wait = "3d"
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
subject = "later"
text = "hello"
"#;

const SOON_OR_NEVER: &str = r#"
on = ["clerk/user.created"]
expires_after = "10m"
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
needs = "user.email"
needs_within = "7d"
subject = "now"
text = "hello"
"#;

/// Starts an environment whose programs have their own clock, set by `file`.
async fn env(file: &Path) -> TestEnv {
    let library = setting("USHER_TEST_FAKETIME");
    std::fs::write(file, "+0").unwrap();
    let settings = vec![
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // Setting a clock does not change the monotonic clock.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let flows = vec![("later", LATER), ("soon", SOON_OR_NEVER)];
    TestEnv::with(Backend::Embedded, Options { flows, settings, ..Options::default() }).await
}

/// Returns the number of the flow's runs in this state.
async fn count(env: &TestEnv, flow: &str, state: &str) -> usize {
    let states = vec![state.parse().unwrap()];
    env.runs(&RunFilter { flow: Some(flow.to_owned()), states, ..RunFilter::default() }).await.len()
}

async fn are(env: &TestEnv, flow: &str, state: &str, expected: usize) {
    eventually(&format!("{expected} runs of {flow} are {state}"), SOON, || async {
        (count(env, flow, state).await == expected).then_some(())
    })
    .await;
}

async fn sign_up(env: &TestEnv, count: usize) {
    env.send_all(&(0..count).map(|_| User::new().created()).collect::<Vec<Webhook>>()).await;
}

#[needs(faketime)]
#[tokio::test]
async fn a_clock_that_is_set_and_set_back_loses_nothing_and_kills_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    let mut env = env(&clock).await;
    let nobody = User::without_email();
    env.send(&nobody.created()).await;
    sign_up(&env, 5).await;
    are(&env, "soon", "done", 5).await;
    are(&env, "later", "waiting", 6).await;

    // The clock is set during operation: the process continues with its own time and is not ready.
    let not_ready = async |env: &TestEnv| {
        eventually("it is not ready", SOON, || async { (env.admin_page("/readyz").await.0 == 503).then_some(()) })
            .await;
    };
    std::fs::write(&clock, "+40d").unwrap();
    not_ready(&env).await;
    // Meanwhile ingest refuses webhooks whose timestamp does not match the clock.
    assert_eq!(env.send_once(&User::new().created()).await, Some(401));
    std::fs::write(&clock, "+0").unwrap();
    sign_up_until_kept(&env, 5).await;
    are(&env, "soon", "done", 10).await;

    // Started with the wrong clock, and running for longer than the interval of pruning.
    env.stop_delivering().await;
    std::fs::write(&clock, "+40d").unwrap();
    env.go_on_delivering().await;
    tokio::time::sleep(Duration::from_secs(65)).await;
    env.stop_delivering().await;
    std::fs::write(&clock, "+0").unwrap();
    env.go_on_delivering().await;
    are(&env, "soon", "done", 10).await;
    are(&env, "soon", "waiting", 1).await;
    are(&env, "later", "waiting", 11).await;

    // The clock is behind: nothing is started. After it is corrected, all runs continue.
    env.stop_delivering().await;
    std::fs::write(&clock, "-40d").unwrap();
    let behind = env.start_delivering();
    eventually("it says what is wrong", SOON, || async {
        behind.output().contains("the clock is wrong").then_some(())
    })
    .await;
    behind.kill().await;
    std::fs::write(&clock, "+0").unwrap();
    env.go_on_delivering().await;
    sign_up(&env, 5).await;
    are(&env, "soon", "done", 15).await;
    are(&env, "soon", "dead", 0).await;
    are(&env, "later", "waiting", 16).await;
    assert_eq!(env.effects("resend").len(), 15);
    env.end().await;
}

/// Sends each signup until it is acknowledged, because the programs take a moment to accept the corrected clock.
async fn sign_up_until_kept(env: &TestEnv, count: usize) {
    for _ in 0..count {
        env.send_until_kept(&User::new().created()).await;
    }
}

#[tokio::test]
async fn the_dashboards_example_event_works_long_after_the_start() {
    let env = TestEnv::with(Backend::Embedded, Options { flows: vec![("later", LATER)], ..Options::default() }).await;
    sign_up(&env, 1).await;
    are(&env, "later", "waiting", 1).await;
    // Simulates months of operation: runs received more than 35 days ago have been pruned.
    let horizon = usher_service::clock::now().millis() - 35 * 24 * 3_600_000;
    let pool = env.pool().await;
    let sql = "INSERT INTO usher_pruned (flow, older_than) VALUES ('later', $1)";
    sqlx::query(sql).bind(horizon).execute(&pool).await.unwrap();
    // The dashboard's examples have a timestamp of 2022.
    let mut example = User::new().created();
    let mut body: serde_json::Value = serde_json::from_str(&example.body).unwrap();
    body["timestamp"] = 1_654_012_591_835_i64.into();
    body["data"]["updated_at"] = 1_654_012_591_835_i64.into();
    example.body = body.to_string();
    env.send(&example).await;
    are(&env, "later", "waiting", 2).await;
    assert_eq!(count(&env, "later", "dead").await, 0);
    env.end().await;
}
