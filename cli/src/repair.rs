//! `usher repair`: undoes what a wrong clock has done to a store.

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
    for horizon in &mended {
        output::line(&format!(
            "flow {}: events received since {} are new again; until now only those since {} were",
            horizon.flow, horizon.is, horizon.was
        ))?;
    }
    if mended.is_empty() {
        output::line("nothing to repair: every flow takes what comes for new")?;
    }
    Ok(())
}
