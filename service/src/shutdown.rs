//! When to stop: on SIGTERM or SIGINT, told to everyone through one token.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a process may take from the signal to its end. Container runtimes wait ten seconds before they kill.
pub const DEADLINE: Duration = Duration::from_secs(9);

/// A token that is cancelled at the first SIGTERM or SIGINT.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = token.clone();
    tokio::spawn(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        // Before anything is said, so that nothing that goes wrong with that can hold up the stop.
        stop.cancel();
        tracing::info!(signal, "stopping");
    });
    Ok(token)
}

/// Waits for `work` after the token was cancelled, but no longer than the deadline. `None` where it did not end in time.
pub async fn drain<T>(token: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => Some(done),
        () = async { token.cancelled().await; tokio::time::sleep(DEADLINE).await } => None,
    }
}
