//! Functions that all processes of Usher share: options, logging, an HTTP server, health pages, retries, shutdown.
//!
//! This crate does not depend on events, logs or flows.

pub mod listen;
pub mod options;
pub mod secret;
pub mod settings;

pub mod best_effort;
pub mod clock;
mod config_error;
pub mod disk;
pub mod exit;
pub mod file_identity;
pub mod files;
mod log_filter;
pub mod telemetry;
pub mod trace;

pub mod health;
pub mod http;
pub mod metric;
pub mod retry;
pub mod runtime;
mod scrapes;
pub mod shutdown;

pub use config_error::ConfigError;
pub use health::Readiness;
pub use scrapes::{Scrape, ScrapeQueue, Scrapes};
pub use secret::Secret;
