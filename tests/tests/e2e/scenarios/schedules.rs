//! Scheduled flows: a firing is made once for each user, whoever makes it and whatever happens meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::program::Program;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    a_firing_reaches_every_selected_user_once_though_its_owner_is_killed,
    a_paused_flow_makes_up_for_one_firing_when_it_is_resumed,
);

const USERS: usize = 300;

/// Every twenty seconds, at a pace at which a firing takes six.
const NUDGE: &str = r#"
on        = ["schedule/*/20 * * * * *"]
time_zone = "Europe/Berlin"
subjects  = "user.email"
pace      = "50/s"
[[step]]
use     = "resend.send"
to      = "{{ user.email }}"
subject = "{{ event.data.scheduled_for }}"
text    = "hello"
tags    = { clerk_user_id = "{{ user.id }}" }
"#;

const PEOPLE: &str = "on = [\"clerk/user.*\"]\n[[step]]\nuse = \"database.sync_user\"\n";

async fn a_firing_reaches_every_selected_user_once_though_its_owner_is_killed(backend: Backend) {
    let settings = vec![("USHER_KAFKA_SESSION_TIMEOUT_MS", "6000".to_owned())];
    let flows = vec![("nudge", NUDGE), ("people", PEOPLE)];
    let mut env = TestEnv::with(backend, Options { flows, settings, ..Options::default() }).await;
    let is_embedded = env.dispatcher().is_none();
    let users: Vec<User> = (0..USERS).map(|_| User::new()).collect();
    let others = [User::new(), User::without_email()];
    let created: Vec<Webhook> = users.iter().chain(&others).map(User::created).collect();
    env.send_all(&created).await;
    env.send(&others[0].deleted()).await;

    // A firing that is in the middle, of which the owner of the first partition is killed.
    let mut second: Option<Program> = (!is_embedded).then(|| env.start_delivering());
    let killed = eventually("a firing is in the middle", 3 * SOON, || async {
        let newest = firings(&env).pop_last();
        newest.filter(|(_, made)| (30..USERS / 2).contains(&made.len())).map(|(at, _)| at)
    })
    .await;
    let owner = owner(&env).await;
    match second.as_ref().and_then(Program::pid) {
        Some(pid) if pid == owner => second.take().expect("it runs").kill().await,
        Some(_) => env.kill_dispatcher().await,
        None => {
            env.kill_delivering().await;
            env.start_ingest().await;
        }
    }

    // That firing is finished, and a later one is made.
    eventually("the firing is finished and another one follows", 4 * SOON, || async {
        let made = firings(&env);
        let whole = |at: &String| made[at].len() == USERS;
        let later = made.range(killed.clone()..).skip(1).any(|(at, _)| whole(at));
        (made.get(&killed).is_some_and(|_| whole(&killed)) && later).then_some(())
    })
    .await;
    for (at, made) in firings(&env) {
        assert!(made.values().all(|times| *times == 1), "{at}: {:?}", made.iter().find(|(_, times)| **times != 1));
        assert!(others.iter().all(|other| !made.contains_key(&other.id)), "{at}: only those who are selected");
    }
    let runs = env.runs(&RunFilter { flow: Some("nudge".into()), ..RunFilter::default() }).await;
    assert!(runs.iter().all(|run| run.kind == "nudge" && run.state != "dead"));
    if let Some(second) = second {
        second.kill().await;
    }
    env.end().await;
}

/// Returns the mails of each firing by user.
fn firings(env: &TestEnv) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut firings: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for mail in env.effects("resend") {
        let at = mail.body["subject"].as_str().expect("a subject").to_owned();
        *firings.entry(at).or_default().entry(mail.user.clone().expect("whose")).or_default() += 1;
    }
    firings
}

/// Returns the process id of the owner of the flow's first partition.
async fn owner(env: &TestEnv) -> u32 {
    let sql = "SELECT owner FROM usher_ownership WHERE flow = 'nudge' AND partition = 0";
    let (owner,): (String,) = sqlx::query_as(sql).fetch_one(&env.pool().await).await.expect("an owner");
    owner.split('-').next().and_then(|pid| pid.parse().ok()).expect("a process id")
}

/// A flow without users, which fires every second.
const TICK: &str = r#"
on = ["schedule/* * * * * *"]
[[step]]
use     = "resend.send"
to      = "ops@acme.test"
subject = "{{ event.data.scheduled_for }}"
text    = "{{ event.data.local_time }}"
"#;

async fn a_paused_flow_makes_up_for_one_firing_when_it_is_resumed(backend: Backend) {
    let env = TestEnv::with(backend, Options { flows: vec![("tick", TICK)], ..Options::default() }).await;
    let mails = || {
        env.effects("resend")
            .iter()
            .map(|mail| mail.body["subject"].as_str().expect("it").to_owned())
            .collect::<Vec<_>>()
    };
    eventually("it fires each second", SOON, || async { (mails().len() >= 3).then_some(()) }).await;
    let (code, out, error) = env.usher(&["pause", "tick"]);
    assert_eq!(code, 0, "{out}{error}");
    let paused_at = usher_service::clock::now();
    let before = mails();
    eventually("seconds pass", SOON, || async {
        (usher_service::clock::now().since(paused_at) > Duration::from_secs(6)).then_some(())
    })
    .await;
    // What the log held at the pause may have become a run, but none is made while it is paused.
    let runs = env.runs(&RunFilter::default()).await.len();
    assert!(runs <= before.len() + 1, "{runs} runs, and {} mails before", before.len());
    let (code, out, error) = env.usher(&["resume", "tick"]);
    assert_eq!(code, 0, "{out}{error}");
    eventually("it fires again", SOON, || async { (mails().len() >= before.len() + 4).then_some(()) }).await;
    let mut all = mails();
    all.sort();
    let times: Vec<usher_proto::Timestamp> = all.iter().map(|at| at.parse().expect("a time")).collect();
    let gaps: Vec<u64> = times.windows(2).map(|two| two[1].since(two[0]).as_secs()).collect();
    assert!(gaps.iter().all(|gap| *gap >= 1), "each time once: {gaps:?}");
    assert!(
        gaps.iter().any(|gap| *gap >= 5),
        "the pause is a gap, of which only the newest time is made up for: {gaps:?}"
    );
    env.end().await;
}
