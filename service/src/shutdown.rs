//! Shutdown on SIGTERM or SIGINT, signalled to all tasks through one token.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Time from the signal to the end of the process. Container runtimes wait ten seconds before they kill a process.
pub const DEADLINE: Duration = Duration::from_secs(9);

/// Exit code of a process that a second Ctrl-C ended: that of a shell's command that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Returns a token that is cancelled at the first SIGTERM or SIGINT. A SIGINT after it ends the process at once: whoever presses
/// Ctrl-C twice does not want to wait, and loses no more than by `kill -9`.
///
/// # Errors
///
/// A signal handler cannot be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = token.clone();
    tokio::spawn(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        // The token is cancelled before the log line is written, so that a failure to write cannot delay the stop.
        stop.cancel();
        tracing::info!(signal, "stopping");
        if interrupt.recv().await.is_some() {
            std::process::exit(INTERRUPTED);
        }
    });
    Ok(token)
}

/// Waits for `work`, after the token was cancelled for at most [`DEADLINE`]. `None` if it did not end in time.
pub async fn drain<T>(token: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => Some(done),
        () = async { token.cancelled().await; tokio::time::sleep(DEADLINE).await } => None,
    }
}
