//! Input and output around the engine: it reads the log, writes the store, asks the destinations, publishes dead
//! dead_letters, and does nothing of its own accord.

mod arrivals;
mod attempt;
mod catching_up;
mod clock_watch;
mod consumer;
mod dead_letters;
mod housekeeping;
mod opening;
mod prepare;
mod quotas;
mod store_actor;
mod versions;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use prometheus::Registry;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use usher_eventlog::{Log, LogWatch};
use usher_service::Readiness;

use crate::config::{Config, for_instance};
use crate::connectors::{Connectors, may_announce, quota};
use crate::engine::{Destinations, Engine, Limits, account};
use crate::flows::Flow;
use crate::metrics::Metrics;
use crate::sql::{Database, Outage};
use crate::store::{SqlStore, Store};
use attempt::StepExecutor;
use clock_watch::ClockWatch;
use consumer::FlowConsumer;
use housekeeping::{HalfKept, Housekeeper};
use opening::{Trouble, ensure, keep_flow, open_connectors, open_store, say_ignored, say_without_flow, until};
use quotas::{Limited, Quotas};
use store_actor::StoreWriter;
use versions::Versions;

/// The pause before asking again for a log or a store that is not there.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Interval between checks that the log can be reached.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Longest time that deleted content stays in the store's files.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// How long a partition may have something to read, and deliver nothing, before the group is joined anew.
const STALL: Duration = Duration::from_secs(60);

/// The flows of one process.
pub struct Dispatcher {
    config: Config,
    log: Arc<dyn Log>,
    readiness: Readiness,
    metrics: Metrics,
    log_watch: LogWatch,
    wrap: Wrap,
}

/// Puts something around the store.
type Wrap = Box<dyn FnOnce(Arc<dyn Store>) -> Arc<dyn Store> + Send>;

impl Dispatcher {
    /// What it needs to be ready: its store, and for each flow that it reads the log. A flow counts once its group has its
    /// first offsets, so that nothing that is accepted afterwards can be missed.
    pub fn needs(config: &Config) -> Vec<&'static str> {
        if config.flows.is_empty() { vec!["store"] } else { vec!["store", "log", "flows", "clock"] }
    }

    /// A dispatcher that has not begun.
    pub fn new(config: Config, log: Arc<dyn Log>, readiness: Readiness, registry: &Registry) -> anyhow::Result<Self> {
        let log_watch = LogWatch::new(log.clone(), config.layout.topics.events(), readiness.clone(), registry)?;
        let metrics = Metrics::register(registry)?;
        Ok(Self { config, log, readiness, metrics, log_watch, wrap: Box::new(|store| store) })
    }

    /// Puts something around the store that it will use: tests break a promise of the store there, to see that it is
    /// missed.
    #[must_use]
    pub fn with_store(self, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store> + Send + 'static) -> Self {
        Self { wrap: Box::new(wrap), ..self }
    }

    /// Works until `stop`, then finishes what is under way. Ends early, with an error, when a flow cannot go on.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { config, log, readiness, metrics, mut log_watch, wrap } = self;
        let database = Database::open(&config.store).context("USHER_STORE")?;
        say_ignored(&config.store);
        let outage = Outage::of(&database, "store", readiness.clone());
        let Some((store, has_read)) = until(&stop, || open_store(&outage, &database, &config)).await? else {
            return Ok(());
        };
        let reader = SqlStore::reader(database.clone());
        if until(&stop, || say_without_flow(&reader, &config.known_flows, &metrics)).await?.is_none() {
            return Ok(());
        }
        let store = wrap(store);
        outage.over();
        let mut outages = vec![outage.clone()];
        let Some(connectors) = open_connectors(&config, &mut outages, &readiness, &stop).await? else { return Ok(()) };
        let connectors = Arc::new(connectors);
        if until(&stop, || ensure(&*log, &config, has_read)).await?.is_none() {
            return Ok(());
        }
        log_watch.tell(&Ok(()));

        let clock_watch = ClockWatch::new(store.clone(), readiness.clone(), metrics.clone());
        if until(&stop, || async { clock_watch.look().await.map_err(|error| Trouble::Passing(error.into())) })
            .await?
            .is_none()
        {
            return Ok(());
        }

        let owner = format!("{}-{:08x}", std::process::id(), rand::random::<u32>());
        // What is known of a destination holds in every flow that uses it.
        let destinations = Arc::new(Mutex::new(Destinations::default()));
        let quotas = Arc::new(Quotas::new(limited(&config, &connectors)?, metrics.clone()));
        let suppression = Arc::new(config.suppression);
        if suppression.allowlist.is_given() {
            tracing::warn!("only who is named by USHER_DELIVER_ONLY_TO is written to; all else is held back");
        }
        let (mut flows, mut keepers) = (JoinSet::new(), JoinSet::new());
        keepers.spawn(checkpoint_now_and_then(store.clone()));
        keepers.spawn(quotas.clone().run(owner.clone(), store.clone(), destinations.clone()));
        // All before the first begins: once one has begun, what it ends with must be heard.
        for flow in &config.flows {
            if until(&stop, || keep_flow(&*store, &outage, flow)).await?.is_none() {
                return Ok(());
            }
        }
        let mut started = Vec::new();
        for flow in config.flows {
            let flow = Arc::new(flow);
            let (ready, is_ready) = oneshot::channel();
            started.push(is_ready);
            let (answer, answers) = mpsc::unbounded_channel();
            let half_kept = HalfKept::default();
            keepers.spawn(
                Housekeeper {
                    flow: flow.name.clone(),
                    topic: config.layout.topics.events(),
                    dead_letters: config.layout.dead_letters(&flow.name),
                    store: store.clone(),
                    log: log.clone(),
                    metrics: metrics.clone(),
                    keep: config.keep,
                    consumer: answer.clone(),
                    half_kept: half_kept.clone(),
                    clock: clock_watch.state(),
                }
                .run(),
            );
            let store_writer = StoreWriter::start(
                flow.name.clone(),
                owner.clone(),
                store.clone(),
                metrics.clone(),
                outage.clone(),
                stop.clone(),
                answer,
            );
            let consumer = FlowConsumer {
                engine: Engine::new(
                    limits(&flow, config.layout.partitions),
                    &flow.version,
                    flow.connector(0).map(str::to_owned),
                ),
                executor: Arc::new(StepExecutor {
                    versions: Versions::new(flow.clone(), store.clone()),
                    store: store.clone(),
                    connectors: connectors.clone(),
                    quotas: quotas.clone(),
                    suppression: suppression.clone(),
                    store_writer,
                    metrics: metrics.clone(),
                    clock: clock_watch.state(),
                    outage: outage.clone(),
                    stop: stop.clone(),
                }),
                flow,
                log: log.clone(),
                layout: config.layout.clone(),
                destinations: destinations.clone(),
                answers,
                half_kept,
                clock: clock_watch.state(),
                ready: Some(ready),
                readiness: readiness.clone(),
                stop: stop.clone(),
            };
            flows.spawn(consumer.run());
        }
        let all_started = {
            let readiness = readiness.clone();
            tokio::spawn(async move {
                for flow in started {
                    // One that ends before it begins takes the process with it.
                    if flow.await.is_err() {
                        return;
                    }
                }
                readiness.met("flows");
            })
        };
        let member = store.clone();
        keepers.spawn(clock_watch.run());
        let watch = tokio::spawn(watch(log_watch, outages.clone()));
        let result = supervise(flows, &outages, &stop).await;
        all_started.abort();
        watch.abort();
        keepers.shutdown().await;
        if let Err(error) = member.leave(&owner).await {
            tracing::debug!(%error, "quotas are given back when their lease is over");
        }
        if let Err(error) = member.checkpoint().await {
            tracing::warn!(%error, "the store's files may still hold what was deleted from it last");
        }
        log.flush().await;
        result
    }
}

/// Waits until all flows have ended, and says what the first of them ended with that did not end well.
async fn supervise(
    mut flows: JoinSet<anyhow::Result<()>>,
    outages: &[Outage],
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if flows.is_empty() {
        stop.cancelled().await;
    }
    let mut damaged = futures::future::select_all(outages.iter().map(|outage| Box::pin(outage.damaged())));
    let (mut result, mut is_damaged) = (Ok(()), false);
    loop {
        let ended = tokio::select! {
            ended = flows.join_next() => match ended {
                None => return result,
                Some(ended) => ended.unwrap_or_else(|error| Err(anyhow!("a flow's task has failed: {error}"))),
            },
            (line, ..) = &mut damaged, if !is_damaged => {
                is_damaged = true;
                Err(line.into())
            }
        };
        if let Err(error) = ended {
            // The others finish what they have begun; the first error is what is told.
            stop.cancel();
            result = result.and(Err(error));
        }
    }
}

/// The bounds of a flow.
fn limits(flow: &Flow, partitions: i32) -> Limits {
    let destinations: BTreeSet<&str> = flow.connectors().collect();
    Limits {
        in_flight: flow.concurrency,
        urgent: flow.urgent,
        destinations: destinations.len(),
        retry: flow.retry,
        from: flow.from,
        partitions,
        stall: STALL,
    }
}

/// The accounts that have a quota, or may announce a limit.
fn limited(config: &Config, connectors: &Connectors) -> anyhow::Result<Vec<Limited>> {
    let mut limited = Vec::new();
    for (instance, used) in config.connectors() {
        for connector in used {
            let (quota, assumed) = for_instance(instance, quota(connector, &config.environment.scoped_to(instance)))?;
            let uses =
                |flow: &&Flow| flow.instances.contains(instance) && flow.connectors().any(|used| used == connector);
            let serves_urgent = config.flows.iter().filter(uses).any(|flow| flow.urgent);
            if quota.is_none() && !may_announce(connector) {
                continue;
            }
            let destination = account(connector, instance);
            let sub_accounts = connectors.get(&destination).map(|open| open.sub_accounts()).unwrap_or_default();
            let names: Vec<String> = match sub_accounts.is_empty() {
                true => vec![destination.clone()],
                false => sub_accounts.iter().map(|part| quotas::part(&destination, part)).collect(),
            };
            limited.extend(names.into_iter().map(|account| {
                let (destination, quota) = (destination.clone(), quota.clone());
                Limited { account, destination, quota, assumed, serves_urgent }
            }));
        }
    }
    Ok(limited)
}

/// Keeps what was deleted, one-time codes say, from staying in the store's files.
async fn checkpoint_now_and_then(store: Arc<dyn Store>) {
    loop {
        tokio::time::sleep(CHECKPOINT_EVERY).await;
        if let Err(error) = store.checkpoint().await {
            tracing::debug!(%error, "the store was not checkpointed; it is in a moment");
        }
    }
}

/// Keeps readiness true to the log, and to databases that are asked only when something is to be written.
async fn watch(mut log: LogWatch, outages: Vec<Outage>) {
    loop {
        // The first is the store's: the flows ask it all the time.
        for outage in outages.iter().skip(1) {
            outage.check().await;
        }
        tokio::time::sleep(CHECK_EVERY).await;
        // What it finds it has told.
        let _ = log.look().await;
    }
}
