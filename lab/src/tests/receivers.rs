//! Tests that the doubles of services called by `http.request` refuse what the services refuse.

use axum::http::Method;
use serde_json::{Value, json};

use super::support::{JSON, LabBench, LabReply};
use crate::{discord, slack, teams};

const BEARER: (&str, &str) = ("authorization", "Bearer key");
/// `key:` in Base64.
const BASIC: (&str, &str) = ("authorization", "Basic a2V5Og==");

async fn post(bench: &LabBench, address: &str, credentials: Option<(&str, &str)>, body: &Value) -> LabReply {
    let path = format!("/http/{}", address.trim_start_matches("https://"));
    let headers: Vec<_> = [JSON].into_iter().chain(credentials).collect();
    bench.ask(Method::POST, &path, &headers, &body.to_string()).await
}

/// Returns the number of effects at a double.
fn effects(bench: &LabBench, provider: &str) -> usize {
    bench.effects().iter().filter(|effect| effect.provider == provider).count()
}

#[tokio::test]
async fn slack_takes_messages_at_the_address_of_the_webhook_alone() {
    let bench = LabBench::new().await;
    let section = |text: &str| json!({ "blocks": [{ "type": "section", "text": { "type": "mrkdwn", "text": text } }] });
    let long = "x".repeat(3001);
    for (address, body, status) in [
        (slack::SLACK_URL, json!({ "text": "Hello" }), 200),
        (slack::SLACK_URL, section("Hello"), 200),
        (slack::SLACK_URL, json!({}), 400),
        (slack::SLACK_URL, json!({ "text": "" }), 400),
        (slack::SLACK_URL, section(""), 400),
        (slack::SLACK_URL, section(&long), 400),
        (slack::SLACK_URL, json!({ "text": "x", "blocks": vec![section("x")["blocks"][0].clone(); 51] }), 400),
        (slack::SLACK_URL, json!([1]), 400),
        ("https://hooks.slack.com/services/T1/B1/other", json!({ "text": "Hello" }), 404),
        ("https://hooks.slack.com/", json!({ "text": "Hello" }), 404),
    ] {
        assert_eq!(post(&bench, address, None, &body).await.status, status, "{address}: {body}");
    }
    assert_eq!(effects(&bench, "slack"), 2);
    // Slack's answer is no JSON.
    let path = format!("/http/{}", slack::SLACK_URL.trim_start_matches("https://"));
    let answer = bench.request(Method::POST, &path, &[JSON], r#"{"text":"x"}"#).send().await.expect("an answer");
    assert_eq!(answer.text().await.expect("a text"), "ok");
    bench.lab().set_limit("slack", crate::Limit { per_second: 1 }).expect("a limit");
    let mut limited = None;
    for _ in 0..3 {
        let reply = post(&bench, slack::SLACK_URL, None, &json!({ "text": "x" })).await;
        limited = limited.or_else(|| (reply.status == 429).then(|| reply.header("retry-after").map(str::to_owned)));
    }
    assert_eq!(limited, Some(Some("1".to_owned())));
}

#[tokio::test]
async fn loops_takes_an_event_once_for_its_key() {
    let bench = LabBench::new().await;
    let address = "https://app.loops.so/api/v1/events/send";
    let event = json!({ "email": "a@work.test", "eventName": "signup" });
    for (address, credentials, body, status) in [
        (address, Some(BEARER), event.clone(), 200),
        (address, None, event.clone(), 401),
        (address, Some(BEARER), json!({ "eventName": "signup" }), 400),
        (address, Some(BEARER), json!({ "email": "a@work.test" }), 400),
        (address, Some(BEARER), json!({ "email": "a@work.test", "eventName": "a:b" }), 400),
        (address, Some(BEARER), json!({ "email": "nobody", "eventName": "signup" }), 400),
        ("https://app.loops.so/api/v1/contacts/update", Some(BEARER), event.clone(), 405),
        ("https://app.loops.so/api/v1/other", Some(BEARER), event.clone(), 404),
    ] {
        assert_eq!(post(&bench, address, credentials, &body).await.status, status, "{address}: {body}");
    }
    let keyed = async |key: &str| {
        let headers = [JSON, BEARER, ("idempotency-key", key)];
        bench.ask(Method::POST, "/http/app.loops.so/api/v1/events/send", &headers, &event.to_string()).await.status
    };
    assert_eq!((keyed("k1").await, keyed("k1").await, keyed(&"k".repeat(101)).await), (200, 409, 400));
    assert_eq!(effects(&bench, "loops"), 2);
}

#[tokio::test]
async fn segment_answers_200_also_to_what_it_drops() {
    let bench = LabBench::new().await;
    let address = "https://api.segment.io/v1/identify";
    let identify = json!({ "userId": "user_1", "messageId": "m1" });
    let large = json!({ "userId": "x".repeat(33_000) });
    for (address, credentials, body, status, all) in [
        (address, Some(BASIC), identify.clone(), 200, 1),
        (address, Some(BASIC), identify.clone(), 200, 1),
        (address, None, json!({ "userId": "user_1" }), 200, 1),
        (address, Some(BASIC), json!({ "traits": {} }), 200, 1),
        (address, Some(BASIC), json!({ "userId": "u", "messageId": "m".repeat(101) }), 200, 1),
        ("https://api.segment.io/v1/track", Some(BASIC), json!({ "userId": "u" }), 200, 1),
        ("https://api.segment.io/v1/track", Some(BASIC), json!({ "userId": "u", "event": "e" }), 200, 2),
        (address, Some(BASIC), large, 400, 2),
        (address, Some(BASIC), json!("x"), 400, 2),
        ("https://api.segment.io/v2/x", Some(BASIC), identify.clone(), 404, 2),
    ] {
        assert_eq!(post(&bench, address, credentials, &body).await.status, status, "{body}");
        assert_eq!(effects(&bench, "segment"), all, "{body}");
    }
}

#[tokio::test]
async fn posthog_asks_for_key_event_and_person() {
    let bench = LabBench::new().await;
    let address = "https://eu.i.posthog.com/i/v0/e/";
    for (body, status) in [
        (json!({ "api_key": "phc_1", "event": "e", "distinct_id": "u" }), 200),
        (json!({ "api_key": "phc_1", "event": "e", "properties": { "distinct_id": "u" } }), 200),
        (json!({ "event": "e", "distinct_id": "u" }), 401),
        (json!({ "api_key": "phx_1", "event": "e", "distinct_id": "u" }), 401),
        (json!({ "api_key": "phc_1", "distinct_id": "u" }), 400),
        (json!({ "api_key": "phc_1", "event": "e" }), 400),
        (json!({ "api_key": "phc_1", "event": "e", "distinct_id": "u", "properties": 7 }), 400),
        (json!("x"), 400),
    ] {
        assert_eq!(post(&bench, address, None, &body).await.status, status, "{body}");
    }
    assert_eq!(effects(&bench, "posthog"), 2);
}

#[tokio::test]
async fn discord_and_teams_take_messages_with_the_token_of_the_address() {
    let bench = LabBench::new().await;
    let with_wait = format!("{}?wait=true", discord::DISCORD_URL);
    let reply = post(&bench, &with_wait, None, &json!({ "content": "Hello" })).await;
    assert!(reply.status == 200 && reply.body["id"].is_string(), "{reply:?}");
    for (address, body, status) in [
        (discord::DISCORD_URL, json!({ "content": "Hello" }), 204),
        (discord::DISCORD_URL, json!({ "content": "" }), 400),
        (discord::DISCORD_URL, json!({ "content": "x".repeat(2001) }), 400),
        (discord::DISCORD_URL, json!({ "embeds": vec![json!({}); 11] }), 400),
        ("https://discord.com/api/webhooks/1000000000000000000/other", json!({ "content": "x" }), 401),
        ("https://discord.com/api/webhooks/1/other", json!({ "content": "x" }), 404),
    ] {
        assert_eq!(post(&bench, address, None, &body).await.status, status, "{address}: {body}");
    }
    let card = |content: Value| json!({ "attachments": [{ "contentType": "application/vnd.microsoft.card.adaptive", "content": content }] });
    let good =
        card(json!({ "type": "AdaptiveCard", "version": "1.4", "body": [{ "type": "TextBlock", "text": "x" }] }));
    for (address, body, status) in [
        (teams::TEAMS_URL.to_owned(), good.clone(), 202),
        (teams::TEAMS_URL.to_owned(), json!({ "text": "x" }), 400),
        (teams::TEAMS_URL.to_owned(), card(json!({ "type": "AdaptiveCard", "body": [] })), 400),
        (teams::TEAMS_URL.replace("sig=", "sig=x"), good.clone(), 401),
    ] {
        assert_eq!(post(&bench, &address, None, &body).await.status, status, "{address}: {body}");
    }
    assert_eq!((effects(&bench, "discord"), effects(&bench, "teams")), (2, 1));
}

#[tokio::test]
async fn hubspot_and_customer_io_check_credentials_and_fields() {
    let bench = LabBench::new().await;
    let address = "https://api.hubapi.com/crm/v3/objects/contacts/batch/upsert";
    let contact = |value: Value| json!({ "inputs": [{ "idProperty": "email", "id": "a@work.test", "properties": { "firstname": value } }] });
    for (credentials, body, status) in [
        (Some(BEARER), contact(json!("Ann")), 200),
        (None, contact(json!("Ann")), 401),
        (Some(BEARER), contact(json!(7)), 400),
        (Some(BEARER), json!({ "inputs": [] }), 400),
    ] {
        assert_eq!(post(&bench, address, credentials, &body).await.status, status, "{body}");
    }
    let site = ("authorization", "Basic c2l0ZTprZXk=");
    for (method, credentials, body, status) in [
        (Method::PUT, site, json!({ "email": "a@work.test", "created_at": 1_767_261_600 }), 200),
        (Method::DELETE, site, Value::Null, 200),
        (Method::PUT, BASIC, json!({}), 401),
        (Method::PUT, site, json!({ "created_at": 1_767_261_600_250_u64 }), 400),
        (Method::PUT, site, json!({ "email": "nobody" }), 400),
        (Method::POST, site, json!({}), 405),
    ] {
        let path = "/http/track.customer.io/api/v1/customers/user_1";
        let reply = bench.ask(method, path, &[JSON, credentials], &body.to_string()).await;
        assert_eq!(reply.status, status, "{body}");
    }
    assert_eq!((effects(&bench, "hubspot"), effects(&bench, "customer-io")), (1, 2));
}
