//! Programs that are killed in the middle of work, and programs that are asked to stop.

use std::time::Duration;

use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::pair::Pair;
use usher_tests::world::{SOON, World};

usher_tests::on_both_pairs!(
    every_kept_event_survives_kill_9_with_one_effect_each,
    sigterm_is_a_clean_stop_within_ten_seconds,
);

const EVENTS: usize = 5000;

async fn every_kept_event_survives_kill_9_with_one_effect_each(pair: Pair) {
    let mut world = World::start(pair).await;
    let webhooks: Vec<Webhook> = (0..EVENTS).map(|_| User::new().created()).collect();
    let done = |world: &World| world.effects("resend").len();

    // Killed with requests under way (the front) and with steps under way (the back, or all of it).
    for (number, part) in webhooks.chunks(EVENTS / 5).enumerate() {
        let before = done(&world);
        let (sending, rest) = part.split_at(part.len() / 2);
        world.send_all(sending).await;
        eventually("some of them have taken effect", SOON, || async { (done(&world) > before).then_some(()) }).await;
        if number % 2 == 0 {
            world.kill_back().await;
            if world.variable("USHER_LOG").is_none() {
                world.kill_front().await;
                world.start_front().await;
            }
            world.start_back().await;
            world.send_all(rest).await;
        } else {
            let unkept = tokio::select! {
                biased;
                () = world.send_all(rest) => false,
                () = async { eventually("some of them are kept", SOON, || async { (done(&world) > before + 50).then_some(()) }).await } => true,
            };
            world.kill_front().await;
            world.start_front().await;
            if unkept {
                world.send_all(rest).await;
            }
        }
    }

    let runs = world.all_ended(3 * EVENTS, Duration::from_secs(400)).await;
    assert!(runs.iter().all(|run| run.state == "done"), "all are done");
    for (provider, operation) in
        [("resend", "emails.send"), ("stripe", "customers.create"), ("stripe", "subscriptions.create")]
    {
        let effects = world.effects_by_user(provider, operation);
        assert_eq!(effects.len(), EVENTS, "{operation}: none is lost");
        assert!(effects.values().all(|count| *count == 1), "{operation}: none twice");
    }
    assert_eq!(world.rows().await, i64::try_from(EVENTS).unwrap());
    world.end().await;
}

async fn sigterm_is_a_clean_stop_within_ten_seconds(pair: Pair) {
    let mut world = World::start(pair).await;
    let webhooks: Vec<Webhook> = (0..300).map(|_| User::new().created()).collect();
    world.send_all(&webhooks).await;
    eventually("work is under way", SOON, || async { (!world.effects("resend").is_empty()).then_some(()) }).await;

    world.front().terminate();
    if let Some(back) = world.back() {
        back.terminate();
    }
    let ended = world.front().ended(Duration::from_secs(10)).await;
    assert!(ended.success(), "{ended}: {}", world.front().output());
    if let Some(back) = world.back() {
        let ended = back.ended(Duration::from_secs(10)).await;
        assert!(ended.success(), "{ended}: {}", back.output());
    }

    world.start_back().await;
    world.start_front().await;
    world.all_ended(900, Duration::from_secs(120)).await;
    let mails = world.effects_by_user("resend", "emails.send");
    assert!(mails.len() == 300 && mails.values().all(|count| *count == 1), "one mail each");
    world.end().await;
}
