//! What has to be there before a flow begins: the store and the users' databases with their tables, the log with its
//! topics, the destinations. What passes is waited for; what only a person mends ends the start.

use std::sync::Arc;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use usher_eventlog::{Creation, Log};
use usher_service::ConfigError;
use usher_service::Readiness;

use super::ASK_AGAIN;
use crate::config::{Config, for_instance};
use crate::connectors::{self, Connectors};
use crate::engine::account;
use crate::flows::Flow;
use crate::metrics::Metrics;
use crate::sql::{Database, DatabaseAddress, Outage, Tables};
use crate::store::{SqlStore, Store, StoreError};

/// Names the parameters of an address that have no meaning here, once.
pub(super) fn say_ignored(address: &DatabaseAddress) {
    if !address.ignored().is_empty() {
        tracing::warn!("ignored parameters of {}: {}", address.variable(), address.ignored().join(", "));
    }
}

/// Asks until there is an answer, or an error that waiting does not mend. None when stopped meanwhile.
pub(super) async fn until<T, F: Future<Output = Result<T, Trouble>>>(
    stop: &CancellationToken,
    ask: impl Fn() -> F,
) -> anyhow::Result<Option<T>> {
    loop {
        match stop.run_until_cancelled(ask()).await {
            None => return Ok(None),
            Some(Ok(answer)) => return Ok(Some(answer)),
            Some(Err(Trouble::Lasting(error))) => return Err(error),
            Some(Err(trouble)) => {
                if let Trouble::Passing(error) = trouble {
                    tracing::warn!(error = %format!("{error:#}"), "not ready");
                }
                stop.run_until_cancelled(tokio::time::sleep(ASK_AGAIN)).await;
            }
        }
    }
}

pub(super) enum Trouble {
    Passing(anyhow::Error),
    /// Passing, and said already.
    Said,
    Lasting(anyhow::Error),
}

/// The store, and whether a flow has ever read the log by it.
pub(super) async fn open_store(
    outage: &Outage,
    database: &Database,
    config: &Config,
) -> Result<(Arc<dyn Store>, bool), Trouble> {
    prepare(outage, Tables::Store).await?;
    let opened = async {
        let store = SqlStore::open(database.clone(), config.layout.partitions).await?;
        let has_read = store.has_read().await?;
        Ok((Arc::new(store) as Arc<dyn Store>, has_read))
    };
    match opened.await {
        Ok(opened) => Ok(opened),
        Err(error @ StoreError::PartitionCount { .. }) => {
            Err(Trouble::Lasting(ConfigError::new("USHER_STORE", error).into()))
        }
        Err(error) => {
            outage.failed(error.fault(), &error.to_string()).await;
            Err(Trouble::Said)
        }
    }
}

/// Makes the tables. A password or a right that is wrong at the start does not mend itself.
async fn prepare(outage: &Outage, tables: Tables) -> Result<(), Trouble> {
    match outage.prepare(tables).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Trouble::Said),
        Err(line) => Err(Trouble::Lasting(line.into())),
    }
}

/// Opens what the flows use, by account. None when stopped meanwhile. Databases of users are added to `outages`, whose
/// first is the store's.
pub(super) async fn open_connectors(
    config: &Config,
    outages: &mut Vec<Outage>,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Connectors>> {
    let mut all = Connectors::new();
    for (instance, used) in config.connectors() {
        let outage = match config.users.get(instance) {
            None => outages[0].clone(),
            Some(address) => {
                say_ignored(address);
                let database = Database::open(address).with_context(|| address.variable().to_owned())?;
                Outage::of(&database, address.variable().to_owned(), readiness.clone())
            }
        };
        if used.contains("database") {
            if until(stop, || prepare(&outage, Tables::Users)).await?.is_none() {
                return Ok(None);
            }
            outage.over();
            if config.users.contains_key(instance) {
                outages.push(outage.clone());
            }
        }
        let used: Vec<&str> = used.into_iter().collect();
        let opened = connectors::open(&used, &config.environment.scoped_to(instance), outage.database());
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

/// Makes and checks the topics. One of events that a flow has read is not made again.
pub(super) async fn ensure(log: &dyn Log, config: &Config, has_read: bool) -> Result<(), Trouble> {
    let dead_letters = config.flows.iter().map(|flow| config.layout.dead_letters(&flow.name));
    let mut events = config.layout.events();
    if has_read {
        events.creation = Creation::Never;
    }
    let topics: Vec<_> = std::iter::once(events).chain(dead_letters).collect();
    match log.ensure(&topics).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_lasting() => Err(Trouble::Lasting(ConfigError::new("USHER_LOG", error).into())),
        Err(error) => Err(Trouble::Passing(error.into())),
    }
}

pub(super) async fn keep_flow(store: &dyn Store, outage: &Outage, flow: &Flow) -> Result<(), Trouble> {
    let source = serde_json::to_string(&flow.source).map_err(|error| Trouble::Lasting(error.into()))?;
    let Err(error) = store.keep_flow(&flow.name, &flow.version, &source).await else {
        outage.over();
        return Ok(());
    };
    outage.failed(error.fault(), &error.to_string()).await;
    Err(Trouble::Said)
}

/// Tells of flows that have runs under way and no file: they wait until it is back.
pub(super) async fn say_without_flow(store: &SqlStore, known: &[String], metrics: &Metrics) -> Result<(), Trouble> {
    let under_way = store.under_way().await.map_err(|error| Trouble::Passing(error.into()))?;
    for (flow, runs) in under_way.into_iter().filter(|(flow, _)| !known.contains(flow)) {
        metrics.without_flow.with_label_values(&[&flow]).set(runs);
        tracing::warn!(flow, runs, "flow has runs under way and no file: they wait until it is back under that name");
    }
    Ok(())
}
