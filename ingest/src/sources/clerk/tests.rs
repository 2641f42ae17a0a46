//! All sample payloads with their headers, compared with the expected key and with the independent `svix` crate.

use std::path::PathBuf;

use serde_json::Value;
use usher_proto::Instance;
use usher_proto::signature::SigningSecret;

use super::super::svix::{STANDARD, SVIX};
use super::*;

fn samples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clerk")
}

fn index() -> Value {
    serde_json::from_slice(&std::fs::read(samples().join("index.json")).expect("the index")).expect("JSON")
}

fn clerk(secret: &str) -> ClerkSource {
    ClerkSource::from_environment(&Environment::from_vars([(VARIABLE, secret)])).expect("a secret")
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).expect(pointer)
}

/// Returns the headers of a case, under the given names.
fn head(case: &Value, names: [&'static str; 3]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (own, name) in SVIX.iter().zip(names) {
        headers.insert(name, text(case, &format!("/headers/{own}")).parse().expect("a header"));
    }
    headers
}

fn at(case: &Value) -> Timestamp {
    Timestamp::from_seconds(text(case, "/headers/svix-timestamp").parse().expect("seconds"))
}

#[test]
fn every_sample_verifies_and_gets_its_key_and_keeps_its_bytes() {
    let index = index();
    let clerk = clerk(text(&index, "/secret"));
    let cases = index["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 25);
    for case in cases {
        let file = text(case, "/file");
        let body = Bytes::from(std::fs::read(samples().join(file)).expect(file));
        for names in [SVIX, STANDARD] {
            let headers = head(case, names);
            clerk.check_head(Instance::DEFAULT, &headers, at(case)).expect(file);
            let event = clerk.accept(Instance::DEFAULT, &headers, body.clone(), at(case)).expect(file);
            assert_eq!(event.subject.key(), text(case, "/key_value"), "{file}");
            assert_eq!(event.kind, text(case, "/type"), "{file}");
            assert_eq!(event.id.as_str(), text(case, "/headers/svix-id"), "{file}");
            assert_eq!(event.body, body, "{file}");
            let stamp: Value = serde_json::from_slice(&body).expect("JSON");
            if let Some(number) = stamp["timestamp"].as_i64() {
                assert_eq!(Some(event.occurred_at), Timestamp::from_seconds_or_millis(number), "{file}");
            }
        }
    }
}

#[test]
fn the_independent_crate_agrees_on_every_sample_both_ways() {
    let index = index();
    let secret = text(&index, "/secret");
    let theirs = ::svix::webhooks::Webhook::new(secret).expect("their parser takes it");
    let ours = SigningSecret::parse(secret).expect("ours, too");
    for case in index["cases"].as_array().expect("cases") {
        let body = std::fs::read(samples().join(text(case, "/file"))).expect("the sample");
        theirs.verify_ignoring_timestamp(&body, &head(case, SVIX)).expect("they accept the sample's headers");
        let id = text(case, "/headers/svix-id");
        let timestamp = text(case, "/headers/svix-timestamp");
        let signed = theirs.sign(id, timestamp.parse().expect("seconds"), &body).expect("they sign");
        assert_eq!(signed, ours.sign(id, timestamp, &body));
        assert_eq!(signed, text(case, "/headers/svix-signature"));
    }
}

/// Signs a body for the first secret and accepts it.
fn accept(body: &str) -> Result<Event, Refusal> {
    let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
    let mut headers = HeaderMap::new();
    headers.insert("svix-id", "msg_1".parse().expect("a header"));
    headers.insert("svix-timestamp", "1000".parse().expect("a header"));
    headers.insert("svix-signature", secret.sign("msg_1", "1000", body.as_bytes()).parse().expect("a header"));
    clerk("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").accept(
        Instance::DEFAULT,
        &headers,
        Bytes::copy_from_slice(body.as_bytes()),
        Timestamp::from_seconds(1000),
    )
}

#[test]
fn no_key_is_an_address_or_a_phone_number_whatever_the_event_looks_like() {
    let names_somebody =
        |key: &str| key.contains('@') || key.bytes().all(|b| b.is_ascii_digit() || b"+-. ()".contains(&b));
    for case in index()["cases"].as_array().expect("cases") {
        assert!(!names_somebody(text(case, "/key_value")), "{case}");
    }
    let fields = [
        "id",
        "object",
        "user_id",
        "organization_id",
        "to_email_address",
        "to_phone_number",
        "email_address",
        "payer_id",
        "subscription_id",
        "slug",
    ];
    let nested = [("user", "id"), ("public_user_data", "user_id"), ("organization", "id"), ("payer", "user_id")];
    let kinds = [
        "user.created",
        "session.created",
        "email.created",
        "sms.created",
        "organizationMembership.created",
        "organizationInvitation.created",
        "organizationInvitation.accepted",
        "organizationDomain.created",
        "role.created",
        "waitlistEntry.created",
        "subscription.created",
        "paymentAttempt.updated",
        "brand.new",
        "brandnew",
    ];
    for kind in kinds {
        for value in ["Dana@Work.test", "+15550100100", "+1 (555) 010-0100"] {
            let flat = fields.map(|field| serde_json::json!({ field: value }));
            let deep = nested.map(|(object, field)| serde_json::json!({ object: { field: value } }));
            let all: Value = fields
                .iter()
                .map(|field| ((*field).to_owned(), Value::from(value)))
                .collect::<serde_json::Map<_, _>>()
                .into();
            for data in flat.into_iter().chain(deep).chain([all]) {
                let body = serde_json::json!({ "type": kind, "instance_id": value, "data": data }).to_string();
                let subject = accept(&body).expect("kept").subject;
                assert!(!names_somebody(subject.key()), "{kind} {data}");
            }
        }
    }
}

#[test]
fn a_body_that_is_no_object_with_a_type_is_refused() {
    let unclosed = format!("{{\"type\":\"a\",\"data\":{}", "{\"a\":".repeat(100_000));
    let twice = r#"{"type":"user.created","type":"user.deleted","data":{"id":"user_1"}}"#;
    for bad in
        ["", "null", "7", "[]", r#"["user.created"]"#, "{}", r#"{"type":7}"#, r#"{"type":""}"#, "{", &unclosed, twice]
    {
        let shown: String = bad.chars().take(60).collect();
        assert_eq!(accept(bad).expect_err(&shown), Refusal::BodyMalformed, "{shown}");
    }
}

#[test]
fn unknown_types_and_fields_are_no_error() {
    let event =
        accept(r#" {"type":"brand.new","more":[{}],"data":{"user_id":"user_1","id":{"odd":1}}} "#).expect("kept");
    assert_eq!((event.kind.as_str(), event.subject.key()), ("brand.new", "user_1"));
    assert_eq!(accept(r#"{"type":"brand.new","data":"text"}"#).expect("kept").subject.key(), "msg_1");
}

/// One value of each JSON type, and values on which parsers disagree.
const ANYTHING: [&str; 12] = [
    "null",
    "true",
    "7",
    "-7.5",
    "1e400",
    "123456789012345678901234567890",
    r#""""#,
    r#""text""#,
    r#""7""#,
    r#""\ud83d""#,
    r#"[{"id":"user_9"}]"#,
    r#"{"id":{"id":[]}}"#,
];

#[test]
fn whatever_stands_in_a_field_that_is_read_the_event_is_kept() {
    let fields = ["timestamp", "instance_id", "object", "event_attributes"];
    let of_data = ["id", "object", "user_id", "user", "public_user_data", "organization", "payer", "email_address"];
    let kinds = ["user.created", "session.created", "email.created", "organizationMembership.created", "role.created"];
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    for kind in kinds {
        for value in ANYTHING.into_iter().chain([deep.as_str()]) {
            for field in fields {
                let body =
                    format!(r#"{{"type":"{kind}","{field}":{value},"data":{{"id":"user_1","user_id":"user_1"}}}}"#);
                assert_eq!(accept(&body).expect("kept").body, body, "{kind} {field}");
            }
            for field in of_data {
                let body = format!(r#"{{"type":"{kind}","data":{{"{field}":{value}}}}}"#);
                assert!(!accept(&body).expect("kept").subject.key().is_empty(), "{kind} {field}");
            }
            accept(&format!(r#"{{"type":"{kind}","data":{value}}}"#)).expect("kept");
            let metadata =
                format!(r#"{{"type":"user.created","data":{{"unsafe_metadata":{{"n":{value}}},"id":"user_1"}}}}"#);
            assert_eq!(accept(&metadata).expect("kept").subject.key(), "user_1");
        }
    }
    let time = |timestamp: &str| {
        let body = format!(r#"{{"type":"user.created","timestamp":{timestamp},"data":{{"id":"user_1"}}}}"#);
        accept(&body).expect("kept").occurred_at.millis()
    };
    for timestamp in ["1767261600250", "1767261600250.0", r#""1767261600250""#, r#""2026-01-01T10:00:00.250Z""#] {
        assert_eq!(time(timestamp), 1_767_261_600_250, "{timestamp}");
    }
    for timestamp in ["null", "1e400", r#""soon""#, "[]"] {
        assert_eq!(time(timestamp), 1_000_000, "{timestamp}: when it came");
    }
}

#[test]
fn instances_have_secrets_of_their_own() {
    let environment = Environment::from_vars([(
        "CLERK_WEBHOOK_SIGNING_SECRET_STAGING_EU",
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )]);
    let clerk = ClerkSource::from_environment(&environment).expect("a secret");
    assert_eq!(clerk.secrets.of("staging-eu").expect("configured").1.len(), 2);
    assert_eq!(clerk.secrets.of(Instance::DEFAULT).err(), Some(Refusal::NoSuchInstance));
}

#[test]
fn a_missing_or_broken_secret_is_named_and_not_shown() {
    let missing = ClerkSource::from_environment(&Environment::from_vars([])).err().expect("refused").to_string();
    assert!(missing.starts_with("CLERK_WEBHOOK_SIGNING_SECRET: not set"), "{missing}");
    let broken = ClerkSource::from_environment(&Environment::from_vars([(VARIABLE, "whsec_???")]))
        .err()
        .expect("refused")
        .to_string();
    assert!(broken.contains("not base64") && !broken.contains("???"), "{broken}");
}
