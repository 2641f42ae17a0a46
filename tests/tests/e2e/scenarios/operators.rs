//! Operators' commands: redriving dead letters, pausing, cancelling, rerunning.

use std::collections::BTreeMap;

use usher_engine::RunState;
use usher_lab::{Fault, Filter};
use usher_proto::Offset;
use usher_store::{RunFilter, RunRecord};
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    a_thousand_dead_letters_are_redriven_in_order_under_live_traffic,
    a_paused_flow_begins_nothing_and_goes_on_when_resumed,
    a_run_is_cancelled_and_run_again,
    a_dead_letter_ends_when_its_run_is_taken_up_again,
);

const MAIL: &str = r#"
on = ["clerk/user.*"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ event.data.id }}@mail.test"
subject = "{{ event.data.public_metadata.seq }}"
text = "hello"
tags = { clerk_user_id = "{{ event.data.id }}" }
"#;

fn flows() -> Options {
    Options { flows: vec![("mail", MAIL)], ..Options::default() }
}

async fn in_state(env: &TestEnv, state: RunState) -> Vec<RunRecord> {
    env.runs(&RunFilter { states: vec![state], ..RunFilter::default() }).await
}

/// Returns the sequence numbers sent to each user, in order.
fn sent(env: &TestEnv) -> BTreeMap<String, Vec<u64>> {
    let mut sent: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for effect in env.effects("resend") {
        let seq = effect.body["subject"].as_str().unwrap().parse().unwrap();
        sent.entry(effect.user.clone().unwrap()).or_default().push(seq);
    }
    sent
}

const USERS: usize = 100;
const DEAD_EACH: u64 = 10;
const LIVE_EACH: u64 = 5;

async fn a_thousand_dead_letters_are_redriven_in_order_under_live_traffic(backend: Backend) {
    let env = TestEnv::with(backend, flows()).await;
    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    let mut users: Vec<User> = (0..USERS).map(|_| User::new()).collect();
    for round in 0..DEAD_EACH {
        let webhooks: Vec<_> =
            users.iter().map(|user| if round == 0 { user.created() } else { user.updated() }).collect();
        env.send_all(&webhooks).await;
        users = users.iter().map(User::changed).collect();
    }
    let count = USERS * usize::try_from(DEAD_EACH).unwrap();
    env.all_ended(count, SOON).await;
    assert_eq!(in_state(&env, RunState::Dead).await.len(), count);
    env.lab().end_fault("resend").unwrap();

    let (code, out, err) = env.usher(&["dlq", "redrive", "--flow", "mail", "--dry-run"]);
    assert!(code == 0 && out.ends_with("1000 of 1000 dead letters would be taken up again\n"), "{out}{err}");
    assert_eq!(in_state(&env, RunState::Dead).await.len(), count, "a dry run changes nothing");
    let (code, _, err) = env.usher(&["dlq", "redrive"]);
    assert!(code != 0 && err.contains("--all"), "{err}");

    // Redrives while the same users have new events.
    let live = async {
        for _ in 0..LIVE_EACH {
            env.send_all(&users.iter().map(User::updated).collect::<Vec<_>>()).await;
            users = users.iter().map(User::changed).collect();
        }
    };
    let redrive = async {
        eventually("live traffic has effects", SOON, || async { (!env.effects("resend").is_empty()).then_some(()) })
            .await;
        tokio::task::block_in_place(|| env.usher(&["dlq", "redrive", "--flow", "mail", "--by", "ann", "--yes"]))
    };
    let ((), (code, out, err)) = tokio::join!(live, redrive);
    assert!(code == 0 && out.ends_with("1000 of 1000 dead letters are taken up again\n"), "{out}{err}");
    let runs = env.all_ended(count + USERS * usize::try_from(LIVE_EACH).unwrap(), SOON).await;
    assert!(runs.iter().all(|run| run.state == "done"), "all are done");

    for (user, sent) in sent(&env) {
        let (dead, live): (Vec<u64>, Vec<u64>) = sent.iter().partition(|seq| **seq <= DEAD_EACH);
        assert_eq!(dead, (1..=DEAD_EACH).collect::<Vec<_>>(), "{user}: in their original order, once each");
        assert_eq!(live, (DEAD_EACH + 1..=DEAD_EACH + LIVE_EACH).collect::<Vec<_>>(), "{user}: in order, once each");
    }
    let (_, out, _) = env.usher(&["dlq", "redrive", "--all"]);
    assert!(out.starts_with("0 of 0"), "a second time there is nothing to do: {out}");
    assert_eq!(env.effects("resend").len(), runs.len());
    env.end().await;
}

async fn a_paused_flow_begins_nothing_and_goes_on_when_resumed(backend: Backend) {
    let env = TestEnv::with(backend, flows()).await;
    let (code, out, err) = env.usher(&["pause", "mail"]);
    assert_eq!(code, 0, "{out}{err}");
    // The pause is in effect when the command returns. New events are admitted and listed.
    let webhooks: Vec<_> = (0..20).map(|_| User::new().created()).collect();
    env.send_all(&webhooks).await;
    eventually("all are admitted", SOON, || async {
        (in_state(&env, RunState::Queued).await.len() == webhooks.len()).then_some(())
    })
    .await;
    let (code, out, _) = env.usher(&["pause", "mail"]);
    assert!(code == 0 && out.contains("is paused already"), "{out}");
    assert_eq!(in_state(&env, RunState::Queued).await.len(), webhooks.len());
    assert!(env.effects("resend").is_empty());

    let (code, out, _) = env.usher(&["resume", "mail"]);
    assert!(code == 0 && out.contains("goes on"), "{out}");
    eventually("everything is done", SOON, || async {
        (in_state(&env, RunState::Done).await.len() == webhooks.len()).then_some(())
    })
    .await;
    let (code, _, err) = env.usher(&["pause", "male"]);
    assert!(code != 0 && err.contains("there are mail"), "{err}");
    env.end().await;
}

async fn a_run_is_cancelled_and_run_again(backend: Backend) {
    let env = TestEnv::with(backend, flows()).await;
    env.lab().set_fault("resend", Fault { status: Some(503), ..Fault::default() }).unwrap();
    let webhook = User::new().created();
    let name = format!("mail/{}", webhook.id);
    env.send(&webhook).await;
    let requests = || env.lab().requests(&Filter { provider: Some("resend".into()), ..Filter::default() }).unwrap();
    eventually("it has been asked for", SOON, || async { (!requests().is_empty()).then_some(()) }).await;
    let (code, _, err) = env.usher(&["rerun", &name]);
    assert!(code != 0 && err.contains("has not ended yet"), "{err}");
    let (code, out, err) = env.usher(&["cancel", &name, "--by", "ann"]);
    assert_eq!(code, 0, "{out}{err}");
    eventually("it is cancelled", SOON, || async { in_state(&env, RunState::Cancelled).await.pop() }).await;
    let (code, _, err) = env.usher(&["cancel", &name]);
    assert!(code != 0 && err.contains("has ended already: cancelled"), "{err}");
    env.lab().end_fault("resend").unwrap();
    assert_eq!(env.effects("resend").len(), 0);

    for times in 1..=2 {
        let (code, out, err) = env.usher(&["rerun", &name, "--by", "bob"]);
        assert_eq!(code, 0, "{out}{err}");
        eventually("it has its effect", SOON, || async {
            let done = in_state(&env, RunState::Done).await.pop();
            done.filter(|run| run.effects.len() == times)
        })
        .await;
        assert_eq!(env.effects("resend").len(), times, "an effect of its own each time");
    }
    let (code, _, err) = env.usher(&["cancel", "nonsense"]);
    assert!(code == 64 && err.contains("FLOW/EVENT"), "{code} {err}");
    env.end().await;
}

async fn a_dead_letter_ends_when_its_run_is_taken_up_again(backend: Backend) {
    let env = TestEnv::with(backend, flows()).await;
    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    let mended = User::new();
    let given_up = User::new();
    env.send_all(&[mended.created(), given_up.created()]).await;
    env.all_ended(2, SOON).await;
    let dead = in_state(&env, RunState::Dead).await;
    let log = env.log().await;
    // The newest record of each key: `false` if it is a tombstone.
    let published = async || {
        let topic = env.topic("dlq.mail");
        let mut letters: BTreeMap<String, bool> = BTreeMap::new();
        for (partition, marks) in log.watermarks(&topic).await.unwrap() {
            for offset in marks.low.0..marks.high.0 {
                if let Some(record) = log.read(&topic, partition, Offset(offset)).await.unwrap() {
                    letters.insert(record.key.as_str().to_owned(), !record.headers.is_empty());
                }
            }
        }
        letters
    };
    assert_eq!(published().await.values().filter(|stands| **stands).count(), 2);
    env.lab().end_fault("resend").unwrap();
    let event = &dead.iter().find(|run| run.key == mended.id).unwrap().event;
    let (code, _, error) = env.usher(&["dlq", "redrive", "--event", event]);
    assert_eq!(code, 0, "{error}");
    eventually("its letter is erased", SOON, || async {
        (published().await.values().filter(|stands| **stands).count() == 1).then_some(())
    })
    .await;
    let left = published().await.into_iter().find(|(_, stands)| *stands).unwrap().0;
    assert!(!left.contains(event.as_str()), "the other one stays: {left}");
    env.end().await;
}
