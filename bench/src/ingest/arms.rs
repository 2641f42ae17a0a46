//! The servers under load: Usher and its peers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::process::Command;
use usher_eventlog::{LogAddress, LogLayout};
use usher_tests::unique;

use super::load::{LoadTarget, closed_loop};
use super::requests::SignedRequests;
use super::{IngestCase, check, limits};
use crate::dispatcher::{KeyChoice, PARTITIONS};
use crate::meter::{Meter, Processes, peak_memory};
use crate::parts::PeerProcess;
use crate::peers;
use crate::programs::{self, Receiver, SECRET, WEBHOOKS};
use crate::report::Sample;
use crate::services::BenchServices;

/// Load before the measurement, until connections, buffers and compilers are warm.
const WARM_UP: Duration = Duration::from_secs(1);

/// Requests that are signed for each second of load. A server that needs more is measured for a shorter time.
const SIGNED_PER_SECOND: usize = 70_000;

/// One kind of server, or a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IngestArm {
    /// Usher's `ingest` on Kafka.
    Usher,
    /// The usual way in Rust.
    Naive,
    /// The usual way in Node.
    Node,
    /// `usher up` on files.
    Embedded,
    /// HTTP alone.
    Hello,
    /// Signatures alone.
    Signatures,
    /// Keys alone.
    Keys,
    /// The producer alone.
    Producer,
}

impl IngestArm {
    /// All arms, in the order in which they run.
    pub(super) const ALL: [Self; 8] = [
        Self::Usher,
        Self::Naive,
        Self::Node,
        Self::Embedded,
        Self::Hello,
        Self::Signatures,
        Self::Keys,
        Self::Producer,
    ];

    /// Name in the report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Usher => "Usher, Kafka",
            Self::Naive => "naive: axum, svix, FutureProducer",
            Self::Node => "Node: http, svix, @confluentinc/kafka-javascript",
            Self::Embedded => "Usher, embedded",
            Self::Hello => "limit: HTTP that reads the body",
            Self::Signatures => "limit: signatures alone",
            Self::Keys => "limit: keys alone",
            Self::Producer => "limit: producer alone",
        }
    }

    /// Runs the arm once.
    pub(super) async fn run(self, services: &BenchServices, case: &IngestCase, round: usize) -> anyhow::Result<Sample> {
        let count = SIGNED_PER_SECOND * usize::try_from((case.time + WARM_UP).as_secs())?;
        let users = case.users;
        let sign = move || SignedRequests::sign(SECRET, 0, count, users, KeyChoice::Uniform);
        let requests = Arc::new(tokio::task::spawn_blocking(sign).await??);
        let run = Run { arm: self.name(), services, case, round, requests };
        let layout = LogLayout { topics: unique("bench").parse()?, partitions: PARTITIONS };
        match self {
            Self::Usher => run.usher(&layout).await,
            Self::Embedded => run.embedded().await,
            Self::Naive => {
                let start = |topic: &str| {
                    PeerProcess::of_bench(&["naive", "--broker", &services.kafka, "--topic", topic, "--secret", SECRET])
                };
                run.peer(&layout, start).await
            }
            Self::Node => {
                let program = peers::folder("node").join("ingest.js");
                let start = |topic: &str| {
                    let mut node = Command::new("node");
                    node.arg(&program).args([&services.kafka, topic, SECRET]);
                    PeerProcess::start(node)
                };
                run.peer(&layout, start).await
            }
            Self::Hello => run.hello().await,
            Self::Signatures => {
                let requests = run.requests.clone();
                run.limit(move || limits::verify(SECRET, &requests)).await
            }
            Self::Keys => {
                let requests = run.requests.clone();
                run.limit(move || limits::find_keys(&requests)).await
            }
            Self::Producer => run.producer(&layout).await,
        }
    }
}

/// One run of one arm.
struct Run<'a> {
    arm: &'static str,
    services: &'a BenchServices,
    case: &'a IngestCase,
    round: usize,
    requests: Arc<SignedRequests>,
}

impl Run<'_> {
    fn log(&self) -> LogAddress {
        LogAddress::Kafka { brokers: self.services.kafka.clone() }
    }

    /// Puts a server under load. The sample's events are those after the warm-up; the number returned with it includes those.
    async fn load(&self, address: SocketAddr, path: &'static str, pid: u32) -> anyhow::Result<Loaded> {
        let target = LoadTarget { address, path };
        let connections = self.case.connections;
        let warm = closed_loop(target.clone(), self.requests.clone(), 0, connections, WARM_UP).await?;
        let meter = Meter::start(vec![("server", Processes::One(pid))])?;
        let beside = Meter::start(vec![("Kafka", self.services.broker.clone())])?;
        let loaded = closed_loop(target, self.requests.clone(), warm.requests, connections, self.case.time).await?;
        let sample = Sample {
            case: self.case.name(),
            arm: self.arm,
            round: self.round,
            events: loaded.requests,
            repeated: 0,
            seconds: loaded.seconds,
            cpu_seconds: meter.read()?,
            beside_seconds: beside.read()?,
            peak_memory: peak_memory(pid)?,
            latency: loaded.latency,
        };
        Ok(Loaded { sample, acknowledged: warm.requests + loaded.requests })
    }

    async fn usher(&self, layout: &LogLayout) -> anyhow::Result<Sample> {
        let folder = TempDir::new()?;
        let topics = layout.topics.events();
        let prefix = topics.strip_suffix(".events").context("a topic of events")?;
        let ingest = Receiver::ingest(self.services, prefix, folder.path()).await?;
        let loaded = self.load(ingest.address, WEBHOOKS, ingest.pid()?).await;
        let loaded = loaded.with_context(|| ingest.program.output())?;
        ingest.program.kill().await;
        check::holds_all(&self.log(), layout, loaded.acknowledged).await?;
        self.services.delete_topic(&layout.topics.events()).await?;
        Ok(loaded.sample)
    }

    async fn embedded(&self) -> anyhow::Result<Sample> {
        let folder = TempDir::new()?;
        // A flow must be there. It takes none of the events.
        let idle = "on = [\"clerk/organization.created\"]\nfrom = \"now\"\n[[step]]\nname = \"user\"\n\
                    use = \"http.post\"\nurl = \"http://127.0.0.1:1/\"\nbody = {}\n";
        let flows = programs::write_flows(folder.path(), &[("idle", idle)])?;
        let data = folder.path().join("data");
        let up = Receiver::up(&programs::settings(&flows), &data, folder.path()).await?;
        let loaded = self.load(up.address, WEBHOOKS, up.pid()?).await;
        let mut loaded = loaded.with_context(|| up.program.output())?;
        up.program.kill().await;
        loaded.sample.beside_seconds.clear();
        self.holds_all_in_file(&data, loaded.acknowledged).await?;
        Ok(loaded.sample)
    }

    async fn holds_all_in_file(&self, data: &Path, acknowledged: usize) -> anyhow::Result<()> {
        let layout = LogLayout { topics: "usher".parse()?, partitions: PARTITIONS };
        check::holds_all(&LogAddress::Sqlite { path: data.join("log.db") }, &layout, acknowledged).await
    }

    async fn peer(
        &self,
        layout: &LogLayout,
        start: impl Fn(&str) -> anyhow::Result<PeerProcess>,
    ) -> anyhow::Result<Sample> {
        let topic = layout.events();
        usher_eventlog::open(&self.log(), &[]).await?.ensure(std::slice::from_ref(&topic)).await?;
        let mut peer = start(&topic.name)?;
        let address = peer.address().await?;
        let loaded = self.load(address, "/", peer.pid()).await?;
        peer.kill().await?;
        check::holds_all(&self.log(), layout, loaded.acknowledged).await?;
        self.services.delete_topic(&topic.name).await?;
        Ok(loaded.sample)
    }

    async fn hello(&self) -> anyhow::Result<Sample> {
        let mut hello = PeerProcess::of_bench(&["hello"])?;
        let address = hello.address().await?;
        let mut loaded = self.load(address, "/", hello.pid()).await?;
        hello.kill().await?;
        loaded.sample.beside_seconds.clear();
        Ok(loaded.sample)
    }

    async fn producer(&self, layout: &LogLayout) -> anyhow::Result<Sample> {
        let topic = layout.events();
        usher_eventlog::open(&self.log(), &[]).await?.ensure(std::slice::from_ref(&topic)).await?;
        let settings = super::kafka::producer_settings(&self.services.kafka);
        let requests = self.requests.clone();
        let name = topic.name.clone();
        let beside = Meter::start(vec![("Kafka", self.services.broker.clone())])?;
        let mut sample = self.limit(move || limits::produce(&settings, &name, &requests)).await?;
        sample.beside_seconds = beside.read()?;
        check::holds_all(&self.log(), layout, sample.events).await?;
        self.services.delete_topic(&topic.name).await?;
        Ok(sample)
    }

    /// Runs a limit in this process, which does nothing else at that time.
    async fn limit(
        &self,
        work: impl FnOnce() -> anyhow::Result<limits::LimitResult> + Send + 'static,
    ) -> anyhow::Result<Sample> {
        let meter = Meter::start(vec![("this process", Processes::One(std::process::id()))])?;
        let result = tokio::task::spawn_blocking(work).await??;
        Ok(Sample {
            case: self.case.name(),
            arm: self.arm,
            round: self.round,
            events: result.requests,
            repeated: 0,
            seconds: result.seconds,
            cpu_seconds: meter.read()?,
            beside_seconds: std::collections::BTreeMap::new(),
            peak_memory: 0,
            latency: None,
        })
    }
}

/// A server after its load.
struct Loaded {
    sample: Sample,
    /// Number of acknowledged requests, those of the warm-up included.
    acknowledged: usize,
}
