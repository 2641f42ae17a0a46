//! Runs as an operator is told of them: found by address, followed, explained; and `usher listen`.

use serde_json::{Value, json};
use usher_lab::Fault;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::program::Program;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    runs_are_found_by_address_and_state_and_followed,
    a_run_says_by_what_it_was_ended_or_held,
    a_listener_hears_of_events_and_of_what_becomes_of_them,
);

const MAIL: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "welcome"
use = "resend.send"
to = "{{ user.email }}"
subject = "Hi"
text = "hello"
"#;

const DRIP: &str = r#"
on = ["clerk/user.created"]
cancel_on = ["clerk/user.deleted"]
[[step]]
name = "vip"
when = "event.data.first_name == 'Zoe'"
use = "resend.send"
to = "{{ event.data.id }}@mail.test"
subject = "Hi"
text = "hello"
[[step]]
name = "pause"
wait = "30d"
"#;

const VIP: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "vip"
when = "event.data.first_name == 'Zoe'"
use = "resend.send"
to = "{{ event.data.id }}@mail.test"
subject = "Hi"
text = "hello"
"#;

const TWO: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ event.data.id }}@mail.test"
subject = "Hi"
text = "hello"
[[step]]
name = "pause"
wait = "30d"
"#;

/// Returns the JSON lines that a program has printed.
fn lines(program: &Program) -> Vec<Value> {
    let output = program.output();
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Waits for a line that has these fields.
async fn told(program: &Program, expected: &Value) -> Value {
    let has = |line: &Value| {
        expected.as_object().expect("an object").iter().all(|(name, value)| line.get(name) == Some(value))
    };
    let found = async {
        loop {
            if let Some(line) = lines(program).into_iter().find(has) {
                return line;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let found = tokio::time::timeout(SOON, found).await;
    found.unwrap_or_else(|_| panic!("{expected} is not in {}", program.output()))
}

async fn runs_are_found_by_address_and_state_and_followed(backend: Backend) {
    let env = TestEnv::with(backend, Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    let dana = User::new();
    env.send(&dana.created()).await;
    env.all_ended(1, SOON).await;
    let following = env.start_usher(&["runs", "--follow", "--json"]);
    told(&following, &json!({"key": dana.id, "state": "done"})).await;

    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    let zoe = User::new();
    env.send(&zoe.created()).await;
    told(&following, &json!({"key": zoe.id, "state": "dead"})).await;
    assert_eq!(lines(&following).iter().filter(|run| run["key"] == dana.id).count(), 1, "it has not changed");
    env.lab().end_fault("resend").unwrap();
    let (code, _, err) = env.usher(&["dlq", "redrive", "--user", &zoe.email.clone().unwrap()]);
    assert_eq!(code, 0, "{err}");
    told(&following, &json!({"key": zoe.id, "state": "done"})).await;
    following.kill().await;

    let count = |arguments: &[&str]| {
        let (code, out, err) = env.usher(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out.lines().count()
    };
    let address = dana.email.clone().unwrap();
    assert_eq!(count(&["runs", "--user", &address]), 1);
    assert_eq!(count(&["runs", "--user", &address.to_uppercase()]), 1);
    assert_eq!(count(&["runs", "--user", &dana.id]), 1);
    assert_eq!(count(&["runs", "--state", "done,dead"]), 2);
    assert_eq!(count(&["runs", "--state", "dead", "--state", "queued"]), 0);
    assert_eq!(count(&["runs", "--until", "2020-01-01"]), 0);
    for unknown in ["nobody@mail.test", "user_nobody"] {
        let (code, _, err) = env.usher(&["runs", "--user", unknown]);
        assert!(code == 64 && err.contains("nobody is known here") && !err.contains(unknown), "{code} {err}");
    }
    env.end().await;
}

async fn a_run_says_by_what_it_was_ended_or_held(backend: Backend) {
    let flows = vec![("drip", DRIP), ("mail", MAIL), ("two", TWO), ("vip", VIP)];
    let env = TestEnv::with(backend, Options { flows, ..Options::default() }).await;
    let runs = |arguments: &[&str]| env.usher(&[&["runs"], arguments].concat()).1;
    let says = async |arguments: &[&str], words: &str| {
        eventually(&format!("{words:?} in {}", runs(arguments)), SOON, || async {
            runs(arguments).contains(words).then_some(())
        })
        .await;
    };
    let user = User::new();
    let webhook = user.created();
    env.send(&webhook).await;
    says(&["--flow", "vip"], "step vip: its `when` does not hold: event.data.first_name == 'Zoe'").await;
    says(&["--flow", "drip"], "waits until ").await;
    let deleted = user.deleted();
    env.send(&deleted).await;
    says(&["--flow", "drip"], &format!("cancelled by user.deleted {}", deleted.id)).await;

    // An attempt is in flight: the run ends after it, and still says by whom.
    env.lab().set_fault("resend", Fault { hang: true, ..Fault::default() }).unwrap();
    let slow = User::new();
    let webhook = slow.created();
    env.send(&webhook).await;
    says(&["--flow", "two", "--event", &webhook.id], "running").await;
    let (code, out, err) = env.usher(&["cancel", &format!("two/{}", webhook.id), "--by", "ann"]);
    assert!(code == 0 && out.contains("ends when the attempt"), "{out}{err}");
    env.lab().end_fault("resend").unwrap();
    says(&["--flow", "two", "--event", &webhook.id], "cancelled by ann at ").await;

    // Deleted before the first step.
    let (code, _, err) = env.usher(&["pause", "mail", "--by", "bob", "--why", "new text"]);
    assert_eq!(code, 0, "{err}");
    let gone = User::new();
    env.send(&gone.created()).await;
    says(&["--flow", "mail", "--user", &gone.id], "the flow is paused by bob since ").await;
    let deleted = gone.deleted();
    env.send(&deleted).await;
    eventually("the deletion is known", SOON, || async {
        runs(&["--flow", "drip", "--user", &gone.id]).contains("cancelled by").then_some(())
    })
    .await;
    env.usher(&["resume", "mail"]);
    says(&["--flow", "mail", "--user", &gone.id], &format!("its user or object is deleted, by {}", deleted.id)).await;
    env.end().await;
}

async fn a_listener_hears_of_events_and_of_what_becomes_of_them(backend: Backend) {
    let env = TestEnv::with(backend, Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    let listener = env.start_usher(&["listen", "--json"]);
    told(&listener, &json!({"what": "listening"})).await;
    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    let dana = User::new();
    let created = dana.created();
    env.send(&created).await;
    let event =
        json!({"what": "event", "source": "clerk", "type": "user.created", "event": created.id, "user": dana.id});
    told(&listener, &event).await;
    let run = json!({"what": "run", "flow": "mail", "event": created.id, "state": "dead", "again": null});
    told(&listener, &run).await;
    let updated = dana.updated();
    env.send(&updated).await;
    told(&listener, &json!({"what": "no_run", "event": updated.id})).await;

    // Another one that is narrowed, and begins earlier.
    let email = dana.email.clone().unwrap();
    let narrowed = env.start_usher(&["listen", "--json", "--since", "1h", "--flow", "mail", "--user", &email]);
    told(&narrowed, &run).await;
    env.lab().end_fault("resend").unwrap();
    env.send(&User::new().created()).await;
    let (code, _, err) = env.usher(&["dlq", "redrive", "--all", "--by", "ann"]);
    assert_eq!(code, 0, "{err}");
    let again = json!({"what": "run", "event": created.id, "state": "done", "again": "redrive"});
    for mut program in [listener, narrowed] {
        told(&program, &json!({"what": "command", "command": "redrive", "event": created.id, "by": "ann"})).await;
        let run = told(&program, &again).await;
        assert!(run["effects"][0].as_str().is_some_and(|effect| effect.starts_with("resend ")), "{run}");
        assert!(!program.output().contains('@'), "no personal data: {}", program.output());
        program.terminate();
        assert!(program.ended(SOON).await.success(), "{}", program.output());
        let others = lines(&program).iter().any(|line| line["user"].is_string() && line["user"] != dana.id.as_str());
        assert_eq!(others, program.output().contains("\"no_run\""), "the narrowed one is of one user alone");
    }
    env.end().await;
}
