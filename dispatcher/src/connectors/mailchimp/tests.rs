//! What is asked of Mailchimp, and what its answers mean.

use super::super::assert_outcome;
use super::super::testing::{answer, prepare};
use super::*;

fn connector() -> Mailchimp {
    usher_service::telemetry::install_tls();
    let settings = [("MAILCHIMP_API_KEY", "abc-us21"), ("MAILCHIMP_LIST_ID", "1ab")];
    Mailchimp::from_environment(&Environment::of(settings)).expect("good settings")
}

fn change(operation: &str, params: Value) -> Change {
    let kept = prepare(&connector(), operation, &params, &Value::Null).expect("a request");
    serde_json::from_slice(&kept).expect("it reads back")
}

#[test]
fn the_key_says_where_its_data_centre_is() {
    assert_eq!(connector().base, "https://us21.api.mailchimp.com");
    for key in ["abc", "abc-", "abc-us21.evil.test/"] {
        let environment = Environment::of([("MAILCHIMP_API_KEY", key)]);
        let error = Mailchimp::from_environment(&environment).err().expect(key).to_string();
        assert!(error.starts_with("MAILCHIMP_API_KEY: ") && !error.contains("abc"), "{error}");
    }
}

#[test]
fn a_member_is_addressed_by_the_digest_of_the_address_in_lower_case() {
    // Mailchimp's own example.
    assert_eq!(hash("Urist.McVankab@freddiesjokes.com"), "62eeb292278cc15f5817cb78f7790b08");
    assert_eq!(change(DELETE_MEMBER, json!({ "email": " A@B.test " })).hash, hash("a@b.test"));
}

#[test]
fn nobody_is_ever_subscribed_again() {
    let params = json!({ "email": "a@b.test", "merge_fields": { "FNAME": "Ann" }, "tags": "trial" });
    let put = change(PUT_MEMBER, params);
    let body: Value = serde_json::from_str(put.body.as_deref().expect("a body")).expect("JSON");
    let expected = json!({
        "email_address": "a@b.test", "status_if_new": "subscribed", "merge_fields": { "FNAME": "Ann" }, "tags": ["trial"],
    });
    assert_eq!((put.list.as_str(), body), ("1ab", expected));
}

#[test]
fn a_status_or_a_list_that_cannot_be_is_told() {
    for params in [json!({ "status_if_new": "happy" }), json!({ "list": "../x" })] {
        let mut params = params;
        params["email"] = json!("a@b.test");
        assert!(prepare(&connector(), PUT_MEMBER, &params, &Value::Null).is_err(), "{params}");
    }
}

#[test]
fn every_documented_error_has_its_outcome() {
    for (status, title, expected) in [
        (400, "Invalid Resource", Err(Reason::InvalidRequest)),
        (400, "Member Exists", Err(Reason::InvalidRequest)),
        (400, "Member In Compliance State", Err(Reason::InvalidRequest)),
        (400, "Forgotten Email Not Subscribed", Err(Reason::InvalidRequest)),
        (401, "API Key Invalid", Err(Reason::Configuration)),
        (403, "Forbidden", Err(Reason::Configuration)),
        (403, "User Disabled", Err(Reason::Configuration)),
        (403, "", Ok(Cause::Throttled)),
        (404, "Resource Not Found", Err(Reason::NotFound)),
        (405, "Method Not Allowed", Err(Reason::InvalidRequest)),
        (414, "Request URI Too Long", Err(Reason::InvalidRequest)),
        (422, "Unprocessable", Err(Reason::InvalidRequest)),
        (426, "Upgrade Required", Err(Reason::InvalidRequest)),
        (429, "Too Many Requests", Ok(Cause::Throttled)),
        (429, "", Ok(Cause::Throttled)),
        (500, "Internal Server Error", Ok(Cause::Unavailable)),
        (503, "Compliance Related", Ok(Cause::Unavailable)),
        (302, "", Err(Reason::InvalidRequest)),
    ] {
        let body =
            json!({ "title": title, "status": status, "detail": "a@b.test was permanently deleted" }).to_string();
        let answer = answer(status, if title.is_empty() { "<html>a@b.test" } else { &body });
        let outcome = classify(&answer);
        assert_outcome(&outcome, expected, &format!("{status} {title}"));
        assert!(!format!("{outcome:?}").contains("a@b.test"), "the detail is not repeated");
    }
    let told = classify(&answer(400, r#"{"title":"Member In Compliance State"}"#));
    assert_eq!(told, Outcome::reject(Reason::InvalidRequest, "400 member_in_compliance_state"));
}
