//! Tests of the requests to Nylas and of the classification of its answers.

use serde_json::{Map, json};

use super::check::header_without_x;
use super::lookup::found;
use super::request::{KEY_HEADER, grant_for};
use super::*;
use crate::testing::{answer, prepare, serve};

fn connector(grants: &str) -> Nylas {
    usher_service::telemetry::install_tls();
    let settings = [("NYLAS_API_KEY", "nyk_1"), ("NYLAS_GRANT_ID", grants)];
    Nylas::from_environment(&Environment::from_vars(settings)).expect("good settings")
}

fn sent(params: Value) -> Result<StoredMail, String> {
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
    let ours = json!({ "name": KEY_HEADER, "value": "key" });
    assert_eq!(with_key_header(made.mail, "key")["custom_headers"], json!([theirs, ours]));
    let without = sent(json!({ "to": "d@w.test", "subject": "Hi", "text": "x" })).expect("a request");
    assert_eq!(with_key_header(without.mail, "key")["custom_headers"], json!([ours]));
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
    let two = connector("g1 g2");
    let three = connector("g3 g1  g2");
    let recipients: Vec<String> = (0..300).map(|n| format!("u{n}@w.test")).collect();
    let by = |grant: &str| recipients.iter().filter(|to| grant_for(&three.grants, to) == grant).count();
    assert!(["g1", "g2", "g3"].iter().all(|grant| by(grant) > 60), "each has its share");
    for to in &recipients {
        assert!(
            grant_for(&three.grants, to) == "g3" || grant_for(&three.grants, to) == grant_for(&two.grants, to),
            "{to} moved between the old ones"
        );
        assert_eq!(grant_for(&three.grants, to), grant_for(&three.grants, &to.to_uppercase()));
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
    let other = message("m2", Some((KEY_HEADER, "k2")), "Hi");
    let stranger = message("m3", None, "Re: invoice");
    let bare = message("m4", None, "Hi");
    assert!(matches!(of(vec![other.clone(), mine], None), Lookup::Found(effect) if effect.id == "m1"));
    assert_eq!(of(vec![other.clone(), stranger], None), Lookup::Absent);
    assert_eq!(of(vec![], None), Lookup::Absent);
    assert_eq!(of(vec![bare], None), Lookup::Unknown);
    assert_eq!(of(vec![other], Some("page2")), Lookup::Unknown);
    assert_eq!(found(&Value::Null, &json!("Hi"), "k1"), Lookup::Unknown);
}

/// Checks, as at the start, a flow that sends from `from`. Runs against the lab's mailboxes, or an unreachable Nylas.
async fn checked(grants: &str, from: Option<&str>, there: bool) -> Result<(), String> {
    let stop = tokio_util::sync::CancellationToken::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut base = format!("http://{}", listener.local_addr().expect("an address"));
    if there {
        let lab = usher_lab::Lab::start(listener, stop.clone()).expect("a lab");
        base = lab.base_url("nylas").expect("nylas");
    } else {
        drop(listener);
    }
    let _stop = stop.drop_guard();
    let nylas = Nylas { base, ..connector(grants) };
    let params = from.map(|from| ("from".to_owned(), json!(from))).into_iter().collect();
    let used = StepUse { flow: "welcome", step: "mail", operation: "send", params: &params };
    nylas.check(&[used]).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_sender_of_another_domain_than_the_mailbox_is_told_at_the_start() {
    let error = checked("of-acme of-other", Some("Acme <h@acme.test>"), true).await.expect_err("two domains");
    for part in ["flow welcome, step mail, from: ", "of acme.test", "mailbox of-other", "NYLAS_GRANT_ID"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("h@acme.test"), "{error}");
    for from in [None, Some("H <h@ACME.test>"), Some("{{ user.alias }}")] {
        assert_eq!(checked("of-acme", from, true).await, Ok(()), "{from:?}");
    }
}

#[tokio::test]
async fn a_mailbox_that_cannot_be_asked_about_prevents_no_start() {
    let from = Some("h@elsewhere.test");
    assert_eq!(checked("missing untold", from, true).await, Ok(()), "it is not there, or not told");
    assert_eq!(checked("of-acme", from, false).await, Ok(()), "nobody listens");
}

#[test]
fn a_header_that_microsoft_may_drop_is_known_by_its_name() {
    for (headers, expected) in [
        (json!({ "X-A": "1", "x-b": "2" }), None),
        (json!({ "X-A": "1", "List-Unsubscribe": "<https://a.test>" }), Some("List-Unsubscribe")),
        (json!({ "\u{e4}": "1" }), Some("\u{e4}")),
    ] {
        let params = Map::from_iter([("headers".to_owned(), headers)]);
        let used = StepUse { flow: "welcome", step: "mail", operation: "send", params: &params };
        assert_eq!(header_without_x(&used), expected);
    }
}

#[tokio::test]
async fn a_mailbox_at_microsoft_is_known_by_its_provider() {
    for (body, is_microsoft) in [
        (r#"{"data":{"provider":"microsoft","email":"h@acme.test"}}"#, true),
        (r#"{"data":{"provider":"google","email":"h@acme.test"}}"#, false),
        (r#"{"data":{}}"#, false),
    ] {
        let url = serve(vec![(200, "x-a: b", body)]).await;
        usher_service::telemetry::install_tls();
        let settings = [("NYLAS_API_KEY", "nyk_1"), ("NYLAS_GRANT_ID", "g1"), ("NYLAS_BASE_URL", url.as_str())];
        let nylas = Nylas::from_environment(&Environment::from_vars(settings)).expect("good settings");
        let mailbox = nylas.describe_mailbox("g1").await.expect("it answers");
        assert_eq!(mailbox.is_microsoft, is_microsoft, "{body}");
    }
}
