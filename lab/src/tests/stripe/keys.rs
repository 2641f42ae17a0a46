//! Stripe's idempotency keys, and the responses that they store.

use axum::http::Method;
use serde_json::json;

use super::super::support::{LabBench, STRIPE_KEY};
use crate::{Fault, Limit};

const INVALID: &str = "invalid_request_error";

fn fault(status: u16) -> Fault {
    Fault { status: Some(status), ..Fault::default() }
}

#[tokio::test]
async fn the_first_answer_comes_again_and_says_so() {
    let bench = LabBench::new().await;
    let first = bench.post("/v1/customers", "k1", "name=Dana&email=dana%40work.test").await;
    // The same parameters in another order are the same request.
    let again = bench.post("/v1/customers", "k1", "email=dana%40work.test&name=Dana").await;
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), (None, Some("true")));
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(again.header("original-request"), first.header("request-id"));
    assert_ne!(again.header("request-id"), first.header("request-id"));
    let effects: Vec<bool> = bench.effects().iter().map(|effect| effect.replayed).collect();
    assert_eq!(effects, [false, true]);
    let customers = bench.get("/v1/customers").await;
    assert_eq!(customers.body["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn other_parameters_or_another_endpoint_are_an_idempotency_error() {
    let bench = LabBench::new().await;
    let made = bench.post("/v1/customers", "k1", "name=Dana").await;
    let id = made.body["id"].as_str().expect("an id");
    let expected = (400, "idempotency_error", None, None);
    assert_eq!(bench.post("/v1/customers", "k1", "name=Lee").await.error(), expected);
    assert_eq!(bench.post(&format!("/v1/customers/{id}"), "k1", "name=Dana").await.error(), expected);
    assert_eq!(bench.effects().len(), 1);
}

#[tokio::test]
async fn a_twin_of_a_running_request_is_told_so() {
    let bench = LabBench::new().await;
    bench.lab().set_fault("stripe", Fault { latency_ms: 400, ..Fault::default() }).expect("a fault");
    let (one, other) =
        tokio::join!(bench.post("/v1/customers", "k1", "name=Dana"), bench.post("/v1/customers", "k1", "name=Dana"),);
    let (made, refused) = if one.status == 200 { (one, other) } else { (other, one) };
    assert_eq!(refused.error(), (409, "idempotency_error", Some("idempotency_key_in_use"), None));
    assert_eq!(bench.post("/v1/customers", "k1", "name=Dana").await.body, made.body);
}

#[tokio::test]
async fn a_failed_execution_is_replayed_after_the_fault_is_over() {
    let bench = LabBench::new().await;
    for status in [402, 500] {
        let key = format!("k{status}");
        bench.lab().set_fault("stripe", fault(status)).expect("a fault");
        let failed = bench.post("/v1/customers", &key, "name=Dana").await;
        bench.lab().end_fault("stripe").expect("stripe");
        let again = bench.post("/v1/customers", &key, "name=Dana").await;
        assert_eq!((again.status, &again.body), (status, &failed.body));
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    }
    assert!(bench.effects().is_empty());
    assert_eq!(bench.post("/v1/customers", "another", "name=Dana").await.status, 200);
}

#[tokio::test]
async fn an_object_that_is_missing_while_executing_is_kept_too() {
    let bench = LabBench::new().await;
    let form = "customer=cus_none&items[0][price]=price_1&trial_period_days=7";
    let failed = bench.post("/v1/subscriptions", "k1", form).await;
    assert_eq!(failed.error(), (400, INVALID, Some("resource_missing"), Some("customer")));
    let again = bench.post("/v1/subscriptions", "k1", form).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &failed.body));
}

#[tokio::test]
async fn what_came_before_the_execution_is_not_kept() {
    let bench = LabBench::new().await;
    let post = async || bench.post("/v1/customers", "k1", "name=Dana").await;
    for status in [409, 424, 429, 502, 503, 504] {
        bench.lab().set_fault("stripe", fault(status)).expect("a fault");
        assert_eq!(post().await.status, status);
    }
    bench.lab().end_fault("stripe").expect("stripe");
    assert_eq!(bench.post("/v1/customers", "k1", "nmae=Dana").await.error().2, Some("parameter_unknown"));
    let no_key = bench.ask(Method::POST, "/stripe/v1/customers", &[("idempotency-key", "k1")], "").await;
    assert_eq!(no_key.status, 401);
    let made = post().await;
    assert_eq!((made.status, made.header("idempotent-replayed")), (200, None));
}

#[tokio::test]
async fn reading_and_deleting_pass_over_the_key() {
    let bench = LabBench::new().await;
    let made = bench.post("/v1/customers", "k1", "name=Dana").await;
    let path = format!("/stripe/v1/customers/{}", made.body["id"].as_str().expect("an id"));
    let headers = [STRIPE_KEY, ("idempotency-key", "k1")];
    assert_eq!(bench.ask(Method::GET, &path, &headers, "").await.status, 200);
    assert_eq!(bench.ask(Method::DELETE, &path, &headers, "").await.body["deleted"], json!(true));
    assert_eq!(bench.ask(Method::DELETE, &path, &headers, "").await.status, 404);
}

#[tokio::test]
async fn a_key_has_at_most_255_characters() {
    let bench = LabBench::new().await;
    assert_eq!(bench.post("/v1/customers", &"k".repeat(255), "").await.status, 200);
    assert_eq!(bench.post("/v1/customers", &"k".repeat(256), "").await.error(), (400, INVALID, None, None));
}

#[tokio::test]
async fn over_the_limit_the_answer_names_the_limiter() {
    let bench = LabBench::new().await;
    bench.lab().set_limit("stripe", Limit { per_second: 1 }).expect("a limit");
    bench.post("/v1/customers", "", "name=Dana").await;
    let refused = bench.post("/v1/customers", "k1", "name=Lee").await;
    assert_eq!(refused.error(), (429, INVALID, Some("rate_limit"), None));
    assert_eq!(refused.header("stripe-rate-limited-reason"), Some("global-rate"));
    assert_eq!(refused.header("retry-after"), None);
    bench.lab().end_limit("stripe").expect("stripe");
    assert_eq!(bench.post("/v1/customers", "k1", "name=Lee").await.status, 200);
}

#[tokio::test]
async fn a_lock_on_an_object_is_a_429_without_a_limiter() {
    let bench = LabBench::new().await;
    let lock = Fault { name: Some("lock_timeout".into()), ..fault(429) };
    bench.lab().set_fault("stripe", lock).expect("a fault");
    let refused = bench.post("/v1/customers", "", "name=Dana").await;
    assert_eq!(refused.error(), (429, INVALID, Some("lock_timeout"), None));
    assert_eq!(refused.header("stripe-rate-limited-reason"), None);
}
