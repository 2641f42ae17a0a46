//! Tests that the double follows Clerk's rules, and sends what Clerk would send.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use usher_proto::signature::{Signed, SigningSecret, verify};
use usher_service::clock;

use super::support::{JSON, LabBench, LabReply};
use crate::locked::Locked;

const KEY: (&str, &str) = ("authorization", "Bearer sk_test_123");
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn ask(bench: &LabBench, method: Method, path: &str, body: &Value) -> LabReply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    bench.ask(method, &format!("/clerk/v1{path}"), &[KEY, JSON], &body).await
}

async fn merge(bench: &LabBench, object: &str, body: &Value) -> LabReply {
    ask(bench, Method::PATCH, &format!("{object}/metadata"), body).await
}

/// Returns the status, the code, and the parameter of a refusal.
fn refusal(reply: &LabReply) -> (u16, &str, Option<&str>) {
    let error = &reply.body["errors"][0];
    assert!(error["message"].is_string() && error["long_message"].is_string(), "{reply:?}");
    assert!(reply.body["clerk_trace_id"].is_string(), "{reply:?}");
    (reply.status, error["code"].as_str().expect("a code"), error["meta"]["param_name"].as_str())
}

#[tokio::test]
async fn metadata_are_merged_at_every_depth() {
    let bench = LabBench::new().await;
    for (object, fields) in [("/users/user_1", 3), ("/organizations/org_1", 2)] {
        for (patch, expected) in [
            (json!({ "a": { "b": 1, "c": 2 }, "d": [1, 2] }), json!({ "a": { "b": 1, "c": 2 }, "d": [1, 2] })),
            (json!({ "a": { "b": null }, "d": [3] }), json!({ "a": { "c": 2 }, "d": [3] })),
            (
                json!({ "a": null, "e": { "f": { "g": null, "h": true } } }),
                json!({ "d": [3], "e": { "f": { "h": true } } }),
            ),
            (json!({}), json!({ "d": [3], "e": { "f": { "h": true } } })),
        ] {
            let reply = merge(&bench, object, &json!({ "private_metadata": patch })).await;
            assert_eq!((reply.status, &reply.body["private_metadata"]), (200, &expected), "{object}");
            assert_eq!(ask(&bench, Method::GET, object, &Value::Null).await.body, reply.body, "{object}");
        }
        let fields_of =
            |body: &Value| body.as_object().expect("an object").keys().filter(|it| it.ends_with("_metadata")).count();
        let shown = ask(&bench, Method::GET, object, &Value::Null).await.body;
        assert_eq!(fields_of(&shown), fields, "{object}");
        assert_eq!(shown["public_metadata"], json!({}), "{object}");
    }
    let effects = bench.effects();
    assert!(effects.iter().all(|effect| effect.operation.ends_with(".metadata")), "reading is no effect");
    assert_eq!((effects[0].user.as_deref(), effects[4].to.as_deref()), (Some("user_1"), Some("org_1")));
}

#[tokio::test]
async fn what_clerk_would_not_take_is_refused() {
    let bench = LabBench::new().await;
    let public = json!({ "public_metadata": { "a": 1 } });
    let not_found = (404, "resource_not_found", None);
    for path in
        ["/users/user_missing1", "/users/org_1", "/users/user_", "/organizations/user_1", "/organizations/org_missing"]
    {
        assert_eq!(refusal(&merge(&bench, path, &public).await), not_found, "{path}");
    }
    assert_eq!(refusal(&ask(&bench, Method::GET, "/sessions/sess_1", &Value::Null).await), not_found);
    for (path, body, code, param) in [
        ("/users/user_1", json!({ "metadata": {} }), "form_param_unknown", "metadata"),
        ("/organizations/org_1", json!({ "unsafe_metadata": {} }), "form_param_unknown", "unsafe_metadata"),
        ("/users/user_1", json!({ "public_metadata": [1] }), "form_param_type_invalid", "public_metadata"),
        ("/users/user_1", json!({ "public_metadata": null }), "form_param_type_invalid", "public_metadata"),
    ] {
        assert_eq!(refusal(&merge(&bench, path, &body).await), (422, code, Some(param)), "{body}");
    }
    let half = |name: &str| json!({ "private_metadata": { name: "x".repeat(5000) } });
    assert_eq!(merge(&bench, "/users/user_1", &half("a")).await.status, 200);
    let too_large = (422, "form_param_exceeds_allowed_size", Some("private_metadata"));
    assert_eq!(refusal(&merge(&bench, "/users/user_1", &half("b")).await), too_large, "the merged value counts");
    let removed = json!({ "private_metadata": { "a": null, "b": "x".repeat(5000) } });
    assert_eq!(merge(&bench, "/users/user_1", &removed).await.status, 200);

    for key in ["", "sk_test_", "pk_test_1"] {
        let key = [("authorization", &*format!("Bearer {key}")), JSON];
        let reply = bench.ask(Method::PATCH, "/clerk/v1/users/user_1/metadata", &key, &public.to_string()).await;
        assert_eq!(refusal(&reply), (401, "clerk_key_invalid", None));
    }
    let reply = bench.ask(Method::PATCH, "/clerk/v1/users/user_1/metadata", &[KEY, JSON], "[]").await;
    assert_eq!(refusal(&reply).0, 400);
    bench.lab().set_limit("clerk", crate::Limit { per_second: 1 }).expect("a limit");
    assert_eq!(merge(&bench, "/users/user_1", &public).await.status, 200);
    let limited = merge(&bench, "/users/user_1", &public).await;
    assert_eq!((refusal(&limited).0, limited.header("retry-after")), (429, Some("1")));
}

/// The webhooks that a receiver has got.
type Received = Arc<Locked<Vec<Value>>>;

async fn receive(State(received): State<Received>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let signed = Signed { id: text("svix-id"), timestamp: text("svix-timestamp"), signatures: text("svix-signature") };
    let secret = SigningSecret::parse(SECRET).expect("a secret");
    if verify(&[secret], signed, &body, clock::now()).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    received.with(|received| received.push(serde_json::from_slice(&body).expect("JSON")));
    StatusCode::NO_CONTENT
}

#[tokio::test]
async fn what_changes_in_a_whole_object_is_told_in_order_by_signed_webhooks() {
    usher_service::telemetry::install_tls();
    let bench = LabBench::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = format!("http://{}/hook", listener.local_addr().expect("an address")).parse().expect("an address");
    let received = Received::default();
    let router = Router::new().route("/hook", post(receive)).with_state(received.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let created = async |path: &str, body: Value| {
        let reply = ask(&bench, Method::POST, path, &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body["id"].as_str().expect("an id").to_owned()
    };
    // Nobody is told before a receiver is named, and never of an object that is not whole.
    created("/users", json!({ "email_address": ["early@work.test"] })).await;
    bench.lab().send_webhooks(to, SigningSecret::parse(SECRET).expect("a secret")).expect("a client");
    let user = created("/users", json!({ "email_address": ["dana@work.test"], "first_name": "Dana" })).await;
    let organization = created("/organizations", json!({ "name": "Acme" })).await;
    let public = json!({ "public_metadata": { "plan": "pro" } });
    assert_eq!(merge(&bench, "/users/user_unseen", &public).await.status, 200);
    let updated = merge(&bench, &format!("/users/{user}"), &public).await.body;
    assert_eq!(merge(&bench, &format!("/organizations/{organization}"), &public).await.status, 200);
    let path = format!("/users/{user}");
    assert_eq!(ask(&bench, Method::DELETE, &path, &Value::Null).await.body["deleted"], true);
    assert_eq!(refusal(&ask(&bench, Method::GET, &path, &Value::Null).await).0, 404);

    bench.until(|_| received.with(|received| received.len() == 5)).await;
    let received = received.with(|received| received.clone());
    let told: Vec<(&str, &str)> = received
        .iter()
        .map(|event| (event["type"].as_str().expect("a type"), event["data"]["id"].as_str().expect("an id")))
        .collect();
    let (user, organization) = (user.as_str(), organization.as_str());
    assert_eq!(
        told,
        [
            ("user.created", user),
            ("organization.created", organization),
            ("user.updated", user),
            ("organization.updated", organization),
            ("user.deleted", user),
        ]
    );
    assert_eq!(received[2]["data"], updated, "the event has the state that the write was answered with");
    assert!(received[2]["data"]["updated_at"].as_i64() > received[0]["data"]["updated_at"].as_i64());
    let primary = &received[0]["data"]["primary_email_address_id"];
    assert_eq!(received[0]["data"]["email_addresses"][0]["id"], *primary);
    serving.abort();
}
