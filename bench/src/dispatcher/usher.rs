//! Usher itself: a dispatcher on Kafka and Postgres, and `usher up` on its files.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use usher_eventlog::{LogAddress, LogLayout};
use usher_tests::database::OwnDatabase;
use usher_tests::program::Program;
use usher_tests::unique;

use super::{MAIL_HTML, MAIL_SUBJECT, MAIL_TO, PARTITIONS, STARTS_WITHIN, Scenario, StepChoice, TEXT, sample};
use crate::meter::{Meter, Processes, peak_memory};
use crate::programs::{self, ProgramSettings};
use crate::report::Sample;
use crate::services::BenchServices;
use crate::sink::Sink;
use crate::topic;

/// Name of the arm on Kafka and Postgres.
pub(super) const KAFKA: &str = "Usher, Kafka and Postgres";
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
fn write_flow(folder: &Path, name: &str, scenario: &Scenario, sink: &Sink) -> anyhow::Result<ProgramSettings> {
    let flows = programs::write_flows(folder, &[(name, flow(scenario.step, &sink.url()))])?;
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

/// A topic that holds the events.
pub(super) struct KafkaTopic {
    prefix: String,
    layout: LogLayout,
}

impl KafkaTopic {
    /// Creates the topic with its events.
    pub(super) async fn fill(services: &BenchServices, scenario: &Scenario, prefix: &str) -> anyhow::Result<Self> {
        let layout = LogLayout { topics: prefix.parse()?, partitions: PARTITIONS };
        let address = LogAddress::Kafka { brokers: services.kafka.clone() };
        let log = usher_eventlog::open(&address, &[]).await?;
        topic::fill(&log, &layout, scenario).await?;
        log.flush().await;
        Ok(Self { prefix: prefix.to_owned(), layout })
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
    pub(super) async fn usher(
        &self,
        services: &BenchServices,
        scenario: &Scenario,
        sink: &Sink,
        round: usize,
    ) -> anyhow::Result<Sample> {
        let folder = TempDir::new()?;
        let database = OwnDatabase::make(&services.postgres).await;
        let name = unique("flow");
        let mut environment = write_flow(folder.path(), &name, scenario, sink)?;
        let more = [
            ("USHER_LOG", format!("kafka://{}", services.kafka)),
            ("USHER_STORE", database.url()),
            ("USHER_TOPIC_PREFIX", self.prefix.clone()),
            ("USHER_FLOW", name.clone()),
        ];
        programs::add(&mut environment, more);
        sink.reset();
        let mut program = Program::start("dispatcher", &[], &environment, folder.path());
        let admin = program.says("\"admin\":\"").await;
        let processes = |pid| vec![("dispatcher", Processes::One(pid)), ("Postgres", services.postmaster.clone())];
        let sample = work(KAFKA, round, scenario, sink, &mut program, &admin, processes).await;
        let sample = sample.with_context(|| program.output());
        program.kill().await;
        database.remove().await;
        sample
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
        topic::fill(&log, &layout, scenario).await?;
        log.flush().await;
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
        let environment = write_flow(folder.path(), "post", scenario, sink)?;
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
