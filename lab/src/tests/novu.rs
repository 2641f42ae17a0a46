//! Tests that the double follows Novu's rules.

use axum::http::Method;
use serde_json::{Value, json};

use super::support::{JSON, LabBench, LabReply};

const KEY: (&str, &str) = ("authorization", "ApiKey abc");

async fn trigger(bench: &LabBench, body: &Value) -> LabReply {
    bench.ask(Method::POST, "/novu/v1/events/trigger", &[KEY, JSON], &body.to_string()).await
}

fn welcome(transaction: &str) -> Value {
    let to = json!({ "subscriberId": "user_1", "email": "a@work.test" });
    json!({ "name": "welcome", "to": to, "payload": {}, "transactionId": transaction })
}

#[tokio::test]
async fn a_transaction_makes_one_notification() {
    let bench = LabBench::new().await;
    let first = trigger(&bench, &welcome("t1")).await;
    let expected = json!({ "data": { "acknowledged": true, "status": "processed", "transactionId": "t1" } });
    assert_eq!((first.status, &first.body), (201, &expected));
    assert_eq!(trigger(&bench, &welcome("t1")).await.body, first.body);
    let effects = bench.effects();
    assert_eq!(effects.iter().map(|effect| effect.replayed).collect::<Vec<_>>(), [false, true]);
    assert_eq!((effects[0].user.as_deref(), effects[0].to.as_deref()), (Some("user_1"), Some("a@work.test")));
    let listed = async |id: &str| {
        let path = format!("/novu/v1/notifications?transactionId={id}");
        bench.ask(Method::GET, &path, &[KEY], "").await.body["data"].as_array().map(Vec::len)
    };
    assert_eq!((listed("t1").await, listed("t2").await), (Some(1), Some(0)));
}

#[tokio::test]
async fn several_may_be_told_at_once_and_what_was_made_is_shown_whole() {
    let bench = LabBench::new().await;
    for (n, to) in [
        json!(["user_1", { "subscriberId": "user_2" }]),
        json!([{ "type": "Topic", "topicKey": "all" }]),
        json!("user_1"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({ "name": "welcome", "to": to, "transactionId": format!("t{n}") });
        assert_eq!(trigger(&bench, &body).await.status, 201, "{body}");
    }
    assert_eq!(bench.effects()[0].user.as_deref(), Some("user_1"));
    let listed = bench.ask(Method::GET, "/novu/v1/notifications?transactionId=t0", &[KEY], "").await.body;
    let shown = &listed["data"][0];
    for field in ["_id", "_environmentId", "_organizationId", "_subscriberId", "_templateId", "createdAt", "updatedAt"]
    {
        assert!(shown[field].is_string(), "{field}: {shown}");
    }
    assert_eq!((&shown["transactionId"], &shown["template"]["name"]), (&json!("t0"), &json!("welcome")));
    assert_eq!(shown["subscriber"]["subscriberId"], "user_1");
}

#[tokio::test]
async fn a_refusal_names_the_fields() {
    let bench = LabBench::new().await;
    let many: Vec<String> = (0..101).map(|n| format!("user_{n}")).collect();
    for (body, field) in [
        (json!({ "to": "user_1" }), "name"),
        (json!({ "name": "welcome", "to": [] }), "to"),
        (json!({ "name": "welcome", "to": many }), "to"),
        (json!({ "name": "welcome", "to": "user_1", "payload": "x" }), "payload"),
        (json!({ "name": "welcome", "to": "user_1", "transactionId": 7 }), "transactionId"),
    ] {
        let reply = trigger(&bench, &body).await;
        assert_eq!(reply.status, 422, "{body}");
        let wrong = &reply.body["errors"][field];
        assert!(wrong["messages"][0].is_string() && wrong.get("value").is_some(), "{body}: {}", reply.body);
    }
}

#[tokio::test]
async fn a_201_may_have_sent_nothing() {
    let bench = LabBench::new().await;
    let mut inactive = welcome("t1");
    inactive["name"] = json!("trigger_not_active");
    let reply = trigger(&bench, &inactive).await;
    assert_eq!((reply.status, &reply.body["data"]["status"]), (201, &json!("trigger_not_active")));
    assert!(bench.effects().is_empty());
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let bench = LabBench::new().await;
    let with = |field: &str, value: Value| {
        let mut body = welcome("t1");
        body[field] = value;
        body
    };
    for (body, status, message) in [
        (with("name", json!("missing")), 422, "workflow_not_found"),
        (with("name", Value::Null), 422, "Validation Error"),
        (with("to", json!({})), 422, "Validation Error"),
        (with("payload", json!("x".repeat(600_000))), 413, "request entity too large"),
        (json!([]), 400, "Unexpected token in JSON"),
    ] {
        let reply = trigger(&bench, &body).await;
        assert_eq!((reply.status, reply.body["message"].as_str()), (status, Some(message)));
    }
    let bearer = [("authorization", "Bearer abc"), JSON];
    let reply = bench.ask(Method::POST, "/novu/v1/events/trigger", &bearer, &welcome("t1").to_string()).await;
    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn a_subscriber_is_found_changed_and_gone() {
    let bench = LabBench::new().await;
    let ask = async |method, path: &str, body: Value| {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        bench.ask(method, &format!("/novu/v2/subscribers{path}"), &[KEY, JSON], &text).await
    };
    let made = ask(Method::POST, "", json!({ "subscriberId": "user_1", "email": "a@work.test", "phone": "+1" })).await;
    assert_eq!((made.status, &made.body["data"]["subscriberId"]), (201, &json!("user_1")));
    assert_eq!(ask(Method::POST, "?failIfExists=true", json!({ "subscriberId": "user_1" })).await.status, 409);
    let changed = ask(Method::PATCH, "/user_1", json!({ "phone": null, "timezone": "Europe/Berlin" })).await.body;
    assert_eq!((&changed["data"]["phone"], &changed["data"]["email"]), (&Value::Null, &json!("a@work.test")));
    trigger(&bench, &welcome("t1")).await;
    assert_eq!(ask(Method::GET, "/user_1", Value::Null).await.body["data"]["timezone"], "Europe/Berlin");
    for (method, path, body, status) in [
        (Method::POST, "", json!({ "email": "a@work.test" }), 422),
        (Method::POST, "", json!({ "subscriberId": "user_2", "email": "nobody" }), 422),
        (Method::PATCH, "/user_1", json!({ "firstName": 1 }), 422),
        (Method::PATCH, "/user_1", json!({ "data": "x" }), 422),
        (Method::PATCH, "/user_2", json!({}), 404),
        (Method::GET, "/user_2", Value::Null, 404),
        (Method::DELETE, "/user_2", Value::Null, 404),
    ] {
        assert_eq!(ask(method.clone(), path, body.clone()).await.status, status, "{method} {path} {body}");
    }
    assert_eq!(ask(Method::DELETE, "/user_1", Value::Null).await.body["data"]["acknowledged"], true);
    assert_eq!(ask(Method::DELETE, "/user_1", Value::Null).await.status, 404);
}
