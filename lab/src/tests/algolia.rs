//! Tests that the double follows Algolia's rules.

use axum::http::Method;
use serde_json::{Value, json};

use super::support::{JSON, LabBench, LabReply};

const KEYS: [(&str, &str); 3] = [("x-algolia-application-id", "APP"), ("x-algolia-api-key", "k"), JSON];
const RECORD: &str = "/algolia/1/indexes/users/user_1";

async fn ask(bench: &LabBench, method: Method, rest: &str, body: &Value) -> LabReply {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    bench.ask(method, &format!("{RECORD}{rest}"), &KEYS, &text).await
}

fn guarded(name: &str, at: i64) -> Value {
    json!({ "name": name, "at": { "_operation": "IncrementSet", "value": at } })
}

#[tokio::test]
async fn a_guard_lets_only_newer_updates_by() {
    let bench = LabBench::new().await;
    for (name, at) in [("Ann", 5), ("Old", 4), ("Same", 5)] {
        assert_eq!(ask(&bench, Method::POST, "/partial", &guarded(name, at)).await.status, 200);
    }
    let stored = json!({ "objectID": "user_1", "name": "Ann", "at": 5 });
    assert_eq!(ask(&bench, Method::GET, "", &Value::Null).await.body, stored);
    ask(&bench, Method::POST, "/partial", &guarded("New", 6)).await;
    assert_eq!(ask(&bench, Method::GET, "", &Value::Null).await.body["name"], "New");
    let effect = &bench.effects()[0];
    assert_eq!((effect.operation.as_ref(), effect.user.as_deref()), ("objects.partial", Some("user_1")));
}

#[tokio::test]
async fn a_record_is_made_only_where_that_is_wanted_and_deleted_twice_without_complaint() {
    let bench = LabBench::new().await;
    ask(&bench, Method::POST, "/partial?createIfNotExists=false", &guarded("Ann", 5)).await;
    assert_eq!(ask(&bench, Method::GET, "", &Value::Null).await.status, 404);
    ask(&bench, Method::POST, "/partial?createIfNotExists=true", &guarded("Ann", 5)).await;
    for _ in 0..2 {
        let reply = ask(&bench, Method::DELETE, "", &Value::Null).await;
        assert!(reply.status == 200 && reply.body["taskID"].is_u64());
    }
    assert_eq!(ask(&bench, Method::GET, "", &Value::Null).await.status, 404);
}

#[tokio::test]
async fn keys_and_json_are_wanted() {
    let bench = LabBench::new().await;
    let stranger = bench.ask(Method::POST, &format!("{RECORD}/partial"), &[JSON], "{}").await;
    assert_eq!((stranger.status, &stranger.body["status"]), (403, &json!(403)));
    assert_eq!(bench.ask(Method::POST, &format!("{RECORD}/partial"), &KEYS, "{").await.status, 400);
    // The content type that the official client sends.
    let plain = [KEYS[0], KEYS[1], ("content-type", "text/plain")];
    let sent = bench.ask(Method::POST, &format!("{RECORD}/partial"), &plain, "{\"name\":\"Ann\"}").await;
    assert_eq!(
        (sent.status, ask(&bench, Method::GET, "", &Value::Null).await.body["name"].as_str()),
        (200, Some("Ann"))
    );
}
