//! The instances of a sender are separate: each has its own accounts, and a flow does nothing for an instance it
//! does not name.

use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usher_lab::{Filter, Lab};
use usher_proto::{Key, Record, headers};
use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    an_instance_reaches_its_own_accounts_and_no_others,
    the_secret_of_one_instance_rules_over_nobody_of_another,
    one_id_at_two_instances_is_two_events_and_two_bodies_under_one_id_are_seen,
    a_webhook_that_comes_again_cancels_nothing_later,
    a_record_that_is_no_event_is_shown_once,
);

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

const BOTH: &str = r#"
on = ["clerk/user.created"]
instances = ["default", "staging"]
[[step]]
use = "resend.send"
to = "{{ user.email }}"
subject = "both"
text = "hello"
"#;

const LIVE: &str = r#"
on = ["clerk/user.created"]
[[step]]
use = "resend.send"
to = "{{ user.email }}"
subject = "live"
text = "hello"
"#;

async fn an_instance_reaches_its_own_accounts_and_no_others(backend: Backend) {
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let staging = Lab::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), stop).unwrap();
    let settings = vec![
        ("CLERK_WEBHOOK_SIGNING_SECRET_STAGING", SECRET.to_owned()),
        ("RESEND_API_KEY_STAGING", "re_staging".to_owned()),
        ("RESEND_BASE_URL_STAGING", staging.base_url("resend").unwrap()),
    ];
    let flows = vec![("both", BOTH), ("live", LIVE)];
    let env = TestEnv::with(backend, Options { flows, settings, ..Options::default() }).await;
    let there = User::new();
    let here = User::new();
    let webhook = there.created();
    let body = webhook.body.clone().into_bytes();
    assert_eq!(env.post("/webhooks/clerk/staging", &webhook.headers(SECRET), body).await.0, 204);
    env.send(&here.created()).await;

    env.all_ended(3, SOON).await;
    let sent = |lab: &Lab| {
        let mails = lab.effects(&Filter::default()).unwrap();
        let mail = |entry: &std::sync::Arc<usher_lab::Entry>| {
            format!("{} to {}", entry.body["subject"].as_str().unwrap(), entry.to.as_deref().unwrap())
        };
        let mut mails: Vec<String> = mails.iter().map(mail).collect();
        mails.sort();
        mails
    };
    let there = there.email.unwrap();
    let here = here.email.unwrap();
    eventually("the mails are there", SOON, || async { (sent(staging.lab()).len() == 1).then_some(()) }).await;
    assert_eq!(sent(staging.lab()), [format!("both to {there}")]);
    assert_eq!(sent(env.lab()), [format!("both to {here}"), format!("live to {here}")]);
    env.end().await;
}

/// A wait, then a mail to the address as it is then. Later events of the user cancel the run.
const CAMPAIGN: &str = r#"
on = ["clerk/user.created"]
cancel_on = ["clerk/user.deleted", "clerk/session.created"]
[[step]]
name = "later"
wait = "4s"
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
subject = "campaign"
text = "hello"
"#;

const THERE: &str = r#"
on = ["clerk/user.created"]
instances = ["staging"]
[[step]]
use = "resend.send"
to = "{{ user.email }}"
subject = "there"
text = "hello"
"#;

async fn with_staging(backend: Backend, flows: Vec<(&'static str, &'static str)>) -> TestEnv {
    let settings = vec![
        ("CLERK_WEBHOOK_SIGNING_SECRET_STAGING", SECRET.to_owned()),
        ("RESEND_API_KEY_STAGING", "re_staging".to_owned()),
    ];
    TestEnv::with(backend, Options { flows, settings, ..Options::default() }).await
}

async fn send_to_staging(env: &TestEnv, webhook: &Webhook) {
    let body = webhook.body.clone().into_bytes();
    assert_eq!(env.post("/webhooks/clerk/staging", &webhook.headers(SECRET), body).await.0, 204);
}

async fn the_secret_of_one_instance_rules_over_nobody_of_another(backend: Backend) {
    let env = with_staging(backend, vec![("campaign", CAMPAIGN), ("there", THERE)]).await;
    let user = User::new();
    env.send(&user.created()).await;
    eventually("the run waits", SOON, || async {
        let runs = env.runs(&RunFilter { flow: Some("campaign".into()), ..RunFilter::default() }).await;
        runs.first().filter(|run| run.state == "waiting").map(drop)
    })
    .await;
    // The holder of the other instance's secret knows the user's id and reports a changed address, then a deletion.
    let moved = User { email: Some("thief@mail.test".into()), updated_at: user.updated_at + 1_000_000, ..user.clone() };
    for webhook in
        [moved.updated(), moved.deleted(), Webhook::new("session.created", &user.id, &json!({"user_id": user.id}))]
    {
        send_to_staging(&env, &webhook).await;
    }
    // Once the following event is done, all earlier ones have been read.
    let other = User::new();
    send_to_staging(&env, &other.created()).await;
    let runs = env.all_ended(2, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done" && run.note.is_none()), "{runs:?}");
    let mut to: Vec<String> = env.effects("resend").iter().filter_map(|mail| mail.to.clone()).collect();
    to.sort();
    let mut expected = vec![user.email.clone().unwrap(), other.email.unwrap()];
    expected.sort();
    assert_eq!(to, expected);
    // A tombstone of the other instance has no effect here later either.
    env.send(&user.changed().created()).await;
    let again = env.all_ended(3, SOON).await;
    assert!(again.iter().all(|run| run.state == "done"), "{again:?}");
    env.end().await;
}

async fn one_id_at_two_instances_is_two_events_and_two_bodies_under_one_id_are_seen(backend: Backend) {
    let env = with_staging(backend, vec![("live", LIVE), ("there", THERE)]).await;
    let first = User::new().created();
    env.send(&first).await;
    send_to_staging(&env, &first).await;
    let runs = env.all_ended(2, SOON).await;
    let mut flows: Vec<&str> = runs.iter().map(|run| run.flow.as_str()).collect();
    flows.sort_unstable();
    assert_eq!(flows, ["live", "there"]);

    let other = Webhook { id: first.id.clone(), ..User::new().created() };
    env.send(&other).await;
    eventually("the second body is shown", SOON, || async {
        let (code, listed, _) = env.usher(&["dlq", "list"]);
        (code == 0 && listed.contains("event_conflict") && listed.contains(&other.id)).then_some(())
    })
    .await;
    assert_eq!(env.runs(&RunFilter::default()).await.len(), 2, "it started nothing");
    env.end().await;
}

async fn a_webhook_that_comes_again_cancels_nothing_later(backend: Backend) {
    let env = with_staging(backend, vec![("campaign", CAMPAIGN)]).await;
    let user = User::new();
    let back = Webhook::new("session.created", &user.id, &json!({"user_id": user.id}));
    let state_of = async |id: &str| {
        let runs = env.runs(&RunFilter { event: Some(id.to_owned()), ..RunFilter::default() }).await;
        runs.first().map(|run| run.state.clone())
    };
    let first = user.created();
    let second = user.changed().created();
    env.send(&first).await;
    env.send(&back).await;
    eventually("the first is cancelled", SOON, || async {
        state_of(&first.id).await.filter(|state| state == "cancelled").map(drop)
    })
    .await;
    env.send(&second).await;
    env.send(&back).await;
    let runs = env.all_ended(2, SOON).await;
    assert_eq!(state_of(&second.id).await.as_deref(), Some("done"), "{runs:?}");
    assert_eq!(env.effects("resend").len(), 1);
    env.end().await;
}

async fn a_record_that_is_no_event_is_shown_once(backend: Backend) {
    let env = with_staging(backend, vec![("live", LIVE), ("there", THERE)]).await;
    let log = env.log().await;
    let good = User::new().created().record();
    let not_utf8 = Record { body: Bytes::from_static(b"{\xff}"), ..good.clone() };
    let mut long_id = good.clone();
    long_id.headers.retain(|(name, _)| name != headers::EVENT_ID);
    long_id.headers.push((headers::EVENT_ID.into(), "x".repeat(10_000)));
    let foreign =
        Record { key: Key::new("k"), headers: vec![("a".into(), "b".into())], body: Bytes::from_static(b"\0") };
    for record in [not_utf8, long_id, foreign] {
        log.append(&env.layout().events(), record).await.unwrap();
    }
    env.send(&User::new().created()).await;
    env.all_ended(1, SOON).await;
    let listed = eventually("all three are shown", SOON, || async {
        let (_, listed, _) = env.usher(&["dlq", "list", "--json"]);
        (listed.lines().count() >= 3).then_some(listed)
    })
    .await;
    assert_eq!(listed.lines().count(), 3, "once for both flows: {listed}");
    assert!(listed.lines().all(|line| line.contains("\"malformed\"")), "{listed}");
    env.end().await;
}
