//! Unusual bodies from end users and other programs: fields that no flow uses change nothing, and forwarded values
//! arrive exactly as sent.

use sqlx::{AssertSqlSafe, Row as _};
use usher_engine::RunState;
use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    what_no_flow_asks_for_changes_nothing,
    a_time_in_another_type_wakes_and_orders_all_the_same,
    an_example_of_long_ago_is_carried_out,
);

const BUILT_IN: &[&str] = &["email", "trial", "db-sync", "newsletter", "search", "account-security"];

const TELL: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "tell"
use = "http.post"
url = "https://billing.test/x"
[[step]]
name = "print"
use = "http.post"
url = "https://crm.test/x"
body = { id = "{{ user.id }}", sent = "{{ user.unsafe_metadata | tojson }}" }
"#;

const CONSENT: &str = r#"
on = ["clerk/user.created"]
if = "event.data.private_metadata.level != 'internal'"
[[step]]
name = "consent"
when = "user.unsafe_metadata.newsletter == true or user.public_metadata.plan.tier > 5 or 'beta' in user.public_metadata.flags"
use = "http.post"
url = "https://consent.test/x"
body = { id = "{{ user.id }}" }
"#;

/// Returns the webhook with this text as its `unsafe_metadata`. The text is inserted unparsed, so that it need not fit
/// into a `Value`.
fn with_metadata(mut webhook: Webhook, metadata: &str) -> Webhook {
    webhook.body = webhook.body.replacen(
        r#""public_metadata":"#,
        &format!(r#""unsafe_metadata":{metadata},"public_metadata":"#),
        1,
    );
    webhook
}

async fn what_no_flow_asks_for_changes_nothing(backend: Backend) {
    let is_real = matches!(backend, Backend::Real(_));
    let flows = vec![("tell", TELL), ("consent", CONSENT)];
    let env = TestEnv::with(backend, Options { built_in: BUILT_IN, flows, ..Options::default() }).await;
    let deep = format!("{{\"x\":\"d\",\"n\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let exact = r#"{"x":"f","lat": 117.63331139400017,"e":9007199254740991.0,"huge":1e400}"#;
    let bodies = [
        (r#"{"x":"a","bio":"hello \ud83d"}"#, Some("a")),
        (r#"{"x":"b","nul":"a\u0000b","\u0000":1}"#, Some("b")),
        (r#"{"x":"c","newsletter":true}"#, Some("c")),
        (deep.as_str(), Some("d")),
        (r#"[{"x":1}]"#, None),
        (exact, Some("f")),
        ("null", None),
        ("1e400", None),
        (r#""\ud83d""#, None),
        ("true", None),
    ];
    let mut users = Vec::new();
    for (metadata, _) in bodies {
        let user = User::new();
        env.send(&with_metadata(user.created(), metadata)).await;
        users.push(user);
    }
    // `account-security` starts on other events.
    let runs = env.all_ended(bodies.len() * 7, SOON).await;
    let failed: Vec<_> = runs.iter().filter(|run| run.state != "done").collect();
    assert!(failed.is_empty(), "{failed:?}");

    for (provider, operation) in
        [("resend", "emails.send"), ("stripe", "customers.create"), ("stripe", "subscriptions.create")]
    {
        let effects = env.effects_by_user(provider, operation);
        assert!(users.iter().all(|user| effects.get(&user.id) == Some(&1)), "{provider} {operation}: {effects:?}");
    }
    assert_eq!(env.effects("mailchimp").len(), bodies.len());
    assert_eq!(env.effects("algolia").len(), bodies.len());
    let posts = env.effects("http");
    let to = |host: &str| posts.iter().filter(|post| post.to.as_deref() == Some(host)).collect::<Vec<_>>();
    assert_eq!((to("billing.test").len(), to("crm.test").len()), (bodies.len(), bodies.len()));
    assert_eq!(to("consent.test").iter().map(|post| &post.body["id"]).collect::<Vec<_>>(), [users[2].id.as_str()]);
    let sent = |user: &User| {
        to("crm.test").iter().find(|post| post.body["id"] == user.id.as_str()).unwrap().body["sent"].clone()
    };
    assert_eq!((sent(&users[5]), sent(&users[3])), (exact.into(), deep.as_str().into()), "byte for byte");
    assert_eq!(sent(&users[0]), r#"{"x":"a","bio":"hello \ufffd"}"#, "but for half a character");

    // Queries over the whole table work.
    let sql = "SELECT id, extra -> 'unsafe_metadata' ->> 'x' FROM usher_users";
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&env.pool().await).await.unwrap();
    for (user, (_, expected)) in users.iter().zip(bodies) {
        let row = rows.iter().find(|row| row.get::<String, _>(0) == user.id).expect("its row");
        assert_eq!(row.get::<Option<String>, _>(1).as_deref(), expected, "{}", user.id);
    }
    let sql = format!("SELECT CAST(extra AS TEXT) FROM usher_users WHERE id = '{}'", users[5].id);
    let (extra,): (String,) = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&env.pool().await).await.unwrap();
    assert!(extra.contains(exact), "{extra}, on a real database: {is_real}");
    env.end().await;
}

/// Returns the webhook with this text as its `updated_at`.
fn at(mut webhook: Webhook, user: &User, updated_at: &str) -> Webhook {
    let was = format!(r#""updated_at":{}"#, user.updated_at);
    assert!(webhook.body.contains(&was));
    webhook.body = webhook.body.replace(&was, &format!(r#""updated_at":{updated_at}"#));
    webhook
}

async fn a_time_in_another_type_wakes_and_orders_all_the_same(backend: Backend) {
    let env =
        TestEnv::with(backend, Options { built_in: &["email", "db-sync", "newsletter"], ..Options::default() }).await;
    for form in ["\"X\"", "X.0", "null"] {
        let of = |user: &User| form.replace('X', &user.updated_at.to_string());
        let waiting = User::without_email();
        env.send(&at(waiting.created(), &waiting, &of(&waiting))).await;
        let filter = RunFilter { states: vec![RunState::Waiting], ..RunFilter::default() };
        eventually("the welcome waits", SOON, || async { (env.runs(&filter).await.len() == 1).then_some(()) }).await;
        let brought = User { email: Some(format!("{}@mail.test", waiting.id.replace('_', "."))), ..waiting.changed() };
        env.send(&at(brought.updated(), &brought, &of(&brought))).await;
        eventually("it is woken", SOON, || async { env.runs(&filter).await.is_empty().then_some(()) }).await;
        eventually("the member is made", SOON, || async {
            let member = |effect: &std::sync::Arc<usher_lab::Entry>| effect.to == brought.email;
            (env.effects("mailchimp").iter().any(member) && env.effects("resend").iter().any(member)).then_some(())
        })
        .await;
        if form != "null" {
            env.send(&at(waiting.updated(), &waiting, &of(&waiting))).await;
            let late = |run: &usher_store::RunRecord| run.key == waiting.id && run.state == "superseded";
            eventually("the older one is late", SOON, || async {
                env.runs(&RunFilter::default()).await.iter().any(|run| run.flow == "db-sync" && late(run)).then_some(())
            })
            .await;
        }
        let email = brought.email.unwrap();
        eventually("its row has the address", SOON, || async {
            env.row(&waiting.id).await.filter(|row| row["email"] == email).map(drop)
        })
        .await;
    }
    env.end().await;
}

async fn an_example_of_long_ago_is_carried_out(backend: Backend) {
    let env = TestEnv::start(backend).await;
    let user = User { updated_at: 1_654_012_591_835, ..User::new() };
    let mut webhook = user.created();
    let now = webhook.body.rfind(r#""timestamp":"#).unwrap() + r#""timestamp":"#.len();
    webhook.body.replace_range(now..now + 13, "1654012591835");
    env.send(&webhook).await;
    let runs = env.all_ended(3, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done"), "{runs:?}");
    env.end().await;
}
