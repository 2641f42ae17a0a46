//! Tests of the requests to Mailchimp and of the classification of its answers.

use serde_json::{Value, json};

use super::member::subscriber_hash;
use super::request::MemberChange;
use super::*;
use crate::testing::prepare;

fn connector() -> Mailchimp {
    usher_service::telemetry::install_tls();
    let settings = [("MAILCHIMP_API_KEY", "abc-us21"), ("MAILCHIMP_LIST_ID", "1ab")];
    Mailchimp::from_environment(&Environment::from_vars(settings)).expect("good settings")
}

fn change(operation: &str, params: Value) -> MemberChange {
    let kept = prepare(&connector(), operation, &params, &Value::Null).expect("a request");
    serde_json::from_slice(&kept).expect("it reads back")
}

#[test]
fn the_key_says_where_its_data_centre_is() {
    assert_eq!(connector().base, "https://us21.api.mailchimp.com");
    for key in ["abc", "abc-", "abc-us21.evil.test/"] {
        let environment = Environment::from_vars([("MAILCHIMP_API_KEY", key)]);
        let error = Mailchimp::from_environment(&environment).err().expect(key).to_string();
        assert!(error.starts_with("MAILCHIMP_API_KEY: ") && !error.contains("abc"), "{error}");
    }
}

#[test]
fn a_member_is_addressed_by_the_digest_of_the_address_in_lower_case() {
    // Mailchimp's own example.
    assert_eq!(subscriber_hash("Urist.McVankab@freddiesjokes.com"), "62eeb292278cc15f5817cb78f7790b08");
    assert_eq!(change(DELETE_MEMBER, json!({ "email": " A@B.test " })).hash, subscriber_hash("a@b.test"));
}

#[test]
fn nobody_is_ever_subscribed_again() {
    let merge_fields = json!({ "FNAME": "Ann", "LNAME": null });
    let params = json!({ "email": "a@b.test", "merge_fields": merge_fields, "tags": "trial" });
    let put = change(PUT_MEMBER, params);
    let body: Value = serde_json::from_str(put.body.as_deref().expect("a body")).expect("JSON");
    let expected = json!({
        "email_address": "a@b.test", "status_if_new": "subscribed", "merge_fields": { "FNAME": "Ann", "LNAME": "" },
    });
    assert_eq!((put.list.as_str(), body), ("1ab", expected));
    assert_eq!(put.tags.as_deref(), Some(r#"{"tags":[{"name":"trial","status":"active"}]}"#));
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
fn a_request_that_an_earlier_version_has_kept_is_read() {
    let kept = r#"{"operation":"delete_member","list":"1ab","hash":"00","body":null}"#;
    let change: MemberChange = serde_json::from_str(kept).expect("it reads");
    assert_eq!((change.hash.as_str(), change.former, change.tags), ("00", None, None));
}

#[test]
fn an_address_before_counts_where_it_is_another_member() {
    let before = |former: &str| change(PUT_MEMBER, json!({ "email": "a@b.test", "former_email": former })).former;
    assert_eq!(before("C <c@b.test>"), Some(subscriber_hash("c@b.test")));
    assert_eq!(before("A@B.test"), None);
}
