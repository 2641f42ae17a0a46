//! Programs of others, in `bench/peers`, and what they need.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;

/// Returns the folder of a peer's program.
pub(crate) fn folder(peer: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(peer)
}

/// Returns the folder for what is fetched and compiled.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench")
}

/// Runs a command to its end.
///
/// # Errors
///
/// It fails.
pub(crate) async fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status().await.with_context(|| format!("{command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Installs the packages of a Node program as its lock file says, unless they are there.
///
/// # Errors
///
/// npm fails.
pub(crate) async fn install_node(peer: &str) -> anyhow::Result<()> {
    let folder = folder(peer);
    // npm says in this file what it has installed.
    let installed = folder.join("node_modules/.package-lock.json").metadata().and_then(|file| file.modified());
    let locked = folder.join("package-lock.json").metadata()?.modified()?;
    if installed.is_ok_and(|installed| installed >= locked) {
        return Ok(());
    }
    // Where there is no prebuilt binding to librdkafka, it is built with the system's libraries.
    succeed(
        Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).env("CKJS_LINKING", "dynamic").current_dir(folder),
    )
    .await
}
