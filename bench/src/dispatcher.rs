//! The dispatcher: a backlog of events, one effect each at a sink.

mod arms;
mod bare_sql;
mod built_in;
mod drain;
mod floor;
mod one_by_one;
mod parallel_consumer;
mod restate;
mod scale;
mod targets;
mod upserts;
mod usher;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use usher_tests::unique;

use self::arms::DispatchArms;
pub(crate) use self::scale::{ScaleOptions, measure as scale, targets as scale_targets};
use crate::meter::Meter;
use crate::report::{Sample, TargetRow};
use crate::services::BenchServices;
use crate::sink::{Effects, Sink};
use crate::suite::Rounds;
use crate::topic;

/// Text that every request holds, of about the size of a small message.
pub(crate) const TEXT: &str = concat!(
    "a text of about three hundred bytes, as a small message has it. ",
    "a text of about three hundred bytes, as a small message has it. ",
    "a text of about three hundred bytes, as a small message has it. ",
    "a text of about three hundred bytes, as a small message has it. ",
    "a text of about three hundred bytes, as a small message has it.",
);
/// Receiver of the mails.
pub(crate) const MAIL_TO: &str = "{{ user.email }}";
/// Subject of the mails.
pub(crate) const MAIL_SUBJECT: &str = "Welcome{% if user.first_name %}, {{ user.first_name }}{% endif %}";
/// Text of the mails, of about the size of a short one.
pub(crate) const MAIL_HTML: &str = concat!(
    "<html><body><h1>Hello {{ user.first_name or 'there' }}</h1><p>Your account {{ user.id }} is ready.</p>",
    "<p>Here is what most people do first: they tell us the name of their team, they invite the others, and they look at the ",
    "example, which shows in a few minutes how everything fits together. Nothing of it can break anything.</p>",
    "<p>If you have a question, answer this mail. Somebody reads it, and answers on the same day.</p>",
    "<p>You get this mail at {{ user.email }} because somebody has signed up with this address.</p></body></html>",
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
    /// One mail by Resend's API to a receiver that accepts it.
    Mail,
    /// One row of a table follows the user.
    Database,
    /// The built-in flows: one of them, and all.
    BuiltIn,
}

impl StepChoice {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Mail => "mail",
            Self::Database => "database",
            Self::BuiltIn => "built-in",
        }
    }
}

/// Options of the suite.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DispatcherOptions {
    /// Number of events for each arm in a round.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) events: usize,
    /// Number of users whose events they are.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) users: usize,
    /// Spread of the events over the users.
    #[arg(long, value_enum, default_value_t = KeyChoice::Uniform)]
    pub(crate) keys: KeyChoice,
    /// Time that the receiver of the requests takes for an answer, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pub(crate) delay: u64,
    /// Work done for each event.
    #[arg(long, value_enum, default_value_t = StepChoice::Http)]
    pub(crate) step: StepChoice,
}

impl DispatcherOptions {
    /// Returns the name of the file of raw figures; that of the usual scenario has no additions.
    pub(crate) fn file(&self) -> String {
        let mut name = "dispatcher".to_owned();
        if self.step != StepChoice::Http {
            name.push_str(&format!("-{}", self.step.name()));
        }
        if self.delay > 0 {
            name.push_str(&format!("-{}ms", self.delay));
        }
        format!("{name}.json")
    }
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
    /// Extra bytes of each event's metadata.
    pub(crate) filling: usize,
}

impl Scenario {
    /// Returns the name of the work.
    pub(crate) fn name(&self) -> String {
        let keys = match self.keys {
            KeyChoice::Uniform => "",
            KeyChoice::Zipf => ", users by Zipf's law",
            KeyChoice::Hot => ", one user with three of ten events",
        };
        format!("dispatcher, {} step, {} ms{keys}", self.step.name(), self.delay.as_millis())
    }

    /// Returns the figures of an arm that has done all of its work.
    fn sample(&self, arm: &'static str, round: usize, seconds: f64, cpu_seconds: BTreeMap<String, f64>) -> Sample {
        Sample {
            case: self.name(),
            arm,
            round,
            events: self.events,
            repeated: 0,
            seconds,
            cpu_seconds,
            beside_seconds: BTreeMap::new(),
            peak_memory: 0,
            latency: None,
        }
    }

    /// Time that all events may take: as slow as 50 a second would be a fault.
    fn deadline(&self) -> Duration {
        Duration::from_secs(60) + Duration::from_millis(20) * u32::try_from(self.events).unwrap_or(u32::MAX)
    }
}

/// The surroundings of an arm in one round.
#[derive(Clone, Copy)]
pub(crate) struct DispatchRound<'a> {
    services: &'a BenchServices,
    topic: &'a str,
    scenario: &'a Scenario,
    sink: &'a Sink,
    round: usize,
}

impl DispatchRound<'_> {
    /// Returns the figures of an arm whose effects have arrived at the sink since `begun`.
    ///
    /// # Errors
    ///
    /// It has not done all of its work.
    fn sample(&self, arm: &'static str, begun: Instant, meter: &Meter, peak_memory: u64) -> anyhow::Result<Sample> {
        sample(arm, self.round, self.scenario, self.sink, begun, meter, peak_memory)
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
    let seconds = last.saturating_duration_since(begun).as_secs_f64();
    let repeated = requests - distinct;
    Ok(Sample { repeated, peak_memory, ..scenario.sample(arm, round, seconds, meter.read()?) })
}

/// Runs all arms, round by round.
///
/// # Errors
///
/// A service is missing, or an arm has not done its work.
pub(crate) async fn measure(
    services: &BenchServices,
    options: &DispatcherOptions,
    rounds: &Rounds,
) -> anyhow::Result<Vec<Sample>> {
    let &DispatcherOptions { events, users, keys, delay, step } = options;
    let events = if rounds.quick { events / 10 } else { events };
    let scenario =
        &Scenario { events, users, keys, delay: Duration::from_millis(delay), step, filling: topic::FILLING };
    let sink = Sink::start(scenario.delay)?;
    let kafka = usher::KafkaTopic::fill(services, scenario, &unique("bench")).await?;
    let topic_name = kafka.topic();
    let arms = DispatchArms::prepare(scenario, rounds, kafka).await?;
    let mut samples = Vec::new();
    for round in 1..=rounds.count {
        arms.run(&DispatchRound { services, topic: &topic_name, scenario, sink: &sink, round }, &mut samples).await?;
    }
    services.delete_topic(&topic_name).await?;
    Ok(samples)
}

/// Returns the targets that these samples tell of.
pub(crate) fn targets(samples: &[Sample]) -> Vec<TargetRow> {
    targets::rows(samples)
}
