//! Programs that have nothing to do: the share of a core that each takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::meter::Processes;
use crate::report::{Bound, TargetRow};
use crate::services::BenchServices;
use crate::sink::Sink;
use crate::suite::Rounds;
use crate::way::pair::{Pair, PairKind};

/// Options of the suite.
#[derive(Debug, clap::Args)]
pub(crate) struct IdleOptions {
    /// Time to settle after the start, in seconds.
    #[arg(long, default_value_t = 5)]
    settle: u64,
    /// Time that is measured, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// Flows of the dispatcher.
const FLOWS: usize = 3;
/// Largest share of a core, in percent.
const TARGET: f64 = 0.1;
/// The database beside an idle dispatcher, less what it takes by itself.
const POSTGRES: &str = "Postgres";

/// Measures the programs of both backends, round by round.
///
/// # Errors
///
/// A program does not start, or ends.
pub(crate) async fn measure(
    services: &BenchServices,
    options: &IdleOptions,
    rounds: &Rounds,
) -> anyhow::Result<Vec<TargetRow>> {
    let time = Duration::from_secs(if rounds.quick { 2 } else { options.seconds });
    let settle = Duration::from_secs(options.settle);
    let sink = Sink::start(Duration::ZERO)?;
    let mut shares: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds.count {
        let alone = of_a_core(vec![(POSTGRES, services.postmaster.clone())], time).await?;
        let alone: f64 = alone.into_iter().map(|(_, share)| share).sum();
        let mut measured = Vec::new();
        for kind in PairKind::ALL.into_iter().filter(|kind| rounds.wants(kind.name())) {
            let pair = Pair::start(kind, services, &sink.url(), FLOWS).await?;
            let mut processes = pair.programs()?;
            if kind == PairKind::Services {
                processes.push((POSTGRES, services.postmaster.clone()));
            }
            tokio::time::sleep(settle).await;
            measured.extend(of_a_core(processes, time).await?);
            pair.stop(services).await?;
        }
        for (name, share) in measured {
            let own = if name == POSTGRES { share - alone } else { share };
            shares.entry(name).or_default().push(own);
        }
    }
    Ok(rows(&shares))
}

/// Returns the share of a core that each group of processes uses for a time, in percent.
async fn of_a_core(
    processes: Vec<(&'static str, Processes)>,
    time: Duration,
) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let before: Vec<f64> = processes.iter().map(|(_, of)| of.run_seconds()).collect::<anyhow::Result<_>>()?;
    let begun = Instant::now();
    tokio::time::sleep(time).await;
    let seconds = begun.elapsed().as_secs_f64();
    let share = |((name, of), before): ((&'static str, Processes), f64)| {
        let used = of.run_seconds().with_context(|| format!("{name} has ended"))? - before;
        Ok((name, used / seconds * 100.0))
    };
    processes.into_iter().zip(before).map(share).collect()
}

fn rows(shares: &BTreeMap<&'static str, Vec<f64>>) -> Vec<TargetRow> {
    let row = |(name, values): (&&'static str, &Vec<f64>)| {
        let measure = match *name {
            "dispatcher" | "usher" => format!("idle, {FLOWS} flows, % of a core: {name}"),
            POSTGRES => format!("idle, {FLOWS} flows, % of a core: {POSTGRES}, more than without Usher"),
            other => format!("idle, % of a core: {other}"),
        };
        let command = "just bench idle".to_owned();
        TargetRow { measure, target: Bound::AtMost(TARGET), values: values.clone(), command }
    };
    shares.iter().map(row).collect()
}
