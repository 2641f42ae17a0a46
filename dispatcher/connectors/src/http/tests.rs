//! Tests of requests, addresses, signatures and the classification of statuses.

mod secret;

use reqwest::Url;
use serde_json::{Value, json};
use usher_engine::{Cause, Effect};
use usher_proto::Reason;

use super::classify::classify;
use super::request::RequestBody;
use super::rules::Statuses as StatusSet;
use super::*;
use crate::assert_outcome;
use crate::placeholder::{Pieces, data_placeholder, secret_placeholder};
use crate::testing::{answer, event, prepare};

const ONE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";

fn with<const N: usize>(variables: [(&str, &str); N]) -> HttpConnector {
    usher_service::telemetry::install_tls();
    HttpConnector::from_environment(&Environment::from_vars(variables)).expect("good settings")
}

fn built(connector: &HttpConnector, operation: &str, params: &Value) -> Result<HttpRequest, String> {
    let kept = prepare(connector, operation, params, &json!({ "id": "user_1" })).map_err(|error| error.to_string())?;
    Ok(HttpRequest::read(&kept).expect("it reads back"))
}

fn post(connector: &HttpConnector, params: Value) -> Result<HttpRequest, String> {
    built(connector, "post", &params)
}

fn request(params: Value) -> Result<HttpRequest, String> {
    built(&with([]), "request", &params)
}

fn json_body(request: &HttpRequest) -> String {
    let Some(RequestBody::Json(pieces)) = &request.body else { panic!("{:?}", request.body) };
    pieces.fill(&Default::default(), str::to_owned)
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
        let params = params.as_object().expect("a table");
        let used = StepUse { flow: "pay", step: "tell", operation: "post", params };
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
    assert_eq!(json_body(&own), r#"{"id":"user_1"}"#);
    let event = post(&connector, json!({ "url": "https://a.test/x" })).expect("a request");
    let expected = json!({
        "type": "user.updated", "timestamp": "2026-01-01T10:00:00.250Z", "data": { "id": "user_1" },
    });
    assert_eq!(serde_json::from_str::<Value>(&json_body(&event)).expect("JSON"), expected);
}

#[test]
fn the_event_is_posted_as_it_was_sent() {
    let connector = with([(SECRET, ONE)]);
    let sent = r#"{ "n": 117.63331139400017,"e":9007199254740991.0,"huge":1e400, "half":"\ud83d","deep":[[[[1E+2]]]]}"#;
    let event = usher_proto::Event { body: format!(r#"{{"data":{sent},"type":"x"}}"#).into(), ..event(&Value::Null) };
    let params = json!({ "url": "https://a.test/x" });
    let params = params.as_object().expect("a table");
    let inputs = StepInput { operation: "post", params, event: &event, known: None, rerun: 0 };
    let post = HttpRequest::read(&connector.prepare(&inputs).expect("a request")).expect("it reads back");
    let expected = sent.replace("ud83d", "ufffd");
    assert_eq!(
        json_body(&post),
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
    assert_eq!(both.signing.get(None).expect("secrets").len(), 2);
}

#[test]
fn a_secret_that_is_none_is_refused_without_being_repeated() {
    let error =
        HttpConnector::from_environment(&Environment::from_vars([(SECRET, "whsec_!!!")])).err().expect("no base64");
    assert!(error.to_string().starts_with("HTTP_SIGNING_SECRET: ") && !error.to_string().contains("!!!"), "{error}");
}

#[test]
fn a_base_address_takes_everything_with_host_and_path() {
    let connector = with([(SECRET, ONE), ("HTTP_BASE_URL", "http://127.0.0.1:8090/http/")]);
    let url = Url::parse("https://a.test:8443/hooks/x?y=1").expect("an address");
    let target = |connector: &HttpConnector| {
        let (base, path) = connector.target(&url);
        format!("{base}{}", path.into_text())
    };
    assert_eq!(target(&connector), "http://127.0.0.1:8090/http/a.test:8443/hooks/x?y=1");
    assert_eq!(target(&with([(SECRET, ONE)])), url.as_str());
}

fn outcome(status: u16, params: Value) -> Outcome {
    let request = request(params).expect("a request");
    classify(&answer(status, ""), &request, || Effect::new("id", Value::Null))
}

#[test]
fn every_success_is_done() {
    for status in [200, 202, 204] {
        let outcome = outcome(status, json!({ "url": "https://a.test/x" }));
        assert!(matches!(outcome, Outcome::Done(effect) if effect.id == "id"));
    }
}

#[test]
fn a_flow_says_which_statuses_are_success_and_which_are_tried_again() {
    let rules = json!({ "url": "https://a.test/x", "success_on": ["2xx", "409"], "retry_on": ["404", "423", "503"] });
    assert!(matches!(outcome(409, rules.clone()), Outcome::Done(_)));
    for (status, expected) in [
        (404, Ok(Cause::Deferred)),
        (423, Ok(Cause::Deferred)),
        (503, Ok(Cause::Unavailable)),
        // Everything else is not tried again: the flow has said what is.
        (429, Err(Reason::InvalidRequest)),
        (500, Err(Reason::InvalidRequest)),
        (400, Err(Reason::InvalidRequest)),
        (401, Err(Reason::Configuration)),
    ] {
        assert_outcome(&outcome(status, rules.clone()), expected, &status.to_string());
    }
    let narrow = json!({ "url": "https://a.test/x", "success_on": "201" });
    assert_outcome(&outcome(200, narrow), Err(Reason::InvalidRequest), "a success that is none");
    let both = json!({ "url": "https://a.test/x", "success_on": ["409"], "retry_on": ["409"] });
    assert_eq!(request(both), Err("success_on and retry_on both have 409".to_owned()));
    assert!(StatusSet::read(&json!("2xx")).is_some());
}

#[test]
fn a_request_has_one_body_and_no_header_of_the_connectors_own() {
    let with = |name: &str, value: Value| {
        let mut params = json!({ "url": "https://a.test/x", "body": "{}" });
        params[name] = value;
        request(params)
    };
    for (name, value, why) in [
        ("form", json!("{}"), "a request has one of body, form and text, and this one body and form"),
        ("text", json!("x"), "a request has one of body, form and text, and this one body and text"),
        ("method", json!("GET"), "method is GET, which sends no body"),
        ("method", json!("TRACE"), "method may be GET, POST"),
        ("headers", json!({ "Content-Type": "x" }), "headers cannot set \"Content-Type\": write content_type"),
        ("headers", json!({ "a b": "x" }), "headers cannot set \"a b\""),
        ("headers", json!({ "webhook-id": "x" }), "headers cannot set \"webhook-id\": write sign"),
        ("idempotency_header", json!("host"), "idempotency_header cannot set \"host\""),
        ("basic_auth", json!({ "name": "x" }), "basic_auth is { user"),
        ("sign", json!(true), "HTTP_SIGNING_SECRET is not set"),
        ("secret", json!("crm"), "HTTP_SIGNING_SECRET_CRM is not set"),
    ] {
        let error = with(name, value).expect_err(why);
        assert!(error.starts_with(why), "{error}");
    }
    let twice = json!({ "url": "https://a.test/x", "headers": { "Idempotency-Key": "x" }, "idempotency_header": "idempotency-key" });
    assert!(request(twice).expect_err("twice").starts_with("headers has"));
    let both = json!({ "url": "https://a.test/x", "headers": { "authorization": "x" }, "basic_auth": { "user": "u" } });
    assert!(request(both).expect_err("twice").starts_with("basic_auth is the header Authorization"));
}

#[test]
fn data_of_an_event_in_an_address_stay_one_part_of_its_path() {
    let url = |before: &str, data: &str, behind: &str| format!("{before}{}{behind}", data_placeholder(data));
    let resolved = |text: &str| {
        let request = request(json!({ "url": text }))?;
        Ok::<_, String>(
            address::resolve(&request.url, &Default::default(), PlainHttp::Refused)
                .expect("it was checked")
                .to_string(),
        )
    };
    assert_eq!(
        resolved(&url("https://a.test/users/", "user_1", "/tags/")).as_deref(),
        Ok("https://a.test/users/user_1/tags/")
    );
    assert_eq!(resolved(&url("https://a.test/", "a/b?c#d@e", "")).as_deref(), Ok("https://a.test/a%2Fb%3Fc%23d%40e"));
    for data in ["", ".", "..", "%2e%2e", "a/../b", "a//b", "\\"] {
        let error = resolved(&url("https://a.test/users/", data, "/x")).expect_err(data);
        assert!(error.starts_with("url contains data"), "{error}");
    }
    // Flow files with these are refused; a stored version of a flow could still have one.
    for (before, behind) in [
        ("", ""),
        ("", "/x"),
        ("https://", "/x"),
        ("https://a.test", "/x"),
        ("https:/", "/x"),
        ("https:///", "/x"),
        ("https://a.test:", "/x"),
    ] {
        let error = resolved(&url(before, "evil.test", behind)).expect_err(before);
        assert!(error.starts_with("url would let an event choose"), "{before}: {error}");
    }
    let error = resolved(&url("https://a.test/x?q=", "1", "")).expect_err("a query");
    assert!(error.starts_with("url has data of an event outside"), "{error}");
}

#[test]
fn a_request_of_a_version_that_had_posts_only_is_still_sent() {
    let stored = r#"{"url":"https://a.test/x","secret":"billing","body":"{\"a\":1}"}"#;
    let request = HttpRequest::read(stored.as_bytes()).expect("it reads");
    assert_eq!((request.method.as_str(), json_body(&request).as_str()), ("POST", r#"{"a":1}"#));
    assert_eq!(request.signed.and_then(|signed| signed.secret).as_deref(), Some("billing"));
    assert_eq!(request.url, Pieces::of("https://a.test/x"));
}

#[test]
fn a_repetition_is_safe_by_the_method_or_by_the_header_that_the_flow_names() {
    let connector = with([(SECRET, ONE)]);
    let of = |operation: &str, params: Value| {
        connector.idempotency_of(&prepare(&connector, operation, &params, &Value::Null).expect("a request"))
    };
    let url = "https://a.test/x";
    for (method, expected) in [
        ("GET", Idempotency::Natural),
        ("PUT", Idempotency::Natural),
        ("DELETE", Idempotency::Natural),
        ("POST", Idempotency::None),
        ("PATCH", Idempotency::None),
    ] {
        assert_eq!(of("request", json!({ "url": url, "method": method })), expected, "{method}");
    }
    let named = json!({ "url": url, "idempotency_header": "Idempotency-Key" });
    assert_eq!(of("request", named), Idempotency::KeyFor(crate::KEYS_LIVE));
    assert_eq!(of("post", json!({ "url": url })), Idempotency::None);
}

#[tokio::test]
async fn a_quota_is_that_of_each_place() {
    let connector = with([("SLACK_URL", "https://hooks.test/T0/B0"), (SECRET, ONE)]);
    let params = [
        json!({ "url": "https://a.test:8443/x/{{ user.id }}" }),
        json!({ "url": "https://a.test:8443/y" }),
        json!({ "url": "{{ secret.SLACK_URL }}" }),
    ];
    let uses = params.each_ref().map(|params| StepUse {
        flow: "f",
        step: "s",
        operation: "request",
        params: params.as_object().expect("a table"),
    });
    connector.check(&uses).await.expect("good settings");
    assert_eq!(connector.sub_accounts(), ["SLACK_URL", "a.test:8443", "other"]);
    let place = |url: String| {
        let stored = prepare(&connector, "request", &json!({ "url": url }), &Value::Null).expect("a request");
        connector.sub_account(&stored).expect("a place")
    };
    assert_eq!(place(format!("https://a.test:8443/x/{}", data_placeholder("user_1"))), "a.test:8443");
    assert_eq!(place(secret_placeholder("SLACK_URL")), "SLACK_URL");
    assert_eq!(place("https://b.test/x".into()), "other");
}
