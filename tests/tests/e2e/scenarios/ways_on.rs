//! The procedures of `docs/operations.md`: a store or log that is lost, restored or moved, and the messages about it.

use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::test_env::{Options, SOON, TestEnv};
use usher_tests::{eventually, unique};

usher_tests::on_both_backends!(
    an_empty_store_beside_a_log_that_was_read_is_refused_until_somebody_says_how_to_go_on,
    a_log_that_ends_before_its_store_is_refused_until_somebody_says_how_to_go_on,
    everything_moves_to_a_topic_with_more_partitions_and_waits_go_along,
);

/// One mail at once and one after a wait, unless the user is deleted before.
const FLOW: &str = r#"
on = ["clerk/user.created"]
cancel_on = ["clerk/user.deleted"]
[[step]]
name = "now"
use = "resend.send"
to = "{{ user.email }}"
subject = "now"
text = "hello"
[[step]]
name = "wait"
wait = "300d"
[[step]]
name = "later"
use = "resend.send"
to = "{{ user.email }}"
subject = "later"
text = "hello"
"#;

async fn env(backend: Backend) -> TestEnv {
    TestEnv::with(backend, Options { flows: vec![("mail", FLOW)], ..Options::default() }).await
}

fn signups(count: usize) -> (Vec<User>, Vec<Webhook>) {
    let users: Vec<User> = (0..count).map(|_| User::new()).collect();
    let webhooks = users.iter().map(User::created).collect();
    (users, webhooks)
}

/// Waits until `count` runs are in this state.
async fn are(env: &TestEnv, count: usize, state: &str) {
    let state = state.parse().unwrap();
    eventually("the runs are there", SOON, || async {
        let runs = env.runs(&RunFilter { states: vec![state], ..RunFilter::default() }).await;
        (runs.len() == count).then_some(())
    })
    .await;
}

/// Asserts that the process that delivers refuses to start and reports the reason and the next step.
async fn is_refused(env: &TestEnv, why: &str, way_on: &str) {
    let mut delivering = env.start_delivering();
    let ended = delivering.ended(SOON).await;
    let output = delivering.output();
    assert!(!ended.success(), "{output}");
    assert!(output.contains(why) && output.contains(way_on), "{output}");
}

fn seek(env: &TestEnv, to: &str) {
    let (code, said, error) = env.usher(&["seek", "mail", "--to", to, "--by", "ann"]);
    assert_eq!(code, 0, "{said}{error}");
}

async fn an_empty_store_beside_a_log_that_was_read_is_refused_until_somebody_says_how_to_go_on(backend: Backend) {
    let mut env = env(backend).await;
    env.send_all(&signups(20).1).await;
    are(&env, 20, "waiting").await;
    env.stop_delivering().await;
    env.lose_store().await;
    is_refused(&env, "the store knows nothing of the flow", "usher seek FLOW --to committed").await;
    // The runs in flight are lost: earlier events are not processed again, and new ones are.
    seek(&env, "committed");
    env.go_on_delivering().await;
    env.send_all(&signups(5).1).await;
    are(&env, 5, "waiting").await;
    assert_eq!(env.effects("resend").len(), 25);

    // Or the log is read again from the beginning: the destination recognizes repeated requests.
    env.stop_delivering().await;
    env.lose_store().await;
    is_refused(&env, "the store knows nothing of the flow", "usher seek FLOW --to committed").await;
    seek(&env, "beginning");
    env.go_on_delivering().await;
    are(&env, 25, "waiting").await;
    assert_eq!(env.effects("resend").len(), 25, "none twice");
    env.end().await;
}

/// Starts an environment with twenty waiting runs and kills all programs.
async fn killed_with_20_waits(backend: Backend) -> (TestEnv, Vec<User>, Vec<Webhook>) {
    let mut env = env(backend).await;
    let (users, webhooks) = signups(20);
    env.send_all(&webhooks).await;
    are(&env, 20, "waiting").await;
    env.kill_delivering().await;
    env.kill_separate_ingest().await;
    (env, users, webhooks)
}

async fn a_log_that_ends_before_its_store_is_refused_until_somebody_says_how_to_go_on(backend: Backend) {
    let (mut env, users, _) = killed_with_20_waits(backend).await;
    env.lose_log().await;
    is_refused(&env, "the log was reset or restored", "usher seek FLOW --to").await;
    seek(&env, "beginning");
    env.go_on_delivering().await;
    env.start_separate_ingest().await;
    // Waiting runs are ordered before new events, although the offsets of the new log are smaller.
    env.send_all(&users.iter().take(5).map(User::deleted).collect::<Vec<_>>()).await;
    are(&env, 5, "cancelled").await;
    are(&env, 15, "waiting").await;
    env.send_all(&signups(5).1).await;
    are(&env, 20, "waiting").await;
    env.end().await;
}

async fn everything_moves_to_a_topic_with_more_partitions_and_waits_go_along(backend: Backend) {
    let (mut env, users, webhooks) = killed_with_20_waits(backend).await;
    let prefix = unique("moved");
    let (code, said, error) = env.usher(&["move", "--to-prefix", &prefix, "--to-partitions", "12"]);
    assert!(code == 0 && said.contains("20 runs") && said.contains("USHER_PARTITIONS=12"), "{said}{error}");
    env.set("USHER_TOPIC_PREFIX", &prefix);
    env.set("USHER_PARTITIONS", "12");
    env.go_on_delivering().await;
    env.start_separate_ingest().await;
    env.send_all(&users.iter().take(5).map(User::deleted).collect::<Vec<_>>()).await;
    are(&env, 5, "cancelled").await;
    env.send_all(&signups(10).1).await;
    are(&env, 25, "waiting").await;
    // A webhook that its sender repeats is recognized.
    env.send_all(&webhooks).await;
    env.send_all(&signups(5).1).await;
    are(&env, 30, "waiting").await;
    assert_eq!(env.effects("resend").len(), 35);
    env.end().await;
}
