//! Support for the end-to-end tests: worlds in which the real programs run, and ways to look at what became of events.
//!
//! Everything here waits for something to happen, with a deadline; nothing sleeps for luck.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod backend;
pub mod books;
pub mod broker;
pub mod chaos;
pub mod checker;
pub mod cluster;
pub mod database;
pub mod deaf;
pub mod disk;
pub mod events;
pub mod group;
pub mod ledger;
pub mod load;
pub mod postgres;
pub mod program;
pub mod replica;
pub mod report;
pub mod sabotage;
pub mod test_env;

mod settings;

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer; fails, with what `describe` says, after `deadline`.
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
        // Only how often to look; what is looked for decides when to go on.
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// A port that nobody listens on, for a server that is to come back on it. Below those that the system gives to outgoing
/// connections and to servers that ask for any: so nothing takes it while the server is away.
pub fn free_port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..100).map(|_| rand::random_range(20_000..32_000)).find(free).expect("a free port")
}

/// A word that no other test uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff)
}
