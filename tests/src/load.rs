//! A continuous load like Clerk's: users of very different liveliness, each one's events in order, every webhook repeated
//! until it is kept.

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
use crate::ledger::Sent;
use crate::test_env::SECRET;

/// How long the sender waits for an answer. Shorter than what ingest allows itself, so that in an outage some webhooks are
/// kept and repeated all the same.
const PATIENCE: Duration = Duration::from_secs(4);
/// The pause before a webhook is repeated.
const PAUSE: Duration = Duration::from_millis(250);
/// One event in so many is a new user's first.
const NEW_USERS: u32 = 8;

/// What load to make.
#[derive(Debug, Clone, Copy)]
pub struct ParamType {
    /// Events begun in a second.
    pub rate: u32,
    /// Users at a time. The first is the liveliest by far; the n-th has an n-th of its events.
    pub users: u32,
}

/// A load that goes on until it is ended.
pub struct Load {
    books: Books,
    senders: TaskTracker,
    stop: CancellationToken,
}

type Books = Arc<Mutex<Vec<Sent>>>;

fn with<R>(books: &Books, work: impl FnOnce(&mut Vec<Sent>) -> R) -> R {
    work(&mut books.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Load {
    /// Begins to send to the ingest at `address`.
    pub fn start(address: &str, shape: ParamType, seed: u64) -> Self {
        let (books, senders, stop) = (Books::default(), TaskTracker::new(), CancellationToken::new());
        let sender = Sender {
            url: format!("http://{address}/webhooks/clerk"),
            client: Client::builder().timeout(PATIENCE).build().expect("a client"),
            books: books.clone(),
        };
        let sending = send(sender, shape, seed, senders.clone());
        let until = stop.clone();
        tokio::spawn(async move { until.run_until_cancelled(sending).await });
        Self { books, senders, stop }
    }

    /// How many runs are owed for what has been acknowledged so far.
    pub fn owed(&self, expected: &[Expected]) -> usize {
        let starts = |sent: &Sent| expected.iter().filter(|flow| flow.on.contains(&sent.kind.as_str())).count();
        with(&self.books, |books| books.iter().filter(|sent| sent.acknowledged).map(starts).sum())
    }

    /// Counts the posts that were repeated, for the answer to the one before was not a 204.
    pub fn repeated(&self) -> impl Fn() -> u64 + use<> {
        let books = self.books.clone();
        move || with(&books, |books| books.iter().map(|sent| sent.posts.saturating_sub(1)).sum())
    }

    /// Sends nothing new, and waits until all that was begun is kept, or until the deadline. Gives what was sent.
    pub async fn end(self, deadline: Duration) -> Result<Vec<Sent>, Vec<Sent>> {
        self.stop.cancel();
        self.senders.close();
        let all = tokio::time::timeout(deadline, self.senders.wait()).await;
        let books = with(&self.books, |books| books.clone());
        if all.is_ok() { Ok(books) } else { Err(books) }
    }
}

/// Begins events at the rate. Each user is a lock: whoever holds it has the only event of that user under way, and the
/// others wait in line.
async fn send(sender: Sender, shape: ParamType, seed: u64, senders: TaskTracker) {
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
    books: Books,
}

impl Sender {
    /// Posts until it is kept.
    async fn keep(&self, webhook: &Webhook, seq: u64) {
        let kind = if seq == 1 { "user.created" } else { "user.updated" };
        let (event, key) = (webhook.id.clone(), webhook.user.clone());
        let sent = Sent { event, key, kind: kind.into(), seq, posts: 0, acknowledged: false };
        let index = with(&self.books, |books| {
            books.push(sent);
            books.len() - 1
        });
        loop {
            with(&self.books, |books| books[index].posts += 1);
            if self.post(webhook).await {
                with(&self.books, |books| books[index].acknowledged = true);
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
