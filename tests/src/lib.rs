//! Support for the end-to-end tests: environments in which the real programs run, and means to inspect the results.
//!
//! All functions wait for a condition with a deadline; none relies on a fixed sleep.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod backend;
pub mod broker;
pub mod chaos;
pub mod checker;
pub mod cluster;
pub mod collect;
pub mod database;
pub mod deaf;
pub mod disk;
pub mod events;
pub mod fake_clock;
pub mod group;
pub mod ledger;
pub mod load;
pub mod pgbouncer;
pub mod postgres;
pub mod private;
pub mod program;
pub mod replica;
pub mod report;
pub mod sabotage;
pub mod test_env;

#[cfg(test)]
mod comments;
#[cfg(test)]
mod dependencies;
#[cfg(test)]
mod migrations;
#[cfg(test)]
mod names;
mod settings;
#[cfg(test)]
mod toolchain;
#[cfg(test)]
mod unrun;

use std::time::{Duration, Instant};

pub use usher_needs::needs;

/// Calls `ask` until it returns `Some`. Panics with `what` after `deadline`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < deadline, "after {deadline:?} still not: {what}");
        // Polling interval only. The condition decides the end.
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Returns an unused port for a server that will be restarted on it. The port is below the ranges that the system gives
/// to outgoing connections and to servers that request any port, so nothing takes it while the server is down.
pub fn free_port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..100).map(|_| rand::random_range(20_000..32_000)).find(free).expect("a free port")
}

/// Returns a word with this prefix that no other test uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff)
}
