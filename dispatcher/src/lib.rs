//! From the log to runs, from runs to outcomes, from outcomes to the frontier: one consumer group a flow.

pub mod config;
pub mod connectors;
pub mod engine;
pub mod field_diff;
pub mod flows;
pub mod orders;
pub mod sql;
pub mod store;
pub mod subject;
pub mod suppression;

mod delivery;
mod metrics;

pub use config::Config;
pub use delivery::Dispatcher;
