//! Nothing is sent on old news: who has said no while a flow was down, paused or changing hands is not written to.

use std::sync::Arc;

use usher_dispatcher::store::RunFilter;
use usher_lab::Fault;
use usher_log::Log;
use usher_proto::reach::{EVERYTHING, ReachChange, ReachKind};
use usher_proto::unsubscribe::address_key;
use usher_proto::{AddressDigest, EventId, Instance, Mailbox, Source, SubjectId};
use usher_service::clock;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::pair::Pair;
use usher_tests::world::{Options, SOON, World};

usher_tests::on_both_pairs!(
    who_is_suppressed_while_the_flow_is_down_gets_nothing_when_it_is_back,
    who_is_suppressed_while_the_flow_is_paused_gets_nothing_when_it_goes_on,
    who_is_suppressed_while_replicas_change_gets_nothing_from_any_of_them,
);

const MAIL: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
subject = "hello"
text = "hello"
"#;

const USERS: usize = 100;

/// A flow that has admitted mails to these people and could not send one, for its destination is down.
async fn held(pair: Pair) -> (World, Vec<User>) {
    let world = World::with(pair, Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    world.lab().set_fault("resend", Fault { status: Some(503), ..Fault::default() }).unwrap();
    let users: Vec<User> = (0..USERS).map(|_| User::new()).collect();
    world.send_all(&users.iter().map(User::created).collect::<Vec<Webhook>>()).await;
    eventually("all are admitted", SOON, || async {
        (world.runs(&RunFilter::default()).await.len() == USERS).then_some(())
    })
    .await;
    (world, users)
}

/// Appends what `usher suppress` does for each of them. Its key is the address's, so that it mostly stands in another
/// partition than the run.
async fn suppress(world: &World, log: &Arc<dyn Log>, users: &[User]) {
    let topic = world.layout().events();
    for user in users {
        let address = AddressDigest::of(&user.email.as_ref().unwrap().parse::<Mailbox>().unwrap().address);
        let (kind, scope) = (ReachKind::Suppressed, EVERYTHING.to_owned());
        let change = ReachChange { kind, address, scope, reason: "operator".into(), by: "ann".into(), instance: None };
        let subject = SubjectId::new(Source::Usher, &Instance::default(), &address_key(address));
        let event = change.into_event(EventId::new(format!("reach_{}", user.id)), subject, clock::now());
        log.append(&topic, event.into_record()).await.unwrap();
    }
}

/// Every run has ended, and none of these people was written to.
async fn nobody_was_written_to(world: &World) {
    let runs = world.all_ended(USERS, SOON).await;
    let mailed = world.effects("resend").len();
    assert_eq!(mailed, 0, "{mailed} of {USERS} were written to though they had said no");
    assert!(runs.iter().all(|run| run.note.as_deref() == Some("suppressed")), "{:?}", runs[0]);
}

async fn who_is_suppressed_while_the_flow_is_down_gets_nothing_when_it_is_back(pair: Pair) {
    let (mut world, users) = held(pair).await;
    world.kill_delivering().await;
    let log = world.log().await;
    suppress(&world, &log, &users).await;
    world.lab().end_fault("resend").unwrap();
    world.go_on_delivering().await;
    nobody_was_written_to(&world).await;
    world.end().await;
}

async fn who_is_suppressed_while_the_flow_is_paused_gets_nothing_when_it_goes_on(pair: Pair) {
    let (mut world, users) = held(pair).await;
    let (code, out, err) = world.usher(&["pause", "mail", "--by", "ann"]);
    assert!(code == 0 && out.contains("1 of 1 replicas begin nothing, and nothing is under way"), "{out}{err}");
    world.lab().end_fault("resend").unwrap();
    suppress(&world, &world.log().await, &users).await;

    // What comes is admitted and shown, and nothing is begun; nor is it by a process that finds the flow paused.
    let late = User::new();
    world.stop_delivering().await;
    world.go_on_delivering().await;
    world.send(&late.created()).await;
    let of_late = RunFilter { key: Some(late.id.clone()), ..RunFilter::default() };
    eventually("it is admitted", SOON, || async { world.runs(&of_late).await.pop() }).await;
    let (_, out, err) = world.usher(&["runs", "--user", &late.id]);
    assert!(out.contains("queued") && err.contains("flow mail is paused"), "{out}{err}");
    assert_eq!(world.effects("resend").len(), 0);

    let (code, out, err) = world.usher(&["cancel", &format!("mail/{}", world.runs(&of_late).await[0].event)]);
    assert_eq!(code, 0, "{out}{err}");
    eventually("an order is carried out meanwhile", SOON, || async {
        world.runs(&of_late).await.pop().filter(|run| run.state == "cancelled")
    })
    .await;
    assert_eq!(world.usher(&["resume", "mail"]).0, 0);
    let runs = world.all_ended(USERS + 1, SOON).await;
    assert_eq!(world.effects("resend").len(), 0, "nobody was written to");
    assert_eq!(runs.iter().filter(|run| run.note.as_deref() == Some("suppressed")).count(), USERS);
    world.end().await;
}

async fn who_is_suppressed_while_replicas_change_gets_nothing_from_any_of_them(pair: Pair) {
    // There is one process where there is no Kafka.
    if matches!(pair, Pair::Embedded) {
        return;
    }
    let (mut world, users) = held(pair).await;
    let other = world.start_delivering();
    world.stop_delivering().await;
    other.kill().await;
    suppress(&world, &world.log().await, &users).await;
    world.lab().end_fault("resend").unwrap();
    // Each takes what the other does not have, and the partitions change hands once more as they join.
    let mut other = world.start_delivering();
    world.go_on_delivering().await;
    other.assert_running();
    nobody_was_written_to(&world).await;
    other.kill().await;
    world.end().await;
}
