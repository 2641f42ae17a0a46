//! Subscribers, absent and present.

use reqwest::Method;
use serde_json::{Value, json};
use usher_engine::Outcome;

use super::super::lab::{ConnectorBench, carry_out};
use super::super::subject::subject;

/// Asks the double directly for a subscriber. `None` if there is none.
async fn subscriber(bench: &ConnectorBench, id: &str) -> Option<Value> {
    let url = format!("{}/novu/v2/subscribers/{id}", bench.lab.url());
    let request = reqwest::Client::new().request(Method::GET, url).header("authorization", "ApiKey lab");
    let answer = request.send().await.unwrap();
    let is_there = answer.status().is_success();
    let mut body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    is_there.then(|| body["data"].take())
}

#[tokio::test]
async fn a_subscriber_is_created_updated_cleared_and_deleted() {
    let bench = ConnectorBench::new().await;
    let connector = bench.open(subject("novu"));
    // Twice, as after a crash.
    let twice = async |operation: &str, params: Value| {
        let mut said = Vec::new();
        for _ in 0..2 {
            match carry_out(&*connector, operation, params.clone(), Value::Null).await {
                Outcome::Done(effect) => said.push(effect.result["status"].as_str().unwrap().to_owned()),
                other => panic!("{operation}: {other:?}"),
            }
        }
        said
    };
    let params = json!({
        "subscriber_id": "user_1", "email": "Dana <dana@work.test>", "phone": "+12015551123", "first_name": "Dana",
        "last_name": null, "locale": "de-DE", "timezone": "Europe/Berlin",
        "data": r#"{"plan":"pro","seats":3,"tags":["a"],"paid":true}"#,
    });
    assert_eq!(twice("put_subscriber", params).await, ["created", "updated"]);
    let found = subscriber(&bench, "user_1").await.unwrap();
    for (field, expected) in [
        ("email", json!("dana@work.test")),
        ("phone", json!("+12015551123")),
        ("firstName", json!("Dana")),
        ("locale", json!("de-DE")),
        ("timezone", json!("Europe/Berlin")),
        ("data", json!({ "plan": "pro", "seats": 3, "tags": ["a"], "paid": true })),
        ("lastName", Value::Null),
    ] {
        assert_eq!(found[field], expected, "{field}");
    }

    // What came out empty is cleared; what the flow does not name stays.
    assert_eq!(
        twice("put_subscriber", json!({ "subscriber_id": "user_1", "email": null, "phone": null })).await[0],
        "updated"
    );
    let found = subscriber(&bench, "user_1").await.unwrap();
    assert_eq!((&found["email"], &found["phone"], &found["firstName"]), (&Value::Null, &Value::Null, &json!("Dana")));

    assert_eq!(twice("delete_subscriber", json!({ "subscriber_id": "user_1" })).await, ["deleted", "deleted"]);
    assert_eq!(subscriber(&bench, "user_1").await, None);
}

#[tokio::test]
async fn a_trigger_brings_data_and_locale_along() {
    let bench = ConnectorBench::new().await;
    let connector = bench.open(subject("novu"));
    let params = json!({
        "workflow": "welcome", "subscriber_id": "user_1", "locale": "de-DE", "data": r#"{"seats":3}"#,
        "payload": r#"{"nested":{"list":[1,true,"x"]}}"#,
    });
    let outcome = carry_out(&*connector, "trigger", params, Value::Null).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    let found = subscriber(&bench, "user_1").await.unwrap();
    assert_eq!((&found["locale"], &found["data"]), (&json!("de-DE"), &json!({ "seats": 3 })));
    assert_eq!(bench.effects("novu")[0].body["payload"], json!({ "nested": { "list": [1, true, "x"] } }));
}
