//! Log output that cannot be written or is not read: work continues, and programs stop when asked.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use usher_tests::eventually;
use usher_tests::program::{Program, programs};
use usher_tests::test_env::{SECRET, SOON};

/// Returns a full disk, a pipe without a reader, and a pipe whose reader has stopped reading.
fn nowhere() -> [(&'static str, [Stdio; 2]); 3] {
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("Linux has it").into();
    let pipe = || std::io::pipe().expect("a pipe").1.into();
    [("a full disk", [full(), full()]), ("no reader", [pipe(), pipe()]), ("a stopped reader", [stopped(), stopped()])]
}

/// Returns a full pipe whose reader stays open and does not read until the tests end.
fn stopped() -> Stdio {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    std::mem::forget(reader);
    while poll(&mut [PollFd::new(&writer, PollFlags::OUT)], Some(&Timespec::default())).expect("a poll") > 0 {
        writer.write_all(&[b'x'; 4096]).expect("room for it");
    }
    writer.into()
}

fn variables(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Creates the file that stands for the output, which goes elsewhere.
fn empty(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("output");
    File::create(&path).expect("a file");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usher_up_works_and_stops_though_nothing_it_says_can_be_written() {
    for (case, streams) in nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let anywhere = "127.0.0.1:0";
        let path = data.display().to_string();
        let arguments = ["up", "--data", &path, "--listen", anywhere, "--admin", anywhere, "--lab", anywhere];
        let environment = variables(&[("RUST_LOG", "debug")]);
        let mut program = Program::writing_to(streams, empty(folder.path()), "usher", &arguments, &environment);
        eventually(&format!("it is ready: {case}"), SOON, || {
            program.assert_running();
            let ready = data.join("addresses.json").exists();
            async move { ready.then_some(()) }
        })
        .await;
        let usher = |arguments: &[&str]| {
            let output =
                Command::new(programs().join("usher")).args(arguments).env_clear().env("USHER_DATA", &data).output();
            String::from_utf8(output.expect("usher runs").stdout).expect("UTF-8")
        };
        assert!(usher(&["send", "user.created"]).starts_with("204"), "{case}");
        eventually("its runs are done", SOON, || async {
            (usher(&["runs"]).matches(" done ").count() == 6).then_some(())
        })
        .await;
        program.terminate();
        assert!(program.ended(Duration::from_secs(15)).await.success(), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_stop_when_asked_though_nothing_they_say_can_be_written() {
    for (name, flow) in [("ingest", ""), ("dispatcher", "db-sync")] {
        for (case, streams) in nowhere() {
            let folder = tempfile::tempdir().unwrap();
            let store = format!("sqlite:{}", folder.path().join("store.db").display());
            // Without its log a service writes a line every two seconds.
            let environment = variables(&[
                ("USHER_LOG", "kafka://127.0.0.1:1"),
                ("USHER_STORE", &store),
                ("USHER_FLOW", flow),
                ("USHER_LISTEN", "127.0.0.1:0"),
                ("USHER_ADMIN", "127.0.0.1:0"),
                ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
            ]);
            let mut program = Program::writing_to(streams, empty(folder.path()), name, &[], &environment);
            let ended = program.ended_within(Duration::from_secs(4)).await;
            assert!(ended.is_none(), "{name}, {case}: {ended:?}");
            program.terminate();
            let ended = program.ended_within(Duration::from_secs(15)).await;
            assert!(ended.is_some_and(|status| status.success()), "{name}, {case}: {ended:?}");
        }
    }
}

#[test]
fn commands_end_quietly_when_their_reader_is_gone() {
    let code = |arguments: &[&str], [out, err]: [Stdio; 2]| {
        let status =
            Command::new(programs().join("usher")).args(arguments).env_clear().stdout(out).stderr(err).status();
        status.expect("usher runs").code()
    };
    // Commands wait for a reader that has stopped, as a pager requires; it is therefore left out here.
    let ended = || nowhere().into_iter().take(2).map(|(_, streams)| streams);
    let [full, gone, _] = nowhere().map(|(_, streams)| streams);
    assert_eq!(code(&["check"], gone), Some(0));
    assert_eq!(code(&["check"], full), Some(1), "what was asked for could not be written");
    for streams in ended() {
        assert_eq!(code(&["check", "/nowhere/x.toml"], streams), Some(64));
    }
    for streams in ended() {
        assert_eq!(code(&["runs", "--state", "ended"], streams), Some(64));
    }
}
