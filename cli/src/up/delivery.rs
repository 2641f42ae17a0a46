//! The flows of `usher up`. With `--watch` they are replaced when their files change: the delivery part of the process
//! stops as at the end of a process, and starts with the new files. Ingest goes on meanwhile. Runs under way keep the version
//! of their flow, as after any restart.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_dispatcher::{Dispatcher, DispatcherConfig, DispatcherError};
use usher_eventlog::Log;
use usher_service::{ConfigError, Readiness, Scrapes, exit};

use super::watch::FolderWatch;
use crate::output;

/// Readiness condition of a dispatcher whose flows have begun.
const FLOWS: &str = "flows";

/// The parts that outlive a change of the flow files.
pub(super) struct Delivery {
    pub(super) log: Arc<dyn Log>,
    pub(super) readiness: Readiness,
    pub(super) scrapes: Scrapes,
    pub(super) metrics: CurrentMetrics,
    pub(super) stop: CancellationToken,
}

/// The parts that follow changes of the flow files.
pub(super) struct Reload {
    pub(super) folder: FolderWatch,
    /// Reads the flow files and checks them together with the settings.
    pub(super) load: Box<dyn Fn() -> Result<DispatcherConfig, ConfigError> + Send + Sync>,
    /// Tells what is odd about flows that are otherwise good.
    pub(super) tell: Box<dyn Fn(&DispatcherConfig) + Send + Sync>,
}

/// The flows from one start to the next change of their files.
struct Generation {
    stop: CancellationToken,
    running: JoinHandle<Result<(), DispatcherError>>,
}

impl Generation {
    /// Waits until the flows have ended.
    async fn ended(&mut self) -> anyhow::Result<()> {
        Ok((&mut self.running).await??)
    }

    /// Lets the work in flight finish, and ends.
    async fn end(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.ended().await
    }
}

impl Delivery {
    /// Runs the flows until the process stops. With `reload`, changes of their files take effect.
    ///
    /// # Errors
    ///
    /// The flows cannot go on.
    pub(super) async fn run(self, config: DispatcherConfig, reload: Option<Reload>) -> anyhow::Result<()> {
        let mut generation = self.begin(config.clone())?;
        let Some(mut reload) = reload else { return generation.ended().await };
        let mut in_force = config;
        let mut is_broken = false;
        loop {
            tokio::select! {
                ended = generation.ended() => return ended,
                () = reload.folder.changed() => {}
            }
            let config = match (reload.load)() {
                Ok(config) => config,
                Err(problems) => {
                    refuse(&problems.to_string());
                    is_broken = true;
                    continue;
                }
            };
            let news = differences(&in_force, &config);
            if news.is_empty() {
                if std::mem::take(&mut is_broken) {
                    output::notice("the flow files are good again, and as they are in force");
                }
                continue;
            }
            generation.end().await?;
            self.readiness.lost(FLOWS);
            generation = self.begin(config.clone())?;
            let started = tokio::select! {
                ended = generation.ended() => ended.map(|()| false),
                () = self.readiness.ready() => Ok(true),
            };
            match started {
                Ok(true) => {
                    is_broken = false;
                    (reload.tell)(&config);
                    output::notice(&format!("the flow files have changed: {}", news.join(", ")));
                    in_force = config;
                }
                // The process stops.
                Ok(false) => return Ok(()),
                Err(error) => {
                    refuse(&exit::chain(error.as_ref()));
                    is_broken = true;
                    generation = self.begin(in_force.clone())?;
                }
            }
        }
    }

    fn begin(&self, config: DispatcherConfig) -> anyhow::Result<Generation> {
        let registry = Registry::new();
        let dispatcher = Dispatcher::new(config, self.log.clone(), self.readiness.clone(), &registry)?;
        let dispatcher = dispatcher.with_scrapes(self.scrapes.clone());
        self.metrics.replace(registry);
        let stop = self.stop.child_token();
        Ok(Generation { running: tokio::spawn(dispatcher.run(stop.clone())), stop })
    }
}

/// Tells why changed flow files do not take effect.
fn refuse(why: &str) {
    output::notice("the flow files have changed and cannot be used; the flows go on as they were:");
    why.lines().for_each(|line| output::notice(&format!("  {line}")));
}

/// Returns what is different, one text for each flow that is new, changed or removed.
fn differences(old: &DispatcherConfig, new: &DispatcherConfig) -> Vec<String> {
    let version = |config: &DispatcherConfig, name: &str| {
        config.flows.iter().find(|flow| flow.name == name).map(|flow| flow.version.clone())
    };
    let mut news = Vec::new();
    for flow in &new.flows {
        match version(old, &flow.name) {
            None => news.push(format!("{} is new", flow.name)),
            Some(earlier) if earlier != flow.version => {
                news.push(format!("{} has version {} for new runs", flow.name, flow.version));
            }
            Some(_) => {}
        }
    }
    let gone = old.flows.iter().filter(|flow| version(new, &flow.name).is_none());
    news.extend(gone.map(|flow| format!("{} is removed", flow.name)));
    news
}

/// The metrics of the flows that run now. A change of the files counts like a restart: its metrics begin at 0.
#[derive(Clone, Default)]
pub(super) struct CurrentMetrics(Arc<Mutex<Registry>>);

impl CurrentMetrics {
    fn replace(&self, registry: Registry) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = registry;
    }
}

impl Collector for CurrentMetrics {
    /// Describes nothing, because the metrics differ with the flows.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).gather()
    }
}
