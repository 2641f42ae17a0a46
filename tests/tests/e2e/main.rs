//! The end-to-end tests in one binary, because each further one links everything again.
//!
//! Binaries of their own have those tests that need a process, or the machine, to themselves: `tests/Cargo.toml` gives the
//! reasons.
#![allow(clippy::unwrap_used)]

mod controls;
mod cost;
mod deploy;
mod docs;
mod log;
mod metrics;
mod scenarios;
mod sdks;
mod store;
