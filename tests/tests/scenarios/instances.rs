//! A sender's instances keep apart: each has accounts of its own, and nothing is done for one that a flow does not name.

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usher_lab::{Filter, Lab};
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::pair::Pair;
use usher_tests::world::{Options, SOON, World};

usher_tests::on_both_pairs!(an_instance_reaches_its_own_accounts_and_no_others);

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

async fn an_instance_reaches_its_own_accounts_and_no_others(pair: Pair) {
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let staging = Lab::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), stop).unwrap();
    let settings = vec![
        ("CLERK_WEBHOOK_SIGNING_SECRET_STAGING", SECRET.to_owned()),
        ("RESEND_API_KEY_STAGING", "re_staging".to_owned()),
        ("RESEND_BASE_URL_STAGING", staging.base_url("resend").unwrap()),
    ];
    let flows = vec![("both", BOTH), ("live", LIVE)];
    let world = World::with(pair, Options { flows, settings, ..Options::default() }).await;
    let (there, here) = (User::new(), User::new());
    let webhook = there.created();
    let body = webhook.body.clone().into_bytes();
    assert_eq!(world.post("/webhooks/clerk/staging", &webhook.headers(SECRET), body).await.0, 204);
    world.send(&here.created()).await;

    world.all_ended(3, SOON).await;
    let sent = |lab: &Lab| {
        let mails = lab.effects(&Filter::default()).unwrap();
        let mail = |entry: &std::sync::Arc<usher_lab::Entry>| {
            format!("{} to {}", entry.body["subject"].as_str().unwrap(), entry.to.as_deref().unwrap())
        };
        let mut mails: Vec<String> = mails.iter().map(mail).collect();
        mails.sort();
        mails
    };
    let (there, here) = (there.email.unwrap(), here.email.unwrap());
    eventually("the mails are there", SOON, || async { (sent(staging.lab()).len() == 1).then_some(()) }).await;
    assert_eq!(sent(staging.lab()), [format!("both to {there}")]);
    assert_eq!(sent(world.lab()), [format!("both to {here}"), format!("live to {here}")]);
    world.end().await;
}
