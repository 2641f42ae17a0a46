//! The destinations' own SDKs send to the lab's doubles the same requests as Usher. A double that an SDK does not
//! understand is wrong. The scripts are in `tests/sdk`, with pinned SDK versions; `USHER_TEST_SDKS` names that folder
//! after they have been installed there (`npm ci`).

use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use usher_lab::Lab;
use usher_tests::backend::setting;

/// Time limit of a script. SDKs retry some errors by themselves, with pauses.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a script against its own lab.
async fn judge(sdk: &str) {
    let script = Path::new(&setting("USHER_TEST_SDKS")).join(format!("{sdk}.js"));
    assert!(script.exists(), "USHER_TEST_SDKS names a folder without {sdk}.js");
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let lab = Lab::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), stop).unwrap();
    let mut node = Command::new("node");
    node.arg(script).env("USHER_TEST_LAB", lab.url()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, node.output()).await.expect("the script ends").expect("Node is there");
    let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(ended.status.success(), "{sdk}: {said}");
}

macro_rules! judges {
    ($($sdk:ident),+ $(,)?) => {
        $(#[usher_tests::needs(sdks)]
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $sdk() {
            judge(stringify!($sdk)).await;
        })+
    };
}

judges!(algolia, clerk, mailchimp, novu, nylas, resend, stripe);
