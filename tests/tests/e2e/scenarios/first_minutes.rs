//! The first minutes of a newcomer with `usher up`: its screen, flow files that are edited while it runs, waits that pass
//! faster, and what is told while a service is not there yet.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use usher_tests::eventually;
use usher_tests::program::{Program, programs};
use usher_tests::test_env::{SECRET, SOON};

use super::up::{ended, up, usher};

/// The last line of the screen begins with it.
const SCREEN_ENDS: &str = "and then        usher ";

const MAIL: &str = "[[step]]\nname = \"mail\"\nuse = \"resend.send\"\nto = \"{{ user.email }}\"\nneeds = \"user.email\"\n\
                    subject = \"Hi\"\ntext = \"Hi\"\n";
const WAIT: &str = "[[step]]\nname = \"pause\"\nwait = \"3d\"\n";

/// Writes a flow file that begins with what arrives from now on.
fn flow(folder: &Path, name: &str, steps: &str) {
    let text = format!("on = [\"clerk/user.created\"]\nfrom = \"now\"\n{steps}");
    std::fs::create_dir_all(folder.join("flows")).unwrap();
    std::fs::write(folder.join(format!("flows/{name}.toml")), text).unwrap();
}

/// Runs `usher check --start` for the folder. Returns the exit code and both streams.
fn checked(folder: &Path) -> (i32, String) {
    let output = std::process::Command::new(programs().join("usher"))
        .args(["check", "--start"])
        .env_clear()
        .env("USHER_DATA", folder.join("data"))
        .env("USHER_FLOWS", folder.join("flows"))
        .output()
        .expect("usher runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().expect("an exit code"), String::from_utf8(text).expect("UTF-8"))
}

/// Returns the runs of a flow.
fn runs(folder: &Path, flow: &str) -> Vec<Value> {
    let shown = usher(folder, &["runs", "--json"]);
    let runs = shown.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    runs.filter(|run: &Value| run["flow"] == flow).collect()
}

/// Fetches a page. Returns its status and its text.
async fn page(address: &str) -> (u16, String) {
    usher_service::telemetry::install_tls();
    let answer = reqwest::get(address).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn stopped(mut program: Program) {
    program.terminate();
    assert!(program.ended(SOON).await.success(), "{}", program.output());
    assert!(!program.output().contains("drain deadline"), "every part has ended by itself: {}", program.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_screen_is_all_that_is_said_and_its_addresses_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = up(folder.path(), &[], &[("USHER_LOG_FORMAT", "short")]);
    program.says(SCREEN_ENDS).await;
    let screen = program.output();
    let (first, rest) = screen.split_once('\n').unwrap();
    assert!(first.starts_with("usher is ready: webhooks on http://"), "{screen}");
    assert!(rest.lines().all(|line| line.starts_with("  ")), "no line of the log: {screen}");
    assert!(screen.lines().count() <= 10, "{screen}");
    let paths = folder.path().display().to_string();
    assert!(screen.replace(&paths, "").lines().all(|line| line.chars().count() <= 120), "it fits: {screen}");
    let addresses: Vec<&str> = screen.split(['\n', ' ', ',']).filter(|word| word.starts_with("http://")).collect();
    assert_eq!(addresses.len(), 5, "{screen}");
    for address in addresses {
        let (status, text) = page(address).await;
        assert!(!text.is_empty(), "{address} shows something");
        assert!(status < 400 || (status == 405 && address.ends_with("/webhooks/clerk")), "{address}: {status}");
    }
    stopped(program).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_opens_in_the_browser_and_without_one_there_is_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let opener = folder.path().join("xdg-open");
    let seen = folder.path().join("seen");
    // Written whole under its name, so that half of it is never read.
    std::fs::write(&opener, format!("#!/bin/sh\necho \"$1\" > {0}.new\n/bin/mv {0}.new {0}\n", seen.display()))
        .unwrap();
    std::fs::set_permissions(&opener, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().display().to_string();
    let mut program = up(folder.path(), &["--open"], &[("PATH", &path)]);
    program.says(SCREEN_ENDS).await;
    let opened = eventually("it is opened", SOON, || async { std::fs::read_to_string(&seen).ok() }).await;
    assert!(program.output().contains(&format!("console         {}", opened.trim())), "{opened}");
    stopped(program).await;

    let mut program = up(folder.path(), &["--open"], &[("PATH", "/nowhere")]);
    program.says("no browser could be opened").await;
    program.assert_running();
    stopped(program).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flow_files_that_change_take_effect_for_new_runs_and_broken_ones_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    flow(folder.path(), "greet", &format!("{WAIT}{MAIL}"));
    let flows = folder.path().join("flows").display().to_string();
    let mut program = up(folder.path(), &["--watch", "--flows", &flows], &[]);
    program.says(SCREEN_ENDS).await;
    usher(folder.path(), &["send", "user.created"]);
    let waiting = eventually("the run waits", SOON, || async {
        runs(folder.path(), "greet").pop().filter(|run| run["state"] == "waiting")
    })
    .await;

    // The flow changes, and another one is new: both hold for the next event. The run that waits keeps its version.
    flow(folder.path(), "greet", MAIL);
    program.says("the flow files have changed: greet has version ").await;
    flow(folder.path(), "other", MAIL);
    program.says("the flow files have changed: other is").await;
    usher(folder.path(), &["send", "user.created"]);
    eventually("both are done", SOON, || async { (ended(folder.path()).len() == 2).then_some(()) }).await;
    let kept: Vec<Value> =
        runs(folder.path(), "greet").into_iter().filter(|run| run["event"] == waiting["event"]).collect();
    assert_eq!((&kept[0]["state"], &kept[0]["step"]), (&waiting["state"], &waiting["step"]));

    // Neither a mistake in a file nor a flow that cannot start stops the others.
    flow(folder.path(), "other", "[[step]]\nname = \"x\"\nuse = \"resend.sned\"\n");
    program.says("there is no \"resend.sned").await;
    flow(folder.path(), "other", MAIL);
    program.says("the flow files are good again").await;
    std::fs::write(folder.path().join("flows/late.toml"), format!("on = [\"clerk/user.created\"]\n{MAIL}")).unwrap();
    program.says("  flow late, partition ").await;
    usher(folder.path(), &["send", "user.created"]);
    eventually("both are done", SOON, || async { (ended(folder.path()).len() == 4).then_some(()) }).await;
    assert!(runs(folder.path(), "late").is_empty());

    // A flow without a file starts nothing.
    std::fs::remove_file(folder.path().join("flows/late.toml")).unwrap();
    eventually("that is told", SOON, || async {
        (program.output().matches("the flow files are good again").count() == 2).then_some(())
    })
    .await;
    std::fs::remove_file(folder.path().join("flows/other.toml")).unwrap();
    program.says("the flow files have changed: other is removed").await;
    usher(folder.path(), &["send", "user.created"]);
    eventually("one is done", SOON, || async { (ended(folder.path()).len() == 5).then_some(()) }).await;
    assert_eq!(runs(folder.path(), "other").len(), 2);

    // The page of metrics is that of the flows that run now.
    let address = program.says("health, metrics http://").await;
    let (_, page) = page(&format!("http://{address}/metrics")).await;
    let done = "usher_dispatcher_runs_total{flow=\"greet\",outcome=\"done\"} 1\n";
    assert!(page.contains(done) && !page.contains("flow=\"other\""), "{page}");
    stopped(program).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_pass_faster_and_a_start_at_another_speed_changes_none_that_has_begun() {
    let folder = tempfile::tempdir().unwrap();
    flow(folder.path(), "drip", &format!("{WAIT}{MAIL}"));
    let flows = folder.path().join("flows").display().to_string();
    // Three days are 260 ms.
    let mut program = up(folder.path(), &["--flows", &flows, "--speed", "1000000"], &[]);
    program.says(SCREEN_ENDS).await;
    assert!(program.output().contains("waits           pass 1000000 times as fast"), "{}", program.output());
    let address = program.says("console         http://").await;
    let (_, page) = page(&format!("http://{address}/")).await;
    assert!(page.contains("waits 1000000 times as fast"), "{page}");
    usher(folder.path(), &["send", "user.created"]);
    eventually("the mail is sent", SOON, || async { (ended(folder.path()).len() == 1).then_some(()) }).await;
    stopped(program).await;

    let mut program = up(folder.path(), &["--flows", &flows], &[]);
    program.says(SCREEN_ENDS).await;
    usher(folder.path(), &["send", "user.created"]);
    let waits = || async { runs(folder.path(), "drip").into_iter().find(|run| run["state"] == "waiting") };
    let slow = eventually("it waits for three days", SOON, waits).await;
    stopped(program).await;

    let mut program = up(folder.path(), &["--flows", &flows, "--speed", "1000000"], &[]);
    program.says(SCREEN_ENDS).await;
    usher(folder.path(), &["send", "user.created"]);
    eventually("the mail of the third is sent", SOON, || async { (ended(folder.path()).len() == 2).then_some(()) })
        .await;
    let still = waits().await.expect("the second waits");
    assert_eq!((&still["event"], &still["due_at"]), (&slow["event"], &slow["due_at"]));
    stopped(program).await;

    let arguments = ["--speed", "10", "--no-lab"];
    let mut program = up(folder.path(), &arguments, &[("CLERK_WEBHOOK_SIGNING_SECRET", SECRET)]);
    assert_eq!(program.ended(SOON).await.code(), Some(64));
    assert!(program.output().contains("'--speed <N>' cannot be used with '--no-lab'"), "{}", program.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_ctrl_c_lets_work_in_flight_finish_and_the_second_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = up(folder.path(), &[], &[]);
    program.says(SCREEN_ENDS).await;
    let lab = program.says("lab             http://").await;
    usher_service::telemetry::install_tls();
    let hangs = serde_json::json!({"hang": true, "hang_seconds": 60}).to_string();
    let set = reqwest::Client::new().put(format!("http://{lab}/faults/resend")).body(hangs).send().await.unwrap();
    assert!(set.status().is_success());
    usher(folder.path(), &["send", "user.created"]);
    let admin = program.says("health, metrics http://").await;
    eventually("the mail is under way", SOON, || async {
        let (_, metrics) = page(&format!("http://{admin}/metrics")).await;
        metrics.contains("usher_dispatcher_steps_in_flight{flow=\"email\"} 1\n").then_some(())
    })
    .await;
    program.interrupt();
    program.says("stopping signal=").await;
    let waits = program.ended_within(Duration::from_millis(500)).await;
    assert!(waits.is_none(), "the mail is waited for: {waits:?}");
    program.interrupt();
    assert_eq!(program.ended(Duration::from_secs(4)).await.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_named_flows_run_and_a_name_that_is_not_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = up(folder.path(), &["--flow", "email,db-sync"], &[]);
    program.says(SCREEN_ENDS).await;
    assert!(program.output().contains("flows           email, db-sync (built in)"), "{}", program.output());
    stopped(program).await;
    let mut program = up(folder.path(), &[], &[("USHER_FLOW", "emial")]);
    assert_eq!(program.ended(SOON).await.code(), Some(64));
    assert!(program.output().contains("there is no flow \"emial\""), "{}", program.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_stop_the_next_start_is_told_while_the_process_runs() {
    let folder = tempfile::tempdir().unwrap();
    flow(folder.path(), "drip", &format!("{WAIT}{MAIL}"));
    let flows = folder.path().join("flows").display().to_string();
    let mut program = up(folder.path(), &["--flows", &flows], &[]);
    program.says(SCREEN_ENDS).await;
    usher(folder.path(), &["send", "user.created"]);
    let waits = || async { runs(folder.path(), "drip").pop().filter(|run| run["state"] == "waiting") };
    eventually("the run waits", SOON, waits).await;
    assert_eq!(checked(folder.path()).0, 0);

    flow(folder.path(), "later", MAIL);
    std::fs::write(folder.path().join("flows/late.toml"), format!("on = [\"clerk/user.created\"]\n{MAIL}")).unwrap();
    std::fs::rename(folder.path().join("flows/drip.toml"), folder.path().join("flows/drop.toml")).unwrap();
    let (code, told) = checked(folder.path());
    assert_eq!(code, 64, "{told}");
    let late = "flows/late.toml: the flow is new and the log already holds events: say from = ";
    assert!(told.contains(late) && !told.contains("later.toml: the flow"), "{told}");
    assert!(told.contains("warning: flow drip has no good file: 1 run waits until it is back"), "{told}");

    // The start says the same, with the same exit code.
    stopped(program).await;
    let mut program = up(folder.path(), &["--flows", &flows], &[]);
    assert_eq!(program.ended(SOON).await.code(), Some(64));
    assert!(program.output().contains("the log already holds events: say from"), "{}", program.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_needed_to_watch() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = up(folder.path(), &["--watch"], &[]);
    assert_eq!(program.ended(SOON).await.code(), Some(64));
    assert!(program.output().contains("--watch follows a folder of your own"), "{}", program.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_not_there_is_told_in_a_line_every_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let kafka = ("USHER_LOG", "kafka://127.0.0.1:1");
    let base = [
        ("USHER_LISTEN", "127.0.0.1:0"),
        ("USHER_ADMIN", "127.0.0.1:0"),
        ("USHER_LAB", "127.0.0.1:0"),
        ("USHER_LOG_FORMAT", "short"),
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
    ];
    let data = folder.path().join("data").display().to_string();
    let database = ("USHER_STORE", "postgres://u@127.0.0.1:1/x");
    let mut programs: Vec<Program> = [
        ("ingest", vec![], vec![kafka]),
        ("dispatcher", vec![], vec![kafka, ("USHER_STORE", store.as_str()), ("USHER_FLOW", "db-sync")]),
        ("usher", vec!["up", "--data", &data], vec![kafka, ("USHER_STORE", store.as_str())]),
        ("dispatcher", vec![], vec![kafka, database, ("USHER_FLOW", "db-sync")]),
    ]
    .into_iter()
    .map(|(name, arguments, more)| {
        let environment = base.iter().chain(&more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Program::start(name, &arguments, &environment.collect::<Vec<_>>(), folder.path())
    })
    .collect();
    for program in &mut programs {
        let waits = || {
            program.assert_running();
            let told = program.output().lines().filter(|line| line.contains("127.0.0.1:1: connection refused")).count()
                + program.output().lines().filter(|line| line.contains("127.0.0.1:1/x: connection refused")).count();
            async move { (told >= 3).then_some(()) }
        };
        eventually("it is told three times", SOON, waits).await;
    }
    for program in &programs {
        let output = program.output();
        let warnings: Vec<&str> =
            output.lines().filter(|line| !line.contains(" listening") && !line.contains(" starting")).collect();
        assert!(warnings.iter().all(|line| line.contains("connection refused")), "{output}");
        // The programs are looked at one after another, so the last has had longer.
        assert!(warnings.len() <= 8, "{output}");
        assert!(!output.contains("BrokerTransportFailure"), "{output}");
    }
    for program in &programs {
        program.terminate();
    }
    for program in &mut programs {
        assert!(program.ended(Duration::from_secs(20)).await.success(), "{}", program.output());
    }
}
