//! `usher pause` and `usher resume`: a flow that is to begin nothing for a while.

use anyhow::bail;
use usher_service::clock;

use crate::data::Place;
use crate::output;

/// A flow, and who orders what.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The flow.
    flow: String,
    /// Who gives the order: kept with it.
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
}

pub(crate) async fn run(arguments: Arguments, paused: bool) -> anyhow::Result<()> {
    let Arguments { place, flow, by } = arguments;
    let store = place.store().await?;
    let known = store.flow_names().await?;
    if !known.contains(&flow) {
        bail!("there is no flow {flow:?}; there are {}", known.join(", "));
    }
    let changed = store.set_paused(&flow, paused, &by, clock::now()).await?;
    let (now, already) = match paused {
        true => ("begins nothing new from now on; what is under way finishes", "is paused already"),
        false => ("goes on", "is not paused"),
    };
    output::line(&format!("flow {flow} {}", if changed { now } else { already }))
}
