//! Tests of the writes to Clerk and of what they change in the event's subject.

use serde_json::{Value, json};
use usher_engine::Cause;

use super::*;
use crate::testing::{event, serve};

fn connector(base: &str) -> Clerk {
    usher_service::telemetry::install_tls();
    let environment = Environment::from_vars([(KEY, "sk_test_123"), ("CLERK_BASE_URL", base)]);
    Clerk::from_environment(&environment).expect("good settings")
}

/// Prepares a write for an event of this type. `known` is the newest known state of its subject.
fn write(kind: &str, data: &Value, known: Option<&str>, params: &Value) -> Result<MetadataWrite, PrepareError> {
    let mut event = event(data);
    event.kind = kind.into();
    let params = params.as_object().expect("parameters");
    let inputs = StepInput { operation: operation(params), params, event: &event, known, rerun: 0 };
    let stored = connector("http://127.0.0.1:1").prepare(&inputs)?;
    Ok(stored::read(&stored).expect("it reads back"))
}

/// Returns the operation that has these parameters.
fn operation(params: &serde_json::Map<String, Value>) -> &'static str {
    if params.contains_key("organization_id") { SET_ORGANIZATION_METADATA } else { SET_METADATA }
}

fn user() -> Value {
    json!({ "object": "user", "id": "user_1" })
}

#[test]
fn the_event_says_whose_metadata_are_written_unless_the_step_does() {
    let private = json!({ "private": { "stripe": { "customer": "cus_1", "seats": 3, "old": null } } });
    let made = write("user.created", &user(), None, &private).expect("a write");
    assert_eq!((made.object.as_str(), made.id.as_str()), ("/v1/users/user_1", "user_1"));
    let body: Value = serde_json::from_str(&made.body).expect("JSON");
    assert_eq!(body, json!({ "private_metadata": { "stripe": { "customer": "cus_1", "seats": 3, "old": null } } }));
    let session = json!({ "object": "session", "id": "sess_1", "user_id": "user_2" });
    assert_eq!(write("session.created", &session, None, &private).expect("a write").id, "user_2");

    let all = json!({ "user_id": "user_3", "public": { "a": 1 }, "private": { "b": 2 }, "unsafe": { "c": 3 } });
    let made = write("organization.created", &json!({ "id": "org_1" }), None, &all).expect("a write");
    assert_eq!(made.body, r#"{"private_metadata":{"b":2},"public_metadata":{"a":1},"unsafe_metadata":{"c":3}}"#);
    let organization = json!({ "organization_id": "org_1", "public": { "a": 1 } });
    assert_eq!(write("user.created", &user(), None, &organization).expect("a write").object, "/v1/organizations/org_1");
}

#[test]
fn what_clerk_cannot_store_and_whom_nobody_names_is_told() {
    let large = json!({ "public": { "a": "x".repeat(MOST) } });
    for (kind, params, why) in [
        ("user.created", json!({}), "no metadata are given"),
        // If these were left out, the metadata would be written to the event's user.
        ("user.created", json!({ "organization_id": null, "public": { "a": 1 } }), "organization_id came out empty"),
        ("user.created", json!({ "user_id": null, "public": { "a": 1 } }), "user_id came out empty"),
        ("user.created", json!({ "user_id": "..", "public": { "a": 1 } }), "another path"),
        ("organization.created", json!({ "public": { "a": 1 } }), "concerns no user"),
        ("user.created", large, "8 KB"),
    ] {
        let error = write(kind, &user(), None, &params).expect_err("it is refused").0;
        assert!(error.contains(why), "{params}: {error}");
    }
    let fits = json!({ "public": { "a": "x".repeat(MOST - 8) } });
    assert!(write("user.created", &user(), None, &fits).is_ok());
}

const MOST: usize = 8 * 1024;

#[test]
fn what_is_known_of_the_subject_shows_if_a_write_changes_it() {
    let change = |known: Option<Value>, params: Value| {
        let mut event = event(&user());
        event.kind = "user.updated".into();
        let known = known.map(|known| known.to_string());
        let params = params.as_object().expect("parameters").clone();
        let inputs = StepInput {
            operation: operation(&params),
            params: &params,
            event: &event,
            known: known.as_deref(),
            rerun: 0,
        };
        connector("http://127.0.0.1:1").subject_change(&inputs)
    };
    let known = || json!({ "id": "user_1", "public_metadata": { "plan": "pro" }, "private_metadata": null });
    let same = json!({ "public": { "plan": "pro", "old": null } });
    assert_eq!(change(Some(known()), same.clone()), SubjectChange::Nothing);
    let after = json!({ "id": "user_1", "public_metadata": { "plan": "free" }, "private_metadata": null });
    assert_eq!(change(Some(known()), json!({ "public": { "plan": "free" } })), SubjectChange::Becomes(after));
    for (known, params) in [
        (None, same.clone()),
        (Some(json!({ "id": "user_2", "public_metadata": { "plan": "pro" } })), same.clone()),
        (Some(known()), json!({ "organization_id": "org_1", "public": { "plan": "pro" } })),
        // It was not sent, which does not say that there is none.
        (Some(known()), json!({ "public": { "plan": "pro" }, "private": { "a": 1 } })),
    ] {
        assert_eq!(change(known, params.clone()), SubjectChange::Unknown, "{params}");
    }
}

#[test]
fn an_object_is_read_first_if_the_event_may_be_the_consequence_of_a_write() {
    let known = r#"{"id":"user_1","public_metadata":{"plan":"pro"}}"#;
    let public = json!({ "public": { "plan": "free" } });
    let organization = json!({ "organization_id": "org_1", "public": { "plan": "free" } });
    for (kind, known, params, reads_first) in [
        ("user.created", None, &public, false),
        ("user.updated", None, &public, true),
        ("user.updated", Some(known), &public, false),
        ("user.updated", Some(known), &organization, true),
        ("organization.updated", None, &organization, true),
        ("organization.created", None, &organization, false),
    ] {
        let made = write(kind, &user(), known, params).expect("a write");
        assert_eq!(made.reads_first, reads_first, "{kind} {params}");
    }
}

#[tokio::test]
async fn what_is_in_place_already_is_not_written() {
    let is = |body: &'static str| (200, "x-a: b", body);
    let params = json!({ "public": { "plan": "pro", "old": null } });
    for (first, then, expected) in [
        (is(r#"{"id":"user_1","public_metadata":{"plan":"pro","more":1}}"#), (500, "x-a: b", ""), Ok(false)),
        (is(r#"{"id":"user_1","public_metadata":{"plan":"free"}}"#), is(r#"{"id":"user_1"}"#), Ok(true)),
        (is(r#"{"id":"user_1"}"#), (503, "x-a: b", ""), Err(Cause::Unavailable)),
        ((429, "retry-after: 2", ""), is("{}"), Err(Cause::Throttled)),
    ] {
        let clerk = connector(&serve(vec![first, then]).await);
        let made = write("user.updated", &user(), None, &params).expect("a write");
        let stored = stored::write(&made).expect("JSON");
        match (clerk.attempt(&stored, "k", &CallGate::open()).await, expected) {
            (Outcome::Done(effect), Ok(changed)) => {
                assert_eq!((effect.id.as_str(), &effect.result["changed"]), ("user_1", &json!(changed)));
            }
            (Outcome::Retry { cause, .. }, Err(expected)) => assert_eq!(cause, expected),
            (outcome, expected) => panic!("{outcome:?} is not {expected:?}"),
        }
    }
}

#[test]
fn a_stored_write_keeps_its_form() {
    let kept = r#"{"object":"/v1/users/user_1","id":"user_1","body":"{\"public_metadata\":{}}","reads_first":true}"#;
    let read: MetadataWrite = serde_json::from_str(kept).expect("it reads back");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), kept);
}
