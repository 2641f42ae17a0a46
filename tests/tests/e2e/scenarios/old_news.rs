//! Suppressions take effect before pending mails: an address suppressed while a flow is down, paused or changing owners
//! gets no mail.

use std::sync::Arc;

use usher_eventlog::Log;
use usher_lab::Fault;
use usher_proto::suppression::{ALL_LISTS, SuppressionChange, SuppressionKind};
use usher_proto::unsubscribe::address_key;
use usher_proto::{AddressDigest, EventId, Instance, Mailbox, Source, SubjectId};
use usher_service::clock;
use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    who_is_suppressed_while_the_flow_is_down_gets_nothing_when_it_is_back,
    who_is_suppressed_while_the_flow_is_paused_gets_nothing_when_it_goes_on,
    who_is_suppressed_while_replicas_change_gets_nothing_from_any_of_them,
    who_says_no_or_leaves_at_the_end_of_a_long_backlog_gets_nothing,
);

const MAIL: &str = r#"
on = ["clerk/user.created"]
cancel_on = ["clerk/user.deleted"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
subject = "hello"
text = "hello"
"#;

const USERS: usize = 100;
/// Number of events that are surely read ahead.
const LONG_BACKLOG: usize = 2_500;

/// Starts a flow that has admitted mails to these users but could not send any, because its destination is down.
async fn held(backend: Backend) -> (TestEnv, Vec<User>) {
    let env = TestEnv::with(backend, Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    env.lab().set_fault("resend", Fault { status: Some(503), ..Fault::default() }).unwrap();
    let users: Vec<User> = (0..USERS).map(|_| User::new()).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<Webhook>>()).await;
    eventually("all are admitted", SOON, || async {
        (env.runs(&RunFilter::default()).await.len() == USERS).then_some(())
    })
    .await;
    (env, users)
}

/// Appends the event of `usher suppress` for each user. Its key is derived from the address, so that it is usually in
/// another partition than the run.
async fn suppress(env: &TestEnv, log: &Arc<dyn Log>, users: &[User]) {
    let topic = env.layout().events();
    for user in users {
        let address = AddressDigest::of(&user.email.as_ref().unwrap().parse::<Mailbox>().unwrap().address);
        let kind = SuppressionKind::Suppressed;
        let scope = ALL_LISTS.to_owned();
        let change =
            SuppressionChange { kind, address, scope, reason: "operator".into(), by: "ann".into(), instance: None };
        let subject = SubjectId::new(Source::Usher, &Instance::default(), &address_key(address));
        let event = change.into_event(EventId::new(format!("reach_{}", user.id)), subject, clock::now());
        log.append(&topic, event.into_record()).await.unwrap();
    }
}

/// Asserts that every run has ended and that no mail was sent.
async fn nobody_was_written_to(env: &TestEnv) {
    let runs = env.all_ended(USERS, SOON).await;
    let mailed = env.effects("resend").len();
    assert_eq!(mailed, 0, "{mailed} of {USERS} were written to though they had said no");
    assert!(runs.iter().all(|run| run.note.as_deref() == Some("suppressed")), "{:?}", runs[0]);
}

async fn who_is_suppressed_while_the_flow_is_down_gets_nothing_when_it_is_back(backend: Backend) {
    let (mut env, users) = held(backend).await;
    env.kill_delivering().await;
    let log = env.log().await;
    suppress(&env, &log, &users).await;
    env.lab().end_fault("resend").unwrap();
    env.go_on_delivering().await;
    nobody_was_written_to(&env).await;
    env.end().await;
}

async fn who_is_suppressed_while_the_flow_is_paused_gets_nothing_when_it_goes_on(backend: Backend) {
    let (mut env, users) = held(backend).await;
    let (code, out, err) = env.usher(&["pause", "mail", "--by", "ann"]);
    assert!(code == 0 && out.contains("1 of 1 replicas begin nothing, and nothing is under way"), "{out}{err}");
    env.lab().end_fault("resend").unwrap();
    suppress(&env, &env.log().await, &users).await;

    // A paused flow admits and lists new events but starts none, even in a process that starts while it is paused.
    let late = User::new();
    env.stop_delivering().await;
    env.go_on_delivering().await;
    env.send(&late.created()).await;
    let of_late = RunFilter { key: Some(late.id.clone()), ..RunFilter::default() };
    eventually("it is admitted", SOON, || async { env.runs(&of_late).await.pop() }).await;
    let (_, out, err) = env.usher(&["runs", "--user", &late.id]);
    assert!(out.contains("queued") && err.contains("flow mail is paused"), "{out}{err}");
    assert_eq!(env.effects("resend").len(), 0);

    let (code, out, err) = env.usher(&["cancel", &format!("mail/{}", env.runs(&of_late).await[0].event)]);
    assert_eq!(code, 0, "{out}{err}");
    eventually("an order is carried out meanwhile", SOON, || async {
        env.runs(&of_late).await.pop().filter(|run| run.state == "cancelled")
    })
    .await;
    assert_eq!(env.usher(&["resume", "mail"]).0, 0);
    let runs = env.all_ended(USERS + 1, SOON).await;
    assert_eq!(env.effects("resend").len(), 0, "nobody was written to");
    assert_eq!(runs.iter().filter(|run| run.note.as_deref() == Some("suppressed")).count(), USERS);
    env.end().await;
}

async fn who_is_suppressed_while_replicas_change_gets_nothing_from_any_of_them(backend: Backend) {
    // The embedded backend has only one process.
    if matches!(backend, Backend::Embedded) {
        return;
    }
    let (mut env, users) = held(backend).await;
    let other = env.start_delivering();
    env.stop_delivering().await;
    other.kill().await;
    suppress(&env, &env.log().await, &users).await;
    env.lab().end_fault("resend").unwrap();
    // Each replica takes partitions that the other does not own; joining moves partitions once more.
    let mut other = env.start_delivering();
    env.go_on_delivering().await;
    other.assert_running();
    nobody_was_written_to(&env).await;
    other.kill().await;
    env.end().await;
}

/// The news are behind everything else, and long before them there is enough to begin with.
async fn who_says_no_or_leaves_at_the_end_of_a_long_backlog_gets_nothing(backend: Backend) {
    let mut env = TestEnv::with(backend, Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    env.kill_delivering().await;
    let users: Vec<User> = (0..LONG_BACKLOG).map(|_| User::new()).collect();
    let (said_no, gone) = users[..2 * USERS].split_at(USERS);
    let log = env.log().await;
    let topic = env.layout().events();
    let append = async |webhooks: Vec<Webhook>| {
        let appended = webhooks.iter().map(|webhook| log.append(&topic, webhook.record()));
        futures::future::try_join_all(appended).await.unwrap();
    };
    append(users.iter().map(User::created).collect()).await;
    suppress(&env, &log, said_no).await;
    append(gone.iter().map(User::deleted).collect()).await;

    env.go_on_delivering().await;
    let runs = env.all_ended(LONG_BACKLOG, SOON).await;
    let mailed = env.effects("resend").len();
    assert_eq!(mailed, LONG_BACKLOG - 2 * USERS, "all others are written to, and nobody else");
    assert_eq!(runs.iter().filter(|run| run.note.as_deref() == Some("suppressed")).count(), USERS);
    assert_eq!(runs.iter().filter(|run| run.state == "cancelled").count(), USERS, "by their deletion");
    env.end().await;
}
