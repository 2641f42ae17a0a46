//! A destination that does nothing: it reads each request, notes its id, and answers at once or after a delay.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The effects that have arrived.
#[derive(Debug, Default)]
struct Arrived {
    ids: HashSet<Bytes>,
    requests: usize,
    last: Option<Instant>,
    /// Time of the first request for each event, if requests name their events.
    events: HashMap<String, Instant>,
}

/// Body of a request that names its event.
#[derive(Deserialize)]
struct OfEvent {
    event: String,
}

/// A running sink. It has a thread of its own, so that it costs every arm the same.
pub(crate) struct Sink {
    address: SocketAddr,
    arrived: Arc<Mutex<Arrived>>,
    count: watch::Receiver<usize>,
}

/// The effects between two resets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effects {
    /// Number of different ids.
    pub(crate) distinct: usize,
    /// Number of requests, repeated ones included.
    pub(crate) requests: usize,
    /// Time of the last one.
    pub(crate) last: Instant,
}

impl Sink {
    /// Starts a sink that answers after `delay`.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub(crate) fn start(delay: Duration) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let arrived = Arc::<Mutex<Arrived>>::default();
        let (told, count) = watch::channel(0);
        let noted = arrived.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("sink".to_owned()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                let told = Arc::new(told);
                while let Ok((connection, _)) = listener.accept().await {
                    let noted = noted.clone();
                    let told = told.clone();
                    let answer = service_fn(move |request| answer(request, delay, noted.clone(), told.clone()));
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), answer),
                    );
                }
            });
        })?;
        Ok(Self { address, arrived, count })
    }

    /// URL of the sink.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Forgets what has arrived.
    pub(crate) fn reset(&self) {
        *self.arrived.lock().unwrap_or_else(PoisonError::into_inner) = Arrived::default();
    }

    /// Waits until something has arrived since the reset.
    pub(crate) async fn first(&self, deadline: Duration) -> anyhow::Result<()> {
        self.reached(1, deadline).await
    }

    /// Waits until this number of different ids has arrived since the reset.
    ///
    /// # Errors
    ///
    /// Fewer have arrived by the deadline.
    pub(crate) async fn reached(&self, wanted: usize, deadline: Duration) -> anyhow::Result<()> {
        let arrived = self.arrived.clone();
        let enough = move |_: &usize| arrived.lock().unwrap_or_else(PoisonError::into_inner).ids.len() >= wanted;
        let mut count = self.count.clone();
        let reached = tokio::time::timeout(deadline, count.wait_for(enough)).await.map(|count| count.map(|_| ()));
        match reached {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => anyhow::bail!("the sink has ended"),
            Err(_) => anyhow::bail!("{} of {wanted} effects after {deadline:?}", self.effects().distinct),
        }
    }

    /// Returns the time at which the first request for each event arrived since the reset.
    pub(crate) fn events(&self) -> HashMap<String, Instant> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).events.clone()
    }

    /// Returns what has arrived since the reset.
    pub(crate) fn effects(&self) -> Effects {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let last = arrived.last.unwrap_or_else(Instant::now);
        Effects { distinct: arrived.ids.len(), requests: arrived.requests, last }
    }
}

/// Header that identifies an effect, by whoever sends it.
const IDS: [&str; 2] = ["webhook-id", "idempotency-key"];

async fn answer(
    request: Request<Incoming>,
    delay: Duration,
    arrived: Arc<Mutex<Arrived>>,
    told: Arc<watch::Sender<usize>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    // Resend's answer to an accepted mail (resend.com/docs/api-reference/emails/send-email).
    let is_mail = request.uri().path() == "/emails";
    let id = IDS.iter().find_map(|name| request.headers().get(*name));
    let id = id.map(|id| Bytes::copy_from_slice(id.as_bytes()));
    let received_at = Instant::now();
    // The body is read to its end, as every receiver does.
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let of = serde_json::from_slice::<OfEvent>(&body).ok();
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let count = {
        let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.last = Some(Instant::now());
        arrived.requests += 1;
        arrived.ids.extend(id.clone());
        if let Some(OfEvent { event }) = of {
            arrived.events.entry(event).or_insert(received_at);
        }
        arrived.ids.len()
    };
    told.send_replace(count);
    let body = match id.filter(|_| is_mail) {
        Some(id) => Bytes::from(serde_json::json!({ "id": String::from_utf8_lossy(&id) }).to_string()),
        None => Bytes::from_static(b"{}"),
    };
    Ok(Response::new(Full::new(body)))
}
