//! The newest state counts: late events change nothing, a deleted user stays deleted, and a missing address
//! is waited for.

use usher_engine::RunState;
use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    a_late_event_never_overwrites_a_newer_state,
    a_deleted_user_never_comes_back,
    a_missing_address_is_waited_for_and_then_nothing_is_to_do,
);

async fn a_late_event_never_overwrites_a_newer_state(backend: Backend) {
    let env = TestEnv::start(backend).await;
    let old = User::new();
    let new = User { first_name: "Zoe".into(), ..old.changed() };
    env.send(&new.updated()).await;
    env.all_ended(2, SOON).await;
    env.send(&old.created()).await;
    let runs = env.all_ended(5, SOON).await;
    assert_eq!(env.row(&old.id).await.expect("the row")["first_name"], "Zoe");
    let late = runs.iter().find(|run| run.flow == "db-sync" && run.kind == "user.created").expect("it is seen");
    assert_eq!(late.state, "superseded");
    // The mail uses the newest known first name.
    assert_eq!(env.effects("resend")[0].body["subject"], "Welcome, Zoe");

    let same = User { first_name: "Eva".into(), ..new };
    env.send(&same.updated()).await;
    env.all_ended(7, SOON).await;
    assert_eq!(env.row(&same.id).await.expect("the row")["first_name"], "Eva", "equal is not older");
    env.end().await;
}

async fn a_deleted_user_never_comes_back(backend: Backend) {
    let env = TestEnv::start(backend).await;
    let user = User::new();
    env.send(&user.updated()).await;
    env.all_ended(2, SOON).await;
    assert!(env.row(&user.id).await.is_some());
    env.send(&user.deleted()).await;
    env.all_ended(4, SOON).await;
    assert!(env.row(&user.id).await.is_none());

    env.send(&user.changed().updated()).await;
    env.send(&user.created()).await;
    let runs = env.all_ended(9, SOON).await;
    assert!(env.row(&user.id).await.is_none());
    assert_eq!(runs.iter().filter(|run| run.state == "superseded").count(), 5, "{runs:?}");
    assert_eq!((env.effects("resend").len(), env.effects("stripe").len()), (0, 0), "no mail and no trial");
    env.end().await;
}

const SHORT: &str = r#"
on = ["clerk/user.created"]
cancel_on = ["clerk/user.deleted"]
[[step]]
name = "welcome"
use = "resend.send"
to = "{{ user.email }}"
subject = "Welcome"
text = "hello"
tags = { clerk_user_id = "{{ user.id }}" }
needs = "user.email"
needs_within = "8s"
"#;

async fn a_missing_address_is_waited_for_and_then_nothing_is_to_do(backend: Backend) {
    let env = TestEnv::with(backend, Options { flows: vec![("mail", SHORT)], ..Options::default() }).await;
    let [patient, never, deleted] = [(); 3].map(|()| User::without_email());
    for user in [&patient, &never, &deleted] {
        env.send(&user.created()).await;
    }
    let waiting = RunFilter { states: vec![RunState::Waiting], ..RunFilter::default() };
    eventually("all three wait", SOON, || async { (env.runs(&waiting).await.len() == 3).then_some(()) }).await;

    let brought = User { email: Some("found@mail.test".into()), ..patient.changed() };
    env.send(&brought.updated()).await;
    env.send(&deleted.deleted()).await;
    let runs = env.all_ended(3, SOON).await;
    let of = |user: &User| runs.iter().find(|run| run.key == user.id).expect("its run");
    assert_eq!((of(&patient).state.as_str(), of(&patient).effects.len()), ("done", 1));
    assert_eq!((of(&never).state.as_str(), of(&never).note.as_deref()), ("done", Some("nothing_to_do")));
    assert_eq!(of(&deleted).state, "cancelled");
    let mails = env.effects("resend");
    assert_eq!(mails.iter().map(|mail| mail.to.as_deref()).collect::<Vec<_>>(), [Some("found@mail.test")]);
    env.end().await;
}
