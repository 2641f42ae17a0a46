//! Support for the end-to-end tests: worlds in which the real programs run, and ways to look at what became of events.
//!
//! Everything here waits for something to happen, with a deadline; nothing sleeps for luck.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod broker;
pub mod disk;
pub mod events;
pub mod pair;
pub mod program;
pub mod world;

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

/// A word that no other test uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff)
}
