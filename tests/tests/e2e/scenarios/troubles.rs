//! Problems are reported: refused webhooks, a failing destination, and runs that no process works on.

use usher_lab::Fault;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    refused_webhooks_are_told_once_with_their_cause,
    a_destination_in_trouble_is_told_and_so_are_its_runs,
    runs_of_a_flow_without_a_file_are_told
);

/// A secret other than the configured one.
const OTHER: &str = "whsec_b3duIHNlY3JldCBvZiBzb21lYm9keSBlbHNl";
const MAIL: &str = "on = [\"clerk/user.created\"]\n[[step]]\nname = \"mail\"\nuse = \"resend.send\"\nto = \"{{ user.email }}\"\n\
                    subject = \"Hi\"\ntext = \"Hi\"\n";
const DRIP: &str = "on = [\"clerk/user.created\"]\n[[step]]\nname = \"pause\"\nwait = \"3d\"\n[[step]]\nname = \"mail\"\n\
                    use = \"resend.send\"\nto = \"{{ user.email }}\"\nsubject = \"Hi\"\ntext = \"Hi\"\n";

async fn with(backend: Backend, flows: Vec<(&'static str, &'static str)>) -> TestEnv {
    TestEnv::with(backend, Options { flows, ..Options::default() }).await
}

/// Posts a webhook signed with this secret. `old`: with a timestamp far in the past.
async fn post(env: &TestEnv, webhook: &Webhook, secret: &str, old: bool) -> u16 {
    let mut headers: Vec<(&str, String)> = webhook.headers(secret).into_iter().collect();
    if old {
        headers.iter_mut().filter(|(name, _)| *name == "svix-timestamp").for_each(|(_, at)| *at = "1700000000".into());
    }
    env.post("/webhooks/clerk", &headers, webhook.body.clone().into()).await.0
}

async fn refused_webhooks_are_told_once_with_their_cause(backend: Backend) {
    let mut env = with(backend, vec![("mail", MAIL)]).await;
    let webhook = User::new().created();
    for _ in 0..20 {
        assert_eq!(post(&env, &webhook, OTHER, false).await, 401);
        assert_eq!(post(&env, &webhook, OTHER, true).await, 401);
    }
    let (_, page) = env.admin_page("/metrics").await;
    for cause in ["signature", "clock_old"] {
        let counted = format!("usher_ingest_refused_total{{cause=\"{cause}\",source=\"clerk\"}} 20");
        assert!(page.contains(&counted), "{page}");
    }
    let output = env.ingest().output();
    let lines = |cause: &str| output.lines().filter(|line| line.contains(cause)).count();
    assert_eq!(lines("the signature matches no configured secret"), 1, "{output}");
    assert_eq!(lines("check this machine's clock"), 1, "{output}");
    assert!(output.contains("\"seconds_ahead\":-"), "how far off it is: {output}");
    env.end().await;
}

async fn a_destination_in_trouble_is_told_and_so_are_its_runs(backend: Backend) {
    let env = with(backend, vec![("mail", MAIL)]).await;
    env.lab().set_fault("resend", Fault { status: Some(503), ..Fault::default() }).unwrap();
    let webhooks: Vec<Webhook> = (0..12).map(|_| User::new().created()).collect();
    env.send_all(&webhooks).await;
    let told = |output: &str, what: &str| output.lines().any(|line| line.contains(what) && line.contains("resend"));
    eventually("it is told", SOON, || {
        let output = env.deliverer_output();
        async move { told(&output, "destination is in trouble").then_some(()) }
    })
    .await;
    let (code, out, _) = env.usher(&["runs", "--flow", "mail"]);
    assert!(code == 0 && out.contains("1 attempt") && out.contains("resend"), "{out}");
    env.lab().end_fault("resend").unwrap();
    env.all_ended(webhooks.len(), SOON).await;
    // The breaker closes only after many successful requests.
    let more: Vec<Webhook> = (0..80).map(|_| User::new().created()).collect();
    env.send_all(&more).await;
    eventually("its end is told", SOON, || {
        let output = env.deliverer_output();
        async move { told(&output, "destination serves again").then_some(()) }
    })
    .await;
    env.end().await;
}

async fn runs_of_a_flow_without_a_file_are_told(backend: Backend) {
    let mut env = with(backend, vec![("drip", DRIP), ("mail", MAIL)]).await;
    let webhook = User::new().created();
    env.send(&webhook).await;
    let run = format!("drip/{}", webhook.id);
    eventually("it waits", SOON, || async {
        let (_, out, _) = env.usher(&["runs", "--flow", "drip"]);
        (out.contains("waits until") && !out.contains("no process works")).then_some(())
    })
    .await;
    env.stop_delivering().await;
    let file = std::path::Path::new(env.variable("USHER_FLOWS").unwrap()).join("drip.toml");
    let kept = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    env.go_on_delivering().await;

    let output = env.deliverer_output();
    assert!(output.contains("flow has runs under way and no file"), "{output}");
    let (_, out, _) = env.usher(&["runs", "--flow", "drip"]);
    assert!(out.contains("no process works on drip"), "{out}");
    let (code, out, err) = env.usher(&["cancel", &run]);
    assert!(code == 0 && out.contains("asked for; no process works on drip"), "{out}{err}");

    env.stop_delivering().await;
    std::fs::write(&file, kept).unwrap();
    env.go_on_delivering().await;
    eventually("the order is carried out", SOON, || async {
        let (_, out, _) = env.usher(&["runs", "--flow", "drip"]);
        out.contains("cancelled").then_some(())
    })
    .await;
    // With a process that works on the flow, the commands report the result.
    let webhook = User::new().created();
    env.send(&webhook).await;
    let run = format!("drip/{}", webhook.id);
    eventually("it waits", SOON, || async {
        env.usher(&["runs", "--event", &webhook.id]).1.contains("waits until").then_some(())
    })
    .await;
    let (code, out, err) = env.usher(&["cancel", &run]);
    assert!(code == 0 && out.contains("is cancelled; it was waiting"), "{out}{err}");
    let (code, out, err) = env.usher(&["rerun", &run]);
    assert!(code == 0 && out.contains("is run again; it was cancelled"), "{out}{err}");
    env.end().await;
}
