//! Tests of the requests to Resend and of the classification of its answers.

use serde_json::{Value, json};
use usher_engine::Cause;

use super::*;
use crate::testing::{answer, prepare};

#[test]
fn a_mail_bears_the_headers_it_is_given() {
    let resend = resend();
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

fn resend() -> Resend {
    usher_service::telemetry::install_tls();
    let settings = [("RESEND_API_KEY", "re_1"), ("USHER_FROM", "h@acme.test")];
    Resend::from_environment(&Environment::from_vars(settings)).expect("good settings")
}

#[test]
fn a_hosted_template_stands_in_place_of_the_mails_own_content() {
    let mail = |more: Value| {
        let mut mail = json!({ "to": "a@b.test", "subject": "Hi", "cc": ["c@b.test"], "bcc": "d@b.test" });
        mail.as_object_mut().expect("a table").extend(more.as_object().expect("a table").clone());
        prepare(&resend(), SEND, &mail, &Value::Null)
            .map(|made| serde_json::from_slice::<Value>(&made).expect("JSON"))
            .map_err(|error| error.0)
    };
    let made = mail(json!({ "hosted_template": "t1", "variables": r#"{"plan":"pro","seats":3}"# })).expect("a mail");
    assert_eq!(made["template"], json!({ "id": "t1", "variables": { "plan": "pro", "seats": 3 } }));
    assert_eq!((&made["cc"], &made["bcc"], made.get("html")), (&json!("c@b.test"), &json!("d@b.test"), None));
    assert_eq!(mail(json!({ "hosted_template": "t1" })).expect("a mail")["template"], json!({ "id": "t1" }));
    let later = mail(json!({ "text": "x", "scheduled_at": "2026-01-31T10:00:00+01:00" })).expect("a mail");
    assert_eq!(later["scheduled_at"], "2026-01-31T09:00:00.000Z");
    for (more, why) in [
        (json!({ "hosted_template": "t1", "text": "x" }), "the mail has html or text, and hosted_template"),
        (json!({ "text": "x", "variables": "{}" }), "variables are those of a hosted_template"),
        (
            json!({ "hosted_template": "t1", "variables": r#"{"a":[1]}"# }),
            "variables: a is neither a text nor a number",
        ),
        (json!({ "text": "x", "scheduled_at": "in 1 min" }), "scheduled_at is no time such as"),
        (json!({}), "the mail has neither html nor text"),
    ] {
        let error = mail(more.clone()).expect_err(why);
        assert!(error.starts_with(why), "{more}: {error}");
    }
}
