//! Requests at a fixed rate, however long the answers take. Latencies count from the time at which a request was to be sent, so
//! that one that had to wait for others is not counted as fast.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::ingest::load::LoadConnection;
use crate::ingest::requests::SignedRequests;
use crate::programs::WEBHOOKS;

/// Interval at which the requests that are due are sent.
const TICK: Duration = Duration::from_millis(1);

/// Returns the time at which each request was to be sent, after all are acknowledged.
///
/// # Errors
///
/// A request is not acknowledged.
pub(super) async fn send(
    address: SocketAddr,
    requests: Arc<SignedRequests>,
    rate: f64,
) -> anyhow::Result<Vec<Instant>> {
    let (report, reported) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let load = move || {
        let result = runtime.block_on(send_all(address, &requests, rate));
        // The receiver is gone only if the measurement was given up.
        let _ = report.send(result);
    };
    std::thread::Builder::new().name("load".to_owned()).spawn(load)?;
    reported.await.context("the load has ended without a report")?
}

async fn send_all(address: SocketAddr, requests: &Arc<SignedRequests>, rate: f64) -> anyhow::Result<Vec<Instant>> {
    let idle = Arc::<Mutex<Vec<LoadConnection>>>::default();
    let begun = Instant::now();
    let due = |number: usize| begun + Duration::from_secs_f64(number as f64 / rate);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sending = JoinSet::new();
    let mut intended = Vec::new();
    while intended.len() < requests.len() {
        ticks.tick().await;
        let now = Instant::now();
        while intended.len() < requests.len() && due(intended.len()) <= now {
            let number = intended.len();
            intended.push(due(number));
            let idle = idle.clone();
            let requests = requests.clone();
            sending.spawn(async move {
                let free = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let mut connection = match free {
                    Some(connection) => connection,
                    None => LoadConnection::open(address).await?,
                };
                connection.send(&requests, number, WEBHOOKS).await?;
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                anyhow::Ok(())
            });
        }
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    Ok(intended)
}
