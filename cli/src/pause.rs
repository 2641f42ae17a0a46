//! `usher pause` and `usher resume`: stop a flow from starting steps for a while.

use std::time::{Duration, Instant};

use anyhow::bail;
use usher_service::clock;
use usher_store::{ReplicaPause, SqlStore};

use crate::data::{self, StoreLocation};
use crate::output;

/// Time limit for all replicas to confirm a pause and to finish the steps in flight. After it, the command fails.
/// Replicas check for a pause every two seconds.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(10);
/// Interval between queries for the confirmations.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A flow, and the operator who gives the command.
#[derive(Debug, clap::Args)]
pub(crate) struct PauseArguments {
    #[command(flatten)]
    place: StoreLocation,
    /// The flow.
    flow: String,
    /// Name of the operator, stored with the command.
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
}

pub(crate) async fn run(arguments: PauseArguments, paused: bool) -> anyhow::Result<()> {
    let PauseArguments { place, flow, by } = arguments;
    let store = place.store().await?;
    data::known_flow(&store, &flow).await?;
    let changed = store.set_paused(&flow, paused, &by, clock::now()).await?;
    if !paused {
        let came = if changed { "goes on, once it has caught up with the log" } else { "is not paused" };
        return output::line(&format!("flow {flow} {came}"));
    }
    let replicas = confirmed(&store, &flow).await?;
    let already = if changed { "" } else { " already" };
    output::line(&format!("flow {flow} is paused{already}: {}", outcome(&replicas)))?;
    let silent: Vec<&str> =
        replicas.iter().filter(|it| it.under_way.is_none()).map(|replica| replica.owner.as_str()).collect();
    if !silent.is_empty() {
        bail!(
            "the pause is written, but {} did not confirm it within {} s and may still begin steps unless it is gone: {}",
            if silent.len() == 1 { "one replica" } else { "some replicas" },
            CONFIRMED_WITHIN.as_secs(),
            silent.join(", ")
        );
    }
    Ok(())
}

/// Waits until every replica has confirmed and no step is in flight, or for [`CONFIRMED_WITHIN`]. Returns the last
/// state of the replicas.
async fn confirmed(store: &SqlStore, flow: &str) -> anyhow::Result<Vec<ReplicaPause>> {
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
fn outcome(replicas: &[ReplicaPause]) -> String {
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
