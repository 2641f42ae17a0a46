//! The commands, and their messages when they are used wrongly.

use serde_json::Value;
use usher_lab::Fault;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::program::Program;
use usher_tests::test_env::{Options, SECRET, SOON, TestEnv};

usher_tests::on_both_backends!(runs_and_dead_letters_are_shown);

async fn runs_and_dead_letters_are_shown(backend: Backend) {
    let env = TestEnv::start(backend).await;
    let refused = Fault { status: Some(422), ..Fault::default() };
    env.lab().set_fault("resend", refused).unwrap();
    let user = User::new();
    let other = User::new();
    let webhook = user.created();
    env.send(&webhook).await;
    env.send(&other.created()).await;
    env.all_ended(6, SOON).await;

    let (code, out, _) = env.usher(&["runs", "--user", &user.id, "--json"]);
    assert_eq!(code, 0);
    let runs: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(runs.len(), 3, "{out}");
    for run in &runs {
        assert_eq!((&run["user"], &run["event"]), (&user.id.clone().into(), &webhook.id.clone().into()));
        for field in ["flow", "type", "key", "state", "step", "attempts", "due_at", "reason", "effects", "story"] {
            assert!(run.get(field).is_some(), "{field} in {run}");
        }
    }
    let trial = runs.iter().find(|run| run["flow"] == "trial").expect("the trial");
    assert_eq!(trial["effects"].as_array().map(Vec::len), Some(3), "{trial}");

    let (code, out, _) = env.usher(&["runs", "--user", &user.id]);
    assert!(code == 0 && out.lines().count() == 4, "a head and three rows: {out}");
    let (_, out, _) = env.usher(&["dlq", "list", "--flow", "email", "--json"]);
    assert_eq!(out.lines().count(), 2, "{out}");
    let (_, out, _) = env.usher(&["dlq", "list", "--user", &user.id, "--reason", "invalid_request", "--json"]);
    assert_eq!(out.lines().count(), 1, "{out}");
    let (code, out, _) = env.usher(&["dlq", "show", &webhook.id]);
    assert!(code == 0 && out.contains("422 validation_error"), "{out}");
    assert!(!out.contains('@'), "content is shown only if asked for: {out}");
    let (code, out, _) = env.usher(&["dlq", "show", &webhook.id, "--json"]);
    let shown: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &shown["story"][0]["status"]), (0, &422.into()), "{out}");
    assert!(shown.get("body").is_none() && !out.contains('@'), "{out}");
    let content = ["dlq", "show", &webhook.id, "--show-content", "--by", "dana"];
    let (code, out, _) = env.usher(&content);
    assert_eq!(code, 0);
    for part in ["\"to\"", "\"type\": \"user.created\""] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let (_, out, _) = env.usher(&[&content[..], &["--json"]].concat());
    let shown: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(shown["body"]["type"], "user.created", "{out}");
    assert!(shown["messages"][0]["message"].as_str().is_some_and(|message| !message.is_empty()), "{out}");
    let (code, _, err) = env.usher(&["dlq", "list", "--reason", "bad_luck"]);
    assert!(code == 64 && err.contains("invalid_request"), "{code} {err}");
    env.end().await;
}

/// A signing secret that is not published.
const OWN: &str = "whsec_b3duIHNlY3JldCBvZiBzb21lYm9keSBlbHNl";

/// A flow that starts on every event of a user, whatever the rest of its type.
const ANY: &str = r#"on = ["clerk/user.*"]
[[step]]
name = "mail"
use = "resend.send"
to = "a@mail.test"
subject = "Hi"
text = "Hi"
"#;

#[tokio::test]
async fn what_comes_from_outside_is_shown_and_never_obeyed_by_the_terminal() {
    // Clears the screen, forges a row, and reverses the line, with C0, C1 and Unicode control characters.
    let odd = "\u{1b}[2J\r\n2026-01-01  forged\u{7f}\u{9b}31m\u{202e}\u{2066}\u{200f}\u{2028}";
    let settings = vec![("USHER_LOG_FORMAT", "text".to_owned())];
    let options = Options { flows: vec![("any", ANY)], settings, ..Options::default() };
    let mut env = TestEnv::with(Backend::Embedded, options).await;
    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    let user = User { id: format!("user_{odd}"), ..User::new() };
    let mut webhook = user.updated();
    let mut body: Value = serde_json::from_str(&webhook.body).unwrap();
    body["type"] = format!("user.updated{odd}").into();
    webhook.body = body.to_string();
    env.send(&webhook).await;
    let runs = env.all_ended(1, SOON).await;
    let (code, _, err) =
        env.usher(&["suppress", "x@mail.test", "--by", &format!("dana{}", odd.replace(['\r', '\n'], ""))]);
    assert_eq!(code, 0, "{err}");
    eventually("the suppression is kept", SOON, || async {
        env.usher(&["suppress", "--list"]).1.contains("dana").then_some(())
    })
    .await;

    let is_odd = |c: char| c != '\n' && usher_proto::visible::is_control(c);
    for (arguments, lines) in [
        (&["runs"][..], Some(2)),
        (&["dlq", "list"], Some(2)),
        (&["dlq", "redrive", "--all", "--dry-run"], Some(2)),
        (&["suppress", "--list"], Some(2)),
        (&["dlq", "show", &webhook.id], None),
        (&["runs", "--json"], Some(1)),
        (&["suppress", "--list", "--json"], Some(1)),
        (&["cancel", &format!("any/{odd}")], Some(0)),
        (&["pause", odd], Some(0)),
    ] {
        let (_, out, err) = env.usher(arguments);
        assert!(!out.contains(is_odd) && !err.contains(is_odd), "{arguments:?}: {out:?} {err:?}");
        assert!(lines.is_none_or(|lines| lines == out.lines().count()), "{arguments:?}: {out}");
    }
    let (_, out, _) = env.usher(&["runs"]);
    assert!(out.contains("user.updated\\u{1b}[2J\\u{d}\\u{a}2026"), "it is shown: {out}");
    let (_, out, _) = env.usher(&["dlq", "list", "--json"]);
    let run: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&run["key"], &run["type"]), (&runs[0].key.clone().into(), &runs[0].kind.clone().into()));
    assert!(runs[0].kind.contains(odd), "{:?}", runs[0].kind);
    let logged = env.ingest().output();
    assert!(logged.contains("a run is given up") && !logged.contains(is_odd), "{logged:?}");
    env.end().await;
}

#[tokio::test]
async fn the_lab_stays_small_whatever_it_is_sent() {
    const MAILS: usize = 1500;
    usher_service::telemetry::install_tls();
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Program::start("usher", &["lab", "--listen", "127.0.0.1:0", "--keep", "100"], &[], folder.path());
    let address = lab.says("the lab is ready on http://").await;
    let address = address.trim_end_matches(',');
    let client = reqwest::Client::new();
    let at_first = lab.peak_memory();
    for n in 0..MAILS {
        let to = format!("{n}@mail.test");
        let text = "x".repeat(40_000);
        let mail = serde_json::json!({"from": "h@acme.test", "to": to, "subject": "Hi", "text": text}).to_string();
        let mail = client.post(format!("http://{address}/resend/emails")).body(mail);
        let mail = mail.bearer_auth("re_1").header("idempotency-key", n).header("content-type", "application/json");
        assert_eq!(mail.send().await.unwrap().status().as_u16(), 200);
    }
    let grown = lab.peak_memory() - at_first;
    assert!(grown < 20 << 20, "{grown} bytes for 60 MB of mails");

    let get = async |path: &str| -> Value {
        let text = client.get(format!("http://{address}/{path}")).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let counts = get("counts").await;
    assert_eq!(counts["resend"], serde_json::json!({"requests": MAILS, "effects": MAILS, "replays": 0}));
    let kept = get("effects").await.as_array().unwrap().len();
    assert!((1..=100).contains(&kept), "{kept}");
    let first = get("effects?limit=2").await;
    let next = get(&format!("effects?limit=2&since={}", first[1]["seq"])).await;
    assert_eq!(next[0]["seq"].as_u64(), first[1]["seq"].as_u64().map(|seq| seq + 1), "page by page");
    lab.kill().await;
}

/// Runs a program with only this environment until it exits. Returns its exit code and output.
async fn ended(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut program = Program::start(name, arguments, &environment, folder.path());
    let status = program.ended(SOON).await;
    (status.code(), program.output())
}

#[tokio::test]
async fn the_split_services_refuse_an_embedded_log() {
    for (name, arguments) in [("ingest", vec![]), ("dispatcher", vec!["--flow", "db-sync"])] {
        let environment = [
            ("USHER_LOG", "sqlite:/tmp/log.db"),
            ("USHER_STORE", "sqlite:/tmp/store.db"),
            ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
        ];
        let (code, output) = ended(name, &arguments, &environment).await;
        assert_eq!(code, Some(64), "{output}");
        assert!(output.contains("USHER_LOG") && output.contains("usher up"), "{output}");
    }
}

#[tokio::test]
async fn a_setting_that_is_wrong_is_named_with_what_would_be_right() {
    let good = [
        ("USHER_LOG", "kafka://127.0.0.1:1"),
        ("USHER_STORE", "sqlite:/tmp/x.db"),
        ("USHER_LISTEN", "127.0.0.1:0"),
        ("USHER_ADMIN", "127.0.0.1:0"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    for (name, arguments, more, expected) in [
        ("ingest", vec![], vec![], "CLERK_WEBHOOK_SIGNING_SECRET: not set"),
        ("ingest", vec![], vec![("CLERK_WEBHOOK_SIGNING_SECRET", "whsec_???")], "not base64"),
        ("ingest", vec![], vec![("CLERK_WEBHOOK_SIGNING_SECRET", "hunter2")], "does not begin with whsec_"),
        (
            "ingest",
            vec![],
            vec![("CLERK_WEBHOOK_SIGNING_SECRET", "whsec_aA==")],
            "holds 1 bytes after whsec_, not 24 to 64",
        ),
        (
            "ingest",
            vec![],
            vec![("CLERK_WEBHOOK_SIGNING_SECRET", " ")],
            "CLERK_WEBHOOK_SIGNING_SECRET: the signing secret is empty",
        ),
        (
            "ingest",
            vec![],
            vec![("CLERK_WEBHOOK_SIGNING_SECRET", OWN), ("RESEND_WEBHOOK_SECRET", "\"hunter2\"")],
            "RESEND_WEBHOOK_SECRET: it has quotes around it",
        ),
        (
            "ingest",
            vec![],
            vec![("CLERK_WEBHOOK_SIGNING_SECRET", SECRET), ("RESEND_BASE_URL", "https://api.resend.com")],
            "CLERK_WEBHOOK_SIGNING_SECRET: it is a secret that is published",
        ),
        (
            "usher",
            vec!["up", "--no-lab", "--data", &data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
            vec![("CLERK_WEBHOOK_SIGNING_SECRET", SECRET), ("RESEND_API_KEY", "re_hunter2")],
            "CLERK_WEBHOOK_SIGNING_SECRET: it is a secret that is published",
        ),
        ("ingest", vec!["--partitions", "0"], vec![], "1..=1024"),
        ("dispatcher", vec!["--flow", "emial"], vec![], "there is no flow \"emial\"; there are email"),
        (
            "dispatcher",
            vec!["--flow", "email"],
            vec![],
            "USHER_FROM: not set, and step welcome of flow email gives no from",
        ),
        ("dispatcher", vec!["--flow", "trial"], vec![], "STRIPE_PRICE_ID: not set"),
        (
            "dispatcher",
            vec!["--flow", "db-sync"],
            vec![("USHER_KAFKA_SASL_PASSWRD", "hunter2")],
            "USHER_KAFKA_SASL_PASSWRD",
        ),
        ("dispatcher", vec!["--flow", "db-sync"], vec![("USHER_STORE", "mysql://x")], "postgres://"),
        ("dispatcher", vec!["--flow", "email"], vec![("USHER_FLOWS", "/nowhere")], "/nowhere"),
        (
            "dispatcher",
            vec!["--flow", "db-sync"],
            vec![("USHER_DELIVER_ONLY_TO", "acme.com")],
            "pattern 1 is no address",
        ),
        (
            "ingest",
            vec![],
            vec![("CLERK_WEBHOOK_SIGNING_SECRET", SECRET), ("USHER_UNSUBSCRIBE_SECRET", "hunter2")],
            "USHER_UNSUBSCRIBE_SECRET: each secret has",
        ),
        ("dispatcher", vec!["--flow", "db-sync"], vec![("USHER_KAFKA_ACKS", "1")], "USHER_KAFKA_ACKS"),
        (
            "ingest",
            vec![],
            vec![("CLERK_WEBHOOK_SIGNING_SECRET", SECRET), ("USHER_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")],
            "this build has none: use the image of deploy/Dockerfile, or build with `cargo build --release --features \
             kafka-tls`",
        ),
        ("usher", vec!["send", "user.creatd", "--secret", SECRET], vec![], "user.created"),
        ("usher", vec!["check", "/nowhere/x.toml"], vec![], "/nowhere"),
        ("usher", vec!["runs", "--store", "sqlite:/nowhere/at/all.db", "--state", "ended"], vec![], "superseded"),
    ] {
        let environment: Vec<(&str, &str)> = good
            .into_iter()
            .filter(|(name, _)| more.iter().all(|(known, _)| known != name))
            .chain(more.clone())
            .collect();
        let (code, output) = ended(name, &arguments, &environment).await;
        assert_eq!(code, Some(64), "{name} {arguments:?}: {output}");
        assert!(output.contains(expected), "{name} {arguments:?} says {expected:?}: {output}");
        assert!(!output.contains("???") && !output.contains("hunter2"), "a secret is not shown: {output}");
    }
}

#[tokio::test]
async fn what_a_flow_asks_of_a_destination_is_checked_before_anything_starts() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let lab = usher_lab::Lab::start(listener, stop.clone()).unwrap();
    let _stop = stop.drop_guard();
    let nylas = lab.base_url("nylas").unwrap();
    let mail = "use = \"nylas.send\"\nto = \"{{ user.email }}\"\nfrom = \"Acme <h@acme.test>\"\nsubject = \"Hi\"\ntext = \"Hi\"";
    let tell = "use = \"http.post\"\nurl = \"https://billing.test/x\"\nsecret = \"billing\"";
    for (step, expected) in [
        (mail, "flow asks, step one, from: it is of acme.test, but the mailbox of-other is of other.test"),
        (tell, "HTTP_SIGNING_SECRET_BILLING: not set, and step one of flow asks signs with it"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let toml = format!("on = [\"clerk/user.created\"]\n[[step]]\nname = \"one\"\n{step}\n");
        std::fs::write(folder.path().join("asks.toml"), toml).unwrap();
        let flows = folder.path().display().to_string();
        let data = folder.path().join("data").display().to_string();
        let settings = [
            ("NYLAS_API_KEY", "nyk_1"),
            ("NYLAS_GRANT_ID", "of-other"),
            ("CLERK_WEBHOOK_SIGNING_SECRET", "whsec_b3duIHNlY3JldCBvZiBzb21lYm9keSBlbHNl"),
        ];
        let anywhere = "127.0.0.1:0";
        let arguments =
            ["up", "--no-lab", "--data", &data, "--flows", &flows, "--listen", anywhere, "--admin", anywhere];
        let (code, output) = ended("usher", &arguments, &[&settings[..], &[("NYLAS_BASE_URL", &nylas)]].concat()).await;
        assert_eq!(code, Some(64), "{output}");
        assert!(output.contains(expected) && !output.contains("h@acme.test"), "{output}");
    }
}

#[tokio::test]
async fn flow_files_are_checked_with_line_and_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mail.toml");
    std::fs::write(&file, "on = [\"clerk/user.created\"]\n[[step]]\nuse = \"resend.sned\"\n").unwrap();
    let path = file.display().to_string();
    let (code, output) = ended("usher", &["check", &path], &[]).await;
    assert_eq!(code, Some(64), "{output}");
    assert!(output.contains(&format!("{path}:3: ")) && output.contains("did you mean resend.send?"), "{output}");
    let (code, output) = ended("usher", &["check"], &[]).await;
    assert!(code == Some(0) && output.contains("flows/email.toml: good") && !output.contains("warning"), "{output}");
}

/// A check also runs where secrets are not at hand; a start needs them.
#[tokio::test]
async fn a_secret_that_is_not_set_is_a_warning_of_a_check_and_stops_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let flow = "on = [\"clerk/user.created\"]\nfrom = \"now\"\n[[step]]\nname = \"tell\"\nuse = \"http.request\"\n\
                url = \"{{ secret.ACME_URL }}\"\n";
    std::fs::write(folder.path().join("acme.toml"), flow).unwrap();
    let flows = folder.path().display().to_string();
    let (code, output) = ended("usher", &["check", &flows], &[]).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("acme.toml: step tell: the secret ACME_URL is not set here"), "{output}");
    let (code, output) = ended("usher", &["check", &flows], &[("ACME_URL", "https://acme.test/LEAKY")]).await;
    assert!(code == Some(0) && !output.contains("warning") && !output.contains("LEAKY"), "{output}");

    let data = folder.path().join("data").display().to_string();
    let anywhere = "127.0.0.1:0";
    let arguments = ["up", "--no-lab", "--data", &data, "--flows", &flows, "--listen", anywhere, "--admin", anywhere];
    let own = ("CLERK_WEBHOOK_SIGNING_SECRET", "whsec_b3duIHNlY3JldCBvZiBzb21lYm9keSBlbHNl");
    let (code, output) = ended("usher", &arguments, &[own]).await;
    assert_eq!(code, Some(64), "{output}");
    assert!(output.contains("ACME_URL: not set; step tell of flow acme uses it as a secret"), "{output}");
    let (code, output) = ended("usher", &arguments, &[own, ("ACME_URL", "http://acme.test/LEAKY")]).await;
    assert!(code == Some(64) && output.contains("flow acme, step tell, url: url is http://"), "{output}");
    assert!(!output.contains("LEAKY"), "{output}");
}

/// Each mistake on the command line is answered with a correct form.
#[tokio::test]
async fn a_slip_on_the_command_line_is_told_what_would_be_right() {
    for (arguments, expected) in [
        (vec!["health", "localhost"], "such as http://localhost"),
        (vec!["send", "user.created", "--to", "localhost:8080"], "such as http://localhost:8080"),
        (vec!["send", "user.created", "--count", "0"], "a number from 1"),
        (vec!["runs", "--limit", "all"], "a number from 1"),
        (vec!["runs", "--since", "yesterday"], "a day such as 2026-01-31"),
    ] {
        let (code, output) = ended("usher", &arguments, &[]).await;
        assert!(code == Some(64) && output.contains(expected), "{arguments:?}: {code:?} {output}");
    }
}

#[tokio::test]
async fn flow_files_are_found_by_file_and_by_folder() {
    let folder = tempfile::tempdir().unwrap();
    let flow = |name: &str| folder.path().join(name).display().to_string();
    let asks = |path: String| async move { ended("usher", &["check", &path], &[]).await };
    let text = "on = [\"clerk/user.create\"]\n[[step]]\nuse = \"database.sync_user\"\n";
    for name in ["one.toml", "two.toml", "three.yaml"] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let (code, output) = asks(flow("")).await;
    assert_eq!(code, Some(0), "{output}");
    for expected in ["one.toml: good, 1 step, ", "two.toml: good", "warning: ", "did you mean user.created?"] {
        assert!(output.contains(expected), "{expected}: {output}");
    }
    for (name, expected) in [("none.toml", "none.toml: no such file"), ("three.yaml", "flows are <name>.toml")] {
        let (code, output) = asks(flow(name)).await;
        assert!(code == Some(64) && output.contains(expected), "{output}");
    }
    // The same for `USHER_FLOWS`, which requires a folder.
    let environment = [("USHER_FLOWS", flow("one.toml"))];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (code, output) = ended("usher", &["check"], &environment).await;
    assert!(code == Some(64) && output.contains("a folder of flow files is wanted"), "{output}");
}
