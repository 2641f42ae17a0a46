//! Tests of addresses, signatures and the classification of statuses.

use serde_json::{Value, json};

use super::*;
use crate::testing::{answer, event, prepare};

const ONE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";

fn with<const N: usize>(variables: [(&str, &str); N]) -> SignedPost {
    usher_service::telemetry::install_tls();
    SignedPost::from_environment(&Environment::from_vars(variables)).expect("good settings")
}

fn post(connector: &SignedPost, params: Value) -> Result<Post, String> {
    let kept = prepare(connector, "post", &params, &json!({ "id": "user_1" })).map_err(|error| error.to_string())?;
    Ok(serde_json::from_slice(&kept).expect("it reads back"))
}

#[test]
fn an_address_is_one_for_all_events_and_has_no_password_in_it() {
    for text in ["https://a.test/hooks?x=1", "http://127.0.0.1:8080/", "https://[::1]/x"] {
        assert!(is_address(text), "{text}");
    }
    for text in ["", "a.test", "ftp://a.test", "https://u:p@a.test/", "https://{{ user.id }}.a.test/", "file:///etc/x"]
    {
        assert!(!is_address(text), "{text}");
    }
}

#[test]
fn no_event_chooses_address_or_secret() {
    assert!(Address.accepts(&json!("https://a.test/x")) && !Address.accepts(&json!("{{ user.url }}")));
    assert!(Name.accepts(&json!("billing_2")) && !Name.accepts(&json!("{{ user.name }}")));
    assert!(!Name.accepts(&json!("")) && !Name.accepts(&json!("Billing")));
}

#[tokio::test]
async fn a_secret_that_is_missing_is_told_at_the_start() {
    let connector = with([("HTTP_SIGNING_SECRET_BILLING", ONE)]);
    let checked = async |params: Value| {
        let used = StepUse { flow: "pay", step: "tell", params: params.as_object().expect("a table") };
        connector.check(&[used]).await.map_err(|error| error.to_string())
    };
    let url = "https://a.test/x";
    assert_eq!(checked(json!({ "url": url, "secret": "billing" })).await, Ok(()));
    for (params, variable) in [
        (json!({ "url": url, "secret": "crm" }), "HTTP_SIGNING_SECRET_CRM: "),
        (json!({ "url": url }), "HTTP_SIGNING_SECRET: "),
        (json!({ "url": "http://a.test/x", "secret": "billing" }), "flow pay, step tell, url: "),
    ] {
        let error = checked(params).await.expect_err(variable);
        assert!(error.starts_with(variable) && error.contains("tell") && error.contains("pay"), "{error}");
    }
}

#[test]
fn without_tls_only_what_is_near_is_reached_and_only_when_allowed() {
    let strict = with([(SECRET, ONE)]);
    let lenient = with([(SECRET, ONE), (ALLOW_PLAIN, "true")]);
    for (url, near) in [
        ("http://127.0.0.1:8080/x", true),
        ("http://[::1]/x", true),
        ("http://10.1.2.3/x", true),
        ("http://192.168.0.9/x", true),
        ("http://[fd00::1]/x", true),
        ("http://billing/x", true),
        ("http://billing.svc.internal/x", true),
        ("http://8.8.8.8/x", false),
        ("http://169.254.169.254/x", false),
        ("http://a.test/x", false),
        ("http://local.a.test/x", false),
    ] {
        assert!(post(&strict, json!({ "url": url })).is_err(), "{url}");
        assert_eq!(post(&lenient, json!({ "url": url })).is_ok(), near, "{url}");
    }
    assert!(post(&strict, json!({ "url": "https://a.test/x" })).is_ok());
}

#[test]
fn the_body_is_the_flows_or_the_event() {
    let connector = with([(SECRET, ONE)]);
    let own = post(&connector, json!({ "url": "https://a.test/x", "body": r#"{"id":"user_1"}"# })).expect("a request");
    assert_eq!(own.body, r#"{"id":"user_1"}"#);
    let event = post(&connector, json!({ "url": "https://a.test/x" })).expect("a request");
    let expected = json!({
        "type": "user.updated", "timestamp": "2026-01-01T10:00:00.250Z", "data": { "id": "user_1" },
    });
    assert_eq!(serde_json::from_str::<Value>(&event.body).expect("JSON"), expected);
}

#[test]
fn the_event_is_posted_as_it_was_sent() {
    let connector = with([(SECRET, ONE)]);
    let sent = r#"{ "n": 117.63331139400017,"e":9007199254740991.0,"huge":1e400, "half":"\ud83d","deep":[[[[1E+2]]]]}"#;
    let event = usher_proto::Event { body: format!(r#"{{"data":{sent},"type":"x"}}"#).into(), ..event(&Value::Null) };
    let params = json!({ "url": "https://a.test/x" });
    let params = params.as_object().expect("a table");
    let inputs = StepInput { operation: "post", params, event: &event, rerun: 0 };
    let post: Post = serde_json::from_slice(&connector.prepare(&inputs).expect("a request")).expect("it reads back");
    let expected = sent.replace("ud83d", "ufffd");
    assert_eq!(
        post.body,
        format!(r#"{{"data":{expected},"timestamp":"2026-01-01T10:00:00.250Z","type":"user.updated"}}"#)
    );
}

#[test]
fn a_secret_has_a_name_and_one_that_is_not_there_is_told() {
    let connector = with([("HTTP_SIGNING_SECRET_BILLING", ONE)]);
    let of = |secret: Option<&str>| post(&connector, json!({ "url": "https://a.test/x", "secret": secret }));
    assert!(of(Some("billing")).is_ok());
    assert_eq!(of(Some("crm")).err().as_deref(), Some("HTTP_SIGNING_SECRET_CRM is not set"));
    assert!(post(&connector, json!({ "url": "https://a.test/x" })).is_err());
    let both = with([(SECRET, &format!("{ONE} {OTHER}"))]);
    assert_eq!(both.secrets.get(None).expect("secrets").len(), 2);
}

#[test]
fn a_secret_that_is_none_is_refused_without_being_repeated() {
    let error =
        SignedPost::from_environment(&Environment::from_vars([(SECRET, "whsec_!!!")])).err().expect("no base64");
    assert!(error.to_string().starts_with("HTTP_SIGNING_SECRET: ") && !error.to_string().contains("!!!"), "{error}");
}

#[test]
fn a_base_address_takes_everything_with_host_and_path() {
    let connector = with([(SECRET, ONE), ("HTTP_BASE_URL", "http://127.0.0.1:8090/http/")]);
    let url = Url::parse("https://a.test:8443/hooks/x?y=1").expect("an address");
    let target = |connector: &SignedPost| {
        let (base, path) = connector.target(&url);
        format!("{base}{}", path.into_text())
    };
    assert_eq!(target(&connector), "http://127.0.0.1:8090/http/a.test:8443/hooks/x?y=1");
    assert_eq!(target(&with([(SECRET, ONE)])), url.as_str());
}

#[test]
fn every_success_is_done() {
    for status in [200, 202, 204] {
        assert!(matches!(classify(&answer(status, ""), "id".into()), Outcome::Done(effect) if effect.id == "id"));
    }
}
