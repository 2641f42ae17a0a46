//! The load: a number of connections, each of which sends its next request when the last one is answered.
//!
//! It runs on a thread of this process, whose CPU time counts for no arm. It writes prepared bytes and reads the head of the
//! answer, because a client library would take as much of the two cores as the servers that are measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::requests::SignedRequests;
use crate::report::LatencySummary;

/// Answer that acknowledges a request. It has no body, so an answer ends with its head.
const ACKNOWLEDGED: &[u8] = b"HTTP/1.1 204 ";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Target of the load.
#[derive(Debug, Clone)]
pub(crate) struct LoadTarget {
    /// Address of the server.
    pub(crate) address: SocketAddr,
    /// Path of the requests.
    pub(crate) path: &'static str,
}

/// Answers to a load.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    /// Number of requests that were acknowledged: all that were sent.
    pub(crate) requests: usize,
    /// Time from the first request to the last answer, in seconds.
    pub(crate) seconds: f64,
    /// Latencies from the first byte of a request to the end of its answer.
    pub(crate) latency: Option<LatencySummary>,
}

/// One connection that is kept alive.
pub(crate) struct LoadConnection {
    stream: TcpStream,
    host: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl LoadConnection {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: address.to_string(), request: Vec::new(), answer: Vec::new() })
    }

    /// Sends one request and waits for its acknowledgement. False if there is no such request.
    ///
    /// # Errors
    ///
    /// The answer is another one than 204, or does not come.
    pub(crate) async fn send(&mut self, requests: &SignedRequests, number: usize, path: &str) -> anyhow::Result<bool> {
        let Some(request) = requests.get(number) else { return Ok(false) };
        request.write(&mut self.request, &self.host, path);
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        while !self.answer.ends_with(HEAD_END) {
            let read = self.stream.read_buf(&mut self.answer).await?;
            anyhow::ensure!(read > 0, "the server has closed the connection");
            let is_acknowledged = self.answer.len() < ACKNOWLEDGED.len() || self.answer.starts_with(ACKNOWLEDGED);
            anyhow::ensure!(is_acknowledged, "answered {:?}", String::from_utf8_lossy(&self.answer));
        }
        Ok(true)
    }
}

/// Sends requests from `first` on for this time, and waits for the answers to all that were sent.
///
/// # Errors
///
/// A request is not acknowledged.
pub(crate) async fn closed_loop(
    target: LoadTarget,
    requests: Arc<SignedRequests>,
    first: usize,
    connections: usize,
    time: Duration,
) -> anyhow::Result<Acknowledged> {
    let (report, reported) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let load = move || {
        let result = runtime.block_on(send_all(&target, &requests, first, connections, time));
        // The receiver is gone only if the measurement was given up.
        let _ = report.send(result);
    };
    std::thread::Builder::new().name("load".to_owned()).spawn(load)?;
    reported.await.context("the load has ended without a report")?
}

async fn send_all(
    target: &LoadTarget,
    requests: &Arc<SignedRequests>,
    first: usize,
    connections: usize,
    time: Duration,
) -> anyhow::Result<Acknowledged> {
    let next = Arc::new(AtomicUsize::new(first));
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(LoadConnection::open(target.address).await?);
    }
    let begun = Instant::now();
    let mut senders = JoinSet::new();
    for mut connection in opened {
        let next = next.clone();
        let requests = requests.clone();
        let path = target.path;
        senders.spawn(async move {
            let mut latencies: Vec<u32> = Vec::new();
            while begun.elapsed() < time {
                let sent_at = Instant::now();
                let sent = connection.send(&requests, next.fetch_add(1, Ordering::Relaxed), path);
                if !tokio::time::timeout(PATIENCE, sent).await.context("a request is not answered")?? {
                    break;
                }
                latencies.push(u32::try_from(sent_at.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(of_one) = senders.join_next().await {
        latencies.extend(of_one??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Acknowledged { requests: latencies.len(), seconds, latency: LatencySummary::of(latencies) })
}
