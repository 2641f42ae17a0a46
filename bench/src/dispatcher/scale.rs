//! Ten times as much of one thing: a longer backlog, more keys, more runs that wait, larger metadata. An event costs the same, but
//! for the bytes that it has.

use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use usher_tests::database::OwnDatabase;
use usher_tests::unique;

use super::usher::{FlowInStore, KafkaTopic};
use super::{DispatchRound, KeyChoice, Scenario, StepChoice};
use crate::report::{Bound, Sample, TargetRow, Values};
use crate::services::BenchServices;
use crate::sink::Sink;
use crate::suite::Rounds;
use crate::topic;

/// The work of all arms, as the report names it.
const CASE: &str = "scale, http step";
/// Number by which one quantity is multiplied.
const TIMES: usize = 10;
/// Largest ratio of the cost of an event, or of its byte, to that of the plain arm.
const FLAT: f64 = 1.15;
/// First number of the events and of the users whose runs wait: far from those that are worked on.
const WAITING_FROM: usize = 500_000;
/// Time for the runs to wait.
const WAIT_WITHIN: Duration = Duration::from_secs(300);
/// Time for a dispatcher to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// Options of the suite: the plain arm's quantities.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ScaleOptions {
    /// Number of events that wait in the log.
    #[arg(long, default_value_t = 20_000)]
    events: usize,
    /// Number of users whose events they are.
    #[arg(long, default_value_t = 2_000)]
    users: usize,
    /// Number of runs that wait in the store meanwhile.
    #[arg(long, default_value_t = 2_000)]
    waiting: usize,
}

/// An arm: the factor of each quantity.
struct ScaleArm {
    name: &'static str,
    events: usize,
    users: usize,
    waiting: usize,
    metadata: usize,
}

const PLAIN: ScaleArm = ScaleArm { name: "plain", events: 1, users: 1, waiting: 1, metadata: 1 };

impl ScaleArm {
    fn filling(&self) -> usize {
        self.metadata * topic::FILLING
    }

    /// Returns the size of an event's body.
    #[expect(clippy::cast_precision_loss, reason = "a size below 2^53")]
    fn event_bytes(&self) -> f64 {
        topic::webhook("user.created", 0, 0, self.filling()).body.len() as f64
    }
}

/// All arms.
const ARMS: [ScaleArm; 5] = [
    PLAIN,
    ScaleArm { name: "10x backlog", events: TIMES, ..PLAIN },
    ScaleArm { name: "10x keys", users: TIMES, ..PLAIN },
    ScaleArm { name: "10x waiting runs", waiting: TIMES, ..PLAIN },
    ScaleArm { name: "10x metadata", metadata: TIMES, ..PLAIN },
];

/// Runs all arms, round by round, each with a topic and a store of its own.
///
/// # Errors
///
/// A service is missing, or an arm has not done its work.
pub(crate) async fn measure(
    services: &BenchServices,
    options: &ScaleOptions,
    rounds: &Rounds,
) -> anyhow::Result<Vec<Sample>> {
    let sink = &Sink::start(Duration::ZERO)?;
    let part = if rounds.quick { 10 } else { 1 };
    let mut samples = Vec::new();
    for round in 1..=rounds.count {
        for arm in ARMS.iter().filter(|arm| rounds.wants(arm.name)) {
            let scenario = &Scenario {
                events: arm.events * options.events / part,
                users: arm.users * options.users,
                keys: KeyChoice::Uniform,
                delay: Duration::ZERO,
                step: StepChoice::Http,
                filling: arm.filling(),
            };
            let kafka = KafkaTopic::named(&unique("bench"))?;
            let at = DispatchRound { services, topic: &kafka.topic(), scenario, sink, round };
            let waiting = arm.waiting * options.waiting / part;
            let sample = run(&kafka, arm.name, &at, waiting).await.context(arm.name)?;
            samples.push(Sample { case: CASE.to_owned(), ..sample });
            services.delete_topic(at.topic).await?;
        }
    }
    Ok(samples)
}

async fn run(kafka: &KafkaTopic, arm: &'static str, at: &DispatchRound<'_>, waiting: usize) -> anyhow::Result<Sample> {
    let database = OwnDatabase::make(&at.services.postgres).await;
    let flow = unique("flow");
    let of = FlowInStore { store: database.url(), flow: &flow, pooler: None };
    let sample = async {
        let events = (0..waiting).map(|number| WAITING_FROM + number);
        // The metadata of what waits is not what the arms differ in.
        let events = events.map(|number| topic::webhook("user.created", number, number, topic::FILLING));
        kafka.append(at.services, events).await?;
        let_them_wait(kafka, at, &of, waiting).await?;
        kafka.append(at.services, topic::events(at.scenario)).await?;
        kafka.deliver(arm, at, &of).await
    };
    let sample = sample.await;
    database.remove().await;
    sample
}

/// Lets an earlier version of the flow start its runs, which wait longer than anything is measured.
async fn let_them_wait(
    kafka: &KafkaTopic,
    at: &DispatchRound<'_>,
    of: &FlowInStore<'_>,
    waiting: usize,
) -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let flow = format!(
        "on = [\"clerk/user.created\"]\nfrom = \"beginning\"\nconcurrency = 100\n[[step]]\nname = \"pause\"\nwait = \"30d\"\n\
         [[step]]\nname = \"post\"\nuse = \"http.post\"\nurl = \"{}\"\nbody = {{ user = \"{{{{ user.id }}}}\" }}\n",
        at.sink.url()
    );
    let mut program = kafka.start(at.services, folder.path(), at.scenario, at.sink, &flow, of)?;
    let _ = program.says("partitions assigned").await;
    let pool = sqlx::PgPool::connect(&of.store).await?;
    let all_wait = async {
        loop {
            let sql = "SELECT count(*) FROM usher_run WHERE state = 'waiting'";
            let (count,): (i64,) = sqlx::query_as(sql).fetch_one(&pool).await?;
            if usize::try_from(count)? == waiting {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let all_wait = tokio::time::timeout(WAIT_WITHIN, all_wait).await;
    all_wait.context("the runs do not wait").flatten().with_context(|| program.output())?;
    pool.close().await;
    program.terminate();
    let ended = program.ended(STOPS_WITHIN).await;
    anyhow::ensure!(ended.success(), "{ended}: {}", program.output());
    Ok(())
}

/// Returns the targets that these samples tell of.
pub(crate) fn targets(samples: &[Sample]) -> Vec<TargetRow> {
    let values = Values::of(samples, CASE);
    let row = |arm: &ScaleArm| {
        // Larger events may cost as much more as they are larger.
        let larger = arm.event_bytes() / PLAIN.event_bytes();
        TargetRow {
            measure: format!("{} / {}, CPU {}", arm.name, PLAIN.name, if larger > 1.0 { "a byte" } else { "an event" }),
            target: Bound::AtMost(FLAT),
            values: values.ratio(arm.name, PLAIN.name, Sample::cpu).into_iter().map(|ratio| ratio / larger).collect(),
            command: "just bench scale".to_owned(),
        }
    };
    ARMS.iter().skip(1).map(row).collect()
}
