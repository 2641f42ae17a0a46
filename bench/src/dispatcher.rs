//! The dispatcher: a backlog of events, one effect each at a sink.

mod bare_sql;
mod drain;
mod one_by_one;
mod parallel_consumer;
mod upserts;
mod usher;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use usher_tests::unique;

use self::parallel_consumer::ParallelConsumer;
use crate::meter::{Meter, Processes};
use crate::report::Sample;
use crate::sink::{Effects, Sink};

/// Text that every request holds, of about the size of a small message.
const TEXT: &str = concat!(
    "a text of about three hundred bytes, as a small message has it. ",
    "a text of about three hundred bytes, as a small message has it. ",
    "a text of about three hundred bytes, as a small message has it. ",
    "a text of about three hundred bytes, as a small message has it. ",
    "a text of about three hundred bytes, as a small message has it.",
);
/// Partitions of the topic.
pub(crate) const PARTITIONS: i32 = 8;
/// Time for an arm to have its first effect.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Spread of the events over the users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeyChoice {
    /// The users take turns.
    Uniform,
    /// The user of rank n has a share of 1/n.
    Zipf,
    /// One user has three of ten events; the others take turns.
    Hot,
}

impl KeyChoice {
    /// Returns the user of an event; the same in every run.
    pub(crate) fn user(self, number: usize, users: usize) -> usize {
        // Multiples of the golden ratio fill 0..1 evenly, in any section of the sequence.
        let share = (number as f64 * 0.618_033_988_749_894_9).fract();
        match self {
            Self::Uniform => number % users,
            // The sum of 1/n up to a rank is nearly its logarithm.
            Self::Zipf => ((users as f64).powf(share) as usize).min(users - 1),
            Self::Hot if share < 0.3 => 0,
            Self::Hot => number % users,
        }
    }
}

/// Work done for each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StepChoice {
    /// One request to a receiver that does nothing.
    Http,
    /// One row of a table follows the user.
    Database,
}

/// The work of one arm in one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// Number of events that wait in the log.
    pub(crate) events: usize,
    /// Number of users whose events they are.
    pub(crate) users: usize,
    /// Spread of the events over the users.
    pub(crate) keys: KeyChoice,
    /// Time that the receiver takes for an answer.
    pub(crate) delay: Duration,
    /// Work done for each event.
    pub(crate) step: StepChoice,
}

impl Scenario {
    /// Time that all events may take: as slow as 50 a second would be a fault.
    fn deadline(&self) -> Duration {
        Duration::from_secs(60) + Duration::from_millis(20) * u32::try_from(self.events).unwrap_or(u32::MAX)
    }
}

/// Addresses of the services.
pub(crate) struct BenchServices {
    kafka: String,
    postgres: String,
    /// The server process of Postgres.
    postmaster: Processes,
}

impl BenchServices {
    /// Finds the process of Postgres, which must run on this machine.
    ///
    /// # Errors
    ///
    /// Postgres does not answer, or runs elsewhere.
    pub(crate) async fn find(kafka: String, postgres: String) -> anyhow::Result<Self> {
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&postgres).await?;
        let (backend,): (i32,) = sqlx::query_as("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        let status = std::fs::read_to_string(format!("/proc/{backend}/status")).context("Postgres runs elsewhere")?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent of a backend")?;
        let postmaster = Processes::Family(parent.trim().parse()?);
        Ok(Self { kafka, postgres, postmaster })
    }
}

/// Returns the figures of an arm whose effects have arrived at the sink since `begun`.
///
/// # Errors
///
/// It has not done all of its work.
fn sample(
    arm: &'static str,
    round: usize,
    scenario: &Scenario,
    sink: &Sink,
    begun: Instant,
    meter: &Meter,
    peak_memory: u64,
) -> anyhow::Result<Sample> {
    let Effects { distinct, requests, last } = sink.effects();
    anyhow::ensure!(distinct == scenario.events, "{distinct} effects of {}", scenario.events);
    Ok(Sample {
        arm,
        round,
        events: distinct,
        repeated: requests - distinct,
        seconds: last.saturating_duration_since(begun).as_secs_f64(),
        cpu_seconds: meter.read()?,
        peak_memory,
    })
}

/// Runs all arms, round by round.
///
/// # Errors
///
/// A service is missing, or an arm has not done its work.
pub(crate) async fn measure(
    services: &BenchServices,
    scenario: &Scenario,
    rounds: usize,
    only: &[String],
) -> anyhow::Result<Vec<Sample>> {
    let sink = Sink::start(scenario.delay)?;
    let posts = scenario.step == StepChoice::Http;
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| name.contains(only));
    let kafka = usher::KafkaTopic::fill(services, scenario, &unique("bench")).await?;
    let embedded = if wanted(usher::EMBEDDED) { Some(usher::EmbeddedLogFile::fill(scenario).await?) } else { None };
    let peers: Vec<_> = parallel_consumer::ARMS.into_iter().filter(|(name, _)| posts && wanted(name)).collect();
    let parallel_consumer = if peers.is_empty() { None } else { Some(ParallelConsumer::build().await?) };
    let mut samples = Vec::new();
    for round in 1..=rounds {
        if wanted(usher::KAFKA) {
            samples.push(kafka.usher(services, scenario, &sink, round).await.context(usher::KAFKA)?);
        }
        if let Some(embedded) = &embedded {
            samples.push(embedded.usher(scenario, &sink, round).await.context(usher::EMBEDDED)?);
        }
        for (parallel_consumer, arm) in parallel_consumer.iter().flat_map(|it| peers.iter().map(move |arm| (it, *arm)))
        {
            let sample = parallel_consumer.run(services, &kafka.topic(), scenario, &sink, round, arm).await;
            samples.push(sample.context(arm.0)?);
        }
        if !posts && wanted(upserts::NAME) {
            samples.push(upserts::run(services, scenario, round).await.context(upserts::NAME)?);
        }
        if posts && wanted(one_by_one::NAME) {
            let sample = one_by_one::run(services, &kafka.topic(), scenario, &sink, round).await;
            samples.push(sample.context(one_by_one::NAME)?);
        }
        if posts && wanted(bare_sql::NAME) {
            samples.push(bare_sql::run(services, scenario, round).await.context(bare_sql::NAME)?);
        }
        if wanted(drain::NAME) {
            samples.push(drain::run(&services.kafka, kafka.topic(), scenario, round).await.context(drain::NAME)?);
        }
    }
    Ok(samples)
}
