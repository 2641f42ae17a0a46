//! Actions of operators on many runs, and replays: what they select, that they can be looked at first, and interrupted.

use std::time::Duration;

use serde_json::{Value, json};
use usher_engine::RunState;
use usher_store::{RunFilter, RunRecord};
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    many_runs_are_cancelled_and_run_again_by_a_filter,
    an_interrupted_action_says_how_far_it_came_and_goes_on,
    events_are_replayed_to_a_flow_that_has_not_had_them,
);

const DRIP: &str = r#"
on = ["clerk/user.created"]
cancel_on = ["clerk/user.deleted"]
[[step]]
name = "pause"
wait = "30d"
[[step]]
name = "mail"
use = "resend.send"
to = "{{ event.data.id }}@mail.test"
subject = "Hi"
text = "hello"
"#;

const MAIL: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ event.data.id }}@mail.test"
subject = "Hi"
text = "hello"
"#;

fn created(count: usize) -> Vec<Webhook> {
    (0..count).map(|_| User::new().created()).collect()
}

/// Waits until this number of runs are in a state.
async fn are(env: &TestEnv, count: usize, state: RunState) -> Vec<RunRecord> {
    eventually(&format!("{count} are {}", state.label()), SOON, || async {
        let runs = env.runs(&RunFilter { states: vec![state], ..RunFilter::default() }).await;
        (runs.len() == count).then_some(runs)
    })
    .await
}

/// Runs a command that succeeds, and returns the last JSON object that it prints.
fn last_json(env: &TestEnv, arguments: &[&str]) -> Value {
    let (code, out, err) = env.usher(arguments);
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    serde_json::from_str(out.lines().last().expect("a line")).unwrap_or_else(|error| panic!("{error}: {out}"))
}

async fn many_runs_are_cancelled_and_run_again_by_a_filter(backend: Backend) {
    let flows = vec![("drip", DRIP), ("mail", MAIL)];
    let env = TestEnv::with(backend, Options { flows, ..Options::default() }).await;
    env.send_all(&created(120)).await;
    are(&env, 120, RunState::Waiting).await;
    are(&env, 120, RunState::Done).await;

    let (code, _, err) = env.usher(&["cancel"]);
    assert!(code == 64 && err.contains("--flow") && err.contains("--all"), "{code} {err}");
    let (code, _, err) = env.usher(&["cancel", "drip/msg_1", "--flow", "drip"]);
    assert!(code == 64 && err.contains("leave out either"), "{code} {err}");
    let (code, _, err) = env.usher(&["cancel", "--flow", "dripp"]);
    assert!(code == 64 && err.contains("there are drip, mail"), "{code} {err}");

    let dry = last_json(&env, &["cancel", "--all", "--dry-run", "--json"]);
    assert_eq!((&dry["matching"], &dry["selected"]), (&json!(240), &json!(120)), "{dry}");
    assert_eq!(dry["left_alone"], json!({"ended": 120}));
    let (code, out, _) = env.usher(&["cancel", "--flow", "drip", "--dry-run"]);
    assert!(code == 0 && out.ends_with("120 of 120 runs would be cancelled\n"), "{out}");
    // Many, and nobody to ask.
    let (code, _, err) = env.usher(&["cancel", "--flow", "drip"]);
    assert!(code == 64 && err.contains("120 of 120 runs would be cancelled") && err.contains("--yes"), "{code} {err}");
    are(&env, 120, RunState::Waiting).await;

    let came = last_json(&env, &["cancel", "--flow", "drip", "--yes", "--json", "--by", "ann"]);
    assert_eq!((&came["done"], &came["nothing"], &came["left"]), (&json!(120), &json!(0), &json!(0)), "{came}");
    let cancelled = are(&env, 120, RunState::Cancelled).await;
    let (_, out, _) = env.usher(&["runs", "--event", &cancelled[0].event, "--flow", "drip"]);
    assert!(out.contains("cancelled by ann at "), "{out}");

    // A few need no question. What is run again has effects of its own.
    let event = &cancelled[0].event;
    let came = last_json(&env, &["rerun", "--event", event, "--state", "done,dead", "--json"]);
    assert_eq!((&came["done"], &came["matching"]), (&json!(1), &json!(1)), "{came}");
    eventually("it has its effect again", SOON, || async { (env.effects("resend").len() == 121).then_some(()) }).await;
    let (code, out, _) = env.usher(&["rerun", "--flow", "mail", "--until", "2020-01-01"]);
    assert!(code == 0 && out.starts_with("0 of 0 runs"), "{out}");
    env.end().await;
}

async fn an_interrupted_action_says_how_far_it_came_and_goes_on(backend: Backend) {
    const RUNS: usize = 130;
    let env = TestEnv::with(backend, Options { flows: vec![("drip", DRIP)], ..Options::default() }).await;
    env.send_all(&created(RUNS)).await;
    are(&env, RUNS, RunState::Waiting).await;
    let mut cancelling = env.start_usher(&["cancel", "--flow", "drip", "--yes", "--rate", "10/s"]);
    eventually("some are cancelled", SOON, || async {
        let cancelled = RunFilter { states: vec![RunState::Cancelled], ..RunFilter::default() };
        (env.runs(&cancelled).await.len() >= 3).then_some(())
    })
    .await;
    cancelling.terminate();
    let ended = cancelling.ended(SOON).await;
    let said = cancelling.output();
    assert_eq!(ended.code(), Some(1), "{said}");
    let cancelled = env.runs(&RunFilter { states: vec![RunState::Cancelled], ..RunFilter::default() }).await.len();
    let left = RUNS - cancelled;
    assert!(said.contains(&format!("interrupted: {cancelled} of {RUNS} were commanded, {left} are left")), "{said}");
    assert!(left > 0, "it ended by the signal");

    let (code, out, err) = env.usher(&["cancel", "--flow", "drip", "--yes"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with(&format!("{left} of {RUNS} runs are cancelled")), "{out}");
    assert!(out.contains(&format!("{cancelled} left alone: they have ended already")), "{out}");

    // Sending, too, tells how far it came.
    let to = format!("http://{}/webhooks/clerk", env.address());
    let mut sending = env.start_usher(&["send", "user.updated", "--to", &to, "--count", "5000", "--rate", "20"]);
    tokio::time::timeout(SOON, async {
        // The first line of the log of the process that receives it would do as well; the count is what matters.
        while sending.has_ended().is_none() && !sent_some(&env).await {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    })
    .await
    .expect("it sends");
    sending.terminate();
    assert_eq!(sending.ended(SOON).await.code(), Some(1));
    let said = sending.output();
    assert!(said.contains("interrupted: ") && said.contains(" of 5000 events were sent"), "{said}");
    env.end().await;
}

/// Returns true if the log has events beyond those of the runs and the commands about them.
async fn sent_some(env: &TestEnv) -> bool {
    let log = env.log().await;
    let watermarks = log.watermarks(&env.topic("events")).await.expect("the log answers");
    watermarks.values().map(|marks| marks.high.0 - marks.low.0).sum::<i64>() > 2 * 130 + 2
}

async fn events_are_replayed_to_a_flow_that_has_not_had_them(backend: Backend) {
    let mut env = TestEnv::with(backend, Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    let users: Vec<User> = (0..12).map(|_| User::new()).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    let gone = User::new();
    env.send(&gone.created()).await;
    env.send(&gone.deleted()).await;
    env.all_ended(13, SOON).await;
    let effects = env.effects("resend").len();

    // A flow that is new, and begins with what comes from now on.
    env.stop_delivering().await;
    let folder = std::path::PathBuf::from(env.variable("USHER_FLOWS").expect("it is set"));
    std::fs::write(folder.join("late.toml"), format!("from = \"now\"\n{DRIP}").replace("30d", "1s")).unwrap();
    env.go_on_delivering().await;
    let late = User::new();
    env.send(&late.created()).await;
    env.all_ended(15, SOON).await;

    let dry = last_json(&env, &["replay", "late", "--since", "1h", "--dry-run", "--json"]);
    assert_eq!((&dry["matching"], &dry["selected"]), (&json!(14), &json!(12)), "{dry}");
    assert_eq!(dry["left_out"], json!({"had": 1, "cancelled_since": 1}));
    let (code, _, err) = env.usher(&["replay", "lat", "--since", "1h"]);
    assert!(code == 64 && err.contains("there are late, mail"), "{err}");
    let (code, _, err) = env.usher(&["replay", "late", "--since", "1h", "--until", "2h"]);
    assert!(code == 64 && err.contains("is not after"), "{err}");

    let (code, out, err) = env.usher(&["replay", "late", "--since", "1h", "--by", "ann"]);
    assert!(code == 0 && out.starts_with("12 of 14 events are given to late, which has admitted 12"), "{out}{err}");
    let runs = env.all_ended(27, SOON).await;
    assert!(runs.iter().filter(|run| run.flow == "late").all(|run| run.state == "done"), "{runs:?}");
    assert_eq!(env.effects("resend").len(), effects + 2 + 12, "no other flow has had them again");
    let again = last_json(&env, &["replay", "late", "--since", "1h", "--json"]);
    assert_eq!((&again["selected"], &again["left_out"]["had"]), (&json!(0), &json!(13)), "{again}");
    // Its event is found in the log where the replay has put it.
    let run = runs.iter().find(|run| run.flow == "late" && run.key == users[0].id).expect("a run");
    let (code, out, err) = env.usher(&["rerun", &format!("late/{}", run.event)]);
    assert!(code == 0 && out.contains("is run again"), "{out}{err}");
    env.all_ended(27, SOON).await;
    env.end().await;
}
