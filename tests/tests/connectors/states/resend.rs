//! Contacts in each state.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use usher_connectors::Connector;
use usher_engine::Outcome;
use usher_proto::Reason;

use super::super::lab::{ConnectorBench, carry_out};
use super::super::subject::subject;

const NEWS: &str = "78261eea-8f8b-4381-83c6-79fa7120f1cf";
const TIPS: &str = "b6d24b8e-af0b-4c3c-be0c-359bbd97381e";
/// The id of a segment that does not exist.
const NOTHING: &str = "00000000-0000-0000-0000-000000000000";
const ADA: &str = "ada@work.test";

struct ContactList {
    bench: ConnectorBench,
    connector: Arc<dyn Connector>,
}

impl ContactList {
    async fn new() -> Self {
        let bench = ConnectorBench::new().await;
        let connector = bench.open(subject("resend"));
        Self { bench, connector }
    }

    /// Sends a request to the double directly.
    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/resend/contacts{path}", self.bench.lab.url());
        let request = reqwest::Client::new().request(method, url).bearer_auth("re_lab");
        let request = if body.is_null() { request } else { request.header("content-type", "application/json") };
        let answer = request.body(if body.is_null() { String::new() } else { body.to_string() }).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    /// Brings an address into a state: absent, subscribed or unsubscribed.
    async fn is(&self, email: &str, state: &str) {
        if state != "absent" {
            let body = json!({ "email": email, "unsubscribed": state == "unsubscribed", "first_name": "Ada" });
            assert_eq!(self.ask(Method::POST, "", body).await.0, 201);
        }
    }

    async fn state(&self, email: &str) -> &'static str {
        match self.ask(Method::GET, &format!("/{email}"), Value::Null).await {
            (404, _) => "absent",
            (_, contact) if contact["unsubscribed"] == true => "unsubscribed",
            (_, contact) => {
                assert_eq!(contact["unsubscribed"], false);
                "subscribed"
            }
        }
    }

    async fn topics(&self, email: &str) -> Value {
        let listed = self.ask(Method::GET, &format!("/{email}/topics"), Value::Null).await.1;
        listed["data"].as_array().unwrap().iter().map(|it| json!([it["id"], it["subscription"]])).collect()
    }

    async fn segments(&self, email: &str) -> Value {
        let listed = self.ask(Method::GET, &format!("/{email}/segments"), Value::Null).await.1;
        listed["data"].as_array().unwrap().iter().map(|it| it["id"].clone()).collect()
    }

    /// Runs the operation twice, as after a crash. Both have to be done.
    async fn twice(&self, operation: &str, params: &Value) {
        for _ in 0..2 {
            let outcome = carry_out(&*self.connector, operation, params.clone(), Value::Null).await;
            assert!(matches!(outcome, Outcome::Done(_)), "{operation} {params}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn nobody_who_has_unsubscribed_is_ever_subscribed_again() {
    for (state, wanted, now) in [
        ("absent", Value::Null, "subscribed"),
        ("absent", json!(false), "subscribed"),
        ("absent", json!(true), "unsubscribed"),
        ("subscribed", json!(false), "subscribed"),
        ("subscribed", json!(true), "unsubscribed"),
        ("unsubscribed", Value::Null, "unsubscribed"),
        ("unsubscribed", json!(false), "unsubscribed"),
    ] {
        let list = ContactList::new().await;
        list.is(ADA, state).await;
        let params = json!({ "email": "Ada@Work.test", "first_name": "A", "unsubscribed": wanted });
        list.twice("put_contact", &params).await;
        assert_eq!(list.state(ADA).await, now, "{state}, {wanted}");
        assert_eq!(list.ask(Method::GET, "/ada@work.test", Value::Null).await.1["first_name"], "A", "{state}");
    }
}

#[tokio::test]
async fn a_new_address_takes_over_every_refusal_of_the_former_one() {
    for (former, new, now) in [
        ("absent", "absent", "subscribed"),
        ("subscribed", "absent", "subscribed"),
        ("unsubscribed", "absent", "unsubscribed"),
        ("unsubscribed", "subscribed", "subscribed"),
        ("subscribed", "unsubscribed", "unsubscribed"),
    ] {
        let list = ContactList::new().await;
        list.is(ADA, former).await;
        list.is("new@work.test", new).await;
        if former != "absent" {
            let topics = json!([{ "id": TIPS, "subscription": "opt_out" }, { "id": NEWS, "subscription": "opt_in" }]);
            list.ask(Method::PATCH, "/ada@work.test/topics", json!({ "topics": topics })).await;
        }
        let params = json!({ "email": "new@work.test", "former_email": "Ada@work.test", "topics": { TIPS: "opt_in" } });
        list.twice("put_contact", &params).await;
        assert_eq!(list.state("new@work.test").await, now, "{former}, {new}");
        let topics = match (former, new) {
            (_, "subscribed" | "unsubscribed") => json!([]),
            ("absent", _) => json!([[TIPS, "opt_in"]]),
            _ => json!([[TIPS, "opt_out"]]),
        };
        assert_eq!(list.topics("new@work.test").await, topics, "{former}, {new}");
        assert_eq!(list.state(ADA).await, former, "the former contact stays until it is deleted");
    }
}

#[tokio::test]
async fn segments_are_joined_and_topics_are_left_and_only_who_is_new_is_opted_in() {
    for state in ["absent", "subscribed", "unsubscribed"] {
        let list = ContactList::new().await;
        list.is(ADA, state).await;
        if state != "absent" {
            let topics = json!([{ "id": NEWS, "subscription": "opt_out" }]);
            assert_eq!(list.ask(Method::PATCH, "/ada@work.test/topics", json!({ "topics": topics })).await.0, 200);
        }
        let params = json!({ "email": ADA, "segments": [NEWS, TIPS], "topics": { NEWS: "opt_in", TIPS: "opt_out" } });
        list.twice("put_contact", &params).await;
        assert_eq!(list.segments(ADA).await, json!([NEWS, TIPS]), "{state}");
        let news = if state == "absent" { "opt_in" } else { "opt_out" };
        assert_eq!(list.topics(ADA).await, json!([[NEWS, news], [TIPS, "opt_out"]]), "{state}");
    }
}

#[tokio::test]
async fn properties_are_texts_and_numbers_and_null_takes_one_away() {
    let list = ContactList::new().await;
    list.twice("put_contact", &json!({ "email": ADA, "properties": { "plan": "pro", "seats": 3, "gone": null } }))
        .await;
    let properties = async || list.ask(Method::GET, "/ada@work.test", Value::Null).await.1["properties"].clone();
    assert_eq!(properties().await, json!({ "plan": "pro", "seats": 3 }));
    list.twice("put_contact", &json!({ "email": ADA, "properties": { "plan": null, "seats": 4 } })).await;
    assert_eq!(properties().await, json!({ "seats": 4 }));
}

#[tokio::test]
async fn whoever_leaves_is_no_contact_and_need_not_be_one() {
    for state in ["absent", "subscribed", "unsubscribed"] {
        let list = ContactList::new().await;
        list.is(ADA, state).await;
        list.twice("delete_contact", &json!({ "email": "ADA@work.test" })).await;
        assert_eq!(list.state(ADA).await, "absent", "{state}");
    }
}

#[tokio::test]
async fn a_segment_that_is_not_there_is_told() {
    let list = ContactList::new().await;
    list.is(ADA, "subscribed").await;
    for (segment, expected) in [(NOTHING, Reason::NotFound), ("news", Reason::InvalidRequest)] {
        let params = json!({ "email": ADA, "segments": segment });
        let outcome = carry_out(&*list.connector, "put_contact", params, Value::Null).await;
        assert!(matches!(outcome, Outcome::Reject { reason, .. } if reason == expected), "{segment}: {outcome:?}");
    }
}
