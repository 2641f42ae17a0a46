//! Posted JSON has the types that its flow gives it.

use serde_json::json;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(a_slack_message_with_blocks_numbers_and_a_list_arrives_as_typed_json);

const SLACK: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "tell"
use = "http.post"
url = "https://hooks.slack.test/services/T0/B0/x"
[step.body]
text = "{{ user.first_name or 'Somebody' }} signed up"
unfurl_links = false
thread = { replies = 3, weight = 0.5, tags = ["new", "{{ user.id }}"] }
seq = "{{ user.public_metadata.seq }}"
since = "{{ user.created_at }}"
addresses = "{{ user.email_addresses }}"
plan = "{{ user.public_metadata.plan or none }}"
[[step.body.blocks]]
type = "section"
text = { type = "mrkdwn", text = "*{{ user.id }}*" }
[[step.body.blocks]]
type = "divider"
"#;

async fn a_slack_message_with_blocks_numbers_and_a_list_arrives_as_typed_json(backend: Backend) {
    let env = TestEnv::with(backend, Options { flows: vec![("slack", SLACK)], ..Options::default() }).await;
    let user = User::new();
    let webhook = user.created();
    env.send(&webhook).await;
    env.all_ended(1, SOON).await;
    let event: serde_json::Value = serde_json::from_str(&webhook.body).unwrap();
    let sent = &event["data"];
    let effects = env.effects("http");
    assert_eq!(effects.len(), 1);
    let first_name = sent["first_name"].as_str().filter(|name| !name.is_empty()).unwrap_or("Somebody");
    let expected = json!({
        "text": format!("{first_name} signed up"),
        "unfurl_links": false,
        "thread": { "replies": 3, "weight": 0.5, "tags": ["new", user.id] },
        "seq": 1,
        "since": sent["created_at"],
        "addresses": sent["email_addresses"],
        "blocks": [
            { "type": "section", "text": { "type": "mrkdwn", "text": format!("*{}*", user.id) } },
            { "type": "divider" },
        ],
    });
    assert_eq!(*effects[0].body, expected);
    env.end().await;
}
