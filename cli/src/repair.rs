//! `usher repair`: reverses the damage of a wrong clock to a store.

use usher_store::MendedHorizon;

use crate::data::StoreLocation;
use crate::output;

/// Repairs a store that a wrong clock has damaged: it gives up new events as `too_old`.
///
/// Earlier versions used the clock of the machine to decide which past events to forget. If that clock was ahead, every
/// new event counts as too old until the clock's time is reached. The horizon is set back to the newest event that each
/// flow has seen. Runs that were given up because of it can then be run again: `usher dlq redrive --reason too_old`.
#[derive(Debug, clap::Args)]
pub(crate) struct RepairArguments {
    #[command(flatten)]
    place: StoreLocation,
}

pub(crate) async fn run(arguments: RepairArguments) -> anyhow::Result<()> {
    let mended = arguments.place.store().await?.mend_horizons().await?;
    for MendedHorizon { flow, was, is } in &mended {
        output::line(&match is {
            Some(is) => {
                format!("flow {flow}: events received since {is} are new again; until now only those since {was} were")
            }
            None => format!(
                "flow {flow}: only events received since {was} are new; it has seen no webhook that would say whether that \
                 is right: let one come, and repair again"
            ),
        })?;
    }
    if mended.is_empty() {
        output::line("nothing to repair: every flow takes what comes for new")?;
    }
    Ok(())
}
