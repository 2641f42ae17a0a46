//! Recipients who get no mail: unsubscribed, suppressed, or not on the allowlist.

use serde_json::{Value, json};
use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::test_env::{Options, SECRET, SOON, TestEnv};

usher_tests::on_both_backends!(
    a_click_ends_marketing_mail_and_nothing_else,
    who_is_suppressed_gets_nothing_until_restored,
    only_who_is_named_is_written_to,
    a_hard_bounce_suppresses_its_address,
);

const NEWS: &str = r#"
on = ["clerk/user.updated"]
[[step]]
name = "news"
use = "resend.send"
marketing = "news"
to = "{{ user.email }}"
subject = "news"
html = "<a href='{{ unsubscribe_url }}'>no more</a>"
"#;

const ACCOUNT: &str = r#"
on = ["clerk/user.updated"]
[[step]]
name = "account"
use = "smtp.send"
to = "{{ user.name }} <{{ user.email }}>"
subject = "account"
text = "Something has changed."
"#;

/// Base URL of the links. The programs' real addresses are assigned by the system and not known in advance.
const PUBLIC: &str = "https://acme.test/hooks";

fn options(more: &[(&'static str, &'static str)]) -> Options {
    let links = [("USHER_UNSUBSCRIBE_SECRET", "0123456789abcdef0123456789abcdef"), ("USHER_PUBLIC_URL", PUBLIC)];
    let settings = links.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned())).collect();
    Options { flows: vec![("news", NEWS), ("account", ACCOUNT)], settings, ..Options::default() }
}

/// Sends an event and returns the note of its run in each flow, or `sent` if there is none.
async fn came(env: &TestEnv, webhook: &Webhook) -> [String; 2] {
    env.send(webhook).await;
    let filter = RunFilter { event: Some(webhook.id.clone()), ..RunFilter::default() };
    let runs = eventually("both flows are done with it", SOON, || async {
        let runs = env.runs(&filter).await;
        assert!(runs.iter().all(|run| run.state != "dead"), "{runs:?}");
        (runs.len() == 2 && runs.iter().all(|run| run.state == "done")).then_some(runs)
    })
    .await;
    ["news", "account"].map(|flow| {
        let run = runs.iter().find(|run| run.flow == flow).unwrap();
        assert_eq!(run.effects.is_empty(), run.note.is_some(), "{run:?}");
        run.note.clone().unwrap_or_else(|| "sent".to_owned())
    })
}

/// Signing secret of Resend, different from Clerk's.
const RESEND: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Returns the path of the unsubscribe link in the last marketing mail.
fn link(env: &TestEnv) -> String {
    let mail = env.effects("resend").pop().expect("a mail").body.clone();
    assert_eq!(mail["headers"]["List-Unsubscribe-Post"], "List-Unsubscribe=One-Click", "{mail}");
    let header = mail["headers"]["List-Unsubscribe"].as_str().unwrap();
    let link = header.strip_prefix('<').and_then(|link| link.strip_suffix('>')).unwrap();
    // The template escapes slashes; mail programs decode them.
    assert!(mail["html"].as_str().unwrap().replace("&#x2f;", "/").contains(link), "{mail}");
    link.strip_prefix(PUBLIC).expect("it leads to ingest").to_owned()
}

async fn a_click_ends_marketing_mail_and_nothing_else(backend: Backend) {
    let env = TestEnv::with(backend, options(&[])).await;
    let user = User::new();
    assert_eq!(came(&env, &user.updated()).await, ["sent", "sent"]);
    let path = link(&env);
    assert!(!path.contains('@') && path.starts_with("/unsubscribe/"), "{path}");

    let (status, page) = env.get(&path).await;
    assert!(status == 200 && page.contains("<form method=\"post\">"), "{page}");
    assert_eq!(env.get(&format!("{path}x")).await.0, 404);
    assert_eq!(env.post(&format!("{path}x"), &[], Vec::new()).await.0, 404);
    let user = user.changed();
    assert_eq!(came(&env, &user.updated()).await, ["sent", "sent"], "looking at it ends nothing");

    let form = [("content-type", "application/x-www-form-urlencoded".to_owned())];
    let (status, page) = env.post(&path, &form, b"List-Unsubscribe=One-Click".to_vec()).await;
    assert_eq!(status, 200, "{page}");
    // The unsubscription is ordered with the other events of the user.
    let user = user.changed();
    assert_eq!(came(&env, &user.updated()).await, ["unsubscribed", "sent"]);
    assert_eq!(came(&env, &User::new().updated()).await, ["sent", "sent"], "others are not concerned");
    env.end().await;
}

/// Runs `usher suppress` and waits until it is in effect. `known`: expected number of active entries of the address.
async fn order(env: &TestEnv, address: &str, more: &[&str], known: usize) {
    let (code, out, err) = env.usher(&[&["suppress", address, "--by", "ann"], more].concat());
    assert_eq!(code, 0, "{out}{err}");
    eventually("it is known", SOON, || async {
        let (_, out, _) = env.usher(&["suppress", "--list", "--json", address]);
        let said: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!out.contains('@') && said.iter().all(|said| said["who"] == "ann"), "{out}");
        (said.iter().filter(|said| said["held"] == true).count() == known).then_some(())
    })
    .await;
}

async fn who_is_suppressed_gets_nothing_until_restored(backend: Backend) {
    let env = TestEnv::with(backend, options(&[])).await;
    let user = User::new();
    let address = user.email.clone().unwrap();
    order(&env, &address.to_uppercase(), &[], 1).await;
    assert_eq!(came(&env, &user.updated()).await, ["suppressed", "suppressed"]);
    let (_, out, _) = env.usher(&["runs", "--user", &user.id]);
    assert_eq!(out.matches("suppressed").count(), 2, "{out}");
    order(&env, &address, &["--from", "news"], 2).await;
    order(&env, &address, &["--remove"], 1).await;
    let user = user.changed();
    assert_eq!(came(&env, &user.updated()).await, ["unsubscribed", "sent"]);
    order(&env, &address, &["--remove", "--from", "news"], 0).await;
    let user = user.changed();
    assert_eq!(came(&env, &user.updated()).await, ["sent", "sent"]);

    for (arguments, expected) in [
        (vec!["suppress"], "ADDRESS"),
        (vec!["suppress", "dana"], "no address"),
        (vec!["suppress", "a@b.test", "--from", "All"], "a-z"),
    ] {
        let (code, _, err) = env.usher(&arguments);
        assert!(code == 64 && err.contains(expected), "{code} {err}");
    }
    env.end().await;
}

async fn only_who_is_named_is_written_to(backend: Backend) {
    let env = TestEnv::with(backend, options(&[("USHER_DELIVER_ONLY_TO", "*@mail.test, qa@*.test")])).await;
    let with = |email: &str| User { email: Some(email.to_owned()), ..User::new() };
    for (user, expected) in [
        (User::new(), "sent"),
        (with("QA@lab.test"), "sent"),
        (with("dana@firm.test"), "held_back"),
        (with("dana+clerk_test@mail.test"), "held_back"),
    ] {
        assert_eq!(came(&env, &user.updated()).await, [expected, expected], "{:?}", user.email);
    }
    let mails = ["resend", "smtp"].map(|provider| env.effects(provider).len());
    assert_eq!(mails, [2, 2]);
    env.end().await;
}

async fn a_hard_bounce_suppresses_its_address(backend: Backend) {
    let env = TestEnv::with(backend, options(&[("RESEND_WEBHOOK_SECRET", RESEND)])).await;
    let user = User::new();
    let bounced = async |kind: &str, secret: &str| {
        let data = json!({
            "to": [user.email], "bounce": { "type": kind }, "tags": { "clerk_user_id": user.id }, "email_id": "m1",
        });
        let webhook = Webhook::new("email.bounced", &user.id, &data);
        env.post("/webhooks/resend", &webhook.headers(secret), webhook.body.clone().into_bytes()).await.0
    };
    assert_eq!(bounced("Permanent", SECRET).await, 401, "Clerk's secret is not Resend's");
    assert_eq!(bounced("Transient", RESEND).await, 204);
    assert_eq!(came(&env, &user.updated()).await, ["sent", "sent"]);
    assert_eq!(bounced("Permanent", RESEND).await, 204);
    // Ordered with the other events of the user, because the mail's tags contain the user's id.
    assert_eq!(came(&env, &user.changed().updated()).await, ["suppressed", "suppressed"]);
    env.end().await;
}
