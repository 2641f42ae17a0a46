//! Tests of the requests to Algolia and of the classification of its answers.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::request::GUARD;
use super::*;
use crate::testing::{prepare, prepare_rerun, serve};

fn connector() -> Algolia {
    usher_service::telemetry::install_tls();
    let settings = [("ALGOLIA_APP_ID", "APP1"), ("ALGOLIA_API_KEY", "abc"), ("ALGOLIA_INDEX", "people")];
    Algolia::from_environment(&Environment::from_vars(settings)).expect("good settings")
}

fn change(operation: &str, params: Value, data: Value) -> (String, Value) {
    let kept = prepare(&connector(), operation, &params, &data).expect("a request");
    let RecordChange { path, body, .. } = serde_json::from_slice(&kept).expect("it reads back");
    (path, body.map_or(Value::Null, |body| serde_json::from_str(&body).expect("JSON")))
}

#[test]
fn the_hosts_are_those_of_the_application() {
    let mut hosts = connector().hosts;
    assert_eq!(hosts.remove(0), "https://APP1.algolia.net", "the others are only asked in its place");
    hosts.sort();
    assert_eq!(hosts, [1, 2, 3].map(|n| format!("https://APP1-{n}.algolianet.com")));
}

#[test]
fn an_update_says_how_old_its_state_is() {
    let params = json!({ "object_id": "user_1", "fields": { "name": "Ann", "objectID": "other" } });
    let (path, body) = change(SAVE, params.clone(), json!({ "updated_at": 17 }));
    assert_eq!(path, "/1/indexes/people/user_1/partial?createIfNotExists=true");
    let guard = |value: i64| json!({ "_operation": "IncrementSet", "value": value });
    assert_eq!(body, json!({ "name": "Ann", GUARD: guard(17_000) }));
    assert_eq!(change(SAVE, params, json!({})).1[GUARD], guard(1_767_261_600_250_000), "else the event's own time");
}

#[test]
fn a_rerun_is_newer_than_its_own_state_and_older_than_the_next() {
    let params = json!({ "object_id": "user_1", "fields": { "name": "Ann" } });
    let guard = |rerun| {
        let data = json!({ "updated_at": 17 });
        let kept = prepare_rerun(&connector(), SAVE, &params, &data, rerun).expect("a request");
        let RecordChange { body, .. } = serde_json::from_slice(&kept).expect("it reads back");
        let body: Value = serde_json::from_str(&body.expect("a body")).expect("JSON");
        body[GUARD]["value"].as_i64().expect("a number")
    };
    assert_eq!([0, 1, 2, 999, 5_000].map(guard), [17_000, 17_001, 17_002, 17_999, 17_999]);
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
    let (path, body) = change(DELETE, json!({ "object_id": "a/b?c", "index": "x.y" }), Value::Null);
    assert_eq!((path.as_str(), body), ("/1/indexes/x%2Ey/a%2Fb%3Fc", Value::Null));
}

#[tokio::test]
async fn the_next_host_is_asked_where_one_is_not_there_and_nowhere_else() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let nobody = format!("http://{nobody}");
    let mut algolia = connector();
    let host = async |status| serve(vec![(status, "x-a: b", r#"{"taskID":1}"#)]).await;
    let request = prepare(&algolia, DELETE, &json!({ "object_id": "x" }), &Value::Null).expect("a request");
    algolia.hosts = vec![nobody.clone(), host(503).await, host(302).await, host(200).await];
    assert!(matches!(algolia.attempt(&request, "k", &CallGate::open()).await, Outcome::Done(_)));
    algolia.hosts = vec![host(503).await, nobody];
    assert_eq!(algolia.attempt(&request, "k", &CallGate::open()).await, Outcome::retry(Cause::Unreachable));
    algolia.hosts = vec![host(429).await, host(200).await];
    assert_eq!(algolia.attempt(&request, "k", &CallGate::open()).await, Outcome::retry(Cause::Throttled));
}
