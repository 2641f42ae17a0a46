//! The console in Chromium, driven by Node: `tests/browser` with the packages of its lock file. `USHER_TEST_BROWSER` names that
//! folder after they have been installed there (`npm ci`).
//!
//! With `USHER_WRITE_DOCS=1` the walk also takes the pictures of `docs/screenshots`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use usher_tests::backend::setting;
use usher_tests::program::Program;
use usher_tests::test_env::{SECRET, SOON};
use usher_tests::{needs, unique};

/// Time limit of the walk, which waits for breakers and retries.
const PATIENCE: Duration = Duration::from_secs(400);

/// Writes two built-in flows below a folder: mails, and a trial that has more steps.
fn flows(folder: &Path) -> String {
    let flows = folder.join("flows");
    std::fs::create_dir_all(flows.join("templates")).unwrap();
    for source in usher_flows::builtin().into_iter().filter(|source| ["email", "trial"].contains(&&*source.name)) {
        std::fs::write(flows.join(format!("{}.toml", source.name)), &source.toml).unwrap();
        for (name, text) in &source.templates {
            std::fs::write(flows.join("templates").join(name), text).unwrap();
        }
    }
    flows.display().to_string()
}

#[needs(browser)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_a_reader_and_a_foreign_page_use_the_console() {
    let script = Path::new(&setting("USHER_TEST_BROWSER")).join("console.js");
    assert!(script.exists(), "USHER_TEST_BROWSER names a folder without console.js");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let flows = flows(folder.path());
    let tokens =
        [("USHER_CONSOLE_TOKEN", unique("operator-token-")), ("USHER_CONSOLE_READ_TOKEN", unique("reader-token-"))];
    let mut environment = vec![
        ("CLERK_WEBHOOK_SIGNING_SECRET".to_owned(), SECRET.to_owned()),
        ("USHER_FLOWS".to_owned(), flows),
        ("USHER_CONSOLE_NAME".to_owned(), "staging".to_owned()),
    ];
    environment.extend(tokens.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let free = "127.0.0.1:0";
    let arguments = ["up", "--data", &data, "--listen", free, "--admin", free, "--lab", free];
    let mut usher = Program::start("usher", &arguments, &environment, folder.path());
    let webhooks = usher.says("usher is ready: webhooks on http://").await;
    let console = usher.says("console         http://").await;

    let mut node = Command::new("node");
    node.arg(script).kill_on_drop(true);
    node.env("USHER_TEST_CONSOLE", format!("http://{console}"));
    node.env("USHER_TEST_WEBHOOKS", format!("http://{webhooks}"));
    node.env("CLERK_WEBHOOK_SIGNING_SECRET", SECRET).envs(tokens);
    if std::env::var_os("USHER_WRITE_DOCS").is_some() {
        let pictures = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/screenshots"));
        node.env("USHER_TEST_PICTURES", pictures);
    }
    let ended = tokio::time::timeout(PATIENCE, node.output()).await.expect("the walk ends").expect("Node is there");
    let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(ended.status.success(), "{said}\n{}", usher.output());
    usher.terminate();
    assert!(usher.ended(SOON).await.success(), "{}", usher.output());
}
