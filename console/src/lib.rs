//! The console: pages and an HTTP API by which operators see what becomes of events, and act.
//!
//! Data flows one way: the store's views ([`usher_store`]) are read into the answers of `model`, personal data in them is
//! masked (`mask`) unless an operator has asked to see it, and a page or the API shows the answer. Actions are those of the
//! command line ([`usher_dispatcher::operator`]), with the caller's name. Nothing is kept in memory but the newest look at
//! the store, so a restart or a second replica shows the same.

mod access;
mod actions;
mod api;
mod assets;
mod config;
mod guard;
mod live;
mod mask;
mod model;
mod pages;
mod problem;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
pub use config::ConsoleConfig;
use live::LiveFeed;
use tokio_util::sync::CancellationToken;
use usher_dispatcher::operator::{self, OperatorCommands, OperatorError, RedriveRunner, Status};
use usher_lab::Lab;
use usher_proto::Timestamp;
use usher_store::SqlStore;

/// The parts that all routes share.
#[derive(Clone)]
pub(crate) struct Console(Arc<ConsoleParts>);

struct ConsoleParts {
    config: ConsoleConfig,
    store: Arc<SqlStore>,
    /// `None` if there is no log to which commands could be written.
    commands: Option<OperatorCommands>,
    /// `None` without commands.
    redrives: Option<Arc<RedriveRunner>>,
    /// The lab of the same process; `None` if there is none.
    lab: Option<Lab>,
    live: LiveFeed,
}

impl Console {
    pub(crate) fn config(&self) -> &ConsoleConfig {
        &self.0.config
    }

    /// Returns the path below which everything is served; empty, or without a slash at its end.
    pub(crate) fn base(&self) -> &str {
        &self.0.config.base
    }

    pub(crate) fn store(&self) -> &SqlStore {
        &self.0.store
    }

    pub(crate) fn commands(&self) -> Option<&OperatorCommands> {
        self.0.commands.as_ref()
    }

    pub(crate) fn redrives(&self) -> Option<&RedriveRunner> {
        self.0.redrives.as_deref()
    }

    pub(crate) fn lab(&self) -> Option<&Lab> {
        self.0.lab.as_ref()
    }

    /// Returns the state of all flows and accounts; with the lag, if there is a log.
    pub(crate) async fn status(&self, now: Timestamp) -> Result<Status, OperatorError> {
        match self.commands() {
            Some(commands) => commands.status(now).await,
            None => operator::status(self.store(), None, now).await,
        }
    }

    pub(crate) fn live(&self) -> &LiveFeed {
        &self.0.live
    }
}

/// The parts of the program that the console shows and acts through, besides the store.
#[derive(Clone, Default)]
pub struct ConsoleLinks {
    /// Sends operators' commands; without it, the pages that need it say so.
    pub commands: Option<OperatorCommands>,
    /// The lab that runs in the same process; without it there is no page of the lab.
    pub lab: Option<Lab>,
}

/// Returns the router of the console, and carries out redrives from now on. Both, and the streams of live pages, end with
/// `stop`. Is called in a runtime.
pub fn router(config: ConsoleConfig, store: Arc<SqlStore>, links: ConsoleLinks, stop: CancellationToken) -> Router {
    let console = Console::new(config, store, links, stop.clone());
    if let Some(runner) = &console.0.redrives {
        tokio::spawn(runner.clone().run(stop));
    }
    routes::router(console)
}

impl Console {
    fn new(config: ConsoleConfig, store: Arc<SqlStore>, links: ConsoleLinks, stop: CancellationToken) -> Self {
        let live = LiveFeed::new(store.clone(), stop);
        let ConsoleLinks { commands, lab } = links;
        let redrives = commands.clone().map(RedriveRunner::new);
        Self(Arc::new(ConsoleParts { config, store, commands, redrives, lab, live }))
    }
}
