//! The two ways to run Usher: `ingest` and `dispatcher` on Kafka and Postgres, and `usher up` on files.

use std::net::SocketAddr;

use anyhow::Context as _;
use tempfile::TempDir;
use usher_tests::database::OwnDatabase;
use usher_tests::program::Program;
use usher_tests::unique;

use crate::meter::{Processes, peak_memory};
use crate::programs::{self, Receiver};
use crate::services::BenchServices;

/// The backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PairKind {
    /// Kafka and Postgres.
    Services,
    /// Files.
    Files,
}

impl PairKind {
    /// Both of them.
    pub(crate) const ALL: [Self; 2] = [Self::Services, Self::Files];

    /// Name in the report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Services => "Usher, Kafka and Postgres",
            Self::Files => "Usher, embedded",
        }
    }
}

/// Running programs that receive webhooks and post them to a sink.
pub(crate) struct Pair {
    receiver: Receiver,
    /// The dispatcher, its database, and the topic, if it is not all in one process.
    services: Option<OnServices>,
    _folder: TempDir,
}

struct OnServices {
    dispatcher: Program,
    database: OwnDatabase,
    prefix: String,
}

/// Returns a flow that posts each event, with the event's id.
fn flow(url: &str) -> String {
    format!(
        "on = [\"clerk/user.*\"]\nfrom = \"now\"\nconcurrency = 100\n[[step]]\nname = \"post\"\nuse = \"http.post\"\n\
         url = \"{url}\"\nbody = {{ event = \"{{{{ event.id }}}}\", user = \"{{{{ user.id }}}}\" }}\n"
    )
}

impl Pair {
    /// Starts the programs with this many equal flows, and waits until they are ready.
    ///
    /// # Errors
    ///
    /// A program does not start.
    pub(crate) async fn start(
        kind: PairKind,
        services: &BenchServices,
        url: &str,
        flows: usize,
    ) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let names: Vec<String> = (0..flows).map(|_| unique("flow")).collect();
        let texts: Vec<(&str, String)> = names.iter().map(|name| (name.as_str(), flow(url))).collect();
        let mut settings = programs::settings(&programs::write_flows(folder.path(), &texts)?);
        match kind {
            PairKind::Files => {
                let receiver = Receiver::up(&settings, &folder.path().join("data"), folder.path()).await?;
                Ok(Self { receiver, services: None, _folder: folder })
            }
            PairKind::Services => {
                let prefix = unique("bench");
                let database = OwnDatabase::make(&services.postgres).await;
                let more = [
                    ("USHER_LOG", format!("kafka://{}", services.kafka)),
                    ("USHER_STORE", database.url()),
                    ("USHER_TOPIC_PREFIX", prefix.clone()),
                    ("USHER_FLOW", names.join(",")),
                ];
                programs::add(&mut settings, more);
                // The topic is made by `ingest`; a dispatcher that is first waits for it.
                let receiver = Receiver::ingest(services, &prefix, folder.path()).await?;
                let mut dispatcher = Program::start("dispatcher", &[], &settings, folder.path());
                let admin = dispatcher.says("\"admin\":\"").await;
                programs::ready(&admin).await;
                let services = Some(OnServices { dispatcher, database, prefix });
                Ok(Self { receiver, services, _folder: folder })
            }
        }
    }

    /// Address of the webhooks.
    pub(crate) fn address(&self) -> SocketAddr {
        self.receiver.address
    }

    /// Returns the programs, by name.
    ///
    /// # Errors
    ///
    /// One has ended.
    pub(crate) fn programs(&self) -> anyhow::Result<Vec<(&'static str, Processes)>> {
        let receiver = Processes::One(self.receiver.pid()?);
        let Some(OnServices { dispatcher, .. }) = &self.services else { return Ok(vec![("usher", receiver)]) };
        let pid = dispatcher.pid().with_context(|| dispatcher.output())?;
        Ok(vec![("ingest", receiver), ("dispatcher", Processes::One(pid))])
    }

    /// Peak of the memory of all programs, in bytes.
    ///
    /// # Errors
    ///
    /// One has ended.
    pub(crate) fn peak_memory(&self) -> anyhow::Result<u64> {
        let mut sum = peak_memory(self.receiver.pid()?)?;
        if let Some(pid) = self.services.as_ref().and_then(|it| it.dispatcher.pid()) {
            sum += peak_memory(pid)?;
        }
        Ok(sum)
    }

    /// Kills the programs, and removes the database and the topic.
    ///
    /// # Errors
    ///
    /// The topic cannot be deleted.
    pub(crate) async fn stop(self, services: &BenchServices) -> anyhow::Result<()> {
        self.receiver.program.kill().await;
        if let Some(OnServices { dispatcher, database, prefix }) = self.services {
            dispatcher.kill().await;
            database.remove().await;
            services.delete_topic(&format!("{prefix}.events")).await?;
        }
        Ok(())
    }
}
