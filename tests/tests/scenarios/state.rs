//! What is newer counts: late events change nothing, a deleted user stays deleted, a missing address is waited for.

use usher_dispatcher::engine::RunState;
use usher_dispatcher::store::RunFilter;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::pair::Pair;
use usher_tests::world::{Options, SOON, World};

usher_tests::on_both_pairs!(
    a_late_event_never_overwrites_a_newer_state,
    a_deleted_user_never_comes_back,
    a_missing_address_is_waited_for_and_then_nothing_is_to_do,
);

async fn a_late_event_never_overwrites_a_newer_state(pair: Pair) {
    let world = World::start(pair).await;
    let old = User::new();
    let new = User { first_name: "Zoe".into(), ..old.changed() };
    world.send(&new.updated()).await;
    world.all_ended(1, SOON).await;
    world.send(&old.created()).await;
    let runs = world.all_ended(4, SOON).await;
    assert_eq!(world.row(&old.id).await.expect("the row")["first_name"], "Zoe");
    let late = runs.iter().find(|run| run.flow == "db-sync" && run.kind == "user.created").expect("it is seen");
    assert_eq!(late.state, "superseded");
    // The mail greets the user as now known.
    assert_eq!(world.effects("resend")[0].body["subject"], "Welcome, Zoe");

    let same = User { first_name: "Eva".into(), ..new };
    world.send(&same.updated()).await;
    world.all_ended(5, SOON).await;
    assert_eq!(world.row(&same.id).await.expect("the row")["first_name"], "Eva", "equal is not older");
    world.end().await;
}

async fn a_deleted_user_never_comes_back(pair: Pair) {
    let world = World::start(pair).await;
    let user = User::new();
    world.send(&user.updated()).await;
    world.all_ended(1, SOON).await;
    assert!(world.row(&user.id).await.is_some());
    world.send(&user.deleted()).await;
    world.all_ended(3, SOON).await;
    assert!(world.row(&user.id).await.is_none());

    world.send(&user.changed().updated()).await;
    world.send(&user.created()).await;
    let runs = world.all_ended(7, SOON).await;
    assert!(world.row(&user.id).await.is_none());
    assert_eq!(runs.iter().filter(|run| run.state == "superseded").count(), 4, "{runs:?}");
    assert_eq!((world.effects("resend").len(), world.effects("stripe").len()), (0, 0), "no mail and no trial");
    world.end().await;
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

async fn a_missing_address_is_waited_for_and_then_nothing_is_to_do(pair: Pair) {
    let world = World::with(pair, Options { flows: vec![("mail", SHORT)], ..Options::default() }).await;
    let [patient, never, deleted] = [(); 3].map(|()| User::without_email());
    for user in [&patient, &never, &deleted] {
        world.send(&user.created()).await;
    }
    let waiting = RunFilter { state: Some(RunState::Waiting), ..RunFilter::default() };
    eventually("all three wait", SOON, || async { (world.runs(&waiting).await.len() == 3).then_some(()) }).await;

    let brought = User { email: Some("found@mail.test".into()), ..patient.changed() };
    world.send(&brought.updated()).await;
    world.send(&deleted.deleted()).await;
    let runs = world.all_ended(3, SOON).await;
    let of = |user: &User| runs.iter().find(|run| run.key == user.id).expect("its run");
    assert_eq!((of(&patient).state.as_str(), of(&patient).effects.len()), ("done", 1));
    assert_eq!((of(&never).state.as_str(), of(&never).note.as_deref()), ("done", Some("nothing_to_do")));
    assert_eq!(of(&deleted).state, "cancelled");
    let mails = world.effects("resend");
    assert_eq!(mails.iter().map(|mail| mail.to.as_deref()).collect::<Vec<_>>(), [Some("found@mail.test")]);
    world.end().await;
}
