//! An HTTP/1.1 server for the open internet: slow clients, stuck headers and floods of connections are bounded, and a
//! stop finishes what was begun.
//!
//! `axum::serve` has no limit on the time a request's head may take and does not set TCP_NODELAY, so the accept loop is
//! our own, on hyper's connection builder.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long a client may take to send a request's head. An idle kept-alive connection is closed after this, too.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);
/// Connections open at once. A connection costs some ten kilobytes; beyond this, new ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8192;
/// Pause after a failed accept. The usual cause is that the process has no file descriptor left, which only time mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` until `stop`, then accepts no more, lets every request under way finish, and returns.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_headers(64);

    loop {
        let Some(accepted) = stop.run_until_cancelled(accept(&listener, &connections)).await else { break };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // What goes wrong on a connection is the client's doing: it went away, or spoke no HTTP.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Answers are small; waiting to fill a segment would only delay them.
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}
