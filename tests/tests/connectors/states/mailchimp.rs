//! Members of an audience in each state.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use usher_connectors::Connector;
use usher_engine::Outcome;
use usher_proto::Reason;

use super::super::lab::{ConnectorBench, carry_out};
use super::super::subject::subject;

/// MD5 of `ada@work.test`.
const ADA: &str = "debabd793f9efb738d06ba878af611d1";
const STATES: [&str; 8] =
    ["absent", "subscribed", "unsubscribed", "pending", "cleaned", "transactional", "archived", "erased"];

struct Audience {
    bench: ConnectorBench,
    connector: Arc<dyn Connector>,
}

impl Audience {
    async fn new() -> Self {
        let bench = ConnectorBench::new().await;
        let connector = bench.open(subject("mailchimp"));
        Self { bench, connector }
    }

    /// Sends a request to the double directly.
    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/mailchimp/3.0/lists/1ab0000000/members/{path}", self.bench.lab.url());
        let request = reqwest::Client::new().request(method, url).bearer_auth("lab-us1");
        let request = if body.is_null() { request } else { request.header("content-type", "application/json") };
        let answer = request.body(if body.is_null() { String::new() } else { body.to_string() }).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    /// Brings an address into a state.
    async fn is(&self, email: &str, state: &str) {
        if state == "absent" {
            return;
        }
        let status = if ["archived", "erased"].contains(&state) { "subscribed" } else { state };
        let body = json!({ "email_address": email, "status": status });
        assert_eq!(self.ask(Method::PUT, email, body).await.0, 200, "{state}");
        match state {
            "archived" => assert_eq!(self.ask(Method::DELETE, email, Value::Null).await.0, 204),
            "erased" => {
                let path = format!("{email}/actions/delete-permanent");
                assert_eq!(self.ask(Method::POST, &path, Value::Null).await.0, 204);
            }
            _ => assert_eq!(self.state(email).await, state),
        }
    }

    async fn member(&self, email: &str) -> Value {
        self.ask(Method::GET, email, Value::Null).await.1
    }

    async fn state(&self, email: &str) -> String {
        let member = self.member(email).await;
        if member["title"] == "Resource Not Found" {
            "absent".into()
        } else {
            member["status"].as_str().unwrap().into()
        }
    }

    /// Runs the operation twice, as after a crash. The result must be the same.
    async fn twice(&self, operation: &str, params: &Value) -> String {
        let mut said = Vec::new();
        for _ in 0..2 {
            said.push(match carry_out(&*self.connector, operation, params.clone(), Value::Null).await {
                Outcome::Done(effect) => effect.result["status"].as_str().unwrap().to_owned(),
                Outcome::Reject { reason: Reason::InvalidRequest, error, .. } => error.to_string(),
                other => panic!("{operation}: {other:?}"),
            });
        }
        said.swap_remove(0)
    }
}

#[tokio::test]
async fn a_put_asks_who_comes_back_and_touches_no_other_state() {
    let erased = "400 forgotten_email_not_subscribed";
    for (state, status_if_new, said) in [
        ("absent", "pending", "pending"),
        ("absent", "subscribed", "subscribed"),
        ("subscribed", "pending", "subscribed"),
        ("unsubscribed", "subscribed", "unsubscribed"),
        ("pending", "subscribed", "pending"),
        ("cleaned", "pending", "cleaned"),
        ("transactional", "pending", "transactional"),
        ("archived", "pending", "pending"),
        ("archived", "subscribed", "pending"),
        ("archived", "unsubscribed", "unsubscribed"),
        ("archived", "transactional", "transactional"),
        ("erased", "pending", erased),
    ] {
        let audience = Audience::new().await;
        audience.is("ada@work.test", state).await;
        let params = json!({ "email": "Ada@Work.test", "status_if_new": status_if_new });
        assert_eq!(audience.twice("put_member", &params).await, said, "{state}, {status_if_new}");
        let now = audience.state("ada@work.test").await;
        assert_eq!(now, if said == erased { "absent" } else { said }, "{state}, {status_if_new}");
    }
}

#[tokio::test]
async fn whoever_leaves_is_gone_in_whatever_state() {
    for (state, said, now) in [
        ("absent", "absent", "absent"),
        ("subscribed", "deleted", "archived"),
        ("unsubscribed", "deleted", "archived"),
        ("pending", "deleted", "archived"),
        ("cleaned", "cleaned", "cleaned"),
        ("transactional", "deleted", "archived"),
        ("archived", "archived", "archived"),
        ("erased", "absent", "absent"),
    ] {
        let audience = Audience::new().await;
        audience.is("ada@work.test", state).await;
        assert_eq!(audience.twice("delete_member", &json!({ "email": "ada@work.test" })).await, said, "{state}");
        assert_eq!(audience.state("ada@work.test").await, now, "{state}");
    }
}

#[tokio::test]
async fn whoever_gets_mail_is_unsubscribed_and_nobody_else_is_touched() {
    for state in STATES {
        let audience = Audience::new().await;
        audience.is("ada@work.test", state).await;
        let now = match state {
            "subscribed" | "pending" | "transactional" => "unsubscribed",
            "erased" => "absent",
            state => state,
        };
        assert_eq!(audience.twice("unsubscribe", &json!({ "email": "ada@work.test" })).await, now, "{state}");
        assert_eq!(audience.state("ada@work.test").await, now, "{state}");
    }
}

#[tokio::test]
async fn an_address_changes_in_place_where_that_can_be_and_no_no_is_forgotten() {
    for (old, new, said, left) in [
        ("absent", "absent", "pending", "absent"),
        ("subscribed", "absent", "subscribed", "absent"),
        ("unsubscribed", "absent", "unsubscribed", "unsubscribed"),
        ("pending", "absent", "pending", "pending"),
        ("cleaned", "absent", "pending", "cleaned"),
        ("transactional", "absent", "pending", "transactional"),
        ("archived", "absent", "pending", "archived"),
        ("erased", "absent", "pending", "absent"),
        ("subscribed", "unsubscribed", "unsubscribed", "subscribed"),
        ("subscribed", "archived", "pending", "subscribed"),
        ("unsubscribed", "archived", "unsubscribed", "unsubscribed"),
        ("subscribed", "erased", "400 forgotten_email_not_subscribed", "subscribed"),
    ] {
        let audience = Audience::new().await;
        audience.is("ada@work.test", old).await;
        audience.is("new@work.test", new).await;
        let params = json!({ "email": "new@work.test", "former_email": "Ada@work.test", "status_if_new": "pending", "tags": "t" });
        assert_eq!(audience.twice("put_member", &params).await, said, "{old}, {new}");
        assert_eq!(audience.state("ada@work.test").await, left, "{old}, {new}");
        if new != "erased" {
            let member = audience.member("new@work.test").await;
            assert_eq!(member["tags"][0]["name"], "t", "{old}, {new}");
            let moved = (old, new) == ("subscribed", "absent");
            assert_eq!(member["contact_id"] == ADA, moved, "{old}, {new}: the history goes with it: {member}");
        }
    }
}

#[tokio::test]
async fn tags_reach_who_is_new_and_who_is_there() {
    let audience = Audience::new().await;
    for state in ["absent", "subscribed", "archived", "unsubscribed"] {
        let email = format!("{state}@work.test");
        audience.is(&email, state).await;
        audience.twice("put_member", &json!({ "email": email, "tags": ["trial", "b c"] })).await;
        let member = audience.member(&email).await;
        let names: Vec<&Value> = member["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
        assert_eq!(names, ["trial", "b c"], "{state}");
    }
}

#[tokio::test]
async fn tags_of_who_is_there_change_and_nobody_is_added() {
    for state in STATES {
        let audience = Audience::new().await;
        audience.is("ada@work.test", state).await;
        if !["absent", "erased"].contains(&state) {
            let body =
                json!({ "tags": [{ "name": "trial", "status": "active" }, { "name": "x", "status": "active" }] });
            assert_eq!(audience.ask(Method::POST, "ada@work.test/tags", body).await.0, 204);
        }
        let params = json!({ "email": "Ada@work.test", "tags": ["pro", "trial"], "remove_tags": "trial" });
        let now = if state == "erased" { "absent" } else { state };
        assert_eq!(audience.twice("tag_member", &params).await, now, "{state}");
        assert_eq!(audience.state("ada@work.test").await, now, "{state}");
        let member = audience.member("ada@work.test").await;
        let names: Vec<&Value> = member["tags"].as_array().into_iter().flatten().map(|tag| &tag["name"]).collect();
        assert_eq!(names, if now == "absent" { vec![] } else { vec!["x", "pro"] }, "{state}");
    }
}

#[tokio::test]
async fn a_plan_that_changes_changes_its_tag() {
    let audience = Audience::new().await;
    audience.twice("put_member", &json!({ "email": "ada@work.test", "tags": ["trial"] })).await;
    audience.twice("put_member", &json!({ "email": "ada@work.test", "tags": ["pro"], "remove_tags": ["trial"] })).await;
    let member = audience.member("ada@work.test").await;
    let names: Vec<&Value> = member["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    assert_eq!(names, ["pro"]);
}

#[tokio::test]
async fn whoever_is_erased_is_gone_and_cannot_be_put_back() {
    for state in STATES {
        let audience = Audience::new().await;
        audience.is("ada@work.test", state).await;
        let was_there = !["absent", "erased"].contains(&state);
        let said = audience.twice("erase_member", &json!({ "email": "Ada@work.test" })).await;
        assert_eq!(said, if was_there { "erased" } else { "absent" }, "{state}");
        assert_eq!(audience.state("ada@work.test").await, "absent", "{state}");
        let put = json!({ "email": "ada@work.test", "status_if_new": "pending" });
        let expected = if state == "absent" { "pending" } else { "400 forgotten_email_not_subscribed" };
        assert_eq!(audience.twice("put_member", &put).await, expected, "{state}");
    }
}

#[tokio::test]
async fn an_address_in_another_case_is_the_same_member() {
    let audience = Audience::new().await;
    audience.is("ada@work.test", "subscribed").await;
    let params = json!({ "email": "ADA@work.test", "former_email": "ada@work.test", "status_if_new": "pending" });
    assert_eq!(audience.twice("put_member", &params).await, "subscribed");
    assert_eq!(audience.state("ada@work.test").await, "subscribed");
}
