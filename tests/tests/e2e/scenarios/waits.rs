//! Waits until a time that the event gives: on its second, with what is known by then.

use std::time::Duration;

use usher_engine::RunState;
use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(a_wait_until_a_time_ends_on_its_second_by_what_is_known_then);

/// Time from the event to the end of the wait.
const AHEAD: Duration = Duration::from_secs(8);

const REMINDER: &str = r#"
on = ["clerk/user.created"]
cancel_on = ["clerk/user.deleted"]
[[step]]
name = "until"
wait_until = "{{ event.data.updated_at | plus('8s') }}"
[[step]]
name = "mail"
when = "user.first_name != 'Customer'"
use = "resend.send"
to = "{{ user.email }}"
subject = "It is time"
text = "hello"
"#;

async fn a_wait_until_a_time_ends_on_its_second_by_what_is_known_then(backend: Backend) {
    let env = TestEnv::with(backend, Options { flows: vec![("reminder", REMINDER)], ..Options::default() }).await;
    let users: Vec<User> = (0..9).map(|_| User::new()).collect();
    let [gone, moved, customer, staying @ ..] = &users[..] else { panic!("nine users") };
    let past = User { updated_at: users[0].updated_at - 3_600_000, ..User::new() };
    env.send(&past.created()).await;
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    eventually("all but one wait", SOON, || async {
        let waiting = RunFilter { states: vec![RunState::Waiting], ..RunFilter::default() };
        (env.runs(&waiting).await.len() == users.len()).then_some(())
    })
    .await;
    let new_address = Some(format!("new.{}@mail.test", moved.id.replace('_', ".")));
    env.send(&gone.deleted()).await;
    env.send(&User { email: new_address.clone(), ..moved.changed() }.updated()).await;
    env.send(&User { first_name: "Customer".into(), ..customer.changed() }.updated()).await;

    let runs = env.all_ended(users.len() + 1, SOON).await;
    let state = |user: &User| runs.iter().find(|run| run.key == user.id).map(|run| run.state.clone());
    assert_eq!(state(gone).as_deref(), Some("cancelled"));
    assert_eq!(state(customer).as_deref(), Some("done"));
    let mails = env.effects("resend");
    let to = |address: &Option<String>| mails.iter().find(|mail| mail.to == *address);
    assert_eq!(mails.len(), users.len() - 3 + 1 + 1, "each who stays and is no customer once");
    assert!(to(&gone.email).is_none() && to(&customer.email).is_none() && to(&moved.email).is_none());
    assert!(to(&new_address).is_some(), "the address that is known when the step is due");
    assert!(to(&past.email).is_some(), "nothing to wait for");

    let mut late: Vec<Duration> = Vec::new();
    for user in staying {
        let due = usher_proto::Timestamp::from_millis(user.updated_at).plus(AHEAD);
        let sent = to(&user.email).expect("a mail").at;
        assert!(sent >= due, "before its time: {sent}, not {due}");
        late.push(sent.since(due));
    }
    late.sort();
    // Half of them, because a machine with other work may hold the process up for a moment.
    assert!(late[late.len() / 2] < Duration::from_secs(1), "late by {late:?}");
    env.end().await;
}
