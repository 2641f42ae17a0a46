//! The confirmation of a pause by the replicas of its flow.

use std::time::{Duration, Instant};

use usher_store::{ReplicaPause, SqlStore, StoreError};

/// Time limit for all replicas to confirm a pause and to finish the steps in flight. Replicas check for a pause every two
/// seconds.
pub const CONFIRMED_WITHIN: Duration = Duration::from_secs(10);
/// Interval between queries for the confirmations.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Waits until every replica has confirmed and no step is in flight, or for [`CONFIRMED_WITHIN`]. Returns the last state of
/// the replicas.
///
/// # Errors
///
/// The store does not answer.
pub async fn confirmed_pause(store: &SqlStore, flow: &str) -> Result<Vec<ReplicaPause>, StoreError> {
    let begun = Instant::now();
    loop {
        let replicas = store.pausing(flow).await?;
        if replicas.iter().all(|replica| replica.under_way == Some(0)) || begun.elapsed() >= CONFIRMED_WITHIN {
            return Ok(replicas);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Describes the confirmations and the steps in flight in words.
pub fn describe_pause(replicas: &[ReplicaPause]) -> String {
    let confirmed = replicas.iter().filter(|replica| replica.under_way.is_some()).count();
    let under_way: usize = replicas.iter().filter_map(|replica| replica.under_way).sum();
    match (replicas.len(), under_way) {
        (0, _) => "no replica works on it".to_owned(),
        (all, 0) => format!("{confirmed} of {all} replicas begin nothing, and nothing is under way there"),
        (all, left) => {
            format!("{confirmed} of {all} replicas begin nothing; up to {left} steps begun before are still under way")
        }
    }
}
