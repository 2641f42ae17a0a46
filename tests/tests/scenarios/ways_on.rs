//! The steps of docs/operations.md: a store or a log that is lost, restored or moved, and what is said of it.

use usher_dispatcher::store::RunFilter;
use usher_tests::events::{User, Webhook};
use usher_tests::pair::Pair;
use usher_tests::world::{Options, SOON, World};
use usher_tests::{eventually, unique};

usher_tests::on_both_pairs!(
    an_empty_store_beside_a_log_that_was_read_is_refused_until_somebody_says_how_to_go_on,
    a_log_that_ends_before_its_store_is_refused_until_somebody_says_how_to_go_on,
    everything_moves_to_a_topic_with_more_partitions_and_waits_go_along,
);

/// One mail at once, and one after a while unless its user is gone.
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

async fn world(pair: Pair) -> World {
    World::with(pair, Options { flows: vec![("mail", FLOW)], ..Options::default() }).await
}

fn signups(count: usize) -> (Vec<User>, Vec<Webhook>) {
    let users: Vec<User> = (0..count).map(|_| User::new()).collect();
    let webhooks = users.iter().map(User::created).collect();
    (users, webhooks)
}

/// Waits until so many runs are in this state.
async fn are(world: &World, count: usize, state: &str) {
    let state = Some(state.parse().unwrap());
    eventually("the runs are there", SOON, || async {
        let runs = world.runs(&RunFilter { state, ..RunFilter::default() }).await;
        (runs.len() == count).then_some(())
    })
    .await;
}

/// What delivers does not start, and its last words say why.
async fn is_refused(world: &World, why: &str, way_on: &str) {
    let mut delivering = world.start_delivering();
    let ended = delivering.ended(SOON).await;
    let output = delivering.output();
    assert!(!ended.success(), "{output}");
    assert!(output.contains(why) && output.contains(way_on), "{output}");
}

fn seek(world: &World, to: &str) {
    let (code, said, error) = world.usher(&["seek", "mail", "--to", to, "--by", "ann"]);
    assert_eq!(code, 0, "{said}{error}");
}

async fn an_empty_store_beside_a_log_that_was_read_is_refused_until_somebody_says_how_to_go_on(pair: Pair) {
    let mut world = world(pair).await;
    world.send_all(&signups(20).1).await;
    are(&world, 20, "waiting").await;
    world.stop_delivering().await;
    world.lose_store().await;
    is_refused(&world, "the store knows nothing of the flow", "usher seek FLOW --to committed").await;
    // Without what was under way: nothing of before is done again, and what comes is.
    seek(&world, "committed");
    world.go_on_delivering().await;
    world.send_all(&signups(5).1).await;
    are(&world, 5, "waiting").await;
    assert_eq!(world.effects("resend").len(), 25);

    // Or read again from the beginning: the destination knows what it has done.
    world.stop_delivering().await;
    world.lose_store().await;
    is_refused(&world, "the store knows nothing of the flow", "usher seek FLOW --to committed").await;
    seek(&world, "beginning");
    world.go_on_delivering().await;
    are(&world, 25, "waiting").await;
    assert_eq!(world.effects("resend").len(), 25, "none twice");
    world.end().await;
}

/// Twenty people who wait, and everything was killed since.
async fn killed_with_20_waits(pair: Pair) -> (World, Vec<User>, Vec<Webhook>) {
    let mut world = world(pair).await;
    let (users, webhooks) = signups(20);
    world.send_all(&webhooks).await;
    are(&world, 20, "waiting").await;
    world.kill_delivering().await;
    world.kill_front_if_apart().await;
    (world, users, webhooks)
}

async fn a_log_that_ends_before_its_store_is_refused_until_somebody_says_how_to_go_on(pair: Pair) {
    let (mut world, users, _) = killed_with_20_waits(pair).await;
    world.lose_log().await;
    is_refused(&world, "the log was reset or restored", "usher seek FLOW --to").await;
    seek(&world, "beginning");
    world.go_on_delivering().await;
    world.start_front_if_apart().await;
    // What waited is in order with what comes: offsets of another log do not make it later.
    world.send_all(&users.iter().take(5).map(User::deleted).collect::<Vec<_>>()).await;
    are(&world, 5, "cancelled").await;
    are(&world, 15, "waiting").await;
    world.send_all(&signups(5).1).await;
    are(&world, 20, "waiting").await;
    world.end().await;
}

async fn everything_moves_to_a_topic_with_more_partitions_and_waits_go_along(pair: Pair) {
    let (mut world, users, webhooks) = killed_with_20_waits(pair).await;
    let prefix = unique("moved");
    let (code, said, error) = world.usher(&["move", "--to-prefix", &prefix, "--to-partitions", "12"]);
    assert!(code == 0 && said.contains("20 runs") && said.contains("USHER_PARTITIONS=12"), "{said}{error}");
    world.set("USHER_TOPIC_PREFIX", &prefix);
    world.set("USHER_PARTITIONS", "12");
    world.go_on_delivering().await;
    world.start_front_if_apart().await;
    world.send_all(&users.iter().take(5).map(User::deleted).collect::<Vec<_>>()).await;
    are(&world, 5, "cancelled").await;
    world.send_all(&signups(10).1).await;
    are(&world, 25, "waiting").await;
    // The same webhook again, as its sender may repeat it, is known.
    world.send_all(&webhooks).await;
    world.send_all(&signups(5).1).await;
    are(&world, 30, "waiting").await;
    assert_eq!(world.effects("resend").len(), 35);
    world.end().await;
}
