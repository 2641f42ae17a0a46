//! Tests that the double follows Resend's rules.

use axum::http::Method;
use serde_json::{Value, json};

use super::support::{JSON, LabBench, RESEND_KEY, mail, read};
use crate::{Fault, Limit};

fn with(mut mail: Value, field: &str, value: Value) -> Value {
    mail[field] = value;
    mail
}

#[tokio::test]
async fn a_mail_is_accepted_with_a_uuid_and_recorded() {
    let bench = LabBench::new().await;
    let tags = json!([{"name": "clerk_user_id", "value": "user_1"}]);
    let sent = with(with(mail("dana@work.test"), "tags", tags), "to", json!(["dana@work.test", "lee@work.test"]));
    let reply = bench.mail("k1", &sent).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body["id"].as_str().map(str::len), Some(36));

    let effects = bench.effects();
    assert_eq!(effects.len(), 1);
    let effect = &effects[0];
    assert_eq!((effect.provider, effect.operation.as_ref(), effect.status), ("resend", "emails.send", Some(200)));
    assert_eq!(effect.idempotency_key.as_deref(), Some("k1"));
    assert_eq!((effect.user.as_deref(), effect.to.as_deref()), (Some("user_1"), Some("dana@work.test, lee@work.test")));
    assert_eq!(*effect.body, sent);
    assert_eq!(effect.result.as_deref(), Some(&reply.body));
}

#[tokio::test]
async fn a_key_must_be_there_and_have_its_shape() {
    let bench = LabBench::new().await;
    let text = mail("a@work.test").to_string();
    let cases = [
        (vec![JSON], (401, "missing_api_key")),
        (vec![JSON, ("authorization", "Bearer sk_test_1")], (403, "invalid_api_key")),
        (vec![JSON, ("authorization", "Bearer re_")], (403, "invalid_api_key")),
        (vec![JSON, ("authorization", "re_123")], (403, "invalid_api_key")),
        (vec![JSON, ("authorization", "Basic cmVfMTIzOg==")], (403, "invalid_api_key")),
    ];
    for (headers, expected) in cases {
        let reply = bench.ask(Method::POST, "/resend/emails", &headers, &text).await;
        assert_eq!(reply.name(), expected, "{headers:?}");
    }
    assert!(bench.effects().is_empty());
    assert_eq!(bench.requests().len(), 5);
}

#[tokio::test]
async fn what_is_wrong_with_a_mail_is_named() {
    let bench = LabBench::new().await;
    let good = || mail("a@work.test");
    let many: Vec<String> = (0..51).map(|n| format!("u{n}@work.test")).collect();
    let long = "x".repeat(257);
    let tag = |name: &str, value: &str| with(good(), "tags", json!([{"name": name, "value": value}]));
    let missing = "missing_required_field";
    let cases = [
        (with(good(), "from", Value::Null), missing),
        (with(good(), "to", json!([])), missing),
        (with(good(), "subject", json!("")), missing),
        (with(good(), "text", Value::Null), missing),
        (with(good(), "from", json!("Bindery")), "validation_error"),
        (with(good(), "subject", json!(1)), "validation_error"),
        (with(good(), "to", json!("nowhere")), "validation_error"),
        (with(good(), "to", json!([1])), "validation_error"),
        (with(good(), "to", json!(many)), "validation_error"),
        (with(good(), "to", json!("a@example.com")), "validation_error"),
        (with(good(), "to", json!(["a@work.test", "A <a@TEST.com>"])), "validation_error"),
        (with(good(), "cc", json!("a@example.com")), "validation_error"),
        (with(good(), "reply_to", json!("a b@work.test")), "validation_error"),
        (tag("purpose", "a@work.test"), "validation_error"),
        (tag("purpose", ""), "validation_error"),
        (tag(&long, "x"), "validation_error"),
        (with(good(), "tags", json!({"purpose": "x"})), "validation_error"),
        (with(good(), "headers", json!({"X-A": 1})), "validation_error"),
        (with(good(), "scheduled_at", json!("2199-01-01T00:00:00Z")), "validation_error"),
        (with(good(), "subject", json!("Hi\nDana")), "validation_error"),
        (with(good(), "subject", json!("Hi\r")), "validation_error"),
        (with(good(), "template", json!({"id": "welcome"})), "validation_error"),
        (with(good(), "to", json!("a@m\u{fc}nchen.test")), "validation_error"),
        (with(good(), "reply_to", json!("\u{e4}@work.test")), "validation_error"),
        (with(good(), "attachments", json!([{"filename": "a.txt"}])), "invalid_attachment"),
        (with(good(), "attachments", json!([{"content": "aGk="}])), "invalid_attachment"),
    ];
    for (mail, expected) in cases {
        let reply = bench.mail("", &mail).await;
        assert_eq!(reply.name(), (422, expected), "{mail}");
    }
    assert!(bench.effects().is_empty());
}

#[tokio::test]
async fn what_looks_odd_and_is_allowed_is_accepted() {
    let bench = LabBench::new().await;
    let good = || mail("a@work.test");
    let fifty: Vec<String> = (0..50).map(|n| format!("u{n}@work.test")).collect();
    let mails = [
        with(good(), "to", json!(fifty)),
        with(good(), "to", json!("delivered+x@resend.dev")),
        with(good(), "to", json!("\u{4e2d} <a..b.@xn--mnchen-3ya.test>")),
        with(good(), "reply_to", json!("someone@example.com")),
        with(good(), "scheduled_at", json!("in 1 min")),
        with(good(), "tags", json!([{"name": "clerk_user_id", "value": "user_2abc-DEF"}])),
        json!({"from": "a@bindery.test", "to": "b@work.test", "template": {"id": "welcome", "variables": {}}}),
    ];
    for mail in mails {
        assert_eq!(bench.mail("", &mail).await.status, 200, "{mail}");
    }
}

#[tokio::test]
async fn the_test_sender_writes_to_test_addresses_only() {
    let bench = LabBench::new().await;
    let from = |to| with(mail(to), "from", json!("onboarding@resend.dev"));
    assert_eq!(bench.mail("", &from("a@work.test")).await.name(), (403, "validation_error"));
    assert_eq!(bench.mail("", &from("delivered@resend.dev")).await.status, 200);
}

#[tokio::test]
async fn only_json_is_read_and_only_sending_exists() {
    let bench = LabBench::new().await;
    let ask = async |method, path, content_type, body: &str| {
        bench.ask(method, path, &[RESEND_KEY, ("content-type", content_type)], body).await
    };
    let text = mail("a@work.test").to_string();
    assert_eq!(ask(Method::POST, "/resend/emails", "text/plain", &text).await.name(), (400, "validation_error"));
    assert_eq!(ask(Method::POST, "/resend/emails", "application/json", "{").await.name(), (400, "validation_error"));
    assert_eq!(ask(Method::POST, "/resend/emails", "application/json", "[]").await.name(), (400, "validation_error"));
    assert_eq!(ask(Method::GET, "/resend/emails", "text/plain", "").await.name(), (405, "method_not_allowed"));
    assert_eq!(ask(Method::POST, "/resend/mails", "application/json", &text).await.name(), (404, "not_found"));
    assert_eq!(bench.requests().last().map(|entry| entry.operation.to_string()).as_deref(), Some("POST /mails"));
}

#[tokio::test]
async fn the_same_key_and_body_sends_once() {
    let bench = LabBench::new().await;
    let first = bench.mail("k1", &mail("a@work.test")).await;
    let again = bench.mail("k1", &mail("a@work.test")).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    let replayed: Vec<bool> = bench.effects().iter().map(|effect| effect.replayed).collect();
    assert_eq!(replayed, [false, true]);
    assert_ne!(bench.mail("k2", &mail("a@work.test")).await.body, first.body);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_a_conflict() {
    let bench = LabBench::new().await;
    bench.mail("k1", &mail("a@work.test")).await;
    let other = bench.mail("k1", &mail("b@work.test")).await;
    assert_eq!(other.name(), (409, "invalid_idempotent_request"));
    assert_eq!(bench.effects().len(), 1);
}

#[tokio::test]
async fn a_twin_of_a_running_request_is_turned_away() {
    let bench = LabBench::new().await;
    bench.lab().set_fault("resend", Fault { latency_ms: 400, ..Fault::default() }).expect("a fault");
    let body = mail("a@work.test");
    let (one, other) = tokio::join!(bench.mail("k1", &body), bench.mail("k1", &body));
    let (sent, refused) = if one.status == 200 { (one, other) } else { (other, one) };
    assert_eq!(refused.name(), (409, "concurrent_idempotent_requests"));
    assert_eq!(bench.mail("k1", &body).await.body, sent.body);
}

#[tokio::test]
async fn a_key_has_between_1_and_256_characters() {
    let bench = LabBench::new().await;
    assert_eq!(bench.mail(&"k".repeat(256), &mail("a@work.test")).await.status, 200);
    let long = bench.mail(&"k".repeat(257), &mail("a@work.test")).await;
    assert_eq!(long.name(), (400, "invalid_idempotency_key"));
    let empty = read(bench.mailing("", &mail("a@work.test")).header("idempotency-key", "")).await.expect("an answer");
    assert_eq!(empty.name(), (400, "invalid_idempotency_key"));
}

#[tokio::test]
async fn errors_are_not_kept_under_a_key() {
    let bench = LabBench::new().await;
    bench.lab().set_fault("resend", Fault { status: Some(500), ..Fault::default() }).expect("a fault");
    assert_eq!(bench.mail("k1", &mail("a@work.test")).await.name(), (500, "application_error"));
    bench.lab().end_fault("resend").expect("resend");
    assert_eq!(bench.mail("k1", &mail("")).await.status, 422);
    assert_eq!(bench.mail("k1", &mail("a@work.test")).await.status, 200);
}

#[tokio::test]
async fn over_the_limit_the_answer_says_when_to_come_again() {
    let bench = LabBench::new().await;
    assert_eq!(bench.mail("", &mail("a@work.test")).await.header("ratelimit-limit"), None);
    bench.lab().set_limit("resend", Limit { per_second: 2 }).expect("a limit");
    let first = bench.mail("", &mail("a@work.test")).await;
    assert_eq!((first.header("ratelimit-limit"), first.header("ratelimit-remaining")), (Some("2"), Some("1")));
    assert_eq!(first.header("retry-after"), None);
    bench.mail("", &mail("a@work.test")).await;
    let refused = bench.mail("k1", &mail("a@work.test")).await;
    assert_eq!(refused.name(), (429, "rate_limit_exceeded"));
    let told = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after"];
    assert_eq!(told.map(|name| refused.header(name)), [Some("2"), Some("0"), Some("1"), Some("1")]);
    bench.lab().end_limit("resend").expect("resend");
    assert_eq!(bench.mail("k1", &mail("a@work.test")).await.status, 200);
}

#[tokio::test]
async fn contacts_answer_as_recorded_and_a_second_post_resets_one() {
    let bench = LabBench::new().await;
    let ask = async |method, path: &str, body: Value| {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        bench.ask(method, &format!("/resend/contacts{path}"), &[RESEND_KEY, JSON], &text).await
    };
    let made =
        ask(Method::POST, "", json!({ "email": "Ada@Work.test", "first_name": "Ada", "unsubscribed": true })).await;
    assert_eq!((made.status, &made.body["object"]), (201, &json!("contact")));
    let id = made.body["id"].as_str().expect("an id").to_owned();
    for path in ["/ada@work.test".to_owned(), "/ada%40work%2Etest".to_owned(), format!("/{id}")] {
        let found = ask(Method::GET, &path, Value::Null).await;
        assert_eq!((found.status, &found.body["email"]), (200, &json!("Ada@Work.test")), "{path}");
        assert_eq!((&found.body["first_name"], &found.body["last_name"]), (&json!("Ada"), &Value::Null));
    }
    // The same id, and whoever had unsubscribed is subscribed again.
    let again = ask(Method::POST, "", json!({ "email": "ada@work.test" })).await;
    assert_eq!((again.status, &again.body["id"]), (201, &json!(id)));
    let reset = ask(Method::GET, "/ada@work.test", Value::Null).await.body;
    assert_eq!((&reset["unsubscribed"], &reset["first_name"]), (&json!(false), &Value::Null));

    for (method, path, body, expected) in [
        (Method::POST, "", json!({}), (422, "missing_required_field")),
        (Method::POST, "", json!({ "email": "nobody" }), (422, "validation_error")),
        (Method::POST, "", json!({ "email": "a@b.test", "unsubscribed": "no" }), (422, "validation_error")),
        (Method::POST, "", json!({ "email": "a@b.test", "properties": { "a-b": 1 } }), (422, "validation_error")),
        (Method::POST, "", json!({ "email": "a@b.test", "properties": { "a": true } }), (422, "validation_error")),
        (Method::POST, "", json!({ "email": "a@b.test", "segments": ["news"] }), (422, "validation_error")),
        (Method::PATCH, "/ada@work.test/topics", json!({}), (422, "missing_required_field")),
        (
            Method::PATCH,
            "/ada@work.test/topics",
            json!({ "topics": [{ "id": id, "subscription": "in" }] }),
            (422, "validation_error"),
        ),
        (Method::POST, "/ada@work.test/segments/news", Value::Null, (422, "validation_error")),
        (Method::POST, "/ada@work.test/segments/00000000-0000-0000-0000-000000000000", Value::Null, (404, "not_found")),
        (Method::GET, "/bob@work.test", Value::Null, (404, "not_found")),
        (Method::GET, "/bob", Value::Null, (422, "validation_error")),
        (Method::PATCH, "/bob@work.test", json!({ "first_name": "Bob" }), (404, "not_found")),
        (Method::PUT, "/ada@work.test", json!({}), (405, "method_not_allowed")),
        (Method::GET, "/ada@work.test/mails", Value::Null, (404, "not_found")),
    ] {
        let reply = ask(method.clone(), path, body.clone()).await;
        assert_eq!(reply.name(), expected, "{method} {path} {body}");
    }
    for _ in 0..2 {
        let gone = ask(Method::DELETE, "/ada@work.test", Value::Null).await;
        assert_eq!((gone.status, &gone.body["deleted"]), (200, &json!(true)), "also of a contact that is none");
    }
    let last = bench.effects().pop().expect("an effect");
    assert_eq!((last.operation.as_ref(), last.to.as_deref()), ("contacts.remove", Some("ada@work.test")));
}
