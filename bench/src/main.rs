//! `just bench` measures Usher beside others: in one run, on one machine, with real services.
//!
//! Absolute figures depend on the machine and its mood, so the arms of a suite are interleaved, round by round, and the
//! report gives ratios of medians with the spread of the rounds. Each arm must have done all of its work; otherwise it has
//! no figure. `USHER_TEST_KAFKA` and `USHER_TEST_POSTGRES` name the services (`eval "$(just services)"`).

mod dispatcher;
mod meter;
mod report;
mod sink;
mod topic;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use dispatcher::{KeyChoice, StepChoice};

/// The command line.
#[derive(Debug, Parser)]
#[command(about = "Measures Usher beside others, in one run on one machine")]
struct Arguments {
    /// Bootstrap server of Kafka, `host:port`.
    #[arg(long, env = "USHER_TEST_KAFKA")]
    kafka: String,
    /// URL of a Postgres server on this machine, on which databases can be created.
    #[arg(long, env = "USHER_TEST_POSTGRES", hide_env_values = true)]
    postgres: String,
    /// Number of rounds; each runs every arm once.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Number of events for each arm in a round.
    #[arg(long, default_value_t = 20_000)]
    events: usize,
    /// Number of users whose events they are.
    #[arg(long, default_value_t = 5_000)]
    users: usize,
    /// Spread of the events over the users.
    #[arg(long, value_enum, default_value_t = KeyChoice::Uniform)]
    keys: KeyChoice,
    /// Time that the receiver of the requests takes for an answer, in milliseconds.
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// Work done for each event.
    #[arg(long, value_enum, default_value_t = StepChoice::Http)]
    step: StepChoice,
    /// One round of a tenth of the events: shows that everything works, and measures little.
    #[arg(long)]
    quick: bool,
    /// Only arms whose names contain one of these texts; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// File for the raw figures, as JSON.
    #[arg(long, default_value = "target/bench/dispatcher.json")]
    output: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        arguments.rounds = 1;
        arguments.events /= 10;
    }
    usher_service::telemetry::install_tls();
    let services = dispatcher::BenchServices::find(arguments.kafka, arguments.postgres).await?;
    let Arguments { events, users, keys, step, .. } = arguments;
    let delay = Duration::from_millis(arguments.delay);
    let scenario = dispatcher::Scenario { events, users, keys, delay, step };
    let samples = dispatcher::measure(&services, &scenario, arguments.rounds, &arguments.only).await?;
    report::write_json(&arguments.output, &samples)?;
    report::print(&samples);
    Ok(())
}
