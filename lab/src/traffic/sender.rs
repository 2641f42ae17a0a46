//! Posts signed events to a receiver: at a rate, a bounded number at once, each one time.

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
use usher_proto::signature::SigningSecret;
use usher_service::clock;

use super::generator::Generator;
use super::report::{Reply, Report, Sent};
use super::signed::SignedRequest;

/// Svix waits so long for an answer.
const TIMEOUT: Duration = Duration::from_secs(15);
const USER_AGENT: &str = concat!("Svix-Webhooks/1.0 (usher-lab ", env!("CARGO_PKG_VERSION"), ")");

/// What to send, and where to.
#[derive(Debug, Clone)]
pub struct Order {
    /// The receiver.
    pub to: Url,
    /// How many events.
    pub count: u64,
    /// How many a second; as fast as the receiver takes them if none.
    pub per_second: Option<f64>,
    /// How many at once at most. Where they are not answered fast enough for the rate, the rate falls.
    pub max_concurrent: NonZeroUsize,
}

/// Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The rate is none.
    #[error("the rate is {0} a second: it must be above 0")]
    Rate(f64),
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// Sends what was ordered, until it is done or `stop`; what was begun by then is finished. The report has every
/// delivery. [`install_tls`](usher_service::telemetry::install_tls) must have been called.
pub async fn send(
    order: &Order,
    secret: &SigningSecret,
    generator: &Generator,
    stop: &CancellationToken,
) -> Result<Report, SendError> {
    if let Some(rate) = order.per_second.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
        return Err(SendError::Rate(rate));
    }
    // Svix does not follow redirects either: they count as failures.
    let client = Client::builder().timeout(TIMEOUT).user_agent(USER_AGENT).redirect(Policy::none()).build()?;
    let sending = Arc::new(Sending {
        order: order.clone(),
        secret: secret.clone(),
        generator: generator.clone(),
        stop: stop.clone(),
        client,
        next: AtomicU64::new(0),
        begun: Instant::now(),
    });
    let workers = u64::try_from(order.max_concurrent.get()).unwrap_or(u64::MAX).min(order.count);
    let mut running = JoinSet::new();
    for _ in 0..workers {
        running.spawn(sending.clone().work());
    }
    let mut sent: Vec<Sent> = running.join_all().await.into_iter().flatten().collect();
    sent.sort_unstable_by_key(|sent| sent.number);
    Ok(Report { sent, elapsed: sending.begun.elapsed() })
}

struct Sending {
    order: Order,
    secret: SigningSecret,
    generator: Generator,
    stop: CancellationToken,
    client: Client,
    next: AtomicU64,
    begun: Instant,
}

impl Sending {
    /// Takes one number after the other until none is left.
    async fn work(self: Arc<Self>) -> Vec<Sent> {
        let mut sent = Vec::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.order.count || self.wait_for(number).await.is_none() {
                return sent;
            }
            sent.push(self.deliver(number).await);
        }
    }

    /// Waits until the delivery is due. None when it is to be left undone.
    async fn wait_for(&self, number: u64) -> Option<()> {
        let after = self.order.per_second.map_or(0.0, |rate| number as f64 / rate);
        let due = self.begun + Duration::try_from_secs_f64(after).ok()?;
        self.stop.run_until_cancelled(tokio::time::sleep_until(due)).await
    }

    async fn deliver(&self, number: u64) -> Sent {
        let now = clock::now();
        let request = SignedRequest::sign(&self.secret, self.generator.event(number, now), now);
        let mut post = self.client.post(self.order.to.clone()).header("content-type", "application/json");
        for (name, value) in request.headers() {
            post = post.header(name, value);
        }
        let begun = Instant::now();
        let (reply, answer) = match post.body(request.body).send().await {
            Ok(response) => {
                let reply = Reply::Status(response.status().as_u16());
                // Read to its end, so that the connection can be used again.
                (reply, response.bytes().await.unwrap_or_default())
            }
            Err(error) if error.is_timeout() => (Reply::TimedOut, Bytes::new()),
            Err(_) => (Reply::Unreachable, Bytes::new()),
        };
        let why = (!reply.is_accepted()).then(|| reason(&answer)).flatten();
        Sent { number, id: request.id, user: request.user, reply, why, took: begun.elapsed() }
    }
}

/// The receiver's reason for a refusal, where it gives one as Usher's ingest does.
fn reason(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    answer["error"]["message"].as_str().map(str::to_owned)
}
