//! Tests of the receiver of signed webhooks.

use axum::http::Method;
use usher_proto::signature::SigningSecret;
use usher_service::clock;

use super::support::{JSON, LabBench, LabReply};
use crate::webhook::SECRET;

const PATH: &str = "/http/billing.test/hooks/usher";

async fn post(bench: &LabBench, id: &str, secret: &str, age: i64, body: &str) -> LabReply {
    let timestamp = (clock::now().seconds() - age).to_string();
    let signature = SigningSecret::parse(secret).expect("a secret").sign(id, &timestamp, body.as_bytes());
    let headers = [JSON, ("webhook-id", id), ("webhook-timestamp", &timestamp), ("webhook-signature", &signature)];
    bench.ask(Method::POST, PATH, &headers, body).await
}

#[tokio::test]
async fn a_signed_message_is_taken_once() {
    let bench = LabBench::new().await;
    let body = r#"{"data":{"id":"user_1"}}"#;
    assert_eq!(post(&bench, "m1", SECRET, 0, body).await.status, 200);
    assert_eq!(post(&bench, "m1", SECRET, 1, body).await.status, 200);
    let effects = bench.effects();
    assert_eq!(effects.iter().map(|effect| effect.replayed).collect::<Vec<_>>(), [false, true]);
    let first = &effects[0];
    assert_eq!(
        (first.provider, first.operation.as_ref(), first.idempotency_key.as_deref()),
        ("http", "post", Some("m1"))
    );
    assert_eq!((first.user.as_deref(), first.to.as_deref()), (Some("user_1"), Some("billing.test")));
}

#[tokio::test]
async fn what_is_not_signed_or_signed_long_ago_is_refused() {
    let bench = LabBench::new().await;
    assert_eq!(bench.ask(Method::POST, PATH, &[JSON], "{}").await.status, 401);
    assert_eq!(post(&bench, "m1", "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", 0, "{}").await.status, 401);
    assert_eq!(post(&bench, "m1", SECRET, 400, "{}").await.status, 401);
    assert!(bench.effects().is_empty());
}
