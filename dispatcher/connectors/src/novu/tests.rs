//! Tests of the requests to Novu and of the classification of its answers.

use serde_json::{Value, json};

use super::lookup::found;
use super::request::with_transaction;
use super::*;
use crate::testing::{answer, prepare, serve};

fn connector() -> Novu {
    usher_service::telemetry::install_tls();
    Novu::from_environment(&Environment::from_vars([("NOVU_SECRET_KEY", "abc")])).expect("good settings")
}

#[test]
fn a_trigger_brings_its_subscriber_along() {
    let params = json!({
        "workflow": "welcome", "subscriber_id": "user_1", "email": "a@b.test", "first_name": "Ann",
        "payload": r#"{"plan":"trial"}"#,
    });
    let kept = prepare(&connector(), "trigger", &params, &Value::Null).expect("a request");
    let expected = json!({
        "name": "welcome",
        "to": { "subscriberId": "user_1", "email": "a@b.test", "firstName": "Ann" },
        "payload": { "plan": "trial" },
    });
    assert_eq!(serde_json::from_slice::<Value>(&kept).expect("JSON"), expected);
}

#[test]
fn a_payload_that_novu_would_not_take_is_told() {
    let params =
        json!({ "workflow": "w", "subscriber_id": "u", "payload": json!({ "x": "y".repeat(600_000) }).to_string() });
    assert!(prepare(&connector(), "trigger", &params, &Value::Null).is_err());
}

#[test]
fn a_transaction_is_found_by_its_id_and_by_nothing_else() {
    let of = |body: Value| found(&answer(200, &body.to_string()), "t1");
    assert!(matches!(of(json!({ "data": [{ "transactionId": "t1" }] })), Lookup::Found(effect) if effect.id == "t1"));
    assert_eq!(of(json!({ "data": [], "hasMore": false })), Lookup::Absent);
    assert_eq!(of(json!({ "data": [{ "transactionId": "t2" }] })), Lookup::Unknown);
    assert_eq!(of(json!({})), Lookup::Unknown);
}

#[tokio::test]
async fn an_error_that_novu_only_repeats_is_settled_by_what_was_made_of_it() {
    let replayed = (500, "idempotency-replay: true", "{}");
    let listed = |body: &'static str| (200, "x-a: b", body);
    for (list, expected) in [
        (listed(r#"{"data":[{"transactionId":"k1"}]}"#), None),
        (listed(r#"{"data":[]}"#), Some(Cause::Replayed)),
        ((503, "x-a: b", ""), Some(Cause::Unavailable)),
    ] {
        let novu = Novu { base: serve(vec![replayed, list]).await, ..connector() };
        let params = json!({ "workflow": "w", "subscriber_id": "u" });
        let request = prepare(&novu, "trigger", &params, &Value::Null).expect("a request");
        match (novu.attempt(&request, "k1", &CallGate::open()).await, expected) {
            (Outcome::Done(effect), None) => assert_eq!(effect.id, "k1"),
            (Outcome::Retry { cause, .. }, Some(expected)) => assert_eq!(cause, expected),
            (outcome, expected) => panic!("{outcome:?} is not {expected:?}"),
        }
    }
}

#[test]
fn a_payload_keeps_its_digits_to_the_end() {
    let params = json!({ "workflow": "w", "subscriber_id": "u", "payload": r#"{"n":12345678901234567890.10}"# });
    let kept = prepare(&connector(), "trigger", &params, &Value::Null).expect("a request");
    let sent = r#"{"name":"w","payload":{"n":12345678901234567890.10},"to":{"subscriberId":"u"},"transactionId":"t1"}"#;
    assert_eq!(with_transaction(&kept, "t1").as_deref(), Some(sent));
    assert_eq!(with_transaction(b"no JSON", "t1"), None);
}
