//! Refused requests and their answers.

use serde_json::Value;
use usher_proto::signature::SigningSecret;
use usher_service::clock;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::test_env::{SECRET, SOON, TestEnv};

usher_tests::on_both_backends!(what_does_not_hold_is_refused_and_leaves_no_trace);

const PATH: &str = "/webhooks/clerk";

/// Name of the case, path, headers, body, and the expected status and error code.
type Case = (&'static str, &'static str, Vec<(&'static str, String)>, Vec<u8>, u16, &'static str);

/// Returns the headers of `webhook` with one of them replaced, or removed if `value` is empty.
fn changed(webhook: &Webhook, name: &'static str, value: &str) -> Vec<(&'static str, String)> {
    let mut headers = webhook.headers(SECRET).to_vec();
    headers.retain(|(known, _)| *known != name);
    if !value.is_empty() {
        headers.push((name, value.to_owned()));
    }
    headers
}

/// Returns valid signature headers for any body, with a timestamp `seconds` from now.
fn signed(body: &[u8], seconds: i64) -> Vec<(&'static str, String)> {
    let id = "msg_signed";
    let timestamp = (clock::now().seconds() + seconds).to_string();
    let signature = SigningSecret::parse(SECRET).unwrap().sign(id, &timestamp, body);
    vec![("svix-id", id.into()), ("svix-timestamp", timestamp), ("svix-signature", signature)]
}

async fn what_does_not_hold_is_refused_and_leaves_no_trace(backend: Backend) {
    let env = TestEnv::start(backend).await;
    let webhook = User::new().created();
    let body = || webhook.body.clone().into_bytes();
    let other_secret = webhook.headers("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").to_vec();
    let large = vec![b' '; usher_eventlog::MAX_BODY + 1];

    let cases: Vec<Case> = vec![
        ("no header", PATH, vec![], body(), 400, "header_missing"),
        ("no id", PATH, changed(&webhook, "svix-id", ""), body(), 400, "header_missing"),
        ("no timestamp", PATH, changed(&webhook, "svix-timestamp", ""), body(), 400, "header_missing"),
        ("no signature", PATH, changed(&webhook, "svix-signature", ""), body(), 400, "header_missing"),
        ("time is no number", PATH, changed(&webhook, "svix-timestamp", "hello"), body(), 400, "header_malformed"),
        ("long id", PATH, changed(&webhook, "svix-id", &"x".repeat(300)), body(), 400, "header_malformed"),
        ("other secret", PATH, other_secret, body(), 401, "not_verified"),
        ("other version", PATH, changed(&webhook, "svix-signature", "v2,aaaa"), body(), 401, "not_verified"),
        ("other id", PATH, changed(&webhook, "svix-id", "msg_other"), body(), 401, "not_verified"),
        ("other body", PATH, webhook.headers(SECRET).to_vec(), b"{}".to_vec(), 401, "not_verified"),
        ("too old", PATH, signed(&body(), -310), body(), 401, "not_verified"),
        ("too new", PATH, signed(&body(), 310), body(), 401, "not_verified"),
        ("no JSON", PATH, signed(b"<xml/>", 0), b"<xml/>".to_vec(), 400, "body_malformed"),
        ("no object", PATH, signed(b"[1]", 0), b"[1]".to_vec(), 400, "body_malformed"),
        ("no type", PATH, signed(b"{\"data\":{}}", 0), b"{\"data\":{}}".to_vec(), 400, "body_malformed"),
        ("too large", PATH, signed(&large, 0), large, 413, "too_large"),
        ("no such source", "/webhooks/paypal", webhook.headers(SECRET).to_vec(), body(), 404, "no_such_source"),
        ("no such instance", "/webhooks/clerk/eu", webhook.headers(SECRET).to_vec(), body(), 404, "no_such_instance"),
        ("no such path", "/webhook", webhook.headers(SECRET).to_vec(), body(), 404, "no_such_path"),
    ];
    for (case, path, headers, body, status, code) in cases {
        let sent = String::from_utf8_lossy(&body).into_owned();
        let (found, answer) = env.post(path, &headers, body).await;
        assert_eq!((found, answer["error"]["code"].as_str()), (status, Some(code)), "{case}: {answer}");
        let Some(Value::String(message)) = answer["error"].get("message").cloned() else {
            panic!("{case}: no message")
        };
        assert!(sent.len() < 10 || !message.contains(&sent), "{case}: what was sent is not repeated");
    }

    // A valid webhook is still accepted and is the only one that started runs.
    env.send(&webhook).await;
    env.all_ended(3, SOON).await;
    env.end().await;
}
