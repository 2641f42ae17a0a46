//! Waits until a time that the event gives: on its second, with what is known by then.

use std::time::Duration;

use serde_json::{Value, json};
use usher_engine::RunState;
use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    a_wait_until_a_time_ends_on_its_second_by_what_is_known_then,
    an_operator_wakes_runs_and_each_goes_on_once,
);

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

const CAMPAIGN: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "pause"
wait = "30d"
[[step]]
name = "first"
use = "resend.send"
to = "{{ user.email }}"
subject = "First"
text = "hello"
needs = "user.email"
[[step]]
name = "another-pause"
wait = "30d"
[[step]]
name = "second"
use = "resend.send"
to = "{{ user.email }}"
subject = "Second"
text = "hello"
"#;

async fn an_operator_wakes_runs_and_each_goes_on_once(backend: Backend) {
    let env = TestEnv::with(backend, Options { flows: vec![("campaign", CAMPAIGN)], ..Options::default() }).await;
    let users: Vec<User> = (0..3).map(|_| User::new()).chain([User::without_email()]).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    let waiting = async |at_step: i64, count: usize| {
        eventually(&format!("{count} wait at step {at_step}"), SOON, || async {
            let waiting = RunFilter { states: vec![RunState::Waiting], ..RunFilter::default() };
            let runs: Vec<_> = env.runs(&waiting).await.into_iter().filter(|run| run.step == at_step).collect();
            (runs.len() == count).then_some(runs)
        })
        .await
    };
    let runs = waiting(0, users.len()).await;
    let of = |user: &User| format!("campaign/{}", runs.iter().find(|run| run.key == user.id).expect("a run").event);

    let (code, out, err) = env.usher(&["wake", &of(&users[0]), "--by", "ann"]);
    assert!(code == 0 && out.contains("goes on; it was waiting"), "{out}{err}");
    waiting(2, 1).await;
    assert_eq!(env.effects("resend").len(), 1, "of one run the first mail, and no second one");

    let (code, out, err) = env.usher(&["wake", "--flow", "campaign", "--state", "waiting", "--dry-run"]);
    assert!(code == 0 && out.ends_with("4 of 4 runs would be woken\n"), "{out}{err}");
    let (code, out, err) = env.usher(&["wake", "--user", &users[1].id, "--json"]);
    assert_eq!(code, 0, "{err}");
    let came: Value = serde_json::from_str(out.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!((&came["done"], &came["nothing"]), (&json!(1), &json!(0)), "{came}");
    waiting(2, 2).await;

    // Without an address its step waits for one, and goes on waiting when it is woken.
    let (code, _, err) = env.usher(&["wake", &of(&users[3])]);
    assert_eq!(code, 0, "{err}");
    waiting(1, 1).await;
    let (code, _, err) = env.usher(&["wake", &of(&users[3])]);
    assert_eq!(code, 0, "{err}");
    waiting(1, 1).await;
    let (code, _, err) = env.usher(&["cancel", &of(&users[3])]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = env.usher(&["wake", &of(&users[3])]);
    assert!(code == 1 && err.contains("has ended already: cancelled"), "{code} {err}");

    let (code, _, err) = env.usher(&["wake", &of(&users[0])]);
    assert_eq!(code, 0, "{err}");
    eventually("it is done", SOON, || async {
        let done = RunFilter { states: vec![RunState::Done], ..RunFilter::default() };
        (env.runs(&done).await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(env.effects("resend").len(), 3);
    let (_, out, _) = env.usher(&["runs", "--user", &users[0].id]);
    assert!(out.contains("done"), "{out}");
    env.end().await;
}
