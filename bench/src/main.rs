//! `just bench` measures Usher beside others: in one run, on one machine, with real services.
//!
//! Absolute figures depend on the machine and its mood, so the arms of a suite are interleaved, round by round, and the
//! report gives ratios of medians with the spread of the rounds. Each arm must have done all of its work; otherwise it has
//! no figure. `USHER_TEST_KAFKA`, `USHER_TEST_POSTGRES` and `USHER_TEST_PGBOUNCER`
//! name the services (`eval "$(just services)"`).

mod dispatcher;
mod floor;
mod idle;
mod ingest;
mod meter;
mod parts;
mod peers;
mod programs;
mod report;
mod services;
mod sink;
mod sockets;
mod suite;
mod topic;
mod way;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser};

use crate::dispatcher::{DispatcherOptions, ScaleOptions, StepChoice};
use crate::idle::IdleOptions;
use crate::ingest::IngestOptions;
use crate::parts::PartMode;
use crate::report::{Sample, TargetRow};
use crate::services::BenchServices;
use crate::suite::Rounds;
use crate::way::WayOptions;

/// As the programs that are measured have it, so that the peers in Rust do not lose by it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line.
#[derive(Debug, Parser)]
#[command(about = "Measures Usher beside others, in one run on one machine")]
struct Arguments {
    /// Bootstrap server of Kafka, on this machine, `host:port`.
    #[arg(long, global = true, env = "USHER_TEST_KAFKA")]
    kafka: Option<String>,
    /// URL of a Postgres server on this machine, on which databases can be created.
    #[arg(long, global = true, env = "USHER_TEST_POSTGRES", hide_env_values = true)]
    postgres: Option<String>,
    /// URL of the same server behind PgBouncer, on this machine. Without it, the arms behind a pooler do not run.
    #[arg(long, global = true, env = "USHER_TEST_PGBOUNCER", hide_env_values = true)]
    pgbouncer: Option<String>,
    /// Number of rounds; each runs every arm once.
    #[arg(long, global = true, default_value_t = 3)]
    rounds: usize,
    /// One round of a fraction of the work: shows that everything works, and measures little.
    #[arg(long, global = true)]
    quick: bool,
    /// Only arms whose names contain one of these texts; may be given several times.
    #[arg(long, global = true)]
    only: Vec<String>,
    /// File for the raw figures, as JSON. Without it, one of the suite's name in `target/bench`.
    #[arg(long, global = true)]
    output: Option<PathBuf>,
    /// The suite; without one, all of them run.
    #[command(subcommand)]
    suite: Option<Suite>,
}

/// A suite, or a part that runs as a process of its own.
#[derive(Debug, clap::Subcommand)]
enum Suite {
    /// From an HTTP request to the log.
    Ingest(IngestOptions),
    /// From the log to the effects.
    Dispatcher(DispatcherOptions),
    /// Ten times as much of one thing: the cost of an event stays.
    Scale(ScaleOptions),
    /// From an HTTP request to the effect.
    Way(WayOptions),
    /// Programs that have nothing to do.
    Idle(IdleOptions),
    /// A server that is measured; started by the suites.
    #[command(subcommand, hide = true)]
    Part(PartMode),
}

impl Suite {
    /// Name of the file of raw figures.
    fn file(&self) -> String {
        match self {
            Self::Dispatcher(options) => options.file(),
            Self::Ingest(_) | Self::Scale(_) | Self::Way(_) | Self::Idle(_) | Self::Part(_) => {
                format!("{}.json", self.name())
            }
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Ingest(_) => "ingest",
            Self::Dispatcher(_) => "dispatcher",
            Self::Scale(_) => "scale",
            Self::Way(_) => "way",
            Self::Idle(_) => "idle",
            Self::Part(_) => "part",
        }
    }

    /// Returns all suites: what the rows of the targets need.
    fn all() -> anyhow::Result<Vec<Self>> {
        let http: DispatcherOptions = default_options()?;
        let mut suites = vec![Self::Ingest(default_options()?), Self::Dispatcher(http.clone())];
        suites.push(Self::Dispatcher(DispatcherOptions { delay: 10, ..http.clone() }));
        for step in [StepChoice::Mail, StepChoice::Database, StepChoice::BuiltIn] {
            suites.push(Self::Dispatcher(DispatcherOptions { step, ..http.clone() }));
        }
        suites.push(Self::Scale(default_options()?));
        suites.extend([Self::Way(default_options()?), Self::Idle(default_options()?)]);
        Ok(suites)
    }

    async fn measure(&self, services: &BenchServices, rounds: &Rounds) -> anyhow::Result<Figures> {
        Ok(match self {
            Self::Ingest(options) => {
                let samples = ingest::measure(services, options, rounds).await?;
                Figures { targets: ingest::targets(&samples), samples }
            }
            Self::Dispatcher(options) => {
                let samples = dispatcher::measure(services, options, rounds).await?;
                Figures { targets: dispatcher::targets(&samples), samples }
            }
            Self::Scale(options) => {
                let samples = dispatcher::scale(services, options, rounds).await?;
                Figures { targets: dispatcher::scale_targets(&samples), samples }
            }
            Self::Way(options) => {
                let samples = way::measure(services, options, rounds).await?;
                Figures { targets: way::targets(&samples), samples }
            }
            Self::Idle(options) => {
                Figures { targets: idle::measure(services, options, rounds).await?, samples: Vec::new() }
            }
            Self::Part(_) => anyhow::bail!("a part measures nothing"),
        })
    }
}

/// Figures of a suite.
struct Figures {
    samples: Vec<Sample>,
    targets: Vec<TargetRow>,
}

fn default_options<T: Args>() -> anyhow::Result<T> {
    let matches = T::augment_args(clap::Command::new("options")).try_get_matches_from(["options"])?;
    Ok(T::from_arg_matches(&matches)?)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    usher_service::telemetry::install_tls();
    match arguments.suite {
        // A part has a runtime of its own choice.
        Some(Suite::Part(part)) => part.run(),
        Some(Suite::Ingest(_) | Suite::Dispatcher(_) | Suite::Scale(_) | Suite::Way(_) | Suite::Idle(_)) | None => {
            tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(arguments))
        }
    }
}

async fn measure(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { kafka, postgres, pgbouncer, rounds, quick, only, output, suite } = arguments;
    let kafka = kafka.context("set --kafka or USHER_TEST_KAFKA")?;
    let postgres = postgres.context("set --postgres or USHER_TEST_POSTGRES")?;
    let rounds = Rounds { count: if quick { 1 } else { rounds }, quick, only };
    let suites = match suite {
        Some(suite) => vec![suite],
        None => Suite::all()?,
    };
    anyhow::ensure!(output.is_none() || suites.len() == 1, "--output is for one suite");
    let services = BenchServices::find(kafka, postgres, pgbouncer).await?;
    let mut targets = Vec::new();
    for suite in suites {
        let figures = suite.measure(&services, &rounds).await?;
        let path = output.clone().unwrap_or_else(|| peers::target().join(suite.file()));
        report::write_json(&path, &figures.samples, &figures.targets)?;
        report::print(&figures.samples);
        targets.extend(figures.targets);
    }
    report::print_targets(&targets);
    Ok(())
}
