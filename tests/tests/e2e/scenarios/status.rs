//! `usher status` tells what needs somebody, and ends with it.

use serde_json::Value;
use usher_lab::Fault;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(what_needs_somebody_is_told_until_it_is_over);

const MAIL: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "welcome"
use = "resend.send"
to = "{{ event.data.id }}@mail.test"
subject = "Hi"
text = "hello"
"#;

/// Returns the exit code, and what needs somebody, as kind and name.
fn needs(env: &TestEnv) -> (i32, Vec<(String, String)>) {
    let (code, out, err) = env.usher(&["status", "--json"]);
    let status: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {err}"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let needs = status["needs"].as_array().expect("a list");
    (code, needs.iter().map(|need| (text(&need["kind"]), text(&need["name"]))).collect())
}

async fn what_needs_somebody_is_told_until_it_is_over(backend: Backend) {
    let env = TestEnv::with(backend, Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    let need = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    assert_eq!(needs(&env), (0, vec![]));

    env.lab().set_fault("resend", Fault { status: Some(503), ..Fault::default() }).unwrap();
    let webhooks: Vec<_> = (0..20).map(|_| User::new().created()).collect();
    env.send_all(&webhooks).await;
    eventually("the destination's trouble is told", SOON, || async {
        (needs(&env) == (1, vec![need("trouble", "resend")])).then_some(())
    })
    .await;
    let (_, out, _) = env.usher(&["status"]);
    assert!(out.starts_with("! resend has not served for ") && out.contains("\nresend "), "{out}");
    // Each attempt is in the store at once, however soon the next one follows.
    let (_, out, _) = env.usher(&["runs", "--state", "running"]);
    let (_, parked, _) = env.usher(&["runs", "--state", "parked"]);
    assert!(format!("{out}{parked}").contains("unavailable 503"), "{out}{parked}");

    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    env.all_ended(20, SOON * 2).await;
    eventually("only the dead letters are told", SOON, || async {
        (needs(&env) == (1, vec![need("dead", "mail")])).then_some(())
    })
    .await;
    env.lab().end_fault("resend").unwrap();
    let (code, _, err) = env.usher(&["dlq", "redrive", "--all"]);
    assert_eq!(code, 0, "{err}");
    env.usher(&["pause", "mail", "--by", "ann", "--why", "prices change"]);
    eventually("the pause is told", SOON, || async { needs(&env).1.contains(&need("paused", "mail")).then_some(()) })
        .await;
    let (_, out, _) = env.usher(&["status"]);
    assert!(out.contains("by ann: prices change"), "{out}");
    env.usher(&["resume", "mail"]);
    eventually("nothing needs anybody", SOON, || async { (needs(&env) == (0, vec![])).then_some(()) }).await;
    env.end().await;
}
