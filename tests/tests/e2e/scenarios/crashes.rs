//! Programs killed during work, and programs asked to stop.

use std::time::Duration;

use usher_tests::backend::{Backend, Services};
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::test_env::{SOON, TestEnv};

usher_tests::on_both_backends!(
    every_kept_event_survives_kill_9_with_one_effect_each,
    sigterm_is_a_clean_stop_within_ten_seconds,
);

usher_tests::behind_a_pooler!(
    every_kept_event_survives_kill_9_with_one_effect_each,
    sigterm_is_a_clean_stop_within_ten_seconds,
);

/// Number of events. Behind a pooler only the connections differ, which fewer events show too.
fn events(backend: &Backend) -> usize {
    if matches!(backend, Backend::Real(Services { pooler: Some(_), .. })) { 500 } else { 5000 }
}

async fn every_kept_event_survives_kill_9_with_one_effect_each(backend: Backend) {
    let count = events(&backend);
    let mut env = TestEnv::start(backend).await;
    let webhooks: Vec<Webhook> = (0..count).map(|_| User::new().created()).collect();
    let done = |env: &TestEnv| env.effects("resend").len();

    // Kills ingest while requests are in flight, or the dispatcher (embedded: the whole process) while steps
    // are in flight.
    for (number, part) in webhooks.chunks(count / 5).enumerate() {
        let before = done(&env);
        let (sending, rest) = part.split_at(part.len() / 2);
        env.send_all(sending).await;
        eventually("some of them have taken effect", SOON, || async { (done(&env) > before).then_some(()) }).await;
        if number % 2 == 0 {
            env.kill_dispatcher().await;
            if env.variable("USHER_LOG").is_none() {
                env.kill_ingest().await;
                env.start_ingest().await;
            }
            env.start_dispatcher().await;
            env.send_all(rest).await;
        } else {
            let unkept = tokio::select! {
                biased;
                () = env.send_all(rest) => false,
                () = async { eventually("some of them are kept", SOON, || async { (done(&env) > before + 50).then_some(()) }).await } => true,
            };
            env.kill_ingest().await;
            env.start_ingest().await;
            if unkept {
                env.send_all(rest).await;
            }
        }
    }

    let runs = env.all_ended(3 * count, Duration::from_secs(400)).await;
    assert!(runs.iter().all(|run| run.state == "done"), "all are done");
    for (provider, operation) in
        [("resend", "emails.send"), ("stripe", "customers.create"), ("stripe", "subscriptions.create")]
    {
        let effects = env.effects_by_user(provider, operation);
        assert_eq!(effects.len(), count, "{operation}: none is lost");
        assert!(effects.values().all(|count| *count == 1), "{operation}: none twice");
    }
    assert_eq!(env.rows().await, i64::try_from(count).unwrap());
    env.end().await;
}

async fn sigterm_is_a_clean_stop_within_ten_seconds(backend: Backend) {
    let mut env = TestEnv::start(backend).await;
    let webhooks: Vec<Webhook> = (0..300).map(|_| User::new().created()).collect();
    env.send_all(&webhooks).await;
    eventually("work is under way", SOON, || async { (!env.effects("resend").is_empty()).then_some(()) }).await;

    env.ingest().terminate();
    if let Some(dispatcher) = env.dispatcher() {
        dispatcher.terminate();
    }
    let ended = env.ingest().ended(Duration::from_secs(10)).await;
    assert!(ended.success(), "{ended}: {}", env.ingest().output());
    if let Some(dispatcher) = env.dispatcher() {
        let ended = dispatcher.ended(Duration::from_secs(10)).await;
        assert!(ended.success(), "{ended}: {}", dispatcher.output());
    }

    env.start_dispatcher().await;
    env.start_ingest().await;
    env.all_ended(900, Duration::from_secs(120)).await;
    let mails = env.effects_by_user("resend", "emails.send");
    assert!(mails.len() == 300 && mails.values().all(|count| *count == 1), "one mail each");
    env.end().await;
}
