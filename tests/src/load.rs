//! A continuous load like Clerk's: users of very different activity, the events of each in order, and every webhook
//! repeated until it is acknowledged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::Client;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checker::Expected;
use crate::events::{User, Webhook};
use crate::ledger::SentWebhook;
use crate::test_env::SECRET;

/// Client timeout. Shorter than ingest's own limit, so that in an outage some webhooks are stored
/// and nevertheless repeated.
const PATIENCE: Duration = Duration::from_secs(4);
/// Pause before a webhook is repeated.
const PAUSE: Duration = Duration::from_millis(250);
/// One in this many events is the first of a new user.
const NEW_USERS: u32 = 8;

/// Parameters of a load.
#[derive(Debug, Clone, Copy)]
pub struct LoadShape {
    /// Events started per second.
    pub rate: u32,
    /// Number of concurrent users. User n has 1/n of the events of the first user.
    pub users: u32,
}

/// A load that continues until [`Load::end`].
pub struct Load {
    events: SentEvents,
    senders: TaskTracker,
    stop: CancellationToken,
}

type SentEvents = Arc<Mutex<Vec<SentWebhook>>>;

fn with<R>(events: &SentEvents, work: impl FnOnce(&mut Vec<SentWebhook>) -> R) -> R {
    work(&mut events.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Load {
    /// Starts sending to the ingest at `address`.
    pub fn start(address: &str, shape: LoadShape, seed: u64) -> Self {
        let events = SentEvents::default();
        let senders = TaskTracker::new();
        let stop = CancellationToken::new();
        let sender = Sender {
            url: format!("http://{address}/webhooks/clerk"),
            client: Client::builder().timeout(PATIENCE).build().expect("a client"),
            events: events.clone(),
        };
        let sending = send(sender, shape, seed, senders.clone());
        let until = stop.clone();
        tokio::spawn(async move { until.run_until_cancelled(sending).await });
        Self { events, senders, stop }
    }

    /// Returns the number of runs expected for the events acknowledged so far.
    pub fn owed(&self, expected: &[Expected]) -> usize {
        let starts = |sent: &SentWebhook| expected.iter().filter(|flow| flow.on.contains(&sent.kind.as_str())).count();
        with(&self.events, |events| events.iter().filter(|sent| sent.acknowledged).map(starts).sum())
    }

    /// Returns a counter of repeated posts: those sent because an earlier post was not answered 204.
    pub fn repeated(&self) -> impl Fn() -> u64 + use<> {
        let events = self.events.clone();
        move || with(&events, |events| events.iter().map(|sent| sent.posts.saturating_sub(1)).sum())
    }

    /// Stops new events and waits until all started ones are acknowledged. Returns the events sent.
    ///
    /// # Errors
    ///
    /// If events are still unacknowledged after `deadline`; the error holds the events sent.
    pub async fn end(self, deadline: Duration) -> Result<Vec<SentWebhook>, Vec<SentWebhook>> {
        self.stop.cancel();
        self.senders.close();
        let all = tokio::time::timeout(deadline, self.senders.wait()).await;
        let events = with(&self.events, |events| events.clone());
        if all.is_ok() { Ok(events) } else { Err(events) }
    }
}

/// Starts events at the configured rate. Each user is a mutex: its holder sends the only event of that user in flight,
/// and later events of the user wait.
async fn send(sender: Sender, shape: LoadShape, seed: u64, senders: TaskTracker) {
    let mut rng = StdRng::seed_from_u64(seed);
    let users: Vec<Arc<tokio::sync::Mutex<Option<User>>>> = (0..shape.users).map(|_| Arc::default()).collect();
    let weights: Vec<f64> = (1..=shape.users).map(|rank| 1.0 / f64::from(rank)).collect();
    let sum: f64 = weights.iter().sum();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / shape.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        ticks.tick().await;
        let mut lot = rng.random_range(0.0..sum);
        let chosen = weights.iter().position(|weight| {
            lot -= weight;
            lot < 0.0
        });
        let user = users[chosen.unwrap_or_default()].clone();
        let new = rng.random_range(0..NEW_USERS) == 0;
        let sender = sender.clone();
        senders.spawn(async move {
            let mut user = user.lock().await;
            let next = user.as_ref().filter(|_| !new).map_or_else(User::new, User::changed);
            let webhook = if next.seq == 1 { next.created() } else { next.updated() };
            sender.keep(&webhook, next.seq).await;
            *user = Some(next);
        });
    }
}

/// Posts webhooks.
#[derive(Clone)]
struct Sender {
    url: String,
    client: Client,
    events: SentEvents,
}

impl Sender {
    /// Posts a webhook until it is acknowledged.
    async fn keep(&self, webhook: &Webhook, seq: u64) {
        let kind = if seq == 1 { "user.created" } else { "user.updated" };
        let event = webhook.id.clone();
        let key = webhook.user.clone();
        let sent = SentWebhook { event, key, kind: kind.into(), seq, posts: 0, acknowledged: false };
        let index = with(&self.events, |events| {
            events.push(sent);
            events.len() - 1
        });
        loop {
            with(&self.events, |events| events[index].posts += 1);
            if self.post(webhook).await {
                with(&self.events, |events| events[index].acknowledged = true);
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn post(&self, webhook: &Webhook) -> bool {
        let headers = webhook.headers(SECRET);
        let request =
            headers.iter().fold(self.client.post(&self.url), |request, (name, value)| request.header(*name, value));
        let answer = request.body(webhook.body.clone()).send().await;
        answer.is_ok_and(|answer| answer.status().as_u16() == 204)
    }
}
