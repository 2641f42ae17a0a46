//! Flows that are renamed: their runs go on, their effects are not repeated, and nobody works under the former name.

use std::collections::BTreeSet;
use std::path::PathBuf;

use usher_engine::RunState;
use usher_lab::Fault;
use usher_store::{RunFilter, RunRecord};
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::needs;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    a_renamed_flow_keeps_its_runs_and_repeats_no_effect,
    what_would_be_stranded_is_told_before_a_start,
);

const FLOW: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "now"
use = "resend.send"
to = "{{ user.email }}"
subject = "now"
text = "hello"
[[step]]
name = "pause"
wait = "30d"
[[step]]
name = "later"
use = "resend.send"
to = "{{ user.email }}"
subject = "later"
text = "hello"
"#;

async fn env(backend: Backend) -> TestEnv {
    TestEnv::with(backend, Options { flows: vec![("old", FLOW)], ..Options::default() }).await
}

fn signups(count: usize) -> Vec<Webhook> {
    (0..count).map(|_| User::new().created()).collect()
}

async fn are(env: &TestEnv, count: usize, state: RunState) -> Vec<RunRecord> {
    eventually(&format!("{count} are {}", state.label()), SOON, || async {
        let runs = env.runs(&RunFilter { states: vec![state], ..RunFilter::default() }).await;
        (runs.len() == count).then_some(runs)
    })
    .await
}

/// Writes the flow's file under another name, with its former one in it.
fn rename(env: &TestEnv) -> PathBuf {
    let folder = PathBuf::from(env.variable("USHER_FLOWS").expect("it is set"));
    std::fs::remove_file(folder.join("old.toml")).expect("it is there");
    std::fs::write(folder.join("new.toml"), format!("was = \"old\"\n{FLOW}")).expect("a file");
    folder
}

fn names_in_keys(env: &TestEnv) -> BTreeSet<String> {
    let of = |key: &str| key.split('/').nth(1).unwrap_or_default().to_owned();
    env.effects("resend").iter().filter_map(|effect| effect.idempotency_key.as_deref().map(of)).collect()
}

async fn a_renamed_flow_keeps_its_runs_and_repeats_no_effect(backend: Backend) {
    let mut env = env(backend).await;
    let webhooks = signups(5);
    env.send_all(&webhooks).await;
    are(&env, 5, RunState::Waiting).await;
    // A mail that has gone out, of which nobody knows: its request is repeated under its key.
    let fault = Fault { drop_after_effect: true, ..Fault::default() };
    env.lab().set_fault("resend", fault).unwrap();
    env.send(&User::new().created()).await;
    eventually("it has gone out", SOON, || async { (env.effects("resend").len() == 6).then_some(()) }).await;
    env.kill_delivering().await;
    env.lab().end_fault("resend").unwrap();
    let folder = rename(&env);
    env.go_on_delivering().await;

    let runs = are(&env, 6, RunState::Waiting).await;
    assert!(runs.iter().all(|run| run.flow == "new"), "{runs:?}");
    assert_eq!(env.effects("resend").len(), 6, "the destination has recognised the repeated request");
    env.send_all(&webhooks).await;
    env.send(&User::new().created()).await;
    are(&env, 7, RunState::Waiting).await;
    assert_eq!(env.effects("resend").len(), 7, "known events start nothing");
    let (code, out, err) = env.usher(&["wake", "--flow", "new", "--yes"]);
    assert_eq!(code, 0, "{out}{err}");
    are(&env, 7, RunState::Done).await;
    assert_eq!(env.effects("resend").len(), 14);
    assert_eq!(names_in_keys(&env), BTreeSet::from(["old".to_owned(), "new".to_owned()]));
    let (_, out, _) = env.usher(&["runs", "--event", &runs[0].event]);
    assert!(out.contains("new"), "{out}");

    // Files of before are refused, and say so.
    env.stop_delivering().await;
    std::fs::remove_file(folder.join("new.toml")).unwrap();
    std::fs::write(folder.join("old.toml"), FLOW).unwrap();
    let mut delivering = env.start_delivering();
    let ended = delivering.ended(SOON).await;
    let output = delivering.output();
    assert!(ended.code() == Some(64) && output.contains("flow old is called new since"), "{ended}: {output}");
    // Beside a file of the new name it is another flow.
    std::fs::write(folder.join("new.toml"), FLOW).unwrap();
    std::fs::write(folder.join("old.toml"), format!("from = \"now\"\n{FLOW}")).unwrap();
    env.go_on_delivering().await;
    env.send(&User::new().created()).await;
    are(&env, 2, RunState::Waiting).await;
    assert_eq!(env.effects("resend").len(), 16);
    env.end().await;
}

#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_the_former_name_beside_one_with_the_new_one_doubles_nothing() {
    let mut env = env(Backend::real()).await;
    env.send_all(&signups(20)).await;
    are(&env, 20, RunState::Waiting).await;
    rename(&env);
    // The former one goes on working while the new one starts.
    let mut renamed = env.start_delivering();
    let admin = renamed.says("\"admin\":\"").await;
    for _ in 0..10 {
        env.send_all(&signups(10)).await;
    }
    are(&env, 120, RunState::Waiting).await;
    let runs = env.runs(&RunFilter::default()).await;
    assert!(runs.len() == 120 && runs.iter().all(|run| run.flow == "new"), "{} runs", runs.len());
    assert_eq!(env.effects("resend").len(), 120, "each once");
    eventually("the former one says that it has old files", SOON, || async {
        env.deliverer_output().contains("flow old is called new by now").then_some(())
    })
    .await;
    let ready = reqwest::get(format!("http://{admin}/readyz")).await.expect("it answers").status();
    assert!(ready.is_success(), "{ready}");
    env.kill_dispatcher().await;
    renamed.terminate();
    assert!(renamed.ended(SOON).await.success());
    env.end().await;
}

async fn what_would_be_stranded_is_told_before_a_start(backend: Backend) {
    let env = env(backend).await;
    env.send_all(&signups(3)).await;
    let version = are(&env, 3, RunState::Waiting).await.remove(0).version;
    let folder = PathBuf::from(env.variable("USHER_FLOWS").expect("it is set"));
    let check = || env.usher(&["check", "--against-store"]);
    let (code, out, err) = check();
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("old, version {version}, the file's: 3 runs, 3 at pause")), "{out}");

    // Another version: its runs go on with theirs, whatever has become of their step.
    std::fs::write(folder.join("old.toml"), FLOW.replace("\"pause\"", "\"rest\"")).unwrap();
    let (code, out, err) = check();
    assert!(code == 0 && out.contains("3 runs, 3 at pause (no step of the file)"), "{out}{err}");

    // Nothing uses the connector any more that they need.
    let other = "on = [\"clerk/user.created\"]\n[[step]]\nname = \"post\"\nuse = \"database.sync_user\"\n";
    std::fs::write(folder.join("old.toml"), other).unwrap();
    let (code, _, err) = check();
    assert!(code == 64 && err.contains("given up as configuration, because they use resend"), "{err}");

    // No file at all; or one that was it.
    std::fs::remove_file(folder.join("old.toml")).unwrap();
    std::fs::write(folder.join("new.toml"), format!("from = \"now\"\n{FLOW}")).unwrap();
    let (code, _, err) = check();
    assert!(code == 64 && err.contains("flow old has no good file: 3 runs"), "{err}");
    assert!(err.contains("new has the steps at which they stand"), "{err}");
    rename_only(&folder);
    let (code, _, err) = check();
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = env.usher(&["check", "--start"]);
    assert_eq!(code, 0, "{out}{err}");

    // A version that is not understood.
    let pool = env.pool().await;
    let sql = "UPDATE usher_flow SET source = replace(source, 'wait = ', 'rest = ') WHERE flow = 'old'";
    sqlx::query(sql).execute(&pool).await.unwrap();
    pool.close().await;
    let (code, _, err) = check();
    assert!(code == 64 && err.contains("given up as flow_changed"), "{err}");
    env.end().await;
}

fn rename_only(folder: &std::path::Path) {
    std::fs::write(folder.join("new.toml"), format!("was = \"old\"\n{FLOW}")).expect("a file");
}
