//! Tests that the double follows Nylas's rules.

use axum::http::Method;
use serde_json::{Value, json};

use super::support::{JSON, LabBench, LabReply};
use crate::Fault;

const KEY: (&str, &str) = ("authorization", "Bearer nyk_1");

async fn send(bench: &LabBench, key: &str, mail: &Value) -> LabReply {
    let headers = [KEY, JSON, ("idempotency-key", key)];
    bench.ask(Method::POST, "/nylas/v3/grants/g1/messages/send", &headers, &mail.to_string()).await
}

fn mail(to: &str) -> Value {
    let headers = json!([{ "name": "X-Usher-Key", "value": "k1" }]);
    json!({ "to": [{ "email": to }], "subject": "Hi", "body": "<p>Hello", "custom_headers": headers })
}

fn kind(reply: &LabReply) -> (u16, &str) {
    (reply.status, reply.body["error"]["type"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_mail_is_sent_once_and_found_by_its_header() {
    let bench = LabBench::new().await;
    let first = send(&bench, "k1", &mail("a@work.test")).await;
    assert_eq!((first.status, first.header("idempotent-response")), (200, None));
    let again = send(&bench, "k1", &mail("a@work.test")).await;
    assert_eq!((&again.body, again.header("idempotent-response")), (&first.body, Some("true")));
    assert_eq!(bench.effects().iter().filter(|effect| !effect.replayed).count(), 1);

    let list = async |query: &str| {
        bench.ask(Method::GET, &format!("/nylas/v3/grants/g1/messages?{query}"), &[KEY], "").await.body
    };
    let page = list("fields=include_headers&to=a%40work.test&received_after=1&limit=5").await;
    assert_eq!(page["data"][0]["id"], first.body["data"]["id"]);
    assert_eq!(page["data"][0]["headers"][0]["value"], "k1");
    assert_eq!(list("to=b%40work.test").await["data"], json!([]));
    assert!(list("to=a%40work.test").await["data"][0].get("headers").is_none());
}

#[tokio::test]
async fn errors_are_kept_under_a_key_as_successes_are() {
    let bench = LabBench::new().await;
    bench.lab().set_fault("nylas", Fault { status: Some(504), ..Fault::default() }).expect("a fault");
    assert_eq!(kind(&send(&bench, "k1", &mail("a@work.test")).await), (504, "provider_error"));
    bench.lab().end_fault("nylas").expect("nylas");
    let replayed = send(&bench, "k1", &mail("a@work.test")).await;
    assert_eq!((kind(&replayed).0, replayed.header("idempotent-response")), (504, Some("true")));
    assert_eq!(send(&bench, "k2", &mail("a@work.test")).await.status, 200);
}

#[tokio::test]
async fn a_504_may_have_sent_the_mail_and_is_repeated_all_the_same() {
    let bench = LabBench::new().await;
    let lost = Fault { status: Some(504), after_effect: true, ..Fault::default() };
    bench.lab().set_fault("nylas", lost).expect("a fault");
    assert_eq!(kind(&send(&bench, "k1", &mail("a@work.test")).await), (504, "provider_error"));
    bench.lab().end_fault("nylas").expect("nylas");
    let effects = bench.effects();
    assert_eq!((effects.len(), effects[0].status), (1, Some(200)), "it is sent, whatever was answered");
    assert_eq!(bench.requests()[0].status, Some(504));
    let replayed = send(&bench, "k1", &mail("a@work.test")).await;
    assert_eq!((kind(&replayed).0, replayed.header("idempotent-response")), (504, Some("true")));
    let page = "/nylas/v3/grants/g1/messages?to=a%40work.test";
    let page = bench.ask(Method::GET, page, &[KEY], "").await.body;
    assert_eq!(page["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_grant_tells_its_mailbox() {
    let bench = LabBench::new().await;
    let grant = async |id: &str| bench.ask(Method::GET, &format!("/nylas/v3/grants/{id}"), &[KEY], "").await;
    let known = grant("of-acme").await.body["data"].clone();
    assert_eq!((&known["id"], &known["email"]), (&json!("of-acme"), &json!("mailbox@acme.test")));
    assert_eq!(grant("g1").await.body["data"]["email"], Value::Null);
    assert_eq!(kind(&grant("missing").await), (404, "api.not_found_error"));
    assert!(bench.effects().is_empty(), "to ask is no effect");
}

#[tokio::test]
async fn what_is_wrong_has_its_type() {
    let bench = LabBench::new().await;
    let refused = "invalid_request_error";
    for (mail, expected) in [
        (mail("nobody"), (400, refused)),
        (json!({ "to": [], "subject": "Hi" }), (400, refused)),
        (json!([]), (400, refused)),
        (mail("refused@work.test"), (402, "provider_error")),
        (mail("unknown@work.test"), (422, "provider_error")),
    ] {
        let reply = send(&bench, &mail.to_string(), &mail).await;
        assert_eq!(kind(&reply), expected, "{mail}");
    }
    send(&bench, "k1", &mail("a@work.test")).await;
    assert_eq!(kind(&send(&bench, "k1", &mail("b@work.test")).await), (409, "api.invalid_idempotent_request"));
    let long = "k".repeat(257);
    assert_eq!(kind(&send(&bench, &long, &mail("a@work.test")).await), (400, "api.invalid_idempotency_key"));
    let path = "/nylas/v3/grants/missing/messages/send";
    let gone = bench.ask(Method::POST, path, &[KEY, JSON], &mail("a@work.test").to_string()).await;
    assert_eq!(kind(&gone), (404, "api.not_found_error"));
    let stranger = bench.ask(Method::POST, path, &[JSON], "{}").await;
    assert_eq!(kind(&stranger), (401, "api.authentication_error"));
}
