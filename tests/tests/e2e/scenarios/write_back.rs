//! Writes to Clerk, and the webhooks that they cause: what starts itself comes to rest.

use reqwest::{Client, Method, Url};
use serde_json::{Value, json};
use usher_lab::Filter;
use usher_proto::signature::SigningSecret;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::test_env::{Options, SECRET, SOON, TestEnv};

usher_tests::on_both_backends!(
    a_flow_that_is_started_by_its_own_write_comes_to_rest,
    a_write_to_an_organization_is_made_once_and_comes_to_rest,
    the_ids_of_a_trial_are_written_back_where_clerk_is_configured,
);

/// Writes values that depend on the user, because of every event of the user.
const PLAN: &str = r#"
on   = ["clerk/user.*"]
from = "now"

[[step]]
name    = "write"
use     = "clerk.set_metadata"
public  = { plan = "pro", name = "{{ user.first_name or '' }}", old = "" }
private = { stripe = { customer = "cus_1", seats = 3 } }
"#;

const TEAM: &str = r#"
on   = ["clerk/organization.*"]
from = "now"

[[step]]
name            = "write"
use             = "clerk.set_organization_metadata"
organization_id = "{{ event.data.id }}"
public          = { name = "{{ event.data.name }}", seats = 3 }
"#;

/// Starts an environment whose double of Clerk sends its webhooks to ingest.
async fn env(backend: Backend, flows: Vec<(&'static str, &'static str)>) -> TestEnv {
    let env = TestEnv::with(backend, Options { flows, ..Options::default() }).await;
    let to = Url::parse(&format!("http://{}/webhooks/clerk", env.address())).unwrap();
    env.lab().send_webhooks(to, SigningSecret::parse(SECRET).unwrap()).unwrap();
    env
}

/// Makes a request to the double as the application does. Returns the object in the answer.
async fn application(env: &TestEnv, method: Method, path: &str, body: &Value) -> Value {
    let url = format!("{}/v1{path}", env.variable("CLERK_BASE_URL").unwrap());
    let request = Client::new().request(method, url).bearer_auth("sk_test_application");
    let answer = request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

/// Returns the operations of all requests to the double.
fn requests(env: &TestEnv) -> Vec<String> {
    let all = env.lab().requests(&Filter { provider: Some("clerk".into()), ..Filter::default() }).unwrap();
    all.iter().map(|entry| entry.operation.to_string()).collect()
}

fn count(operations: &[String], operation: &str) -> usize {
    operations.iter().filter(|it| *it == operation).count()
}

async fn a_flow_that_is_started_by_its_own_write_comes_to_rest(backend: Backend) {
    let env = env(backend, vec![("plan", PLAN)]).await;
    let user = json!({ "email_address": ["dana@mail.test"], "first_name": "Dana" });
    let user = application(&env, Method::POST, "/users", &user).await;
    let path = format!("/users/{}", user["id"].as_str().unwrap());
    // The signup writes. The update that this causes finds everything in place.
    let runs = env.all_ended(2, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done"), "{runs:?}");
    let stored = application(&env, Method::GET, &path, &Value::Null).await;
    assert_eq!(stored["public_metadata"], json!({ "plan": "pro", "name": "Dana" }));
    assert_eq!(stored["private_metadata"], json!({ "stripe": { "customer": "cus_1", "seats": 3 } }));

    // The application changes a value that the flow writes, and one that it does not.
    let other = json!({ "public_metadata": { "plan": "free", "old": 1 }, "unsafe_metadata": { "theme": "dark" } });
    application(&env, Method::PATCH, &format!("{path}/metadata"), &other).await;
    env.all_ended(4, SOON).await;
    let stored = application(&env, Method::GET, &path, &Value::Null).await;
    assert_eq!(stored["public_metadata"], json!({ "plan": "pro", "name": "Dana" }));
    assert_eq!(stored["unsafe_metadata"], json!({ "theme": "dark" }));

    // The double sends its webhooks in order: whatever the events so far would have caused arrives before those of this user.
    application(&env, Method::POST, "/users", &json!({ "first_name": "Zoe" })).await;
    let runs = env.all_ended(6, SOON).await;
    assert_eq!(runs.len(), 6, "{runs:?}");
    let in_place = runs.iter().filter(|run| run.story.iter().any(|entry| entry.outcome == "in_place")).count();
    assert_eq!(in_place, 3, "{runs:?}");
    let requests = requests(&env);
    assert_eq!(count(&requests, "users.metadata"), 3 + 1, "three of the flow, one of the application: {requests:?}");
    assert_eq!(count(&requests, "users.get"), 2, "those of this test: the snapshot shows what is in place");
    env.end().await;
}

async fn a_write_to_an_organization_is_made_once_and_comes_to_rest(backend: Backend) {
    let env = env(backend, vec![("team", TEAM)]).await;
    application(&env, Method::POST, "/organizations", &json!({ "name": "Acme" })).await;
    env.all_ended(2, SOON).await;
    application(&env, Method::POST, "/organizations", &json!({ "name": "Later" })).await;
    let runs = env.all_ended(4, SOON).await;
    assert!(runs.len() == 4 && runs.iter().all(|run| run.state == "done"), "{runs:?}");
    let requests = requests(&env);
    assert_eq!(count(&requests, "organizations.metadata"), 2, "{requests:?}");
    assert_eq!(count(&requests, "organizations.get"), 2, "an organization has no snapshot: {requests:?}");
    assert!(runs.iter().all(|run| run.effects.len() == 1), "reading is recorded, too: {runs:?}");
    env.end().await;
}

async fn the_ids_of_a_trial_are_written_back_where_clerk_is_configured(backend: Backend) {
    let env = TestEnv::with(backend.clone(), Options { built_in: &["trial"], ..Options::default() }).await;
    let user = User::new();
    env.send(&user.created()).await;
    env.all_ended(1, SOON).await;
    let made: Vec<Value> = env.effects("stripe").iter().map(|it| it.result.as_ref().unwrap()["id"].clone()).collect();
    let written = env.effects("clerk");
    assert_eq!((written.len(), written[0].user.as_deref()), (1, Some(user.id.as_str())));
    let ids = json!({ "stripe_customer_id": made[0], "stripe_subscription_id": made[1] });
    assert_eq!(*written[0].body, json!({ "private_metadata": ids }));
    // The event of the write changes neither address nor name.
    env.send(&user.changed().updated()).await;
    env.all_ended(2, SOON).await;
    assert_eq!((env.effects("clerk").len(), env.effects("stripe").len()), (1, 2));
    env.end().await;

    let settings = vec![("CLERK_SECRET_KEY", String::new())];
    let env = TestEnv::with(backend, Options { built_in: &["trial"], settings, ..Options::default() }).await;
    let user = User::new();
    env.send(&user.created()).await;
    let runs = env.all_ended(1, SOON).await;
    assert_eq!((runs[0].state.as_str(), env.effects("stripe").len(), requests(&env).len()), ("done", 2, 0));
    assert!(runs[0].story.iter().any(|entry| entry.outcome == "not_configured"), "{runs:?}");
    env.end().await;
}
