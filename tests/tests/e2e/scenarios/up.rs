//! `usher up` without any settings runs every built-in flow against the lab; with keys for some destinations only, it
//! leaves out the flows of the others.

use std::path::Path;

use serde_json::Value;
use usher_tests::eventually;
use usher_tests::program::{Program, programs};
use usher_tests::test_env::SOON;

const ADDRESSES: [&str; 6] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--lab", "127.0.0.1:0"];

/// Starts `usher up` in this folder with only this environment.
pub(super) fn up(folder: &Path, more: &[&str], environment: &[(&str, &str)]) -> Program {
    let data = folder.join("data").display().to_string();
    let arguments: Vec<&str> =
        ["up", "--data", &data].into_iter().chain(ADDRESSES).chain(more.iter().copied()).collect();
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Program::start("usher", &arguments, &environment, folder)
}

pub(super) fn usher(folder: &Path, arguments: &[&str]) -> String {
    let output = std::process::Command::new(programs().join("usher"))
        .args(arguments)
        .env_clear()
        .env("USHER_DATA", folder.join("data"))
        .output()
        .expect("usher runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_built_in_flow_runs_against_the_lab() {
    usher_service::telemetry::install_tls();
    let folder = tempfile::tempdir().unwrap();
    let mut program = up(folder.path(), &[], &[]);
    program.says("usher is ready: webhooks on http://").await;
    let lab = program.says("lab             http://").await;
    assert!(!program.output().contains("left out"), "{}", program.output());

    // Events of one user in order: each is done before the next is sent.
    for (sample, runs) in [
        ("user.created", 6),
        ("email.created", 1),
        ("email.created:invitation", 1),
        ("user.updated:new-address", 6),
        ("organizationMembership.created", 1),
        ("subscriptionItem.freeTrialEnding", 1),
        ("subscription.pastDue", 1),
        ("user.deleted", 5),
    ] {
        let before = ended(folder.path()).len();
        usher(folder.path(), &["send", sample, "--seed", "7"]);
        eventually(sample, SOON, || async { (ended(folder.path()).len() == before + runs).then_some(()) }).await;
    }
    let runs = ended(folder.path());
    assert!(runs.iter().all(|run| run["state"] == "done"), "{runs:?}");

    let effects: Vec<Value> =
        serde_json::from_str(&reqwest::get(format!("http://{lab}/effects")).await.unwrap().text().await.unwrap())
            .unwrap();
    let count = |provider: &str, operation: &str| {
        let of = |effect: &&Value| effect["provider"] == provider && effect["operation"] == operation;
        effects.iter().filter(of).count()
    };
    for (provider, operation, times) in [
        ("resend", "emails.send", 5), // Welcome, code, invitation, and of the new address twice.
        ("stripe", "customers.create", 1),
        ("stripe", "subscriptions.create", 1),
        ("stripe", "customers.update", 1),
        ("stripe", "subscriptions.cancel", 1),
        ("clerk", "users.metadata", 1),
        ("mailchimp", "members.put", 2),
        ("mailchimp", "members.archive", 2),
        ("algolia", "objects.partial", 2),
        ("algolia", "objects.delete", 1),
        ("novu", "events.trigger", 4),
    ] {
        assert_eq!(count(provider, operation), times, "{provider} {operation}");
    }
    program.terminate();
    assert!(program.ended(SOON).await.success(), "{}", program.output());
}

/// Returns the runs that have ended.
pub(super) fn ended(folder: &Path) -> Vec<Value> {
    let shown = usher(folder, &["runs", "--json"]);
    let runs = shown.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    runs.filter(|run: &Value| run["ended_at"].is_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_without_a_signing_secret_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let flows = folder.path().join("flows");
    std::fs::create_dir(&flows).unwrap();
    for (name, on, instances) in [
        ("here", "[\"clerk/user.created\"]", "[\"default\", \"us-east\"]"),
        ("there", "[\"clerk/user.created\", \"usher/suppressed\"]", "[\"us-east\", \"eu\"]"),
        ("mail", "[\"resend/email.bounced\"]", "[\"eu\"]"),
    ] {
        let flow = format!("on = {on}\ninstances = {instances}\n[[step]]\nwait = \"1m\"\n");
        std::fs::write(flows.join(format!("{name}.toml")), flow).unwrap();
    }
    let secret = ("CLERK_WEBHOOK_SIGNING_SECRET_EU", "whsec_b3duIHNlY3JldCBvZiBzb21lYm9keSBlbHNl");
    let flows = flows.to_str().unwrap();
    let mut program = up(folder.path(), &["--flows", flows], &[secret]);
    program.says("usher is ready: webhooks on http://").await;
    let told: Vec<String> =
        program.output().lines().filter(|line| line.contains("gets no webhook")).map(str::to_owned).collect();
    let clerk = "CLERK_WEBHOOK_SIGNING_SECRET_US_EAST";
    let expected = [
        format!("flow here gets no webhook of instance us-east: {clerk} is not set"),
        "flow mail gets no webhook of instance eu: RESEND_WEBHOOK_SECRET_EU is not set".to_owned(),
        format!("flow there gets no webhook of instance us-east: {clerk} is not set"),
    ];
    assert_eq!(told, expected);
    program.terminate();
    assert!(program.ended(SOON).await.success(), "{}", program.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_without_any_setting_of_their_destination_are_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let keys = [
        ("RESEND_API_KEY", "re_x"),
        ("STRIPE_SECRET_KEY", "sk_test_x"),
        ("STRIPE_PRICE_ID", "price_x"),
        ("USHER_FROM", "Acme <hello@acme.test>"),
        ("CLERK_WEBHOOK_SIGNING_SECRET", "whsec_b3duIHNlY3JldCBvZiBzb21lYm9keSBlbHNl"),
    ];
    let mut program = up(folder.path(), &["--no-lab"], &keys);
    program.says("usher is ready: webhooks on http://").await;
    let output = program.output();
    for (flow, settings) in [("newsletter", "MAILCHIMP_"), ("search", "ALGOLIA_"), ("notify", "NOVU_")] {
        assert!(output.contains(&format!("flow {flow} is left out: no {settings}... variable is set\n")), "{output}");
    }
    assert_eq!(output.matches("left out").count(), 3, "{output}");
    program.terminate();
    assert!(program.ended(SOON).await.success(), "{}", program.output());

    // A flow whose destination has at least one setting is not left out, so a missing key is an error.
    let folder = tempfile::tempdir().unwrap();
    let begun: Vec<(&str, &str)> = keys.into_iter().chain([("NOVU_BASE_URL", "https://eu.api.novu.co")]).collect();
    let mut program = up(folder.path(), &["--no-lab"], &begun);
    assert_eq!(program.ended(SOON).await.code(), Some(64));
    assert!(program.output().contains("NOVU_SECRET_KEY"), "{}", program.output());
}
