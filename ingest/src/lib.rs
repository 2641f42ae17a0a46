//! The thin side: an HTTP request comes in, is verified, keyed and published to the log, and is answered 2xx only when
//! the log has acknowledged it.
//!
//! It keeps no state, reads no more of a body than its type, ids and time, and never touches the store.

pub mod config;
pub mod sources;

mod error;
mod metrics;
mod publish;
mod published;
mod refusals;
mod server;
mod unsubscribe;

pub use config::Config;
pub use server::{NEEDS, router};
