//! The dispatcher: turns events of the log into runs, runs into outcomes, and outcomes into progress of the frontier.
//! Each flow is a consumer group of its own.

pub mod config;
pub mod operator;
pub mod orders;

mod delivery;
mod lag;
mod metrics;
mod service;

pub use config::{DispatcherConfig, PassedOverStep};
pub use delivery::{Dispatcher, DispatcherError, first_claims};
pub use metrics::METRICS;
pub use service::program;
