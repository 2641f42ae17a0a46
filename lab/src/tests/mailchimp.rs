//! Tests that the double follows Mailchimp's rules.

use axum::http::Method;
use serde_json::{Value, json};

use super::support::{JSON, LabBench, LabReply};
use crate::{Fault, Limit};

const KEY: (&str, &str) = ("authorization", "Bearer abc-us1");
/// The member id of `a@work.test`.
const ID: &str = "af553f8f1fea8b0a357104d2ec44e02e";
const PATH: &str = "/mailchimp/3.0/lists/1ab/members/af553f8f1fea8b0a357104d2ec44e02e";

async fn ask(bench: &LabBench, method: Method, path: &str, body: &Value) -> LabReply {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    bench.ask(method, path, &[KEY, JSON], &text).await
}

fn member(email: &str) -> Value {
    json!({ "email_address": email, "status_if_new": "subscribed", "merge_fields": { "CLERKID": "user_1" } })
}

#[tokio::test]
async fn a_member_is_put_changed_and_archived() {
    let bench = LabBench::new().await;
    let put = ask(&bench, Method::PUT, PATH, &member("a@work.test")).await;
    assert_eq!((put.status, &put.body["status"], &put.body["id"]), (200, &json!("subscribed"), &json!(ID)));
    let left = ask(&bench, Method::PATCH, PATH, &json!({ "status": "unsubscribed" })).await;
    assert_eq!(left.body["status"], "unsubscribed");
    let again = ask(&bench, Method::PUT, PATH, &member("a@work.test")).await;
    assert_eq!(again.body["status"], "unsubscribed", "status_if_new changes nobody who is there");
    assert_eq!(ask(&bench, Method::DELETE, PATH, &Value::Null).await.status, 204);
    assert_eq!(ask(&bench, Method::DELETE, PATH, &Value::Null).await.status, 405, "archived already");
    let back = ask(&bench, Method::PUT, PATH, &member("a@work.test")).await;
    assert_eq!((back.status, &back.body["status"]), (200, &json!("archived")));
    let effects = bench.effects();
    let operations: Vec<&str> = effects.iter().map(|effect| effect.operation.as_ref()).collect();
    assert_eq!(operations, ["members.put", "members.update", "members.put", "members.archive", "members.put"]);
    assert!(effects.iter().all(|effect| effect.user.as_deref() == Some("user_1")));
    assert!(effects.iter().all(|effect| effect.to.as_deref() == Some("a@work.test")));
}

#[tokio::test]
async fn what_is_wrong_is_a_problem_with_a_title() {
    let bench = LabBench::new().await;
    let no_status = json!({ "email_address": "a@work.test" });
    for (path, body, status, title) in [
        (PATH, no_status, 400, "Invalid Resource"),
        (PATH, member("nobody"), 400, "Invalid Resource"),
        (PATH, member("fake@work.test"), 400, "Invalid Resource"),
        (PATH, member("compliance@work.test"), 400, "Member In Compliance State"),
        (PATH, member("forgotten@work.test"), 400, "Forgotten Email Not Subscribed"),
        ("/mailchimp/3.0/lists/missing/members/0cc", member("a@work.test"), 404, "Resource Not Found"),
    ] {
        let reply = ask(&bench, Method::PUT, path, &body).await;
        assert_eq!((reply.status, reply.body["title"].as_str()), (status, Some(title)), "{body}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
    let stranger = bench.ask(Method::PUT, PATH, &[("authorization", "Bearer abc"), JSON], "{}").await;
    assert_eq!((stranger.status, stranger.body["title"].as_str()), (401, Some("API Key Invalid")));
    assert!(bench.effects().is_empty());
}

#[tokio::test]
async fn too_much_is_refused_without_saying_when_to_come_again() {
    let bench = LabBench::new().await;
    bench.lab().set_limit("mailchimp", Limit { per_second: 1 }).expect("a limit");
    ask(&bench, Method::PUT, PATH, &member("a@work.test")).await;
    let refused = ask(&bench, Method::PUT, PATH, &member("a@work.test")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, None));
    let bare = Fault { status: Some(403), name: Some("bare".into()), ..Fault::default() };
    bench.lab().set_fault("mailchimp", bare).expect("a fault");
    let edge = ask(&bench, Method::PUT, PATH, &member("a@work.test")).await;
    assert_eq!((edge.status, edge.body["title"].as_str()), (403, None));
}

#[tokio::test]
async fn of_more_than_ten_connections_at_once_the_rest_is_refused() {
    let bench = LabBench::new().await;
    let ten = Fault { status: Some(429), beyond: Some(10), ..Fault::default() };
    bench.lab().set_faults("mailchimp", vec![ten, Fault { latency_ms: 300, ..Fault::default() }]).expect("faults");
    let body = member("a@work.test");
    let paths = (0..14).map(|n| format!("/mailchimp/3.0/lists/1ab/members/{n:08x}"));
    let paths: Vec<String> = paths.collect();
    let asked = paths.iter().map(|path| ask(&bench, Method::PUT, path, &body));
    let replies = futures::future::join_all(asked).await;
    let refused: Vec<&LabReply> = replies.iter().filter(|reply| reply.status == 429).collect();
    assert_eq!((refused.len(), bench.effects().len()), (4, 10));
    assert!(refused.iter().all(|reply| reply.body["title"] == "Too Many Requests"), "{refused:?}");
    assert_eq!(ask(&bench, Method::PUT, PATH, &body).await.status, 200, "they are over, so there is room again");
}

/// Checks the requests that each state refuses. The requests that it allows are covered by the connector's tests
/// against this double.
#[tokio::test]
async fn the_states_of_a_member_refuse_what_the_real_ones_do() {
    let bench = LabBench::new().await;
    let path = |email: &str| format!("/mailchimp/3.0/lists/1ab/members/{email}");
    let put = async |email: &str, status: &str| {
        let body = json!({ "email_address": email, "status": status });
        assert_eq!(ask(&bench, Method::PUT, &path(email), &body).await.status, 200);
    };
    for status in ["pending", "cleaned", "unsubscribed", "subscribed", "transactional"] {
        put(&format!("{status}@work.test"), status).await;
    }
    for status in ["pending", "cleaned"] {
        let email = format!("{status}@work.test");
        let refused = ask(&bench, Method::DELETE, &path(&email), &Value::Null).await;
        assert_eq!((refused.status, refused.body["title"].as_str()), (405, Some("Method Not Allowed")), "{status}");
    }
    for (from, to) in [("unsubscribed", "subscribed"), ("cleaned", "subscribed"), ("cleaned", "pending")] {
        let refused = ask(&bench, Method::PATCH, &path(&format!("{from}@work.test")), &json!({ "status": to })).await;
        assert_eq!(refused.body["title"], "Member In Compliance State", "{from} to {to}");
    }
    let asked = json!({ "status": "pending" });
    assert_eq!(ask(&bench, Method::PATCH, &path("unsubscribed@work.test"), &asked).await.status, 200);
    for (from, to) in
        [("pending", "other"), ("cleaned", "other"), ("transactional", "other"), ("subscribed", "pending")]
    {
        let body = json!({ "email_address": format!("{to}@work.test") });
        let refused = ask(&bench, Method::PATCH, &path(&format!("{from}@work.test")), &body).await;
        assert_eq!((refused.status, &refused.body["errors"][0]["field"]), (400, &json!("email_address")), "{from}");
    }
    let erase = path("subscribed@work.test/actions/delete-permanent");
    assert_eq!(ask(&bench, Method::POST, &erase, &Value::Null).await.status, 204);
    let back = ask(&bench, Method::PUT, &path("subscribed@work.test"), &member("subscribed@work.test")).await;
    assert_eq!(back.body["title"], "Forgotten Email Not Subscribed");
    let gone = ask(&bench, Method::GET, &path("subscribed@work.test"), &Value::Null).await;
    assert_eq!(gone.status, 404);
    for tags in [json!(["news"]), json!([{ "name": "news" }]), json!([{ "name": "news", "status": "on" }])] {
        let refused = ask(&bench, Method::POST, &path("pending@work.test/tags"), &json!({ "tags": tags })).await;
        assert_eq!(refused.body["errors"][0]["field"], "tags", "{tags}");
    }
}
