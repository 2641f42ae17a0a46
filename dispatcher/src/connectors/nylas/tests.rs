//! What is asked of Nylas, and what its answers mean.

use super::super::assert_outcome;
use super::super::testing::{answer, prepare};
use super::*;

fn connector(grants: &str) -> Nylas {
    usher_service::telemetry::install_tls();
    let settings = [("NYLAS_API_KEY", "nyk_1"), ("NYLAS_GRANT_ID", grants)];
    Nylas::from_environment(&Environment::of(settings)).expect("good settings")
}

fn sent(params: Value) -> Result<Sent, String> {
    let kept = prepare(&connector("g1 g2"), "send", &params, &Value::Null).map_err(|error| error.to_string())?;
    Ok(serde_json::from_slice(&kept).expect("it reads back"))
}

#[test]
fn a_mail_has_addresses_with_names_and_one_body() {
    let mail =
        json!({ "to": ["Dana <d@w.test>", "l@w.test"], "from": "Acme <h@a.test>", "subject": "Hi", "text": "x" });
    let made = sent(mail).expect("a request");
    let expected = json!({
        "to": [{ "email": "d@w.test", "name": "Dana" }, { "email": "l@w.test" }],
        "from": [{ "email": "h@a.test", "name": "Acme" }],
        "subject": "Hi", "body": "x", "is_plaintext": true,
    });
    assert_eq!((Value::Object(made.mail), made.to.as_str(), made.since), (expected, "d@w.test", 1_767_261_301));
    let both = sent(json!({ "to": "d@w.test", "subject": "Hi", "text": "x", "html": "<p>x" })).expect("a request");
    assert_eq!((&both.mail["body"], both.mail.get("is_plaintext")), (&json!("<p>x"), None));
}

#[test]
fn a_mail_bears_the_headers_it_is_given_beside_ours() {
    let headers = json!({ "List-Unsubscribe": "<https://acme.test/out>" });
    let made = sent(json!({ "to": "d@w.test", "subject": "Hi", "text": "x", "headers": headers })).expect("a request");
    let theirs = json!({ "name": "List-Unsubscribe", "value": "<https://acme.test/out>" });
    assert_eq!(made.mail["custom_headers"], json!([theirs]));
    let ours = json!({ "name": HEADER, "value": "key" });
    assert_eq!(bearing(made.mail, "key")["custom_headers"], json!([theirs, ours]));
    let without = sent(json!({ "to": "d@w.test", "subject": "Hi", "text": "x" })).expect("a request");
    assert_eq!(bearing(without.mail, "key")["custom_headers"], json!([ours]));
}

#[test]
fn what_cannot_be_sent_is_told_by_its_parameter() {
    let good = json!({ "to": "d@w.test", "subject": "Hi", "text": "x" });
    for (name, value) in [("to", json!("nobody")), ("to", json!([])), ("from", json!("Acme")), ("text", Value::Null)] {
        let mut mail = good.clone();
        mail[name] = value;
        if mail["text"].is_null() {
            mail.as_object_mut().expect("an object").remove("text");
        }
        let error = sent(mail).expect_err(name);
        assert!(error.contains(name) && !error.contains("nobody"), "{error}");
    }
}

#[test]
fn a_recipient_keeps_its_mailbox_when_another_comes() {
    let (two, three) = (connector("g1 g2"), connector("g3 g1  g2"));
    let recipients: Vec<String> = (0..300).map(|n| format!("u{n}@w.test")).collect();
    let by = |grant: &str| recipients.iter().filter(|to| three.grant(to) == grant).count();
    assert!(["g1", "g2", "g3"].iter().all(|grant| by(grant) > 60), "each has its share");
    for to in &recipients {
        assert!(three.grant(to) == "g3" || three.grant(to) == two.grant(to), "{to} moved between the old ones");
        assert_eq!(three.grant(to), three.grant(&to.to_uppercase()));
    }
}

#[test]
fn every_documented_error_has_its_outcome() {
    for (status, kind, expected) in [
        (400, "invalid_request_error", Err(Reason::InvalidRequest)),
        (400, "api.invalid_idempotency_key", Err(Reason::InvalidRequest)),
        (401, "api.authentication_error", Err(Reason::Configuration)),
        (402, "provider_error", Err(Reason::InvalidRequest)),
        (403, "grant.unauthenticated", Err(Reason::Configuration)),
        (404, "api.not_found_error", Err(Reason::Configuration)),
        (409, "api.invalid_idempotent_request", Err(Reason::IdempotencyConflict)),
        (409, "api.concurrent_idempotent_request", Ok(Cause::Conflict)),
        (422, "provider_error", Err(Reason::InvalidRequest)),
        (423, "blocked", Ok(Cause::Conflict)),
        (429, "nylas_rate_limit_exceeded", Ok(Cause::Throttled)),
        (429, "rate_limit_error", Ok(Cause::Throttled)),
        (500, "api.internal_error", Ok(Cause::Unavailable)),
        (502, "", Ok(Cause::Unavailable)),
        (503, "", Ok(Cause::Unavailable)),
        (504, "provider_error", Ok(Cause::Timeout)),
        (302, "", Err(Reason::InvalidRequest)),
    ] {
        let body = json!({ "request_id": "r", "error": { "type": kind, "message": "cannot send to a@b.test" } });
        let outcome = classify(&answer(status, &body.to_string()));
        assert_outcome(&outcome, expected, &format!("{status} {kind}"));
        assert!(!format!("{outcome:?}").contains("a@b.test"), "the message is not repeated");
    }
}

#[test]
fn a_mail_without_an_id_is_sent_all_the_same() {
    let id = |body: &str| match classify(&answer(200, body)) {
        Outcome::Done(effect) => Some(effect.id),
        _ => None,
    };
    assert_eq!(id(r#"{"request_id":"r1","data":{"id":"m1"}}"#).as_deref(), Some("m1"));
    assert_eq!(id(r#"{"request_id":"r1","data":{}}"#).as_deref(), Some("r1"));
    assert_eq!(classify(&answer(200, "<html>")), Outcome::retry(Cause::Interrupted));
}

#[test]
fn a_mail_is_found_by_its_header_and_missed_only_where_headers_can_be_seen() {
    let message = |id: &str, header: Option<(&str, &str)>, subject: &str| {
        let headers = header.map(|(name, value)| json!([{ "name": name, "value": value }]));
        json!({ "id": id, "subject": subject, "headers": headers })
    };
    let of =
        |list: Vec<Value>, next: Option<&str>| found(&json!({ "data": list, "next_cursor": next }), &json!("Hi"), "k1");
    let mine = message("m1", Some(("x-usher-key", "k1")), "Hi");
    let other = message("m2", Some((HEADER, "k2")), "Hi");
    let stranger = message("m3", None, "Re: invoice");
    let bare = message("m4", None, "Hi");
    assert!(matches!(of(vec![other.clone(), mine], None), LookUp::Found(effect) if effect.id == "m1"));
    assert_eq!(of(vec![other.clone(), stranger], None), LookUp::Absent);
    assert_eq!(of(vec![], None), LookUp::Absent);
    assert_eq!(of(vec![bare], None), LookUp::Unknown);
    assert_eq!(of(vec![other], Some("page2")), LookUp::Unknown);
    assert_eq!(found(&Value::Null, &json!("Hi"), "k1"), LookUp::Unknown);
}
