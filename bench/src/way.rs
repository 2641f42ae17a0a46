//! The whole way: from a webhook that is sent to `ingest` to the request that a destination gets.

mod open_loop;
pub(crate) mod pair;
mod phases;
mod targets;

use anyhow::Context as _;

use self::pair::{Pair, PairKind};
use self::phases::Phases;
use crate::report::{Sample, TargetRow};
use crate::services::BenchServices;
use crate::sink::Sink;
use crate::suite::Rounds;

/// Options of the suite.
#[derive(Debug, clap::Args)]
pub(crate) struct WayOptions {
    /// Time of load for each rate, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Events that are sent one by one on an idle system.
    #[arg(long, default_value_t = 300)]
    singles: usize,
    /// Events that are sent without a pause, to find the peak rate.
    #[arg(long, default_value_t = 20_000)]
    peak_events: usize,
    /// Number of users whose events they are.
    #[arg(long, default_value_t = 5_000)]
    users: usize,
}

/// Runs all loads on both backends, round by round.
///
/// # Errors
///
/// A service is missing, or an effect does not arrive.
pub(crate) async fn measure(
    services: &BenchServices,
    options: &WayOptions,
    rounds: &Rounds,
) -> anyhow::Result<Vec<Sample>> {
    let scale = if rounds.quick { 10 } else { 1 };
    let options = WayOptions {
        seconds: (options.seconds / scale).max(1),
        singles: options.singles / usize::try_from(scale)?,
        peak_events: options.peak_events / usize::try_from(scale)?,
        users: options.users,
    };
    let sink = Sink::start(std::time::Duration::ZERO)?;
    let mut samples = Vec::new();
    for round in 1..=rounds.count {
        for kind in PairKind::ALL.into_iter().filter(|kind| rounds.wants(kind.name())) {
            let pair = Pair::start(kind, services, &sink.url(), 1).await?;
            let mut phases = Phases::new(kind, services, &pair, &sink, &options, round);
            phases.run().await.context(kind.name())?;
            samples.extend(phases.into_samples());
            pair.stop(services).await?;
            let pair = Pair::start(kind, services, &sink.url(), phases::STEADY_FLOWS).await?;
            let mut phases = Phases::new(kind, services, &pair, &sink, &options, round);
            phases.steady().await.context(kind.name())?;
            samples.extend(phases.into_samples());
            pair.stop(services).await?;
        }
    }
    Ok(samples)
}

/// Returns the targets that these samples tell of.
pub(crate) fn targets(samples: &[Sample]) -> Vec<TargetRow> {
    targets::rows(samples)
}
