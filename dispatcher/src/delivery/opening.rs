//! Prerequisites of a flow: the store and the users' databases with their tables, the log with its topics, and the
//! destinations. Transient failures are waited out; a failure that only a person can fix ends the start.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use usher_connectors::Connectors;
use usher_engine::account;
use usher_eventlog::{Creation, Log};
use usher_flows::Flow;
use usher_service::retry::{Backoff, Jitter, RetryLimit, retry};
use usher_service::{ConfigError, Readiness, clock, exit};
use usher_sql::{Database, DatabaseAddress, Outage, Tables};
use usher_store::{FlowStore, RenameResult, SqlStore, Store, StoreError};

use super::ASK_AGAIN;
use super::error::DispatcherError;
use crate::config::{DispatcherConfig, for_instance, writes_to_database};
use crate::metrics::DispatcherMetrics;

/// Interval between log lines about what a start waits for.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Logs the parameters of an address that have no meaning here, once.
pub(super) fn warn_ignored_params(address: &DatabaseAddress) {
    if !address.ignored().is_empty() {
        tracing::warn!("ignored parameters of {}: {}", address.variable(), address.ignored().join(", "));
    }
}

/// Opens the database of an address. Connects when it is first used.
pub(super) fn open_database(address: &DatabaseAddress) -> Result<Database, DispatcherError> {
    let setting = || address.variable().to_owned();
    Database::open(address).map_err(|source| DispatcherError::Database { setting: setting(), source: Box::new(source) })
}

/// Retries `ask` until it succeeds or fails with an error that waiting does not fix. Returns `None` if the process
/// stops meanwhile.
pub(super) async fn retry_until_ready<T, F: Future<Output = Result<T, StartError>>>(
    stop: &CancellationToken,
    ask: impl Fn() -> F,
) -> Result<Option<T>, DispatcherError> {
    let begun = Instant::now();
    let said = Mutex::new(None::<Instant>);
    let attempt = || async {
        match stop.run_until_cancelled(ask()).await {
            None => ControlFlow::Break(Ok(None)),
            Some(Ok(answer)) => ControlFlow::Break(Ok(Some(answer))),
            Some(Err(StartError::Lasting(error))) => ControlFlow::Break(Err(error)),
            Some(Err(StartError::Transient(error))) => {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                    *said = Some(Instant::now());
                    let waited_s = begun.elapsed().as_secs();
                    tracing::warn!(waited_s, "the start waits: {}", exit::chain(&error));
                }
                ControlFlow::Continue(())
            }
            Some(Err(StartError::Said)) => ControlFlow::Continue(()),
        }
    };
    let backoff = Backoff { first: ASK_AGAIN, max: 4 * ASK_AGAIN, jitter: Jitter::Equal };
    retry(backoff, RetryLimit::Stop(stop), attempt).await.unwrap_or(Ok(None))
}

/// Failure of a prerequisite.
pub(super) enum StartError {
    Transient(DispatcherError),
    /// A transient failure that has already been logged.
    Said,
    Lasting(DispatcherError),
}

/// Opens the store. The flag is true if a flow has ever read the log with this store.
pub(super) async fn open_store(
    outage: &Outage,
    database: &Database,
    config: &DispatcherConfig,
) -> Result<(Arc<dyn Store>, bool), StartError> {
    prepare(outage, &usher_store::TABLES).await?;
    let opened = async {
        let store = SqlStore::open(database.clone(), config.layout.partitions).await?;
        let has_read = store.has_read().await?;
        Ok((Arc::new(store) as Arc<dyn Store>, has_read))
    };
    match opened.await {
        Ok(opened) => Ok(opened),
        Err(error @ StoreError::PartitionCount { .. }) => {
            Err(StartError::Lasting(ConfigError::new("USHER_STORE", error).into()))
        }
        Err(error) => {
            outage.record_failure(error.fault(), &error.to_string()).await;
            Err(StartError::Said)
        }
    }
}

/// Creates the tables. A wrong password or a missing right at the start is lasting, because it does not fix itself.
async fn prepare(outage: &Outage, tables: &Tables) -> Result<(), StartError> {
    match outage.prepare(tables).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(StartError::Said),
        Err(line) => Err(StartError::Lasting(line.into())),
    }
}

/// Opens the connectors that the flows use, by account. Returns `None` if the process stops meanwhile. The users'
/// databases are added to `outages`, whose first entry is the store's.
pub(super) async fn open_connectors(
    config: &DispatcherConfig,
    outages: &mut Vec<Outage>,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Result<Option<Connectors>, DispatcherError> {
    let mut all = Connectors::new();
    for (instance, used) in config.connectors() {
        let outage = match config.users.get(instance) {
            None => outages[0].clone(),
            Some(address) => {
                warn_ignored_params(address);
                let database = open_database(address)?;
                Outage::of(&database, address.variable().to_owned(), readiness.clone())
            }
        };
        if used.iter().any(|name| writes_to_database(name)) {
            if retry_until_ready(stop, || prepare(&outage, &usher_connectors::USERS_TABLES)).await?.is_none() {
                return Ok(None);
            }
            outage.record_success();
            if config.users.contains_key(instance) {
                outages.push(outage.clone());
            }
        }
        let used: Vec<&str> = used.into_iter().collect();
        let opened = usher_connectors::open(&used, &config.environment.scoped_to(instance), outage.database());
        let opened = for_instance(instance, opened)?;
        for (name, connector) in &opened {
            let Some(checked) = stop.run_until_cancelled(connector.check(&config.uses(name, instance))).await else {
                return Ok(None);
            };
            for_instance(instance, checked)?;
        }
        all.extend(opened.into_iter().map(|(connector, open)| (account(&connector, instance), open)));
    }
    Ok(Some(all))
}

/// Creates and checks the topics. An events topic that a flow has already read is not created again.
pub(super) async fn ensure(log: &dyn Log, config: &DispatcherConfig, has_read: bool) -> Result<(), StartError> {
    let dead_letters = config.flows.iter().map(|flow| config.layout.dead_letters(&flow.name));
    let mut events = config.layout.events();
    if has_read {
        events.creation = Creation::Never;
    }
    let topics: Vec<_> = std::iter::once(events).chain(dead_letters).collect();
    match log.ensure(&topics).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_lasting() => Err(StartError::Lasting(ConfigError::new("USHER_LOG", error).into())),
        Err(error) => Err(StartError::Transient(error.into())),
    }
}

pub(super) async fn keep_flow(store: &dyn FlowStore, outage: &Outage, flow: &Flow) -> Result<(), StartError> {
    let source = serde_json::to_string(&flow.source)
        .map_err(|source| StartError::Lasting(DispatcherError::FlowSource { flow: flow.name.clone(), source }))?;
    let Err(error) = store.keep_flow(&flow.name, &flow.version, &source).await else {
        outage.record_success();
        return Ok(());
    };
    outage.record_failure(error.fault(), &error.to_string()).await;
    Err(StartError::Said)
}

/// Lets each flow that is renamed take over what it has done under its former name, and refuses flows whose name another flow has
/// given up, unless that one has a file here: then the name is free again.
pub(super) async fn take_over_names(
    store: &SqlStore,
    outage: &Outage,
    config: &DispatcherConfig,
) -> Result<(), StartError> {
    let taken = async {
        for flow in &config.flows {
            let Some(was) = &flow.was else { continue };
            match store.rename_flow(was, &flow.name, clock::now()).await? {
                RenameResult::Renamed { open_runs } => {
                    tracing::info!(flow = flow.name, was, open_runs, "flow renamed: it goes on where it was");
                }
                RenameResult::Already | RenameResult::Unknown => {}
                RenameResult::Taken => {
                    let why = format!(
                        "was = \"{was}\": {} has read the log under its own name already, so it cannot go on where {was} was; \
                         leave was out",
                        flow.name
                    );
                    return Ok(Some(ConfigError::new(&flow.source.file, why)));
                }
            }
        }
        for former in store.former_names().await? {
            if !config.flows.iter().any(|flow| flow.name == former.was) {
                continue;
            }
            if !config.known_flows.contains(&former.flow) {
                let why = format!(
                    "flow {} is called {} since {}: these flow files are of before",
                    former.was, former.flow, former.at
                );
                return Ok(Some(ConfigError::new("USHER_FLOWS", why)));
            }
            store.free_name(&former.was).await?;
        }
        Ok::<_, StoreError>(None)
    };
    match taken.await {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(StartError::Lasting(error.into())),
        Err(error) => {
            outage.record_failure(error.fault(), &error.to_string()).await;
            Err(StartError::Said)
        }
    }
}

/// Warns about flows that have unfinished runs and no file. The runs wait until the file is back.
pub(super) async fn warn_orphaned_runs(
    store: &SqlStore,
    known: &[String],
    metrics: &DispatcherMetrics,
) -> Result<(), StartError> {
    let under_way = store.under_way().await.map_err(|error| StartError::Transient(error.into()))?;
    for (flow, runs) in under_way.into_iter().filter(|(flow, _)| !known.contains(flow)) {
        metrics.without_flow.with_label_values(&[&flow]).set(runs);
        tracing::warn!(flow, runs, "flow has runs under way and no file: they wait until it is back under that name");
    }
    Ok(())
}
