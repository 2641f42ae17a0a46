//! Reports the state of one connection to its server's [`ConnectionTable`]: received body bytes, unread responses, and its end.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::crowd::{ConnectionTable, Phase};

/// The crowd, shared by all connections. It is locked briefly and never across an `await`.
#[derive(Clone)]
pub(super) struct SharedCrowd {
    table: Arc<Mutex<ConnectionTable>>,
    entered: Arc<Notify>,
}

impl SharedCrowd {
    pub(super) fn new(crowd: ConnectionTable) -> Self {
        Self { table: Arc::new(Mutex::new(crowd)), entered: Arc::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ConnectionTable> {
        // After a panic, a wrong count is better than a server that no longer works.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, address: IpAddr) -> ConnectionHandle {
        let (id, evicted) = self.lock().enter(address, Instant::now());
        self.entered.notify_one();
        ConnectionHandle { crowd: self.clone(), id, evicted }
    }

    /// Waits until a connection has been entered since the last call.
    pub(super) async fn entered(&self) {
        self.entered.notified().await;
    }
}

/// A connection's entry in the crowd, removed when this is dropped.
pub(super) struct ConnectionHandle {
    crowd: SharedCrowd,
    id: u64,
    /// Cancelled when the connection must end.
    pub(super) evicted: CancellationToken,
}

impl ConnectionHandle {
    pub(super) fn set_phase(&self, phase: Phase) {
        self.crowd.lock().set_phase(self.id, phase, Instant::now());
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        self.crowd.lock().leave(self.id);
    }
}

/// A request's body that reports received bytes and its end to the crowd.
pub(super) struct WatchedBody {
    body: Incoming,
    guest: Arc<ConnectionHandle>,
    whole: bool,
}

impl WatchedBody {
    /// Wraps a body and reports that its request has begun.
    pub(super) fn new(body: Incoming, guest: Arc<ConnectionHandle>) -> Self {
        let whole = body.is_end_stream();
        guest.set_phase(if whole { Phase::Work } else { Phase::Body });
        Self { body, guest, whole }
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.guest.crowd.lock().received(self.guest.id, data.len());
        }
        if !self.whole && (frame.is_none() || self.body.is_end_stream()) {
            self.whole = true;
            self.guest.set_phase(Phase::Work);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's socket that reports to the crowd while nothing can be written because the client does not read.
pub(super) struct WatchedStream {
    stream: TcpStream,
    guest: Arc<ConnectionHandle>,
    stuck: bool,
}

impl WatchedStream {
    pub(super) fn new(stream: TcpStream, guest: Arc<ConnectionHandle>) -> Self {
        Self { stream, guest, stuck: false }
    }

    fn watch<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let stuck = written.is_pending();
        if stuck != self.stuck {
            self.stuck = stuck;
            self.guest.crowd.lock().set_stuck(self.guest.id, stuck.then(Instant::now));
        }
        written
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.watch(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.watch(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
