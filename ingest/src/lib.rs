//! The HTTP side of Usher. A webhook is received, verified, keyed and published to the log. The response is 2xx only
//! after the log has acknowledged the record.
//!
//! `ingest` keeps no state, reads only the type, the ids and the time of a body, and never accesses the store.

pub mod config;
pub mod sources;

mod error;
mod metrics;
mod publish;
mod published;
mod refusals;
mod room;
mod server;
mod service;
#[cfg(test)]
mod testing;
mod unsubscribe;

pub use config::IngestConfig;
pub use metrics::METRICS;
pub use server::{NEEDS, router};
pub use service::program;
