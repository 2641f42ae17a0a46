//! Runs of a flow that go on in another one.

use std::path::PathBuf;

use serde_json::{Value, json};
use usher_engine::RunState;
use usher_store::{RunFilter, RunRecord};
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(runs_of_a_flow_without_a_file_go_on_in_another_one);

const OLD: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "first"
use = "resend.send"
to = "{{ user.email }}"
subject = "first"
text = "hello"
[[step]]
name = "pause"
wait = "30d"
[[step]]
name = "second"
use = "resend.send"
to = "{{ user.email }}"
subject = "second"
text = "hello"
"#;

/// Another flow with another first step, which uses what the former one's first step has done.
const NEW: &str = r#"
on = ["clerk/user.created"]
from = "now"
[[step]]
name = "row"
use = "database.sync_user"
[[step]]
name = "first"
use = "resend.send"
to = "{{ user.email }}"
subject = "first of the new flow"
text = "hello"
[[step]]
name = "pause"
wait = "30d"
[[step]]
name = "last"
use = "resend.send"
to = "{{ user.email }}"
subject = "last"
text = "after {{ steps.first.id }}"
"#;

async fn are(env: &TestEnv, count: usize, flow: &str, state: RunState) -> Vec<RunRecord> {
    eventually(&format!("{count} of {flow} are {}", state.label()), SOON, || async {
        let filter = RunFilter { flow: Some(flow.to_owned()), states: vec![state], ..RunFilter::default() };
        let runs = env.runs(&filter).await;
        (runs.len() == count).then_some(runs)
    })
    .await
}

async fn runs_of_a_flow_without_a_file_go_on_in_another_one(backend: Backend) {
    let mut env = TestEnv::with(backend, Options { flows: vec![("old", OLD)], ..Options::default() }).await;
    let users: Vec<User> = (0..4).map(|_| User::new()).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    let waiting = are(&env, 4, "old", RunState::Waiting).await;
    env.stop_delivering().await;
    let folder = PathBuf::from(env.variable("USHER_FLOWS").expect("it is set"));
    std::fs::remove_file(folder.join("old.toml")).unwrap();
    std::fs::write(folder.join("new.toml"), NEW).unwrap();
    env.go_on_delivering().await;

    let (code, _, err) = env.usher(&["move", "--flow", "old", "--to", "newer"]);
    assert!(code == 64 && err.contains("there is no flow file newer; there are new"), "{err}");
    let (code, _, err) = env.usher(&["move", "--to", "new"]);
    assert!(code == 64 && err.contains("--flow"), "{err}");
    let (code, _, err) = env.usher(&["move", "--flow", "old"]);
    assert!(code == 64 && err.contains("--to"), "{err}");
    let (code, out, err) = env.usher(&["move", "--flow", "old", "--to", "new", "--dry-run"]);
    assert!(
        code == 0 && out.contains("at pause") && out.contains("4 of 4 runs of old would go on in new"),
        "{out}{err}"
    );
    are(&env, 4, "old", RunState::Waiting).await;

    let (code, out, err) = env.usher(&["move", "--flow", "old", "--to", "new", "--user", &users[0].id, "--json"]);
    assert_eq!(code, 0, "{err}");
    let came: Value = serde_json::from_str(out.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!((&came["selected"], &came["done"], &came["nothing"]), (&json!(1), &json!(1), &json!(0)), "{came}");
    let (code, out, err) = env.usher(&["move", "--flow", "old", "--to", "new"]);
    assert!(code == 0 && out.contains("3 of 3 runs of old go on in new"), "{out}{err}");
    let moved = are(&env, 4, "new", RunState::Waiting).await;
    are(&env, 0, "old", RunState::Waiting).await;
    for run in &moved {
        let before = waiting.iter().find(|before| before.reference == run.reference).expect("it waited");
        assert_eq!((run.step, run.due_at), (2, before.due_at), "its wait goes on, at the step of the same name");
    }

    let (code, _, err) = env.usher(&["wake", "--flow", "new", "--yes"]);
    assert_eq!(code, 0, "{err}");
    are(&env, 4, "new", RunState::Done).await;
    let mails = env.effects("resend");
    let subjects = |of: &str| mails.iter().filter(|mail| mail.body["subject"] == of).count();
    assert_eq!(
        (subjects("first"), subjects("last"), mails.len()),
        (4, 4, 8),
        "the rest of the new flow, and nothing twice"
    );
    env.end().await;
}
