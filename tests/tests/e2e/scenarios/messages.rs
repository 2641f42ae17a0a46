//! The complete messages of failed starts and of mistyped commands, so that every change of one is noticed. Messages
//! about flow files are tested with the flow checker.

use std::fmt::Write as _;
use std::process::Command;

use usher_tests::program::programs;

const OWN: &str = "whsec_b3duIHNlY3JldCBvZiBzb21lYm9keSBlbHNl";

/// Settings of a successful start. Each test line replaces one of them.
const GOOD: [(&str, &str); 3] =
    [("CLERK_WEBHOOK_SIGNING_SECRET", OWN), ("USHER_FROM", "Acme <a@acme.test>"), ("RESEND_API_KEY", "re_x")];

/// One invalid setting per line, as written in a shell.
const SETTINGS: &[&str] = &[
    "CLERK_WEBHOOK_SIGNING_SECRET=",
    "CLERK_WEBHOOK_SIGNING_SECRET=sk_test_x",
    "CLERK_WEBHOOK_SIGNING_SECRET=whsec_AAAA",
    "CLERK_WEBHOOK_SIGNING_SECRET=b3duIHNlY3JldA==",
    "CLERK_WEBHOOK_SIGNING_SECRET=whsec_x,whsec_y",
    "CLERK_WEBHOOK_SIGNING_SECRET=\"whsec_x\"",
    "CLERK_WEBHOOK_SIGNING_SECRET=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "CLERK_WEBHOOK_SECRET=whsec_x",
    "RESEND_API_KEY=\"re_x\"",
    "RESEND_API_KEY=sk_x",
    "RESEND_QOUTA=10/s",
    "RESEND_QUOTA=ten",
    "STRIPE_SECRET_KEY=pk_test_x",
    "STRIPE_PRICE_ID=prod_x",
    "USHER_FROM=Acme",
    "USHER_DELIVERY_ONLY_TO=*@acme.com",
    "USHER_DELIVER_ONLY_TO=acme",
    "USHER_RUN_RETENTION=1d",
    "USHER_FLOWS=/etc/hostname",
    "USHER_FLOWS=/nowhere",
    "USHER_DATA=/etc/hostname",
    "USHER_LISTEN=:8080",
    "USHER_LISTEN=8080",
    "USHER_ADMIN=0.0.0.0",
    "USHER_LOG=kafka",
    "USHER_STORE=mysql://x",
    "RUST_LOG=inof",
    "RUST_LOG=off",
];

/// One mistyped command per line.
const COMMANDS: &[&str] = &[
    "usher check nofile.toml",
    "usher check flow.yaml",
    "usher check empty/",
    "usher health localhost",
    "usher send user.creatd --secret whsec_b3duIHNlY3JldCBvZiBzb21lYm9keSBlbHNl",
    "usher send user.created --to localhost:8080",
    "usher send user.created --count 0",
    "usher send user.created",
    "usher runs --since yesterday",
    "usher runs --limit all",
    "usher runs --state ended",
    "usher runs --store nowhere",
    "usher dlq redrive",
    "usher status",
    "usher up --flow emial",
];

/// Returns the error output of a program and its exit code.
fn said(words: &[&str], environment: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    std::fs::write(folder.path().join("flow.yaml"), "on: [x]\n").unwrap();
    let output = Command::new(programs().join(words[0]))
        .args(&words[1..])
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(folder.path())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).replace(&folder.path().display().to_string(), "FOLDER");
    format!("{}(exit code {})\n", text, output.status.code().expect("it ends by itself"))
}

#[test]
fn what_is_said_of_each_wrong_setting_and_command() {
    let mut all = String::new();
    for line in SETTINGS {
        let (name, value) = line.split_once('=').expect("a setting");
        let mut environment: Vec<(&str, &str)> = GOOD.into_iter().filter(|(known, _)| *known != name).collect();
        environment.push((name, value));
        let mut words = vec!["usher", "up", "--no-lab"];
        if !matches!(name, "USHER_LISTEN" | "USHER_ADMIN") {
            words.extend(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        }
        writeln!(all, "$ {line} usher up --no-lab\n{}", said(&words, &environment)).unwrap();
    }
    for line in COMMANDS {
        let words: Vec<&str> = line.split_whitespace().collect();
        writeln!(all, "$ {line}\n{}", said(&words, &[])).unwrap();
    }
    insta::assert_snapshot!(all);
}
