//! What is asked of Algolia, and what its answers mean.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::assert_outcome;
use super::super::testing::{answer, prepare};
use super::*;

fn connector() -> Algolia {
    usher_service::telemetry::install_tls();
    let settings = [("ALGOLIA_APP_ID", "APP1"), ("ALGOLIA_API_KEY", "abc"), ("ALGOLIA_INDEX", "people")];
    Algolia::from_environment(&Environment::of(settings)).expect("good settings")
}

fn change(operation: &str, params: Value, data: Value) -> (String, Value) {
    let kept = prepare(&connector(), operation, &params, &data).expect("a request");
    let Change { path, body, .. } = serde_json::from_slice(&kept).expect("it reads back");
    (path, body.map_or(Value::Null, |body| serde_json::from_str(&body).expect("JSON")))
}

#[test]
fn the_hosts_are_those_of_the_application() {
    let expected = [
        "https://APP1.algolia.net",
        "https://APP1-1.algolianet.com",
        "https://APP1-2.algolianet.com",
        "https://APP1-3.algolianet.com",
    ];
    assert_eq!(connector().hosts, expected);
}

#[test]
fn an_update_says_how_old_its_state_is() {
    let params = json!({ "object_id": "user_1", "fields": { "name": "Ann", "objectID": "other" } });
    let (path, body) = change(SAVE, params.clone(), json!({ "updated_at": 17 }));
    assert_eq!(path, "/1/indexes/people/user_1/partial?createIfNotExists=true");
    let guard = |value: i64| json!({ "_operation": "IncrementSet", "value": value });
    assert_eq!(body, json!({ "name": "Ann", GUARD: guard(17) }));
    assert_eq!(change(SAVE, params, json!({})).1[GUARD], guard(1_767_261_600_250), "else the event's own time");
}

#[test]
fn a_whole_user_goes_without_what_is_private() {
    let user = json!({ "object": "user", "id": "user_1", "first_name": null, "updated_at": 17,
        "private_metadata": { "crm": 1 }, "unsafe_metadata": {}, "public_metadata": { "plan": "pro" } });
    let (_, body) = change(SAVE, json!({ "object_id": "user_1" }), user);
    assert_eq!(body["public_metadata"]["plan"], "pro");
    assert_eq!(body.get("first_name"), Some(&Value::Null), "what was emptied is emptied");
    assert!(body.get("private_metadata").is_none() && body.get("unsafe_metadata").is_none());
    for data in [json!({ "object": "session" }), json!({ "object": "user", "deleted": true }), Value::Null] {
        assert!(prepare(&connector(), SAVE, &json!({ "object_id": "x" }), &data).is_err(), "{data}");
    }
}

#[test]
fn ids_stay_within_their_segments() {
    let (path, body) = change(DELETE, json!({ "object_id": "a/b?c", "index": "../x" }), Value::Null);
    assert_eq!((path.as_str(), body), ("/1/indexes/%2E%2E%2Fx/a%2Fb%3Fc", Value::Null));
}

#[test]
fn every_documented_error_has_its_outcome() {
    for (status, expected) in [
        (400, Err(Reason::InvalidRequest)),
        (401, Err(Reason::Configuration)),
        (403, Err(Reason::Configuration)),
        (404, Err(Reason::NotFound)),
        (405, Err(Reason::InvalidRequest)),
        (413, Err(Reason::InvalidRequest)),
        (429, Ok(Cause::Throttled)),
        (500, Ok(Cause::Unavailable)),
        (503, Ok(Cause::Unavailable)),
        (302, Err(Reason::InvalidRequest)),
    ] {
        let body = json!({ "message": "Record at the position 0 objectID=a@b.test is too big", "status": status });
        let outcome = classify(&answer(status, &body.to_string()), "o".into());
        assert_outcome(&outcome, expected, &status.to_string());
        assert!(!format!("{outcome:?}").contains("a@b.test"), "the message is not repeated");
    }
    let done = r#"{"updatedAt":"2026-01-01T00:00:00Z","taskID":123,"objectID":"o"}"#;
    assert!(matches!(classify(&answer(200, done), "o".into()), Outcome::Done(effect) if effect.result["task"] == 123));
    assert_eq!(classify(&answer(200, "<html>"), "o".into()), Outcome::retry(Cause::Interrupted));
}

/// A host that answers everything with this status, and an address where none is.
async fn host(status: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = r#"{"taskID":1}"#;
            let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            // It is small enough to come at once.
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn the_next_host_is_asked_where_one_is_not_there_and_nowhere_else() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let nobody = format!("http://{nobody}");
    let mut algolia = connector();
    let request = prepare(&algolia, DELETE, &json!({ "object_id": "x" }), &Value::Null).expect("a request");
    algolia.hosts = vec![nobody.clone(), host(503).await, host(200).await];
    assert!(matches!(algolia.attempt(&request, "k").await, Outcome::Done(_)));
    algolia.hosts = vec![host(503).await, nobody];
    assert_eq!(algolia.attempt(&request, "k").await, Outcome::retry(Cause::Unreachable));
    algolia.hosts = vec![host(429).await, host(200).await];
    assert_eq!(algolia.attempt(&request, "k").await, Outcome::retry(Cause::Throttled));
}
