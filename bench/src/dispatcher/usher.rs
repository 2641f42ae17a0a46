//! Usher itself: a dispatcher on Kafka and Postgres, and `usher up` on its files.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use usher_eventlog::{LogAddress, LogLayout};
use usher_tests::database::OwnDatabase;
use usher_tests::events::Webhook;
use usher_tests::program::Program;
use usher_tests::unique;

use super::{
    DispatchRound, MAIL_HTML, MAIL_SUBJECT, MAIL_TO, PARTITIONS, STARTS_WITHIN, Scenario, StepChoice, TEXT, sample,
};
use crate::meter::{Meter, Processes, peak_memory};
use crate::programs::{self, ProgramSettings};
use crate::report::Sample;
use crate::services::{BenchPooler, BenchServices};
use crate::sink::Sink;
use crate::topic;

/// Name of the arm on Kafka and Postgres.
pub(super) const KAFKA: &str = "Usher, Kafka and Postgres";
/// Name of the arm on Kafka and Postgres behind a pooler in transaction mode.
pub(super) const POOLED: &str = "Usher, Kafka and Postgres behind PgBouncer";
/// Name of the arm on files.
pub(super) const EMBEDDED: &str = "Usher, embedded";

/// Steps in flight.
pub(super) const CONCURRENCY: usize = 100;

/// Returns the flow: one step for each event.
fn flow(step: StepChoice, url: &str) -> String {
    let on = match step {
        StepChoice::Http | StepChoice::Database | StepChoice::BuiltIn => "clerk/user.*",
        // A deleted user has no address.
        StepChoice::Mail => "clerk/user.updated",
    };
    let step = match step {
        StepChoice::Http => format!(
            "name = \"post\"\nuse = \"http.post\"\nurl = \"{url}\"\n\
             body = {{ user = \"{{{{ user.id }}}}\", text = \"{TEXT}\" }}\n"
        ),
        StepChoice::Mail => format!(
            "name = \"mail\"\nuse = \"resend.send\"\nto = \"{MAIL_TO}\"\nsubject = \"{MAIL_SUBJECT}\"\n\
             html = \"{MAIL_HTML}\"\n"
        ),
        StepChoice::Database | StepChoice::BuiltIn => "name = \"user\"\nuse = \"database.sync_user\"\n".to_owned(),
    };
    format!("on = [\"{on}\"]\nfrom = \"beginning\"\nconcurrency = {CONCURRENCY}\n[[step]]\n{step}")
}

/// Writes the flow as the only one, under this name.
fn write_flow(
    folder: &Path,
    name: &str,
    flow: &str,
    scenario: &Scenario,
    sink: &Sink,
) -> anyhow::Result<ProgramSettings> {
    let flows = programs::write_flows(folder, &[(name, flow)])?;
    let mut settings = programs::settings(&flows);
    let mail = [
        ("RESEND_API_KEY", "re_bench".to_owned()),
        ("RESEND_BASE_URL", sink.url()),
        // The account has no limit, as that of `http.post` has none.
        ("RESEND_QUOTA", "none".to_owned()),
        ("USHER_FROM", "Acme <hello@acme.test>".to_owned()),
    ];
    if scenario.step == StepChoice::Mail {
        programs::add(&mut settings, mail);
    }
    Ok(settings)
}

/// A topic of Kafka with events.
pub(super) struct KafkaTopic {
    prefix: String,
    layout: LogLayout,
}

/// A store in Postgres and the flow that works with it.
pub(super) struct FlowInStore<'a> {
    /// URL of the store.
    pub(super) store: String,
    /// Name of the flow.
    pub(super) flow: &'a str,
    /// A pooler before the store, whose work counts too.
    pub(super) pooler: Option<&'a BenchPooler>,
}

impl KafkaTopic {
    /// Creates the topic with its events.
    pub(super) async fn fill(services: &BenchServices, scenario: &Scenario, prefix: &str) -> anyhow::Result<Self> {
        let topic = Self::named(prefix)?;
        topic.append(services, topic::events(scenario)).await?;
        Ok(topic)
    }

    /// Returns a topic that is created with its first events.
    pub(super) fn named(prefix: &str) -> anyhow::Result<Self> {
        Ok(Self { prefix: prefix.to_owned(), layout: LogLayout { topics: prefix.parse()?, partitions: PARTITIONS } })
    }

    /// Appends events.
    pub(super) async fn append(
        &self,
        services: &BenchServices,
        events: impl Iterator<Item = Webhook>,
    ) -> anyhow::Result<()> {
        let address = LogAddress::Kafka { brokers: services.kafka.clone() };
        let log = usher_eventlog::open(&address, &[]).await?;
        topic::append(&log, &self.layout, events).await
    }

    /// Prefix of the topic.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Name of the topic.
    pub(super) fn topic(&self) -> String {
        self.layout.topics.events()
    }

    /// Runs a dispatcher with a database of its own and a flow that has never run.
    pub(super) async fn usher(&self, at: &DispatchRound<'_>) -> anyhow::Result<Sample> {
        let database = OwnDatabase::make(&at.services.postgres).await;
        let flow = unique("flow");
        let sample = self.deliver(KAFKA, at, &FlowInStore { store: database.url(), flow: &flow, pooler: None }).await;
        database.remove().await;
        sample
    }

    /// The same, with the store behind a pooler.
    pub(super) async fn usher_behind(&self, pooler: &BenchPooler, at: &DispatchRound<'_>) -> anyhow::Result<Sample> {
        let database = OwnDatabase::make(&at.services.postgres).await;
        let (flow, store) = (unique("flow"), database.url_through(&pooler.url));
        let sample = self.deliver(POOLED, at, &FlowInStore { store, flow: &flow, pooler: Some(pooler) }).await;
        database.remove().await;
        sample
    }

    /// Runs a dispatcher until all events of the scenario have had their effect.
    pub(super) async fn deliver(
        &self,
        arm: &'static str,
        at: &DispatchRound<'_>,
        of: &FlowInStore<'_>,
    ) -> anyhow::Result<Sample> {
        let DispatchRound { services, scenario, sink, round, .. } = *at;
        let folder = TempDir::new()?;
        let flow = flow(scenario.step, &sink.url());
        sink.reset();
        let mut program = self.start(services, folder.path(), scenario, sink, &flow, of)?;
        let admin = program.says("\"admin\":\"").await;
        let processes = |pid| {
            let own = [("dispatcher", Processes::One(pid)), ("Postgres", services.postmaster.clone())];
            own.into_iter().chain(of.pooler.map(|pooler| ("PgBouncer", pooler.process.clone()))).collect()
        };
        let sample = work(arm, round, scenario, sink, &mut program, &admin, processes).await;
        let sample = sample.with_context(|| program.output());
        program.kill().await;
        sample
    }

    /// Starts a dispatcher with one flow, given as the text of its file.
    pub(super) fn start(
        &self,
        services: &BenchServices,
        folder: &Path,
        scenario: &Scenario,
        sink: &Sink,
        flow: &str,
        of: &FlowInStore<'_>,
    ) -> anyhow::Result<Program> {
        let mut environment = write_flow(folder, of.flow, flow, scenario, sink)?;
        let more = [
            ("USHER_LOG", format!("kafka://{}", services.kafka)),
            ("USHER_STORE", of.store.clone()),
            ("USHER_TOPIC_PREFIX", self.prefix.clone()),
            ("USHER_FLOW", of.flow.to_owned()),
        ];
        programs::add(&mut environment, more);
        Ok(Program::start("dispatcher", &[], &environment, folder))
    }
}

/// The file of an embedded log that holds the events.
pub(super) struct EmbeddedLogFile {
    folder: TempDir,
}

impl EmbeddedLogFile {
    /// Creates the file with its events.
    pub(super) async fn fill(scenario: &Scenario) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let layout = LogLayout { topics: "usher".parse()?, partitions: PARTITIONS };
        let log = usher_eventlog::open(&LogAddress::Sqlite { path: folder.path().join("log.db") }, &[]).await?;
        topic::append(&log, &layout, topic::events(scenario)).await?;
        drop(log);
        Ok(Self { folder })
    }

    /// Runs `usher up` on a copy of the file.
    pub(super) async fn usher(&self, scenario: &Scenario, sink: &Sink, round: usize) -> anyhow::Result<Sample> {
        let folder = TempDir::new()?;
        let data = folder.path().join("data");
        // As `usher up` makes it.
        DirBuilder::new().mode(0o700).create(&data)?;
        for entry in std::fs::read_dir(self.folder.path())?.flatten() {
            std::fs::copy(entry.path(), data.join(entry.file_name()))?;
        }
        let flow = flow(scenario.step, &sink.url());
        let environment = write_flow(folder.path(), "post", &flow, scenario, sink)?;
        sink.reset();
        let data = data.display().to_string();
        let mut program = Program::start("usher", &["up", "--no-lab", "--data", &data], &environment, folder.path());
        let admin = program.says("health, metrics http://").await;
        let processes = |pid| vec![("usher", Processes::One(pid))];
        let sample = work(EMBEDDED, round, scenario, sink, &mut program, &admin, processes).await;
        let sample = sample.with_context(|| program.output());
        program.kill().await;
        sample
    }
}

/// Waits until a program has done everything, and reads the meters.
async fn work(
    arm: &'static str,
    round: usize,
    scenario: &Scenario,
    sink: &Sink,
    program: &mut Program,
    admin: &str,
    processes: impl Fn(u32) -> Vec<(&'static str, Processes)>,
) -> anyhow::Result<Sample> {
    let pid = program.pid().context("it has ended")?;
    let meter = Meter::start(processes(pid))?;
    let _ = program.says("partitions assigned").await;
    let begun = Instant::now();
    if scenario.step != StepChoice::Database {
        sink.first(STARTS_WITHIN).await?;
        sink.reached(scenario.events, scenario.deadline()).await?;
        // The last ends are written after the last effects.
        all_done(admin, scenario, STARTS_WITHIN).await?;
        return sample(arm, round, scenario, sink, begun, &meter, peak_memory(pid)?);
    }
    all_done(admin, scenario, scenario.deadline()).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_seconds = meter.read()?;
    Ok(Sample { peak_memory: peak_memory(pid)?, ..scenario.sample(arm, round, seconds, cpu_seconds) })
}

/// Waits until all runs have ended well, by the program's metrics.
async fn all_done(admin: &str, scenario: &Scenario, within: Duration) -> anyhow::Result<()> {
    let all_done = async {
        while runs_done(admin).await? < scenario.events as f64 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(within, all_done).await.context("runs have not ended")?
}

/// Returns the number of runs of all flows that have ended well, by the program's metrics.
///
/// # Errors
///
/// The program does not answer.
pub(super) async fn runs_done(admin: &str) -> anyhow::Result<f64> {
    let page = reqwest::get(format!("http://{admin}/metrics")).await?.text().await?;
    let done = |line: &&str| line.starts_with("usher_dispatcher_runs_total") && line.contains("\"done\"");
    let count = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    Ok(page.lines().filter(done).filter_map(count).sum())
}
