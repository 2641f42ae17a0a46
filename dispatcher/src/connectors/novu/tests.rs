//! What is asked of Novu, and what its answers mean.

use super::super::assert_outcome;
use super::super::testing::{answer, prepare};
use super::*;

fn connector() -> Novu {
    usher_service::telemetry::install_tls();
    Novu::from_environment(&Environment::of([("NOVU_SECRET_KEY", "abc")])).expect("good settings")
}

#[test]
fn a_trigger_brings_its_subscriber_along() {
    let params = json!({
        "workflow": "welcome", "subscriber_id": "user_1", "email": "a@b.test", "first_name": "Ann",
        "payload": { "plan": "trial" },
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
    let params = json!({ "workflow": "w", "subscriber_id": "u", "payload": { "x": "y".repeat(600_000) } });
    assert!(prepare(&connector(), "trigger", &params, &Value::Null).is_err());
}

#[test]
fn only_processed_is_done() {
    for (status, expected) in [
        ("error", Err(Reason::InvalidRequest)),
        ("trigger_not_active", Err(Reason::Configuration)),
        ("no_workflow_active_steps_defined", Err(Reason::Configuration)),
        ("no_workflow_steps_defined", Err(Reason::Configuration)),
        ("no_tenant_found", Err(Reason::Configuration)),
        ("invalid_recipients", Err(Reason::InvalidRequest)),
        ("named_tomorrow", Err(Reason::InvalidRequest)),
    ] {
        for body in [
            json!({ "data": { "acknowledged": true, "status": status, "transactionId": "t", "error": ["a@b.test"] } }),
            json!({ "acknowledged": true, "status": status }),
        ] {
            let outcome = classify(&answer(201, &body.to_string()));
            assert_outcome(&outcome, expected, status);
            assert!(!format!("{outcome:?}").contains("a@b.test"), "its errors are not repeated");
        }
    }
    let done = json!({ "data": { "acknowledged": true, "status": "processed", "transactionId": "t1" } }).to_string();
    assert!(matches!(classify(&answer(201, &done)), Outcome::Done(effect) if effect.id == "t1"));
    assert_eq!(classify(&answer(201, "<html>")), Outcome::retry(Cause::Interrupted));
}

#[test]
fn every_documented_error_has_its_outcome() {
    for (status, message, expected) in [
        (400, "payload is not valid: a@b.test", Err(Reason::InvalidRequest)),
        (401, "Unauthorized", Err(Reason::Configuration)),
        (403, "Forbidden", Err(Reason::Configuration)),
        (404, "Not Found", Err(Reason::NotFound)),
        (405, "", Err(Reason::InvalidRequest)),
        (408, "", Ok(Cause::Timeout)),
        (409, "", Ok(Cause::Conflict)),
        (413, "", Err(Reason::InvalidRequest)),
        (414, "", Err(Reason::InvalidRequest)),
        (415, "", Err(Reason::InvalidRequest)),
        (422, "workflow_not_found", Err(Reason::NotFound)),
        (422, "Validation Error", Err(Reason::InvalidRequest)),
        (429, "", Ok(Cause::Throttled)),
        (500, "", Ok(Cause::Unavailable)),
        (503, "", Ok(Cause::Unavailable)),
        (302, "", Err(Reason::InvalidRequest)),
    ] {
        let body = json!({ "statusCode": status, "message": message, "ctx": { "email": "a@b.test" } }).to_string();
        let outcome = classify(&answer(status, &body));
        assert_outcome(&outcome, expected, &format!("{status} {message}"));
        assert!(!format!("{outcome:?}").contains("a@b.test"), "the message is not repeated");
    }
    let twin = classify(&answer(409, "{}").with("retry-after", "1"));
    assert!(matches!(twin, Outcome::Retry { after: Some(after), .. } if after.as_secs() == 1));
}

#[test]
fn a_transaction_is_found_by_its_id_and_by_nothing_else() {
    let of = |body: Value| found(&answer(200, &body.to_string()), "t1");
    assert!(matches!(of(json!({ "data": [{ "transactionId": "t1" }] })), LookUp::Found(effect) if effect.id == "t1"));
    assert_eq!(of(json!({ "data": [], "hasMore": false })), LookUp::Absent);
    assert_eq!(of(json!({ "data": [{ "transactionId": "t2" }] })), LookUp::Unknown);
    assert_eq!(of(json!({})), LookUp::Unknown);
}
