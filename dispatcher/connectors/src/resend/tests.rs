//! Tests of the requests to Resend and of the classification of its answers.

use serde_json::{Value, json};
use usher_engine::Cause;

use super::*;
use crate::testing::{answer, prepare};

#[test]
fn a_mail_bears_the_headers_it_is_given() {
    usher_service::telemetry::install_tls();
    let settings = [("RESEND_API_KEY", "re_1"), ("USHER_FROM", "h@acme.test")];
    let resend = Resend::from_environment(&Environment::from_vars(settings)).expect("good settings");
    let headers = json!({ "List-Unsubscribe": "<https://acme.test/out>" });
    let mail = json!({ "to": "a@b.test", "subject": "Hi", "text": "x", "headers": headers });
    let made = prepare(&resend, "send", &mail, &Value::Null).expect("a request");
    assert_eq!(serde_json::from_slice::<Value>(&made).expect("JSON")["headers"], headers);
}

#[test]
fn a_success_that_cannot_be_read_is_not_done() {
    assert_eq!(classify(&answer(200, "<html>")), Outcome::retry(Cause::Interrupted));
    assert!(matches!(classify(&answer(200, r#"{"id":"m1"}"#)), Outcome::Done(effect) if effect.id == "m1"));
}
