//! Webhooks of other senders than Clerk: what their libraries sign, whom they concern, and the replies that people write.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use usher_lab::Fault;
use usher_proto::text_signature::{STRIPE_PREFIX, TextSecret};
use usher_service::clock;
use usher_store::RunFilter;
use usher_tests::backend::{Backend, setting};
use usher_tests::events::User;
use usher_tests::test_env::{Options, SECRET, SOON, TestEnv};
use usher_tests::{eventually, private};

usher_tests::on_both_backends!(
    #[usher_tests::needs(sdks)]
    what_the_libraries_sign_is_accepted_and_what_is_changed_is_not,
    a_subscription_ends_the_campaign_of_its_user,
    a_reply_reaches_the_inbox_once_with_whom_it_is_from,
);

/// Time limit of the script.
const PATIENCE: Duration = Duration::from_secs(60);
const NYLAS_SECRET: &str = "nylas_webhook_secret_0123456789";
const INBOX: &str = "support@acme.test";

async fn what_the_libraries_sign_is_accepted_and_what_is_changed_is_not(backend: Backend) {
    let script = Path::new(&setting("USHER_TEST_SDKS")).join("webhooks.js");
    assert!(script.exists(), "USHER_TEST_SDKS names a folder without webhooks.js");
    let names = ["STRIPE_WEBHOOK_SECRET", "NYLAS_WEBHOOK_SECRET", "RESEND_WEBHOOK_SECRET", "USHER_SOURCE_ACME_SECRET"];
    let mut settings: Vec<_> = names.map(|name| (name, SECRET.to_owned())).into();
    settings.push(("USHER_SOURCE_ACME_KEY", "/data/user_id".to_owned()));
    let flows = vec![("all", ALL)];
    let env = TestEnv::with(backend, Options { flows, settings, ..Options::default() }).await;
    let mut node = Command::new("node");
    node.arg(script).kill_on_drop(true);
    node.env("USHER_TEST_INGEST", format!("http://{}", env.address())).env("USHER_TEST_SECRET", SECRET);
    let ended = tokio::time::timeout(PATIENCE, node.output()).await.expect("the script ends").expect("Node is there");
    let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(ended.status.success(), "{said}");

    // One of Stripe (the second delivery repeats it), one of Resend, two of the sender by name, two of Nylas.
    let runs = env.all_ended(6, SOON).await;
    let mut subjects: Vec<(&str, &str)> =
        runs.iter().map(|run| (run.source.as_str(), run.user.as_deref().unwrap_or("-"))).collect();
    subjects.sort_unstable();
    let user = "user_3Bqu1oNFV2Eo8dROJDkXzQSPQXY";
    assert_eq!(
        subjects,
        [("acme", user), ("acme", user), ("nylas", "-"), ("nylas", "-"), ("resend", user), ("stripe", user)]
    );
    assert!(runs.iter().all(|run| run.state == "done"), "{runs:?}");
    env.end().await;
}

const ALL: &str = r#"
on = ["stripe/*", "nylas/*", "resend/*", "acme/*"]
[[step]]
use = "resend.send"
to = "team@workplace.test"
subject = "{{ event.type }} of {{ event.user_id }}"
text = "{{ event.data | tojson }}"
"#;

const CAMPAIGN: &str = r#"
on = ["clerk/user.created"]
cancel_on = ["stripe/customer.subscription.created"]
[[step]]
wait = "30d"
[[step]]
use = "resend.send"
to = "{{ user.email }}"
subject = "Do you miss anything?"
text = "Hello"
"#;

async fn a_subscription_ends_the_campaign_of_its_user(backend: Backend) {
    let settings = vec![("STRIPE_WEBHOOK_SECRET", SECRET.to_owned())];
    let flows = vec![("campaign", CAMPAIGN)];
    let env = TestEnv::with(backend, Options { flows, settings, ..Options::default() }).await;
    let [buyer, other] = [User::new(), User::new()];
    env.send_all(&[buyer.created(), other.created()]).await;
    let waiting = async || {
        let runs = env.runs(&RunFilter::default()).await;
        runs.into_iter().filter(|run| run.state == "waiting").filter_map(|run| run.user).collect::<Vec<_>>()
    };
    eventually("both wait", SOON, || async { (waiting().await.len() == 2).then_some(()) }).await;

    let object = json!({ "object": "subscription", "customer": "cus_1", "metadata": { "clerk_user_id": buyer.id } });
    let event = |deliveries: u32| {
        json!({ "id": "evt_bought", "object": "event", "created": clock::now().seconds(), "pending_webhooks": deliveries,
            "type": "customer.subscription.created", "data": { "object": object } })
    };
    // Stripe repeats an event with another number in it; that is neither a second event nor a conflict.
    for deliveries in [2, 1] {
        let body = event(deliveries).to_string();
        let secret = TextSecret::parse_list(SECRET, STRIPE_PREFIX).unwrap().remove(0);
        let signature = secret.sign_stripe(&clock::now().seconds().to_string(), body.as_bytes());
        let (status, said) = env.post("/webhooks/stripe", &[("stripe-signature", signature)], body.into_bytes()).await;
        assert_eq!(status, 204, "{said}");
    }
    eventually("the buyer's ends", SOON, || async { (waiting().await == [other.id.clone()]).then_some(()) }).await;
    let runs = env.runs(&RunFilter::default()).await;
    let ended = runs.iter().find(|run| run.user.as_deref() == Some(&buyer.id)).unwrap();
    assert_eq!(ended.state, "cancelled");
    let (_, refused, _) = env.usher(&["dlq", "list"]);
    assert!(!refused.contains("event_conflict"), "{refused}");
    env.end().await;
}

/// A mail as Nylas tells of it.
fn message(id: &str, from: &str, to: &str, folder: &str) -> Value {
    let object = json!({
        "object": "message", "id": format!("m-{id}"), "grant_id": "of-acme", "thread_id": "t1", "subject": "Re: Your code",
        "from": [{ "name": "Ann", "email": from }], "to": [{ "name": "Acme", "email": to }], "cc": [], "bcc": [],
        "body": "<p>It does not arrive.<br>Can you help?</p><style>p{}</style>", "snippet": "It does not arrive.",
        "date": clock::now().seconds(), "folders": [folder],
    });
    json!({ "specversion": "1.0", "type": "message.created", "source": "/google/emails/realtime", "id": id,
        "time": clock::now().seconds(), "webhook_delivery_attempt": 1, "data": { "object": object } })
}

async fn deliver(env: &TestEnv, event: &Value) {
    private::remember(&json!({ "email_address": event["data"]["object"]["from"][0]["email"] }));
    let body = event.to_string().into_bytes();
    let signature = TextSecret::parse_list(NYLAS_SECRET, "").unwrap()[0].sign_nylas(&body);
    let (status, said) = env.post("/webhooks/nylas", &[("x-nylas-signature", signature)], body).await;
    assert_eq!(status, 204, "{said}");
}

async fn a_reply_reaches_the_inbox_once_with_whom_it_is_from(backend: Backend) {
    let settings = vec![
        ("NYLAS_WEBHOOK_SECRET", NYLAS_SECRET.to_owned()),
        ("USHER_REPLIES_TO", INBOX.to_owned()),
        ("USHER_FLOW", "replies".to_owned()),
    ];
    let mut env = TestEnv::with(backend, Options { built_in: &["replies"], settings, ..Options::default() }).await;
    let user = User::new();
    let address = user.email.clone().unwrap();
    env.send(&user.created()).await;
    let known = async || {
        let count = "SELECT count(*) FROM usher_subject";
        sqlx::query_as::<_, (i64,)>(count).fetch_one(&env.pool().await).await.unwrap().0
    };
    eventually("the user is known", SOON, || async { (known().await == 1).then_some(()) }).await;

    // The mail does not go out at once, the delivery is repeated meanwhile, and everything that delivers is killed.
    env.lab().set_fault("nylas", Fault { status: Some(503), ..Fault::default() }).unwrap();
    let mut reply = message("n-1", &address.to_uppercase(), "hello@acme.test", "INBOX");
    deliver(&env, &reply).await;
    let begun = async || env.runs(&RunFilter::default()).await.iter().any(|run| run.attempts > 0);
    eventually("it is tried", SOON, || async { begun().await.then_some(()) }).await;
    reply["webhook_delivery_attempt"] = json!(2);
    deliver(&env, &reply).await;
    env.kill_delivering().await;
    env.lab().end_fault("nylas").unwrap();
    env.go_on_delivering().await;
    reply["webhook_delivery_attempt"] = json!(3);
    deliver(&env, &reply).await;
    env.all_ended(1, SOON).await;

    let forwarded = env.effects("nylas");
    assert_eq!(forwarded.len(), 1, "{forwarded:?}");
    let mail = &forwarded[0].body;
    assert_eq!(
        (&mail["to"][0]["email"], &mail["reply_to"][0]["email"]),
        (&json!(INBOX), &json!(address.to_uppercase()))
    );
    assert_eq!(mail["subject"], "Re: Your code");
    let text = mail["body"].as_str().unwrap();
    for part in [
        &format!("From: Ann <{}>", address.to_uppercase()),
        &format!("User: {} (Ann Lee)", user.id),
        "It does not arrive.\nCan you help?",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("p{}"), "{text}");

    // What the mailbox has sent itself, and what was forwarded, stays where it is. A mail that Nylas cut says so.
    deliver(&env, &message("n-2", "hello@acme.test", &address, "SENT")).await;
    deliver(&env, &message("n-3", "hello@acme.test", &address, "AQMkAD")).await;
    deliver(&env, &message("n-4", "hello@acme.test", INBOX, "AQMkAD")).await;
    deliver(&env, &message("n-5", INBOX, "hello@acme.test", "INBOX")).await;
    let mut cut = message("n-6", "stranger@mail.test", "hello@acme.test", "INBOX");
    cut["type"] = json!("message.created.truncated");
    cut["data"]["object"].as_object_mut().unwrap().remove("body");
    deliver(&env, &cut).await;
    // The one in SENT starts no run.
    env.all_ended(5, SOON).await;
    let forwarded = env.effects("nylas");
    assert_eq!(forwarded.len(), 2, "{forwarded:?}");
    let text = forwarded[1].body["body"].as_str().unwrap();
    for part in ["User: nobody with this address", "larger than what Nylas passes on", "m-n-6"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    env.end().await;
}
