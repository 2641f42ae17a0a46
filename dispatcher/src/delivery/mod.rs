//! Input and output around the engine. Reads the log, writes the store, calls the destinations and publishes dead
//! letters. Makes no decisions of its own.

mod ahead_reader;
mod arrivals;
mod catching_up;
mod clock_watch;
mod consumer;
mod dead_letters;
mod destinations;
mod error;
mod execute;
mod first_claims;
mod gathered_read;
mod housekeeping;
mod lag;
mod opening;
mod quotas;
mod schedules;
mod store_actor;
mod versions;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ahead_reader::AheadReader;
use clock_watch::ClockWatch;
use consumer::FlowConsumer;
use destinations::SharedDestinations;
pub use error::DispatcherError;
use execute::{CallSlots, RequestMaker, StepExecutor};
pub use first_claims::first_claims;
use housekeeping::{HalfRetentionOffsets, KeptFlow, Pruner, SharedHousekeeper};
use lag::LagReporter;
use opening::{
    StartError, ensure, keep_flow, open_connectors, open_database, open_store, retry_until_ready, take_over_names,
    warn_ignored_params, warn_orphaned_runs,
};
use prometheus::Registry;
use quotas::Quotas;
use schedules::FlowScheduler;
use store_actor::{StoreHandle, StoreParts};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use usher_connectors::{Connectors, quota};
use usher_engine::{Engine, FlowLimits, account};
use usher_eventlog::{Log, LogWatch};
use usher_flows::Flow;
use usher_service::{ConfigError, Readiness, Scrapes};
use usher_sql::Outage;
use usher_store::{RunStore, SqlStore, Store};
use versions::Versions;

use crate::config::{DispatcherConfig, for_instance};
use crate::metrics::DispatcherMetrics;

/// Longest first pause before the log or the store is retried at startup.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Interval between checks that the log and the users' databases can be reached.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// Longest time that deleted content stays in the store's files.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Stall timeout: the group is rejoined if a partition with something to read delivers nothing for this long.
const STALL: Duration = Duration::from_secs(60);

/// Number of records that are not admitted above which a partition is read ahead. Fewer are admitted in a moment.
const FAR_BEHIND: i64 = 1024;

/// The flows of one process, with the settings and connections they share.
pub struct Dispatcher {
    config: DispatcherConfig,
    log: Arc<dyn Log>,
    readiness: Readiness,
    metrics: DispatcherMetrics,
    scrapes: Scrapes,
    log_watch: LogWatch,
    wrap: Wrap,
}

/// A function that wraps the store of runs; see [`Dispatcher::with_run_store`].
type Wrap = Box<dyn FnOnce(Arc<dyn RunStore>) -> Arc<dyn RunStore> + Send>;

impl Dispatcher {
    /// Returns the names of the readiness conditions: the store, and with flows also the log, the flows and the clock.
    /// A flow counts as ready once its group has its first offsets, so that no event accepted afterwards can be missed.
    pub fn needs(config: &DispatcherConfig) -> Vec<&'static str> {
        if config.flows.is_empty() { vec!["store"] } else { vec!["store", "log", "flows", "clock"] }
    }

    /// Creates a dispatcher that has not started.
    ///
    /// # Errors
    ///
    /// If metrics of the same names are already registered in `registry`.
    pub fn new(
        config: DispatcherConfig,
        log: Arc<dyn Log>,
        readiness: Readiness,
        registry: &Registry,
    ) -> Result<Self, DispatcherError> {
        let log_watch = LogWatch::new(log.clone(), config.layout.topics.events(), readiness.clone(), registry)?;
        let metrics = DispatcherMetrics::register(registry)?;
        for flow in &config.flows {
            let connectors: BTreeSet<&str> = flow.connectors().collect();
            metrics.create_series_of_flow(&flow.name, &Vec::from_iter(connectors));
            if flow.schedule.is_some() {
                metrics.create_series_of_schedule(&flow.name);
            }
        }
        for (instance, connectors) in config.connectors() {
            let accounts: Vec<String> = connectors.into_iter().map(|connector| account(connector, instance)).collect();
            metrics.create_series_of_accounts(&accounts.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let scrapes = Scrapes::default();
        Ok(Self { config, log, readiness, metrics, scrapes, log_watch, wrap: Box::new(|store| store) })
    }

    /// Uses this announcer of reads of the metrics, which others may share.
    #[must_use]
    pub fn with_scrapes(self, scrapes: Scrapes) -> Self {
        Self { scrapes, ..self }
    }

    /// Returns the announcer to be told before the metrics are read: some are brought up to date only then.
    pub fn scrapes(&self) -> Scrapes {
        self.scrapes.clone()
    }

    /// Wraps the store of runs that the dispatcher will use. Tests break a guarantee of the store there, to check that the
    /// breach is detected.
    #[must_use]
    pub fn with_run_store(self, wrap: impl FnOnce(Arc<dyn RunStore>) -> Arc<dyn RunStore> + Send + 'static) -> Self {
        Self { wrap: Box::new(wrap), ..self }
    }

    /// Runs until `stop` is cancelled, then finishes the work in flight.
    ///
    /// # Errors
    ///
    /// If the start fails for a reason that waiting does not fix, a flow cannot continue, or a database is damaged. The
    /// other flows finish their work in flight first.
    pub async fn run(self, stop: CancellationToken) -> Result<(), DispatcherError> {
        let Self { config, log, readiness, metrics, scrapes, mut log_watch, wrap } = self;
        let database = open_database(&config.store)?;
        warn_ignored_params(&config.store);
        let outage = Outage::of(&database, "store", readiness.clone());
        let Some((store, has_read)) = retry_until_ready(&stop, || open_store(&outage, &database, &config)).await?
        else {
            return Ok(());
        };
        let reader = SqlStore::reader(database.clone());
        if retry_until_ready(&stop, || take_over_names(&reader, &outage, &config)).await?.is_none() {
            return Ok(());
        }
        if retry_until_ready(&stop, || warn_orphaned_runs(&reader, &config.known_flows, &metrics)).await?.is_none() {
            return Ok(());
        }
        let runs = wrap(store.clone());
        outage.record_success();
        let mut outages = vec![outage.clone()];
        let Some(connectors) = open_connectors(&config, &mut outages, &readiness, &stop).await? else { return Ok(()) };
        let connectors = Arc::new(connectors);
        if retry_until_ready(&stop, || ensure(&*log, &config, has_read)).await?.is_none() {
            return Ok(());
        }
        log_watch.tell(&Ok(()));

        let clock_watch = ClockWatch::new(store.clone(), readiness.clone(), metrics.clone());
        if retry_until_ready(&stop, || async {
            clock_watch.look().await.map_err(|error| StartError::Transient(error.into()))
        })
        .await?
        .is_none()
        {
            return Ok(());
        }

        let owner = format!("{}-{:08x}", std::process::id(), rand::random::<u32>());
        let destinations = SharedDestinations::new();
        let quotas = Arc::new(Quotas::new(limited(&config, &connectors)?, metrics.clone()));
        let suppression = Arc::new(config.suppression);
        if suppression.allowlist.is_given() {
            tracing::warn!("recipients restricted by USHER_DELIVER_ONLY_TO; steps for others are skipped");
        }
        let mut flows = JoinSet::new();
        let mut background = JoinSet::new();
        background.spawn(checkpoint_now_and_then(store.clone()));
        background.spawn(quotas.clone().run(owner.clone(), store.clone(), destinations.clone()));
        background.spawn(destinations.clone().report(metrics.clone(), store.clone(), owner.clone()));
        // All versions are stored before the first flow starts. After that, this function must not return early,
        // because the result of each flow must be observed.
        for flow in &config.flows {
            if retry_until_ready(&stop, || keep_flow(&*store, &outage, flow)).await?.is_none() {
                return Ok(());
            }
        }
        let mut started = Vec::new();
        let mut kept = Vec::new();
        for flow in config.flows {
            let flow = Arc::new(flow);
            let (ready, is_ready) = oneshot::channel();
            started.push(is_ready);
            let (answer, answers) = mpsc::unbounded_channel();
            let half_retention_offsets = HalfRetentionOffsets::default();
            kept.push(KeptFlow {
                name: flow.name.clone(),
                dead_letters: config.layout.dead_letters(&flow.name),
                consumer: answer.clone(),
                half_retention_offsets: half_retention_offsets.clone(),
            });
            let pruner =
                Pruner { flow: flow.name.clone(), store: store.clone(), keep: config.keep, clock: clock_watch.state() };
            background.spawn(pruner.run());
            let ahead = AheadReader {
                flow: flow.clone(),
                log: log.clone(),
                topic: config.layout.topics.events(),
                answers: answer.clone(),
            };
            let requests = Arc::new(RequestMaker {
                versions: Versions::new(flow.clone(), store.clone(), config.environment.clone()),
                people: store.clone(),
                suppressions: gathered_read::suppressions(store.clone()),
                connectors: connectors.clone(),
                suppression: suppression.clone(),
                clock: clock_watch.state(),
                wait_speed: config.wait_speed,
                outage: outage.clone(),
                stop: stop.clone(),
            });
            let parts = StoreParts {
                flow: flow.name.clone(),
                owner: owner.clone(),
                store: runs.clone(),
                claims: requests.clone(),
                metrics: metrics.clone(),
                outage: outage.clone(),
                stop: stop.clone(),
            };
            let store_handle = StoreHandle::start(parts, answer);
            let limits = limits(&flow, config.layout.partitions);
            let slots = CallSlots::new(&limits);
            let (owns_first, ownership) = watch::channel(None);
            if let Some(schedule) = flow.schedule.clone() {
                let scheduler = FlowScheduler {
                    flow: flow.clone(),
                    schedule,
                    store: store.clone(),
                    log: log.clone(),
                    topic: config.layout.events(),
                    ownership,
                    clock: clock_watch.state(),
                    metrics: metrics.clone(),
                    outage: outage.clone(),
                };
                background.spawn(scheduler.run());
            }
            let consumer = FlowConsumer {
                engine: Engine::new(limits, &flow.version, flow.connector(0).map(str::to_owned)),
                executor: Arc::new(StepExecutor {
                    requests,
                    subjects: gathered_read::subjects(store.clone()),
                    quotas: quotas.clone(),
                    slots,
                    store_handle,
                    metrics: metrics.clone(),
                    stop: stop.clone(),
                }),
                flow,
                store: store.clone(),
                log: log.clone(),
                layout: config.layout.clone(),
                destinations: destinations.clone(),
                answers,
                ahead: ahead.start(),
                half_retention_offsets,
                clock: clock_watch.state(),
                owns_first,
                ready: Some(ready),
                readiness: readiness.clone(),
                stop: stop.clone(),
            };
            flows.spawn(consumer.run());
        }
        let names = kept.iter().map(|flow| flow.name.clone()).collect();
        let lag = LagReporter::new(names, config.layout.topics.events(), store.clone(), log.clone(), metrics.clone());
        background.spawn(lag.run(scrapes.clone()));
        let housekeeper = SharedHousekeeper {
            flows: kept,
            known_flows: config.known_flows,
            topic: config.layout.topics.events(),
            store: store.clone(),
            log: log.clone(),
            metrics: metrics.clone(),
            outage: outage.clone(),
            scrapes,
        };
        background.spawn(housekeeper.run());
        let all_started = {
            let readiness = readiness.clone();
            tokio::spawn(async move {
                for flow in started {
                    // A flow that ends before it is ready ends the process too.
                    if flow.await.is_err() {
                        return;
                    }
                }
                readiness.met("flows");
            })
        };
        let member = store.clone();
        background.spawn(clock_watch.run());
        let watch = tokio::spawn(watch(log_watch, outages.clone()));
        let result = supervise(flows, &outages, &stop).await;
        all_started.abort();
        watch.abort();
        background.shutdown().await;
        if let Err(error) = member.leave(&owner).await {
            tracing::debug!(%error, "releasing quota leases failed; they expire");
        }
        if let Err(error) = member.checkpoint().await {
            tracing::warn!(%error, "checkpoint failed at the stop; the store's files may still hold deleted data");
        }
        log.flush().await;
        result
    }
}

/// Waits until all flows have ended. Returns the first error of a flow or of a damaged database.
async fn supervise(
    mut flows: JoinSet<Result<(), DispatcherError>>,
    outages: &[Outage],
    stop: &CancellationToken,
) -> Result<(), DispatcherError> {
    if flows.is_empty() {
        stop.cancelled().await;
    }
    let mut damaged = futures::future::select_all(outages.iter().map(|outage| Box::pin(outage.damaged())));
    let mut result = Ok(());
    let mut is_damaged = false;
    loop {
        let ended = tokio::select! {
            ended = flows.join_next() => match ended {
                None => return result,
                Some(ended) => ended.unwrap_or_else(|error| Err(DispatcherError::FlowTask(error))),
            },
            (line, ..) = &mut damaged, if !is_damaged => {
                is_damaged = true;
                Err(line.into())
            }
        };
        if let Err(error) = ended {
            // The other flows finish their work in flight; the first error is returned.
            stop.cancel();
            result = result.and(Err(error));
        }
    }
}

/// Returns the engine's limits for a flow.
fn limits(flow: &Flow, partitions: i32) -> FlowLimits {
    let destinations: BTreeSet<&str> = flow.connectors().collect();
    FlowLimits {
        in_flight: flow.concurrency,
        urgent: flow.urgent,
        destinations: destinations.len(),
        retry: flow.retry,
        from: flow.from,
        partitions,
        stall: STALL,
        far_behind: FAR_BEHIND,
    }
}

/// Returns the accounts that have a quota or may announce a rate limit.
fn limited(
    config: &DispatcherConfig,
    connectors: &Connectors,
) -> Result<Vec<usher_quota::LimitedAccount>, ConfigError> {
    let mut limited = Vec::new();
    for (instance, used) in config.connectors() {
        for connector in used {
            let (quota, assumed) = for_instance(instance, quota(connector, &config.environment.scoped_to(instance)))?;
            let uses =
                |flow: &&Flow| flow.instances.contains(instance) && flow.connectors().any(|used| used == connector);
            let serves_urgent = config.flows.iter().filter(uses).any(|flow| flow.urgent);
            if quota.is_none() && !usher_connectors::spec(connector).is_some_and(|spec| spec.announces_limits) {
                continue;
            }
            let destination = account(connector, instance);
            let sub_accounts = connectors.get(&destination).map(|open| open.sub_accounts()).unwrap_or_default();
            let names: Vec<String> = match sub_accounts.is_empty() {
                true => vec![destination.clone()],
                false => sub_accounts.iter().map(|part| quotas::part(&destination, part)).collect(),
            };
            limited.extend(names.into_iter().map(|account| {
                let destination = destination.clone();
                let quota = quota.clone();
                usher_quota::LimitedAccount { account, destination, quota, assumed, serves_urgent }
            }));
        }
    }
    Ok(limited)
}

/// Checkpoints the store periodically, so that deleted content, such as one-time codes, does not stay in its files.
async fn checkpoint_now_and_then(store: Arc<dyn Store>) {
    loop {
        tokio::time::sleep(CHECKPOINT_EVERY).await;
        if let Err(error) = store.checkpoint().await {
            tracing::debug!(%error, "checkpoint failed; retrying");
        }
    }
}

/// Updates readiness from the log, and from databases that are accessed only when something is to be written.
async fn watch(mut log: LogWatch, outages: Vec<Outage>) {
    loop {
        // The first outage is the store's; the flows access the store all the time.
        for outage in outages.iter().skip(1) {
            outage.check().await;
        }
        tokio::time::sleep(CHECK_EVERY).await;
        // `look` has already reported its result.
        let _ = log.look().await;
    }
}
