//! A limit: the floor, a program of a few hundred lines that keeps the main promises (see [`crate::floor`]).

use std::time::Instant;

use tempfile::TempDir;
use usher_tests::database::OwnDatabase;

use super::usher::CONCURRENCY;
use super::{DispatchRound, StepChoice};
use crate::meter::{Meter, Processes, peak_memory};
use crate::parts::PeerProcess;
use crate::report::Sample;

/// Name of the arm on Postgres.
pub(super) const POSTGRES: &str = "limit: the floor, Kafka and Postgres";
/// Name of the arm on a file.
pub(super) const SQLITE: &str = "limit: the floor, Kafka and SQLite";

/// Runs it once, with a database of its own.
pub(super) async fn on_postgres(round: &DispatchRound<'_>) -> anyhow::Result<Sample> {
    let database = OwnDatabase::make(&round.services.postgres).await;
    let postgres = ("Postgres", round.services.postmaster.clone());
    let sample = run(round, POSTGRES, ["--database", &database.url()], Some(postgres)).await;
    database.remove().await;
    sample
}

/// Runs it once, with a file of its own.
pub(super) async fn on_sqlite(round: &DispatchRound<'_>) -> anyhow::Result<Sample> {
    let folder = TempDir::new()?;
    let file = folder.path().join("floor.db").display().to_string();
    run(round, SQLITE, ["--file", &file], None).await
}

async fn run(
    round: &DispatchRound<'_>,
    arm: &'static str,
    store: [&str; 2],
    beside: Option<(&'static str, Processes)>,
) -> anyhow::Result<Sample> {
    let DispatchRound { services, topic, scenario, sink, .. } = *round;
    sink.reset();
    let events = scenario.events.to_string();
    let concurrency = CONCURRENCY.to_string();
    let url = sink.url();
    let mut arguments = vec!["floor", "--broker", &services.kafka, "--topic", topic, "--url", &url];
    arguments.extend(["--events", &events, "--concurrency", &concurrency]);
    arguments.extend(store);
    arguments.extend((scenario.step == StepChoice::Mail).then_some("--mail"));
    let mut floor = PeerProcess::of_bench(&arguments)?;
    floor.says("partitions assigned").await?;
    let begun = Instant::now();
    let own = std::iter::once(("floor", Processes::One(floor.pid())));
    let meter = Meter::start(own.chain(beside).collect())?;
    sink.reached(scenario.events, scenario.deadline()).await?;
    // The last ends are written after the last effects.
    floor.says("all done").await?;
    let sample = round.sample(arm, begun, &meter, peak_memory(floor.pid())?)?;
    floor.kill().await?;
    Ok(sample)
}
