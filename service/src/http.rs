//! An HTTP/1.1 server for the open internet: slow clients, heads and bodies that do not end, unread answers and floods of
//! connections are bounded, none of them keeps others out, and a stop finishes the requests under way.
//!
//! `axum::serve` has no limit on the time a request's head may take and does not set TCP_NODELAY, so the accept loop is
//! our own, on hyper's connection builder. Of a crowd of connections, `crowd.rs` decides which one is closed.

mod crowd;
mod guest;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
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

use crowd::{Crowd, Limits, Phase};
use guest::{Guest, SharedCrowd, WatchedBody, WatchedStream};

/// How long a client may take to send a request's head. An idle kept-alive connection is closed after this, too.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);
/// Bytes that a connection buffers while they are not read yet, which is also the largest head.
const MAX_BUFFER: usize = 16 * 1024;
/// Bytes of unread answers that the kernel holds for a connection (Linux doubles the number). Left to itself it takes
/// megabytes.
const SEND_BUFFER: usize = 64 * 1024;
/// Connections open at once, where the process may have twice as many files.
const MAX_CONNECTIONS: usize = 8192;
/// Bytes of bodies, all together, that have begun to arrive and are not whole.
const MAX_BODY_BYTES: usize = 128 * 1024 * 1024;
/// A connection takes no new request after this.
const LIFETIME: Duration = Duration::from_secs(300);
/// Time for the last request of a connection, after its lifetime or the order to stop.
const FAREWELL: Duration = Duration::from_secs(15);
/// Time that a stop leaves to clients, to send the rest of a body or to read an answer.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Interval of the look at deadlines.
const SWEEP_EVERY: Duration = Duration::from_millis(200);
/// Interval of log lines about evictions.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Pause after a failed accept, whose usual cause is that the process has no file descriptor left, and between attempts to
/// make room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` until `stop`, then accepts no more, lets every request under way finish, and returns.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let limits = Limits { connections: max_connections(), body_bytes: MAX_BODY_BYTES };
    let (crowd, connections) = (SharedCrowd::new(Crowd::new(limits)), TaskTracker::new());
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
    limits: Limits,
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
        // Answers are small; waiting to fill a segment would only delay them.
        let ready = stream.set_nodelay(true).is_ok() && set_socket_send_buffer_size(&stream, SEND_BUFFER).is_ok();
        if !ready {
            // The client is gone already.
            continue;
        }
        let guest = crowd.enter(address.ip());
        let (http, router, stop) = (http.clone(), router.clone(), stop.clone());
        connections.spawn(async move {
            attend(&http, stream, Arc::new(guest), router, &stop).await;
            drop(seat);
        });
    }
}

/// A seat for a newcomer. Evicts another connection where all are taken.
async fn seat(seats: &Arc<Semaphore>, crowd: &SharedCrowd) -> Option<OwnedSemaphorePermit> {
    loop {
        if let Ok(seat) = seats.clone().try_acquire_owned() {
            return Some(seat);
        }
        crowd.lock().make_room();
        // The semaphore is never closed: the wait ends with a seat or with the timeout.
        if let Ok(seat) = tokio::time::timeout(ACCEPT_PAUSE, seats.clone().acquire_owned()).await {
            return seat.ok();
        }
    }
}

/// One connection, from its first request to its end.
async fn attend(http: &http1::Builder, stream: TcpStream, guest: Arc<Guest>, router: Router, stop: &CancellationToken) {
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
    // An error on a connection is the client's doing: it went away, or spoke no HTTP.
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Enforces the deadlines, and logs the number of evictions. Never returns.
async fn sweep_all(crowd: &SharedCrowd) {
    let mut told = tokio::time::Instant::now();
    loop {
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

/// Closes connections that wait for their client, while the server stops. Never returns.
async fn dismiss_all(crowd: &SharedCrowd) {
    loop {
        crowd.lock().dismiss(std::time::Instant::now(), STOP_PATIENCE);
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

/// Connections that one server may have: half of the files that the process may open, for there are other servers,
/// databases and destinations. Raises the limit of open files to the highest that is allowed first.
fn max_connections() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // A refusal leaves the limit as it is, and the lower limit is used.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = getrlimit(Resource::Nofile).current.or(current).unwrap_or(u64::MAX);
    usize::try_from(files / 2).unwrap_or(MAX_CONNECTIONS).clamp(16, MAX_CONNECTIONS)
}
