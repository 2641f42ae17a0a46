//! The built-in flows after the first three: each makes the right calls in order, and none where none is due.

use serde_json::{Value, json};
use usher_eventlog::LogEvent;
use usher_lab::Fault;
use usher_proto::unsubscribe::address_key;
use usher_proto::{AddressDigest, Instance, Key, Source, SubjectId};
use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    clerks_mails_are_sent_as_clerk_has_rendered_them_and_codes_expire,
    only_a_real_change_of_how_somebody_signs_in_is_told,
    whoever_leaves_has_no_trial_any_more,
    the_customer_of_a_trial_follows_the_address_and_the_name,
    the_newsletter_follows_the_address_and_forgets_who_leaves,
    a_newsletters_member_is_the_address_and_not_the_user,
    the_index_follows_the_newest_state,
    a_workflow_is_chosen_by_the_type_of_the_event,
);

async fn env(backend: Backend, flow: &'static [&'static str]) -> TestEnv {
    TestEnv::with(backend, Options { built_in: flow, ..Options::default() }).await
}

/// Returns the webhook with these fields of its `data` set.
fn with(mut webhook: Webhook, fields: &Value) -> Webhook {
    let mut body: Value = serde_json::from_str(&webhook.body).unwrap();
    for (name, value) in fields.as_object().unwrap() {
        body["data"][name] = value.clone();
    }
    webhook.body = body.to_string();
    webhook
}

/// Returns the webhook with a `timestamp` that is `minutes` older.
fn old(mut webhook: Webhook, minutes: i64) -> Webhook {
    let mut body: Value = serde_json::from_str(&webhook.body).unwrap();
    body["timestamp"] = json!(body["timestamp"].as_i64().unwrap() - minutes * 60_000);
    webhook.body = body.to_string();
    webhook
}

fn mail(key: &str, to: &str, slug: &str, fields: &Value) -> Webhook {
    let user = key.starts_with("user_").then_some(key);
    let data = json!({
        "id": usher_tests::unique("ema_"), "object": "email", "slug": slug, "from_email_name": "notifications",
        "to_email_address": to, "email_address_id": null, "user_id": user, "reply_to_email_name": null,
        "subject": "482913 is your code", "body": "<p>482913 &amp; welcome</p>", "body_plain": "482913 & welcome",
        "status": "queued", "delivered_by_clerk": false, "data": {"otp_code": "482913"},
    });
    with(Webhook::new("email.created", key, &data), fields)
}

async fn clerks_mails_are_sent_as_clerk_has_rendered_them_and_codes_expire(backend: Backend) {
    let env = env(backend, &["auth-email"]).await;
    let user = User::new();
    env.send(&mail(&user.id, "a@mail.test", "verification_code", &json!({"delivered_by_clerk": true}))).await;
    env.send(&mail(&user.id, "a@mail.test", "verification_code", &json!({}))).await;
    env.send(&mail("new@mail.test", "New@Mail.test", "verification_code", &json!({}))).await;
    let invitation = mail("guest@mail.test", "guest@mail.test", "invitation", &json!({"data": {}}));
    env.send(&old(invitation, 11)).await;
    let late = old(mail(&user.id, "late@mail.test", "reset_password_code", &json!({})), 11);
    env.send(&late).await;
    let runs = env.all_ended(4, SOON).await;

    let mails = env.effects("resend");
    let mut to: Vec<&str> = mails.iter().filter_map(|mail| mail.to.as_deref()).collect();
    to.sort_unstable();
    assert_eq!(
        to,
        ["New@Mail.test", "a@mail.test", "guest@mail.test"],
        "none twice, and the code that is late not at all"
    );
    for mail in &mails {
        assert_eq!(mail.body["subject"], "482913 is your code");
        assert_eq!(mail.body["html"], "<p>482913 &amp; welcome</p>", "as it is");
        assert_eq!(mail.body["text"], "482913 & welcome");
    }
    // A run without a user has the digest of the address as its key.
    let key = address_key(AddressDigest::of("new@mail.test"));
    assert!(runs.iter().any(|run| run.key == key.as_str() && run.user.is_none() && run.state == "done"), "{runs:?}");
    let dead = runs.iter().find(|run| run.event == late.id).unwrap();
    assert_eq!((dead.state.as_str(), dead.reason.as_deref()), ("dead", Some("expired")));

    // The code is stored neither in the store nor in the dead letter.
    let (kept,): (i64,) =
        sqlx::query_as("SELECT count(*) FROM usher_run WHERE body IS NOT NULL OR request IS NOT NULL")
            .fetch_one(&env.pool().await)
            .await
            .unwrap();
    assert_eq!(kept, 0);
    // A refused code can be redriven from the store until it expires: its dead letter has no body either.
    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    env.send(&mail(&user.id, "refused@mail.test", "verification_code", &json!({}))).await;
    env.all_ended(runs.len() + 1, SOON).await;
    let log = env.log().await;
    let mut letters = log.subscribe(&env.topic("test"), &env.topic("dlq.auth-email")).await.unwrap();
    let mut found = Vec::new();
    while found.len() < 2 {
        match letters.events.recv().await.expect("the log goes on") {
            LogEvent::Assigned { assignment, partitions } => {
                letters.control.start(assignment, partitions.iter().map(|it| (it.partition, it.low)).collect());
            }
            LogEvent::Records { records, .. } => found.extend(records.into_iter().map(|(_, letter)| letter)),
            _ => {}
        }
    }
    let mut told: Vec<_> = found.iter().map(|letter| (letter.header("usher-reason"), letter.body.len())).collect();
    told.sort_unstable();
    assert_eq!(told, [(Some("expired"), 0), (Some("invalid_request"), 0)]);
    letters.control.close().await;
    env.end().await;
}

#[tokio::test]
async fn a_code_is_gone_from_the_stores_files_soon_after_its_run_has_ended() {
    const CODE: &str = "code-7261-of-nobody-else";
    let mut env = env(Backend::Embedded, &["auth-email"]).await;
    let user = User::new();
    for _ in 0..20 {
        let body = json!({"body": format!("<p>{CODE}</p>"), "body_plain": CODE, "data": {"otp_code": CODE}});
        env.send(&mail(&user.id, "a@mail.test", "verification_code", &body)).await;
    }
    let data = env.folder().join("data");
    let holding = || {
        let names = ["store.db", "store.db-wal"].into_iter();
        let holds = |name: &&str| {
            // A checkpointed WAL file may be gone.
            let bytes = std::fs::read(data.join(name)).unwrap_or_default();
            bytes.windows(CODE.len()).any(|window| window == CODE.as_bytes())
        };
        names.filter(holds).collect::<Vec<_>>()
    };
    let runs = env.all_ended(20, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done"), "{runs:?}");
    eventually("no file of the store has the code any more", SOON, || async { holding().is_empty().then_some(()) })
        .await;

    // A stop removes the code at once.
    env.send(&mail(&user.id, "a@mail.test", "verification_code", &json!({"body": CODE, "body_plain": CODE}))).await;
    env.all_ended(21, SOON).await;
    env.stop_delivering().await;
    assert_eq!(holding(), [""; 0]);
    env.end().await;
}

async fn only_a_real_change_of_how_somebody_signs_in_is_told(backend: Backend) {
    let env = env(backend, &["account-security"]).await;
    let safe = json!({"password_enabled": true, "two_factor_enabled": false, "totp_enabled": false});
    let factor = json!({"password_enabled": true, "two_factor_enabled": true, "totp_enabled": true});
    let user = User::new();
    let first = user.email.clone().unwrap();
    let named = user.changed();
    let moved = User { email: Some("new@mail.test".into()), ..user.changed().changed() };
    let between = User { email: Some("between@mail.test".into()), ..named.clone() };
    let last = moved.changed();
    env.send(&with(user.created(), &safe)).await;
    env.send(&with(named.updated(), &safe)).await;
    env.send(&with(moved.updated(), &safe)).await;
    // Older than the stored state: it contains another address, but nothing has changed.
    env.send(&with(between.updated(), &factor)).await;
    env.send(&with(last.updated(), &factor)).await;
    // The first event of an unknown user contains no change.
    env.send(&with(User::new().updated(), &factor)).await;
    let runs = env.all_ended(5, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done"), "{runs:?}");
    let mails = env.effects("resend");
    let told: Vec<(&str, &str)> =
        mails.iter().map(|mail| (mail.to.as_deref().unwrap(), mail.body["subject"].as_str().unwrap())).collect();
    let address = "The address of your account was changed";
    let changed = "How you sign in was changed";
    assert_eq!(told, [(first.as_str(), address), ("new@mail.test", changed), ("new@mail.test", changed)]);
    let text = |mail: usize| mails[mail].body["text"].as_str().unwrap().to_owned();
    assert!(text(1).contains("the primary address") && !text(1).contains("authenticator"), "{}", text(1));
    assert!(text(2).contains("the authenticator app") && !text(2).contains("the primary address"), "{}", text(2));
    assert_eq!(kept_before(&env).await, 0, "what was before is forgotten with the run");

    env.send(&last.deleted()).await;
    eventually("the user is forgotten", SOON, || async {
        let sql = "SELECT count(*) FROM usher_remembered WHERE subject = $1 AND fields IS NULL";
        let subject = SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(&user.id));
        let (forgotten,): (i64,) =
            sqlx::query_as(sql).bind(subject.as_str()).fetch_one(&env.pool().await).await.unwrap();
        (forgotten == 1).then_some(())
    })
    .await;
    env.end().await;
}

async fn kept_before(env: &TestEnv) -> i64 {
    let sql = "SELECT count(*) FROM usher_run WHERE before_event IS NOT NULL";
    let (kept,): (i64,) = sqlx::query_as(sql).fetch_one(&env.pool().await).await.unwrap();
    kept
}

async fn whoever_leaves_has_no_trial_any_more(backend: Backend) {
    let env = env(backend, &["trial"]).await;
    let stays = User::new();
    let leaves = User::new();
    let hurries = User::new();
    env.send_all(&[stays.created(), leaves.created()]).await;
    env.all_ended(2, SOON).await;
    env.send(&leaves.deleted()).await;
    env.all_ended(3, SOON).await;
    let cancelled = env.effects_by_user("stripe", "subscriptions.cancel");
    assert_eq!(cancelled.into_iter().collect::<Vec<_>>(), [(leaves.id.clone(), 1)]);

    // A user is deleted while Stripe is down: the subscription is not created, or is cancelled if it was.
    env.lab().set_fault("stripe", Fault { status: Some(503), ..Fault::default() }).unwrap();
    env.send(&hurries.created()).await;
    env.send(&hurries.deleted()).await;
    let run = RunFilter { key: Some(hurries.id.clone()), ..RunFilter::default() };
    eventually("both are known", SOON, || async { (env.runs(&run).await.len() == 2).then_some(()) }).await;
    env.lab().end_fault("stripe").unwrap();
    let runs = env.all_ended(5, SOON).await;
    assert!(runs.iter().filter(|run| run.kind == "user.deleted").all(|run| run.state == "done"), "{runs:?}");
    let made = env.effects_by_user("stripe", "subscriptions.create");
    let cancelled = env.effects_by_user("stripe", "subscriptions.cancel");
    assert_eq!(made.get(&hurries.id), cancelled.get(&hurries.id), "nothing is left running");
    assert!(!cancelled.contains_key(&stays.id));
    env.end().await;
}

async fn the_customer_of_a_trial_follows_the_address_and_the_name(backend: Backend) {
    let env = env(backend, &["trial"]).await;
    let user = User::new();
    let moved = User { email: Some("moved@mail.test".into()), ..user.changed() };
    let renamed = User { first_name: "Zo\u{eb}".into(), ..moved.changed() };
    let webhooks = [
        user.created(),
        user.changed().updated(), // Neither has changed.
        moved.changed().updated(),
        renamed.changed().updated(),
        renamed.changed().changed().deleted(),
    ];
    for (index, webhook) in webhooks.iter().enumerate() {
        env.send(webhook).await;
        env.all_ended(index + 1, SOON).await;
    }
    let did = env.effects("stripe");
    let operations: Vec<&str> = did.iter().map(|effect| &*effect.operation).collect();
    let updated = "customers.update";
    assert_eq!(operations, ["customers.create", "subscriptions.create", updated, updated, "subscriptions.cancel"]);
    let customer = &did[0].result.as_ref().unwrap()["id"];
    for (effect, email) in did[2..4].iter().zip(["moved@mail.test", "moved@mail.test"]) {
        let result = effect.result.as_ref().unwrap();
        assert_eq!((&result["id"], &result["email"]), (customer, &json!(email)));
    }
    assert!(did[3].result.as_ref().unwrap()["name"].as_str().unwrap().starts_with("Zo\u{eb}"));
    env.end().await;
}

async fn the_newsletter_follows_the_address_and_forgets_who_leaves(backend: Backend) {
    let env = env(backend, &["newsletter"]).await;
    let user = User::new();
    let first = user.email.clone().unwrap();
    let moved = User { email: Some("moved@mail.test".into()), ..user.changed() };
    let webhooks = [
        user.created(),
        user.changed().updated(), // No field of the member has changed.
        moved.changed().updated(),
        moved.changed().changed().deleted(),
    ];
    for (index, webhook) in webhooks.iter().enumerate() {
        env.send(webhook).await;
        env.all_ended(index + 1, SOON).await;
    }
    let first = Some(first.as_str());
    let moved = Some("moved@mail.test");
    // An unconfirmed member is unsubscribed before being archived.
    let put = "members.put";
    let end = "members.update";
    let archive = "members.archive";
    let did = env.effects("mailchimp");
    let did: Vec<(&str, Option<&str>)> = did.iter().map(|effect| (&*effect.operation, effect.to.as_deref())).collect();
    assert_eq!(did, [(put, first), (put, moved), (end, first), (archive, first), (end, moved), (archive, moved)]);
    assert_eq!(env.effects("mailchimp")[0].body["status_if_new"], "pending", "Mailchimp asks for consent");

    // A user changes the address and is deleted while Mailchimp is down: no member of either address remains.
    env.lab().set_fault("mailchimp", Fault { status: Some(503), ..Fault::default() }).unwrap();
    let hurries = User { email: Some("one@mail.test".into()), ..User::new() };
    let moved = User { email: Some("two@mail.test".into()), ..hurries.changed() };
    env.send(&hurries.created()).await;
    let failed = usher_lab::Filter { provider: Some("mailchimp".into()), ..usher_lab::Filter::default() };
    let seen = env.lab().requests(&failed).unwrap().len();
    eventually("it is tried", SOON, || async { (env.lab().requests(&failed).unwrap().len() > seen).then_some(()) })
        .await;
    env.send(&moved.updated()).await;
    env.lab().end_fault("mailchimp").unwrap();
    env.send(&moved.changed().deleted()).await;
    env.all_ended(7, SOON).await;
    let did = env.effects("mailchimp");
    for address in ["one@mail.test", "two@mail.test"] {
        let last = did.iter().rev().find(|effect| effect.to.as_deref() == Some(address));
        assert!(last.is_none_or(|effect| effect.operation == archive), "{address}: {last:?}");
    }
    env.end().await;
}

/// Returns the record of an address in the double of Mailchimp.
async fn member(env: &TestEnv, email: &str) -> Value {
    let url = env.variable("MAILCHIMP_BASE_URL").unwrap();
    let request = reqwest::Client::new().get(format!("{url}/3.0/lists/1ab0000000/members/{email}"));
    let text = request.bearer_auth("lab-us1").send().await.unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap()
}

async fn a_newsletters_member_is_the_address_and_not_the_user(backend: Backend) {
    let env = env(backend, &["newsletter"]).await;
    let mut runs = 0;
    let mut send = async |webhook: &Webhook| {
        runs += 1;
        env.send(webhook).await;
        let runs = env.all_ended(runs, SOON).await;
        assert!(runs.iter().all(|run| run.state == "done"), "{runs:?}");
    };
    let with = |user: &User, email: &str| User { email: Some(email.into()), ..user.clone() };
    let status = async |email: &str| member(&env, email).await["status"].clone();

    // The same address in different case causes no request.
    let ada = with(&User::new(), "Ada@Mail.test");
    send(&ada.created()).await;
    let before = env.effects("mailchimp").len();
    let lower = with(&ada.changed(), "ada@mail.test");
    send(&lower.updated()).await;
    assert_eq!((env.effects("mailchimp").len(), status("ada@mail.test").await), (before, json!("pending")));

    // Two users share an address: its member stays until both have left the address.
    let bob = with(&User::new(), "ada@mail.test");
    send(&bob.created()).await;
    let moved = with(&lower.changed(), "ada.new@mail.test");
    send(&moved.updated()).await;
    assert_eq!(
        (status("ada@mail.test").await, status("ada.new@mail.test").await),
        (json!("pending"), json!("pending"))
    );
    send(&bob.changed().deleted()).await;
    assert_eq!(status("ada@mail.test").await, "archived");

    // A user who signs up again is asked for consent again.
    send(&with(&User::new(), "ADA@mail.test").created()).await;
    assert_eq!(status("ada@mail.test").await, "pending");

    // A confirmed member keeps its history under a new address. A user who changes the address and immediately changes
    // it back is never archived.
    let url = env.variable("MAILCHIMP_BASE_URL").unwrap();
    let url = format!("{url}/3.0/lists/1ab0000000/members/ada.new@mail.test");
    let confirm = reqwest::Client::new().patch(url).bearer_auth("lab-us1").header("content-type", "application/json");
    assert!(confirm.body(r#"{"status":"subscribed"}"#).send().await.unwrap().status().is_success());
    let history = member(&env, "ada.new@mail.test").await["contact_id"].clone();
    let again = with(&moved.changed(), "ada.third@mail.test");
    send(&again.updated()).await;
    let third = member(&env, "ada.third@mail.test").await;
    assert_eq!((&third["status"], &third["contact_id"]), (&json!("subscribed"), &history));
    assert_eq!(status("ada.new@mail.test").await, 404, "it is the same member");
    env.lab().set_fault("mailchimp", Fault { status: Some(503), ..Fault::default() }).unwrap();
    let away = with(&again.changed(), "ada.fourth@mail.test");
    env.send(&away.updated()).await;
    env.send(&with(&away.changed(), "ada.third@mail.test").updated()).await;
    env.lab().end_fault("mailchimp").unwrap();
    env.all_ended(runs + 2, SOON).await;
    assert_eq!(member(&env, "ada.third@mail.test").await["contact_id"], history);
    env.end().await;
}

async fn the_index_follows_the_newest_state(backend: Backend) {
    let env = env(backend, &["search"]).await;
    let user = User::new();
    let leaves = User::new();
    let newer = User { first_name: "Zoe".into(), ..user.changed() };
    for webhook in [newer.updated(), user.created(), leaves.created(), leaves.deleted()] {
        env.send(&webhook).await;
    }
    let runs = env.all_ended(4, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done" || run.key == leaves.id), "{runs:?}");
    let did = env.effects("algolia");
    let of = |user: &User| -> Vec<&str> {
        did.iter().filter(|it| it.user.as_ref() == Some(&user.id)).map(|it| &*it.operation).collect()
    };
    assert_eq!(of(&leaves).last(), Some(&"objects.delete"));
    for saved in did.iter().filter(|it| it.user.as_ref() == Some(&user.id)) {
        assert_eq!(saved.body["name"], "Zoe Lee", "the newest, whichever event it is about");
        assert!(!saved.body.to_string().contains('@'), "no address is put where browsers search: {}", saved.body);
    }
    env.end().await;
}

async fn a_workflow_is_chosen_by_the_type_of_the_event(backend: Backend) {
    let env = env(backend, &["notify"]).await;
    let user = User::new();
    let organization = json!({"id": "org_1", "object": "organization", "name": "Acme & Co"});
    let membership = json!({
        "id": "orgmem_1", "object": "organization_membership", "role": "org:member", "organization": organization,
        "public_user_data": {"user_id": user.id, "first_name": null},
    });
    env.send(&user.created()).await;
    // The first event of a user tells what is remembered; this one changes nothing of it.
    env.send(&user.updated()).await;
    env.send(&Webhook::new("organizationMembership.created", &user.id, &membership)).await;
    // The payer is an organization, so there is no user to notify.
    let payer = json!({"object": "commerce_payer", "id": "cpayer_1", "user_id": "", "organization_id": "org_1"});
    let bill = json!({"id": "csub_1", "object": "commerce_subscription", "status": "past_due", "payer": payer});
    env.send(&Webhook::new("subscription.pastDue", "org_1", &bill)).await;
    let runs = env.all_ended(3, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done"), "{runs:?}");
    let triggered = env.effects("novu");
    let workflows: Vec<&Value> = triggered.iter().map(|it| &it.body["name"]).collect();
    assert_eq!(workflows, ["user-created", "organizationmembership-created"]);
    for it in &triggered {
        assert_eq!(it.body["to"]["subscriberId"], user.id.as_str());
        assert_eq!(it.body["to"]["email"], user.email.as_deref().unwrap());
    }
    assert_eq!(triggered[1].body["payload"]["organization"], "Acme & Co");

    // Another address reaches Novu without a workflow, and nothing of a deleted user stays there.
    let moved = User { email: Some("ann@moved.test".into()), ..user.changed() };
    env.send(&moved.updated()).await;
    env.all_ended(4, SOON).await;
    env.send(&user.deleted()).await;
    env.all_ended(5, SOON).await;
    let did = env.effects("novu");
    let later: Vec<&str> = did[2..].iter().map(|it| &*it.operation).collect();
    assert_eq!(later, ["subscribers.update", "subscribers.remove"]);
    assert_eq!((&did[2].body["email"], &did[2].body["phone"]), (&json!("ann@moved.test"), &Value::Null));
    assert!(did[2..].iter().all(|it| it.user.as_deref() == Some(user.id.as_str())));
    env.end().await;
}
