//! From the log to runs, from runs to outcomes, from outcomes to the frontier: one consumer group a flow.

pub mod before;
pub mod config;
pub mod connectors;
pub mod engine;
pub mod flows;
pub mod orders;
pub mod reach;
pub mod sql;
pub mod store;
pub mod subject;

mod delivery;
mod metrics;

pub use config::Config;
pub use delivery::Dispatcher;
