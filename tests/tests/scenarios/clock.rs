//! A machine whose clock is wrong: nothing is forgotten, given up or sent because of it, and new events work.

use std::path::Path;
use std::time::Duration;

use usher_dispatcher::store::RunFilter;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::pair::{Pair, setting};
use usher_tests::world::{Options, SOON, World};

/// Waits for long, and for an address; what it sends is worth something for ten minutes.
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

/// A world whose programs have a clock of their own, set by `file`. None where there is no libfaketime.
async fn world(file: &Path) -> Option<World> {
    let library = setting("USHER_TEST_FAKETIME")?;
    std::fs::write(file, "+0").unwrap();
    let settings = vec![
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // The time since boot is not set with the clock.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let flows = vec![("later", LATER), ("soon", SOON_OR_NEVER)];
    Some(World::with(Pair::Embedded, Options { flows, settings, ..Options::default() }).await)
}

/// Number of the flow's runs in this state.
async fn count(world: &World, flow: &str, state: &str) -> usize {
    let state = Some(state.parse().unwrap());
    world.runs(&RunFilter { flow: Some(flow.to_owned()), state, ..RunFilter::default() }).await.len()
}

async fn are(world: &World, flow: &str, state: &str, expected: usize) {
    eventually(&format!("{expected} runs of {flow} are {state}"), SOON, || async {
        (count(world, flow, state).await == expected).then_some(())
    })
    .await;
}

async fn sign_up(world: &World, count: usize) {
    world.send_all(&(0..count).map(|_| User::new().created()).collect::<Vec<Webhook>>()).await;
}

#[tokio::test]
async fn a_clock_that_is_set_and_set_back_loses_nothing_and_kills_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    let Some(mut world) = world(&clock).await else { return };
    let nobody = User::without_email();
    world.send(&nobody.created()).await;
    sign_up(&world, 5).await;
    are(&world, "soon", "done", 5).await;
    are(&world, "later", "waiting", 6).await;

    // Set while it runs: this process keeps its time, and says that something is wrong.
    let not_ready = async |world: &World| {
        eventually("it is not ready", SOON, || async { (world.admin_page("/readyz").await.0 == 503).then_some(()) })
            .await;
    };
    std::fs::write(&clock, "+40d").unwrap();
    not_ready(&world).await;
    // Meanwhile ingest takes nothing that the clock does not agree with.
    assert_eq!(world.send_once(&User::new().created()).await, Some(401));
    std::fs::write(&clock, "+0").unwrap();
    sign_up_until_kept(&world, 5).await;
    are(&world, "soon", "done", 10).await;

    // Started with it, for longer than it takes to forget what is old.
    world.stop_delivering().await;
    std::fs::write(&clock, "+40d").unwrap();
    world.go_on_delivering().await;
    tokio::time::sleep(Duration::from_secs(65)).await;
    world.stop_delivering().await;
    std::fs::write(&clock, "+0").unwrap();
    world.go_on_delivering().await;
    are(&world, "soon", "done", 10).await;
    are(&world, "soon", "waiting", 1).await;
    are(&world, "later", "waiting", 11).await;

    // Behind: nothing is begun, and then all goes on.
    world.stop_delivering().await;
    std::fs::write(&clock, "-40d").unwrap();
    let behind = world.start_delivering();
    eventually("it says what is wrong", SOON, || async {
        behind.output().contains("the clock is wrong").then_some(())
    })
    .await;
    behind.kill().await;
    std::fs::write(&clock, "+0").unwrap();
    world.go_on_delivering().await;
    sign_up(&world, 5).await;
    are(&world, "soon", "done", 15).await;
    are(&world, "soon", "dead", 0).await;
    are(&world, "later", "waiting", 16).await;
    assert_eq!(world.effects("resend").len(), 15);
    world.end().await;
}

/// Until the programs have seen that the clock is back.
async fn sign_up_until_kept(world: &World, count: usize) {
    for _ in 0..count {
        world.send_until_kept(&User::new().created()).await;
    }
}

#[tokio::test]
async fn the_dashboards_example_event_works_long_after_the_start() {
    let world = World::with(Pair::Embedded, Options { flows: vec![("later", LATER)], ..Options::default() }).await;
    sign_up(&world, 1).await;
    are(&world, "later", "waiting", 1).await;
    // As if it had run for months: what was received more than 35 days ago is forgotten.
    let horizon = usher_service::clock::now().millis() - 35 * 24 * 3_600_000;
    let pool = world.pool().await;
    let sql = "INSERT INTO usher_pruned (flow, older_than) VALUES ('later', $1)";
    sqlx::query(sql).bind(horizon).execute(&pool).await.unwrap();
    // The dashboard's examples have a time of 2022.
    let mut example = User::new().created();
    let mut body: serde_json::Value = serde_json::from_str(&example.body).unwrap();
    body["timestamp"] = 1_654_012_591_835_i64.into();
    body["data"]["updated_at"] = 1_654_012_591_835_i64.into();
    example.body = body.to_string();
    world.send(&example).await;
    are(&world, "later", "waiting", 2).await;
    assert_eq!(count(&world, "later", "dead").await, 0);
    world.end().await;
}
