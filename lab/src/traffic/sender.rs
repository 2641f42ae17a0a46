//! Posts signed events to a receiver, each once, at a given rate and with bounded concurrency.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use usher_service::clock;

use super::generator::Generator;
use super::report::{Reply, SentEvent, TrafficReport};
use super::signed::TrafficSecret;

/// Timeout of a delivery, as at Svix.
const TIMEOUT: Duration = Duration::from_secs(15);
const USER_AGENT: &str = concat!("Svix-Webhooks/1.0 (usher-lab ", env!("CARGO_PKG_VERSION"), ")");

/// The parameters of a run of traffic.
#[derive(Debug, Clone)]
pub struct TrafficPlan {
    /// URL of the receiver.
    pub to: Url,
    /// Number of events.
    pub count: u64,
    /// Events per second. `None` sends as fast as the receiver answers.
    pub per_second: Option<f64>,
    /// Maximum number of deliveries in flight. If the receiver is too slow for the rate, the rate falls.
    pub max_concurrent: NonZeroUsize,
}

/// The error of a run of traffic that sent nothing.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The rate is not a finite number above 0.
    #[error("the rate is {0} a second: it must be above 0")]
    Rate(f64),
    /// The HTTP client could not be created.
    #[error("the HTTP client could not be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// Number of deliveries that have ended so far, for a view of the progress.
pub type SentCount = Arc<AtomicU64>;

/// Sends the events of `order` until all are sent or `stop` is cancelled. Deliveries in flight are then finished. The
/// report lists every delivery; `count` grows with them. [`install_tls`](usher_service::telemetry::install_tls) must have been called before.
///
/// # Errors
///
/// If the rate is not a finite number above 0, or the HTTP client cannot be created.
pub async fn send(
    order: &TrafficPlan,
    secret: &TrafficSecret,
    generator: &Generator,
    stop: &CancellationToken,
    count: &SentCount,
) -> Result<TrafficReport, SendError> {
    if let Some(rate) = order.per_second.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
        return Err(SendError::Rate(rate));
    }
    // Redirects are not followed, as at Svix: they count as failures.
    let client = Client::builder().timeout(TIMEOUT).user_agent(USER_AGENT).redirect(Policy::none()).build()?;
    let sending = Arc::new(Sending {
        order: order.clone(),
        secret: secret.clone(),
        generator: generator.clone(),
        stop: stop.clone(),
        client,
        next: AtomicU64::new(0),
        count: count.clone(),
        begun: Instant::now(),
    });
    let workers = u64::try_from(order.max_concurrent.get()).unwrap_or(u64::MAX).min(order.count);
    let mut running = JoinSet::new();
    for _ in 0..workers {
        running.spawn(sending.clone().work());
    }
    let mut sent: Vec<SentEvent> = running.join_all().await.into_iter().flatten().collect();
    sent.sort_unstable_by_key(|sent| sent.number);
    Ok(TrafficReport { sent, elapsed: sending.begun.elapsed() })
}

struct Sending {
    order: TrafficPlan,
    secret: TrafficSecret,
    generator: Generator,
    stop: CancellationToken,
    client: Client,
    next: AtomicU64,
    count: SentCount,
    begun: Instant,
}

impl Sending {
    /// Delivers one event after another until none is left or the run is stopped.
    async fn work(self: Arc<Self>) -> Vec<SentEvent> {
        let mut sent = Vec::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.order.count || self.wait_for(number).await.is_none() {
                return sent;
            }
            sent.push(self.deliver(number).await);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until the delivery is due. Returns `None` if the run is stopped before.
    async fn wait_for(&self, number: u64) -> Option<()> {
        let after = self.order.per_second.map_or(0.0, |rate| number as f64 / rate);
        let due = self.begun + Duration::try_from_secs_f64(after).ok()?;
        self.stop.run_until_cancelled(tokio::time::sleep_until(due)).await
    }

    async fn deliver(&self, number: u64) -> SentEvent {
        let now = clock::now();
        let event = self.generator.event(number, now);
        let mut post = self.client.post(self.order.to.clone()).header("content-type", "application/json");
        for (name, value) in self.secret.headers(&event, now) {
            post = post.header(name, value);
        }
        let begun = Instant::now();
        let (reply, answer) = match post.body(event.body).send().await {
            Ok(response) => {
                let reply = Reply::Status(response.status().as_u16());
                // The body is read to its end, so that the connection can be reused.
                (reply, response.bytes().await.unwrap_or_default())
            }
            Err(error) if error.is_timeout() => (Reply::TimedOut, Bytes::new()),
            Err(_) => (Reply::Unreachable, Bytes::new()),
        };
        let why = (!reply.is_accepted()).then(|| reason(&answer)).flatten();
        SentEvent { number, id: event.id, user: event.user, reply, why, took: begun.elapsed() }
    }
}

/// Returns the receiver's reason for a refusal, if the body has the form of Usher's ingest.
fn reason(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    answer["error"]["message"].as_str().map(str::to_owned)
}
