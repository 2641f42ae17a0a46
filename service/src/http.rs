//! An HTTP/1.1 server for the open internet. Slow clients, endless headers and bodies, unread responses and floods of
//! connections are bounded, and none of them keeps other clients out. A stop finishes the requests in flight.
//!
//! `axum::serve` has no limit on the time that the headers of a request may take and does not set `TCP_NODELAY`, so
//! this module has its own accept loop on hyper's connection builder. If there are too many connections, `crowd.rs`
//! decides which one is closed.

mod crowd;
mod guest;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use crowd::{ConnectionTable, CrowdLimits, Phase};
use guest::{ConnectionHandle, SharedCrowd, WatchedBody, WatchedStream};
use http_body_util::LengthLimitError;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time for the headers of a request to arrive. An idle kept-alive connection is closed after this time too.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);
/// Maximum number of unread bytes that a connection buffers, and so the largest size of a request's headers.
const MAX_BUFFER: usize = 16 * 1024;
/// Bytes of unread responses that the kernel holds for a connection (Linux doubles the number). By default
/// it holds megabytes.
const SEND_BUFFER: usize = 64 * 1024;
/// Maximum number of open connections, if the process may open twice as many files.
const MAX_CONNECTIONS: usize = 8192;
/// Maximum total of bytes of bodies that have begun to arrive and are not complete.
const MAX_BODY_BYTES: usize = 128 * 1024 * 1024;
/// Lifetime of a connection, after which it accepts no new request.
const LIFETIME: Duration = Duration::from_secs(300);
/// Time for the last request of a connection, after the end of its lifetime or after the stop signal.
const FAREWELL: Duration = Duration::from_secs(15);
/// Time that clients have during a stop to send the rest of a body or to read a response.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Interval between checks of the deadlines.
const SWEEP_EVERY: Duration = Duration::from_millis(200);
/// Interval between log lines about evictions.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Pause after a failed accept, whose usual cause is that the process has no file descriptor left, and between attempts
/// to evict a connection for a new one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// True if a body could not be read because it is longer than its reader allows. The type of the error decides, which may
/// be below the wrappers of other errors.
pub fn is_too_large(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source())
        .any(|error| error.is::<LengthLimitError>())
}

/// Serves `router` until `stop`. Then accepts no more connections, lets every request in flight finish, and returns.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let limits = CrowdLimits { connections: max_connections(), body_bytes: MAX_BODY_BYTES };
    let crowd = SharedCrowd::new(ConnectionTable::new(limits));
    let connections = TaskTracker::new();
    tokio::select! {
        () = stop.cancelled() => {}
        () = accept_all(&listener, &router, limits, &crowd, &connections, &stop) => {}
        () = sweep_all(&crowd) => {}
    }
    drop(listener);
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = dismiss_all(&crowd) => {}
    }
}

async fn accept_all(
    listener: &TcpListener,
    router: &Router,
    limits: CrowdLimits,
    crowd: &SharedCrowd,
    connections: &TaskTracker,
    stop: &CancellationToken,
) {
    let seats = Arc::new(Semaphore::new(limits.connections));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_headers(64).max_buf_size(MAX_BUFFER);
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                crowd.lock().make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let seat = seat(&seats, crowd).await;
        // Responses are small; waiting to fill a segment would only delay them.
        let ready = stream.set_nodelay(true).is_ok() && set_socket_send_buffer_size(&stream, SEND_BUFFER).is_ok();
        if !ready {
            // The client has already disconnected.
            continue;
        }
        let guest = crowd.enter(address.ip());
        let http = http.clone();
        let router = router.clone();
        let stop = stop.clone();
        connections.spawn(async move {
            attend(&http, stream, Arc::new(guest), router, &stop).await;
            drop(seat);
        });
    }
}

/// Returns a permit for a new connection. Evicts another connection if all permits are taken.
async fn seat(seats: &Arc<Semaphore>, crowd: &SharedCrowd) -> Option<OwnedSemaphorePermit> {
    loop {
        if let Ok(seat) = seats.clone().try_acquire_owned() {
            return Some(seat);
        }
        crowd.lock().make_room();
        // The semaphore is never closed, so the wait ends with a permit or with the timeout.
        if let Ok(seat) = tokio::time::timeout(ACCEPT_PAUSE, seats.clone().acquire_owned()).await {
            return seat.ok();
        }
    }
}

/// Serves one connection, from its first request to its end.
async fn attend(
    http: &http1::Builder,
    stream: TcpStream,
    guest: Arc<ConnectionHandle>,
    router: Router,
    stop: &CancellationToken,
) {
    let evicted = guest.evicted.clone();
    let io = TokioIo::new(WatchedStream::new(stream, guest.clone()));
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let guest = guest.clone();
        let answer = routes.call(request.map(|body| WatchedBody::new(body, guest.clone())));
        async move {
            let answer = answer.await;
            guest.set_phase(Phase::Head);
            answer
        }
    });
    let connection = http.serve_connection(io, service);
    tokio::pin!(connection);
    let ending = async {
        let _ = tokio::time::timeout(LIFETIME, stop.cancelled()).await;
    };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = evicted.cancelled() => return,
        () = ending => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = &mut connection => ended,
                () = evicted.cancelled() => return,
                () = tokio::time::sleep(FAREWELL) => return,
            }
        }
    };
    // The client causes an error on a connection: it disconnected or did not send valid HTTP.
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Enforces the deadlines and logs the number of evictions. Rests while there is no connection. Never returns.
async fn sweep_all(crowd: &SharedCrowd) {
    let mut told = tokio::time::Instant::now();
    loop {
        if crowd.lock().is_quiet() {
            crowd.entered().await;
        }
        tokio::time::sleep(SWEEP_EVERY).await;
        crowd.lock().sweep(std::time::Instant::now());
        if told.elapsed() >= TELL_EVERY {
            told = tokio::time::Instant::now();
            let evicted = crowd.lock().take_evictions();
            if evicted > 0 {
                tracing::warn!(evicted, "closed connections that kept the server waiting");
            }
        }
    }
}

/// Closes connections that wait for their client while the server stops. Never returns.
async fn dismiss_all(crowd: &SharedCrowd) {
    loop {
        crowd.lock().dismiss(std::time::Instant::now(), STOP_PATIENCE);
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

/// Returns the largest number of connections of one server: half of the files that the process may open,
/// because other servers, databases and destinations need files too. First raises the limit of open files to
/// the highest allowed value.
fn max_connections() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // If raising fails, the limit stays as it is and is used.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = getrlimit(Resource::Nofile).current.or(current).unwrap_or(u64::MAX);
    usize::try_from(files / 2).unwrap_or(MAX_CONNECTIONS).clamp(16, MAX_CONNECTIONS)
}
