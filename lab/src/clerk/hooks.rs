//! The webhooks that the double of Clerk sends of what changes in it, as Clerk does. None are sent until a receiver is named.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use usher_proto::Timestamp;
use usher_proto::signature::SigningSecret;
use usher_service::clock;

use crate::ids;
use crate::locked::Locked;
use crate::traffic::{GeneratedEvent, TrafficSecret};

/// Timeout of a delivery, as at Svix.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Deliveries that may wait; further events are dropped, as a lab must fit into memory.
const MOST_WAITING: usize = 10_000;
/// Pause before a delivery that failed is repeated. Svix begins with five seconds; a lab is watched.
const PAUSE: Duration = Duration::from_millis(500);
/// Times that a delivery is made, at most.
const TIMES: u32 = 20;

/// The receiver of the double's webhooks. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hooks(Arc<Locked<Option<mpsc::Sender<GeneratedEvent>>>>);

impl Hooks {
    /// Sends the webhooks from now on to `to`, in the order of the changes, until `stop` is cancelled.
    pub(crate) fn send_to(
        &self,
        to: Url,
        secret: SigningSecret,
        stop: CancellationToken,
    ) -> Result<(), reqwest::Error> {
        let client = Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build()?;
        let (sender, waiting) = mpsc::channel(MOST_WAITING);
        tokio::spawn(async move { stop.run_until_cancelled(deliver(client, to, secret, waiting)).await });
        self.0.with(|receiver| *receiver = Some(sender));
        Ok(())
    }

    /// Sends an event with this type and data, if a receiver is named.
    pub(crate) fn report(&self, kind: &str, data: &Value, now: Timestamp) {
        let body = json!({
            "object": "event", "type": kind, "data": data, "timestamp": now.millis(), "instance_id": "ins_lab",
        });
        let user = data["id"].as_str().filter(|_| kind.starts_with("user.")).map(str::to_owned);
        let event = GeneratedEvent { id: ids::prefixed("msg_", 27), user, body: Bytes::from(body.to_string()) };
        let dropped = self.0.with(|receiver| receiver.as_ref().is_some_and(|to| to.try_send(event).is_err()));
        if dropped {
            tracing::warn!(kind, "the lab drops a webhook of its Clerk: too many wait for their receiver");
        }
    }
}

async fn deliver(client: Client, to: Url, secret: SigningSecret, mut waiting: mpsc::Receiver<GeneratedEvent>) {
    let secret = TrafficSecret::Svix(secret);
    while let Some(event) = waiting.recv().await {
        for _ in 0..TIMES {
            let post = client.post(to.clone()).header("content-type", "application/json");
            let post = secret
                .headers(&event, clock::now())
                .into_iter()
                .fold(post, |post, (name, value)| post.header(name, value));
            match post.body(event.body.clone()).send().await {
                Ok(response) if response.status().is_success() => break,
                // It is not the receiver's, or the receiver is not there yet.
                Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
