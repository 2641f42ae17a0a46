//! Every program checks all settings before it starts anything: invalid ones are refused with exit code 64 and a
//! suitable message, and possibly secret values are not repeated.

use std::process::Command;

use usher_tests::program::programs;

const OWN: &str = "whsec_b3duIHNlY3JldCBvZiBzb21lYm9keSBlbHNl";

/// Runs a program with only this environment until it exits. Returns the exit code and its error output.
fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(programs().join(program))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(folder.path())
        .output()
        .expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const UP: &[&str] = &["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--lab", "127.0.0.1:0"];

fn up(more: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    run("usher", &[UP, more].concat(), environment)
}

#[test]
fn a_misspelt_name_stops_every_program() {
    let programs: [(&str, &[&str]); 4] =
        [("usher", UP), ("usher", &["runs"]), ("ingest", &[]), ("dispatcher", &["--flow", "email"])];
    for (program, arguments) in programs {
        for (name, meant) in [
            ("USHER_DELIVERY_ONLY_TO", "USHER_DELIVER_ONLY_TO"),
            ("RESEND_QOUTA", "RESEND_QUOTA"),
            ("CLERK_WEBHOOK_SECRET", "CLERK_WEBHOOK_SIGNING_SECRET"),
        ] {
            let (code, said) = run(program, arguments, &[(name, "hidden-value")]);
            assert_eq!(code, Some(64), "{program}: {said}");
            assert!(said.contains(&format!("{name}: there is no such setting; did you mean {meant}?")), "{said}");
            assert!(!said.contains("hidden-value"), "{said}");
        }
    }
}

#[test]
fn every_program_takes_the_settings_of_the_others() {
    let settings = [
        ("CLERK_WEBHOOK_SIGNING_SECRET", OWN),
        ("RESEND_API_KEY", "re_x"),
        ("STRIPE_SECRET_KEY_STAGING", "sk_test_x"),
        ("USHER_KAFKA_CLIENT_ID", "x"),
        ("USHER_LAB_KEEP", "7"),
        ("USHER_FLOW", "email"),
        ("USHER_RUN_RETENTION", "40d"),
        ("USHER_LOG", "kafka:nonsense"),
    ];
    for program in ["ingest", "dispatcher"] {
        let (code, said) = run(program, &[], &settings);
        // The program fails only at the setting that is really wrong.
        assert!(code == Some(64) && said.contains("kafka") && !said.contains("no such setting"), "{said}");
    }
}

#[test]
fn values_that_cannot_be_right_stop_the_start() {
    let mailing =
        [("CLERK_WEBHOOK_SIGNING_SECRET", OWN), ("USHER_FROM", "Acme <a@acme.test>"), ("RESEND_API_KEY", "re_x")];
    for (name, value, why) in [
        ("CLERK_WEBHOOK_SIGNING_SECRET", "sk_test_hidden", "this is an API key: the signing secret begins with whsec_"),
        ("CLERK_WEBHOOK_SIGNING_SECRET", "whsec_AAAA", "holds 3 bytes"),
        ("CLERK_WEBHOOK_SIGNING_SECRET", "hidden", "does not begin with whsec_"),
        ("CLERK_WEBHOOK_SIGNING_SECRET", "whsec_hidden,whsec_hidden", "separated by spaces"),
        ("CLERK_WEBHOOK_SIGNING_SECRET", "\"whsec_hidden\"", "quotes around it"),
        ("RESEND_API_KEY", "\"re_hidden\"", "quotes around it"),
        ("RESEND_API_KEY", "sk_hidden", "an API key of Resend begins with re_"),
        ("STRIPE_SECRET_KEY", "pk_hidden", "this is the publishable key"),
        ("STRIPE_PRICE_ID", "prod_hidden", "a price begins with price_"),
        ("USHER_FROM", "Acme", "USHER_FROM"),
        ("RUST_LOG", "inof", "\"inof\" is no level: error, warn, info, debug, trace; did you mean info?"),
        ("RUST_LOG", "off", "it silences everything"),
        ("USHER_FLOWS", "/etc/hostname", "a folder of flow files is wanted"),
        ("USHER_FLOWS", "/nowhere", "there is no such folder"),
        ("USHER_DATA", "/etc/hostname", "is a file"),
        ("USHER_LISTEN", ":8080", "127.0.0.1:8080 for this machine"),
        ("USHER_ADMIN", "8081", "127.0.0.1:8081 for this machine"),
    ] {
        let mut environment: Vec<(&str, &str)> = mailing.into_iter().filter(|(known, _)| *known != name).collect();
        environment.push((name, value));
        let plain = ["up", "--no-lab"];
        let (code, said) = match name {
            "USHER_LISTEN" | "USHER_ADMIN" => run("usher", &plain, &environment),
            _ => up(&["--no-lab"], &environment),
        };
        assert_eq!(code, Some(64), "{name}={value}: {said}");
        let option = name.replace("USHER_", "--").to_lowercase();
        assert!([name, value, &option].iter().any(|named| said.contains(named)), "{name}: {said}");
        assert!(said.contains(why), "{name}={value}: {said}");
        assert!(!said.contains("hidden"), "{said}");
    }
}

#[test]
fn a_variable_that_a_flow_names_must_be_set() {
    let folder = tempfile::tempdir().unwrap();
    let flow = "on = [\"clerk/user.created\"]\n[[step]]\nuse = \"resend.send\"\nto = \"{{ setting.TEAM_INBOX }}\"\n\
                subject = \"New\"\ntext = \"New\"\n";
    std::fs::write(folder.path().join("told.toml"), flow).unwrap();
    let (code, said) = up(&["--flows", &folder.path().display().to_string()], &[]);
    assert!(code == Some(64) && said.contains("TEAM_INBOX: not set, and flow told names it"), "{said}");
}

#[test]
fn real_webhooks_need_a_secret_that_somebody_gives() {
    let (code, said) = up(&["--no-lab"], &[("USHER_FROM", "Acme <a@acme.test>"), ("RESEND_API_KEY", "re_x")]);
    assert!(code == Some(64) && said.contains("CLERK_WEBHOOK_SIGNING_SECRET: not set"), "{said}");
    let (code, said) = up(&["--no-lab"], &[("SVIX_SECRET", OWN)]);
    assert!(code == Some(64) && said.contains("is it the one in SVIX_SECRET?") && !said.contains(OWN), "{said}");
}
