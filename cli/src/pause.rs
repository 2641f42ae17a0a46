//! `usher pause` and `usher resume`: stop a flow from starting steps for a while.

use anyhow::bail;
use usher_dispatcher::operator::{CONFIRMED_WITHIN, confirmed_pause, describe_pause};
use usher_service::clock;

use crate::data::{self, StoreLocation};
use crate::output;

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
    /// Reason, shown to other operators.
    #[arg(long)]
    why: Option<String>,
}

pub(crate) async fn run(arguments: PauseArguments, paused: bool) -> anyhow::Result<()> {
    let PauseArguments { place, flow, by, why } = arguments;
    let store = place.store().await?;
    data::known_flow(&store, &flow).await?;
    let changed = store.set_paused(&flow, paused, &by, why.as_deref(), clock::now()).await?;
    if !paused {
        let came = if changed { "goes on, once it has caught up with the log" } else { "is not paused" };
        return output::line(&format!("flow {flow} {came}"));
    }
    let replicas = confirmed_pause(&store, &flow).await?;
    let already = if changed { "" } else { " already" };
    output::line(&format!("flow {flow} is paused{already}: {}", describe_pause(&replicas)))?;
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
