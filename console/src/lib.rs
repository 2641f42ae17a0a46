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
use usher_dispatcher::operator::OperatorCommands;
use usher_store::SqlStore;

/// The parts that all routes share.
#[derive(Clone)]
pub(crate) struct Console(Arc<ConsoleParts>);

struct ConsoleParts {
    config: ConsoleConfig,
    store: Arc<SqlStore>,
    /// `None` if there is no log to which commands could be written.
    commands: Option<OperatorCommands>,
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

    pub(crate) fn live(&self) -> &LiveFeed {
        &self.0.live
    }
}

/// Returns the router of the console. `commands` sends operators' commands; without it, the pages that need it say so. The
/// streams of live pages end with `stop`.
pub fn router(
    config: ConsoleConfig,
    store: Arc<SqlStore>,
    commands: Option<OperatorCommands>,
    stop: CancellationToken,
) -> Router {
    let live = LiveFeed::new(store.clone(), stop);
    routes::router(Console(Arc::new(ConsoleParts { config, store, commands, live })))
}
