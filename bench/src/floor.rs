//! A floor: the least that keeps the dispatcher's main promises. Each effect is claimed with its exact request before it is
//! sent and its end is recorded after it; a user's events stay in order, each is done once, and what has been read is recorded
//! in the same transaction, on condition that nobody else owns the partition.
//!
//! It knows no retries, quotas, waits or several flows, and an error ends it.

mod lanes;
mod postgres;
mod requests;
mod sqlite;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Context as _;
use futures::{FutureExt as _, StreamExt as _};
use rdkafka::consumer::StreamConsumer;
use rdkafka::message::{BorrowedMessage, Message as _};
use reqwest::Client;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use self::lanes::FloorLanes;
use self::postgres::PostgresFloor;
use self::requests::FloorRequests;
use self::sqlite::SqliteFloor;
use crate::topic;

/// Events in memory; beyond them nothing is read.
const MAX_HELD: usize = 2_000;
/// Events that are admitted in one transaction.
const MAX_BATCH: usize = 256;

/// Settings of the mode.
#[derive(Debug, clap::Args)]
pub(crate) struct FloorArguments {
    /// Bootstrap server of Kafka.
    #[arg(long)]
    broker: String,
    /// Topic of the events.
    #[arg(long)]
    topic: String,
    /// URL of an empty Postgres database.
    #[arg(long)]
    database: Option<String>,
    /// File of a SQLite database that does not exist; used without `--database`.
    #[arg(long)]
    file: Option<PathBuf>,
    /// URL that the requests are sent to.
    #[arg(long)]
    url: String,
    /// Number of events in the topic.
    #[arg(long)]
    events: usize,
    /// Requests in flight.
    #[arg(long)]
    concurrency: usize,
    /// Send mails: look subjects and suppressions up, and render templates.
    #[arg(long)]
    mail: bool,
}

/// One event on its way to its effect.
#[derive(Debug)]
struct FloorRun {
    /// Partition and offset in one number.
    id: i64,
    partition: i32,
    offset: i64,
    event: String,
    user: String,
    updated_at: i64,
    body: Vec<u8>,
}

/// A run with the request that is sent for it.
#[derive(Debug)]
struct FloorClaim {
    run: Rc<FloorRun>,
    request: Vec<u8>,
}

/// A run whose effect has happened.
#[derive(Debug)]
struct FloorEnd {
    id: i64,
    user: String,
    effect: String,
}

/// Changes that are written in one transaction.
#[derive(Debug, Default)]
struct FloorBatch {
    /// New runs that wait for their turn.
    waiting: Vec<Rc<FloorRun>>,
    /// New runs that are sent at once.
    started: Vec<FloorClaim>,
    /// Runs that waited and are sent now.
    claimed: Vec<FloorClaim>,
    ended: Vec<FloorEnd>,
    /// The next offset of each partition that was read from.
    frontiers: Vec<(i32, i64)>,
}

enum FloorStore {
    Postgres(PostgresFloor),
    Sqlite(SqliteFloor),
}

impl FloorStore {
    async fn write(&mut self, batch: &FloorBatch) -> anyhow::Result<()> {
        match self {
            Self::Postgres(postgres) => postgres.write(batch).await,
            Self::Sqlite(sqlite) => sqlite.write(batch),
        }
    }
}

/// Returns the newest run of each user, in an order that all writers share.
fn newest<'a>(runs: impl Iterator<Item = &'a FloorRun>) -> BTreeMap<&'a str, &'a FloorRun> {
    let mut newest: BTreeMap<&str, &FloorRun> = BTreeMap::new();
    for run in runs {
        let of_user = newest.entry(&run.user).or_insert(run);
        if of_user.updated_at <= run.updated_at {
            *of_user = run;
        }
    }
    newest
}

#[derive(Deserialize)]
struct Envelope {
    data: EventData,
}

#[derive(Deserialize)]
struct EventData {
    updated_at: i64,
}

fn run_of(message: &BorrowedMessage<'_>) -> anyhow::Result<FloorRun> {
    let body = message.payload().context("an event without a body")?.to_vec();
    let envelope: Envelope = serde_json::from_slice(&body)?;
    let user = std::str::from_utf8(message.key().context("an event without a key")?)?.to_owned();
    let partition = message.partition();
    let offset = message.offset();
    let id = (i64::from(partition) << 40) | offset;
    let event = format!("clerk/default/{partition}-{offset}");
    Ok(FloorRun { id, partition, offset, event, user, updated_at: envelope.data.updated_at, body })
}

/// Runs until each event has had its effect, and then until the process is killed.
///
/// # Errors
///
/// Anything fails.
pub(crate) fn run(arguments: FloorArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(dispatch(arguments)))
}

async fn dispatch(arguments: FloorArguments) -> anyhow::Result<()> {
    let requests = FloorRequests::new(arguments.mail)?;
    let mut store = match (&arguments.database, &arguments.file) {
        (Some(url), _) => FloorStore::Postgres(PostgresFloor::open(url).await?),
        (None, Some(path)) => FloorStore::Sqlite(SqliteFloor::open(path)?),
        (None, None) => anyhow::bail!("no store"),
    };
    let consumer: StreamConsumer = topic::reader(&arguments.broker, &arguments.topic)?;
    let mut messages = consumer.stream();
    let client = Client::builder().no_proxy().pool_max_idle_per_host(arguments.concurrency).build()?;
    let (ended, mut ends) = mpsc::unbounded_channel();
    let mut lanes = FloorLanes::new(arguments.concurrency);
    say("partitions assigned");
    let mut done = 0;
    while done < arguments.events {
        let mut batch = FloorBatch::default();
        let mut arrived = Vec::new();
        if !lanes.can_start() {
            tokio::select! {
                end = ends.recv() => batch.ended.push(end.context("no sender is left")??),
                message = messages.next(), if lanes.held() < MAX_HELD => {
                    arrived.push(run_of(&message.context("the stream has ended")??)?);
                }
            }
        }
        while let Ok(end) = ends.try_recv() {
            batch.ended.push(end?);
        }
        while arrived.len() < MAX_BATCH && lanes.held() + arrived.len() < MAX_HELD {
            let Some(Some(message)) = messages.next().now_or_never() else { break };
            arrived.push(run_of(&message?)?);
        }
        done += batch.ended.len();
        for end in &batch.ended {
            lanes.end(&end.user);
        }
        let claimed = lanes.start();
        let turns = lanes.admit(arrived);
        if let (FloorStore::Postgres(postgres), true) = (&store, arguments.mail) {
            postgres.look_up(claimed.iter().chain(&turns.started)).await?;
        }
        batch.frontiers = turns.frontiers;
        batch.waiting = turns.waiting;
        batch.claimed = requests.claims(claimed)?;
        batch.started = requests.claims(turns.started)?;
        store.write(&batch).await?;
        for claim in batch.started.into_iter().chain(batch.claimed) {
            tokio::task::spawn_local(send(client.clone(), arguments.url.clone(), claim, ended.clone()));
        }
    }
    say("all done");
    std::future::pending().await
}

async fn send(client: Client, url: String, claim: FloorClaim, ended: mpsc::UnboundedSender<anyhow::Result<FloorEnd>>) {
    let FloorClaim { run, request } = claim;
    let post = client.post(url).header("content-type", "application/json").header("idempotency-key", &run.event);
    let answer = async {
        let answer = post.body(request).send().await?.error_for_status()?;
        answer.bytes().await?;
        Ok(FloorEnd { id: run.id, user: run.user.clone(), effect: format!("effect of {}", run.event) })
    };
    // The receiver is gone only when the process ends.
    let _ = ended.send(answer.await);
}

#[expect(clippy::print_stdout, reason = "the process that measures reads it")]
fn say(line: &str) {
    println!("{line}");
}
