//! Nylas's rules.

use axum::http::Method;
use serde_json::{Value, json};

use super::support::{Bench, JSON, Reply};
use crate::Fault;

const KEY: (&str, &str) = ("authorization", "Bearer nyk_1");

async fn send(bench: &Bench, key: &str, mail: &Value) -> Reply {
    let headers = [KEY, JSON, ("idempotency-key", key)];
    bench.ask(Method::POST, "/nylas/v3/grants/g1/messages/send", &headers, &mail.to_string()).await
}

fn mail(to: &str) -> Value {
    let headers = json!([{ "name": "X-Usher-Key", "value": "k1" }]);
    json!({ "to": [{ "email": to }], "subject": "Hi", "body": "<p>Hello", "custom_headers": headers })
}

fn kind(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.body["error"]["type"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_mail_is_sent_once_and_found_by_its_header() {
    let bench = Bench::new().await;
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
    let bench = Bench::new().await;
    bench.lab().set_fault("nylas", Fault { status: Some(504), ..Fault::default() }).expect("a fault");
    assert_eq!(kind(&send(&bench, "k1", &mail("a@work.test")).await), (504, "provider_error"));
    bench.lab().end_fault("nylas").expect("nylas");
    let replayed = send(&bench, "k1", &mail("a@work.test")).await;
    assert_eq!((kind(&replayed).0, replayed.header("idempotent-response")), (504, Some("true")));
    assert_eq!(send(&bench, "k2", &mail("a@work.test")).await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_has_its_type() {
    let bench = Bench::new().await;
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
