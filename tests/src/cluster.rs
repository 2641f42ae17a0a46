//! A cluster for chaos: replicas of the dispatcher that come and go, a broker and a database of its own that can be taken
//! down, one ingest, and the lab in this process. Or all of it but the lab in one process, which then is the only replica.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usher_lab::{Lab, LabHandle};
use usher_service::telemetry;

use crate::broker::Broker;
use crate::ledger::{Ledger, Sent};
use crate::postgres::Postgres;
use crate::program::Program;
use crate::test_env::SOON;
use crate::{books, chaos, eventually, free_port, settings, unique};

/// How long a program may take to stop when it is asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How long the store may take to answer before it is asked anew.
const ASK_DEADLINE: Duration = Duration::from_secs(3);

/// Kafka and Postgres of its own.
struct Services {
    broker: Broker,
    postgres: Postgres,
}

/// The programs and what they work on. Killed when dropped.
pub struct Cluster {
    // Killed before the services, so that nobody writes down that they are gone.
    replicas: Vec<Program>,
    ingest: Option<Program>,
    services: Option<Services>,
    lab: LabHandle,
    _lab_stop: tokio_util::sync::DropGuard,
    environment: Vec<(String, String)>,
    listen: String,
    pool: AnyPool,
    ended_by_itself: Vec<String>,
    folder: TempDir,
}

impl Cluster {
    /// Services of their own with this many replicas, everything ready. None where Kafka or Postgres cannot be had.
    pub async fn real(replicas: usize) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut broker = Broker::prepare(folder.path(), &folder.path().join("kafka"))?;
        let postgres = Postgres::start()?;
        broker.start().await;
        let mut cluster = Self::new(folder, Some(Services { broker, postgres })).await;
        cluster.scale(replicas).await;
        for replica in &mut cluster.replicas {
            let admin = replica.says("\"admin\":\"").await;
            ready(&admin).await;
        }
        let mut ingest = Program::start("ingest", &[], &cluster.environment, cluster.folder.path());
        let admin = ingest.says("\"admin\":\"").await;
        cluster.ingest = Some(ingest);
        ready(&admin).await;
        Some(cluster)
    }

    /// `usher up`, ready.
    pub async fn embedded() -> Self {
        let mut cluster = Self::new(tempfile::tempdir().expect("a folder"), None).await;
        cluster.scale(1).await;
        let admin = cluster.replicas[0].says("health, metrics http://").await;
        ready(&admin).await;
        cluster
    }

    async fn new(folder: TempDir, services: Option<Services>) -> Self {
        telemetry::install_tls();
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let lab = Lab::start_with(listener, None, settings::EVERYTHING, stop.clone()).expect("the lab starts");
        let listen = format!("127.0.0.1:{}", free_port());
        let mut environment: BTreeMap<String, String> = settings::of(&lab, &unique("t"));
        environment.insert("USHER_LISTEN".into(), listen.clone());
        environment.insert("USHER_FLOWS".into(), settings::flows(folder.path(), &[], &chaos::flows()));
        environment.insert("USHER_DATA".into(), folder.path().join("data").display().to_string());
        let mut store = format!("sqlite://{}", folder.path().join("data/store.db").display());
        if let Some(Services { broker, postgres }) = &services {
            store = postgres.url();
            let flows: Vec<&str> = chaos::EXPECTED.iter().map(|expected| expected.flow).collect();
            environment.insert("USHER_FLOW".into(), flows.join(","));
            environment.insert("USHER_LOG".into(), format!("kafka://{}", broker.address()));
            environment.insert("USHER_STORE".into(), store.clone());
            // So that a replica that stands still, or is dead, is soon taken for gone.
            environment.insert("USHER_KAFKA_SESSION_TIMEOUT_MS".into(), "6000".into());
        }
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new().max_connections(2).acquire_timeout(ASK_DEADLINE).connect_lazy(&store);
        Self {
            replicas: Vec::new(),
            ingest: None,
            services,
            lab,
            _lab_stop: stop.drop_guard(),
            environment: environment.into_iter().collect(),
            listen,
            pool: pool.expect("an address"),
            ended_by_itself: Vec::new(),
            folder,
        }
    }

    /// Where webhooks are taken.
    pub fn address(&self) -> &str {
        &self.listen
    }

    /// The destinations' doubles.
    pub fn lab(&self) -> &Lab {
        self.lab.lab()
    }

    /// The broker, where there is one.
    pub fn broker(&mut self) -> Option<&mut Broker> {
        self.services.as_mut().map(|services| &mut services.broker)
    }

    /// The database's server, where there is one.
    pub fn postgres(&self) -> Option<&Postgres> {
        self.services.as_ref().map(|services| &services.postgres)
    }

    /// The replicas that are meant to run.
    pub fn replicas(&self) -> &[Program] {
        &self.replicas
    }

    fn start_replica(&mut self) {
        let (name, arguments): (_, &[&str]) =
            if self.services.is_some() { ("dispatcher", &[]) } else { ("usher", &["up", "--no-lab"]) };
        self.replicas.push(Program::start(name, arguments, &self.environment, self.folder.path()));
    }

    /// `kill -9` of one replica, and the start of another.
    pub async fn kill(&mut self, index: usize) {
        self.replicas.remove(index).kill().await;
        self.start_replica();
    }

    /// Starts replicas, or asks the oldest to stop and waits until they have, so that there are `count`.
    pub async fn scale(&mut self, count: usize) {
        while self.replicas.len() < count {
            self.start_replica();
        }
        let leaving: Vec<Program> = self.replicas.drain(..self.replicas.len() - count).collect();
        leaving.iter().for_each(Program::terminate);
        for mut replica in leaving {
            match replica.ended_within(STOP_DEADLINE).await {
                Some(ended) if ended.success() => {}
                Some(_) => self.ended_by_itself.push(last_words(&replica)),
                None => self.ended_by_itself.push(format!("did not stop when asked to: {}", last_words(&replica))),
            }
        }
    }

    /// Notes which programs have ended by themselves, and starts others in their place.
    pub fn mend(&mut self) {
        for index in (0..self.replicas.len()).rev() {
            if self.replicas[index].has_ended().is_some() {
                let replica = self.replicas.remove(index);
                self.ended_by_itself.push(last_words(&replica));
                self.start_replica();
            }
        }
        if let Some(ingest) = &mut self.ingest
            && ingest.has_ended().is_some()
        {
            self.ended_by_itself.push(last_words(ingest));
            *ingest = Program::start("ingest", &[], &self.environment, self.folder.path());
        }
    }

    /// The last words of programs that ended by themselves.
    pub fn ended_by_itself(&self) -> &[String] {
        &self.ended_by_itself
    }

    /// How many runs have ended, and how many have not. None while the store does not answer.
    pub async fn ended(&self) -> Option<(usize, usize)> {
        let sql = "SELECT count(*) FILTER (WHERE ended_at IS NOT NULL), count(*) FILTER (WHERE ended_at IS NULL) \
                   FROM usher_run";
        let asked = sqlx::query_as::<_, (i64, i64)>(sql).fetch_one(&self.pool);
        let (ended, unfinished) = tokio::time::timeout(ASK_DEADLINE, asked).await.ok()?.ok()?;
        Some((usize::try_from(ended).ok()?, usize::try_from(unfinished).ok()?))
    }

    /// The process ids of those who own partitions. None while the store does not answer.
    pub async fn owners(&self) -> Option<Vec<u32>> {
        let asked = sqlx::query_as::<_, (String,)>("SELECT DISTINCT owner FROM usher_ownership").fetch_all(&self.pool);
        let owners = tokio::time::timeout(ASK_DEADLINE, asked).await.ok()?.ok()?;
        Some(owners.iter().filter_map(|(owner,)| owner.split_once('-')?.0.parse().ok()).collect())
    }

    /// What the store and the lab have to log_once about what was sent.
    pub async fn ledger(&self, sent: Vec<Sent>) -> Ledger {
        books::open(&self.pool, self.lab(), sent, true).await
    }

    /// Ends everything and removes what is left of it.
    pub async fn end(mut self) {
        for program in self.replicas.drain(..).chain(self.ingest.take()) {
            program.kill().await;
        }
    }

    /// Copies what the programs have written to `folder`.
    pub fn keep_output(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if let (Some(name), Some("log")) = (path.file_name(), path.extension().and_then(|end| end.to_str())) {
                std::fs::copy(&path, folder.join(name))?;
            }
        }
        Ok(())
    }
}

async fn ready(address: &str) {
    let url = format!("http://{address}/readyz");
    eventually(&format!("{url} is ready"), SOON, || async {
        reqwest::get(&url).await.ok().filter(|page| page.status().is_success()).map(drop)
    })
    .await;
}

/// The end of what a program wrote.
fn last_words(program: &Program) -> String {
    let output = program.output();
    let last = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
    last.chars().take(400).collect()
}
