//! `usher repair`: undoes what a wrong clock has done to a store.

use usher_dispatcher::store::MendedHorizon;

use crate::data::Place;
use crate::output;

/// Repairs a store that a wrong clock has spoilt: events that are new are given up as too_old.
///
/// Earlier versions forgot what was done by the clock of the machine; where that was ahead, everything that comes counts
/// as too old until the clock has come there. The horizon goes back to the newest event that each flow has seen. Letters
/// that died of it can then be taken up: usher dlq redrive --reason too_old.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
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
