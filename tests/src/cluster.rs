//! A cluster for the chaos test: a varying number of dispatcher replicas, a broker and a database of its own that can
//! be stopped, one ingest, and the lab in this process. With the embedded backend, one process runs everything except
//! the lab and is the only replica.

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
use crate::ledger::{Ledger, SentWebhook};
use crate::pgbouncer::PgBouncer;
use crate::postgres::Postgres;
use crate::program::Program;
use crate::test_env::SOON;
use crate::{chaos, collect, eventually, free_port, settings, unique};

/// Maximum time for a program to stop after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Timeout of one store query before it is retried.
const ASK_DEADLINE: Duration = Duration::from_secs(3);

/// Kafka and Postgres servers that belong to this cluster.
struct OwnServices {
    broker: Broker,
    postgres: Postgres,
    /// A pooler between the programs and the database.
    pooler: Option<PgBouncer>,
}

/// The way from the programs to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorePath {
    /// They connect to Postgres.
    Direct,
    /// They connect to PgBouncer in transaction mode.
    Pooled,
}

/// The programs and the services that they use. All are killed when dropped.
pub struct Cluster {
    // Dropped before the services, so that the programs do not log the loss of the services.
    replicas: Vec<Program>,
    ingest: Option<Program>,
    services: Option<OwnServices>,
    lab: LabHandle,
    _lab_stop: tokio_util::sync::DropGuard,
    environment: Vec<(String, String)>,
    listen: String,
    pool: AnyPool,
    ended_by_itself: Vec<String>,
    folder: TempDir,
}

impl Cluster {
    /// Starts services of its own with this many replicas and waits until all are ready. Panics if Kafka or Postgres
    /// is not available.
    pub async fn real(replicas: usize, path: StorePath) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut broker = Broker::prepare(folder.path(), &folder.path().join("kafka"));
        let postgres = Postgres::start();
        let pooler = (path == StorePath::Pooled).then(|| PgBouncer::start(&postgres));
        broker.start().await;
        let mut cluster = Self::new(folder, Some(OwnServices { broker, postgres, pooler })).await;
        cluster.scale(replicas).await;
        for replica in &mut cluster.replicas {
            let admin = replica.says("\"admin\":\"").await;
            ready(&admin).await;
        }
        let mut ingest = Program::start("ingest", &[], &cluster.environment, cluster.folder.path());
        let admin = ingest.says("\"admin\":\"").await;
        cluster.ingest = Some(ingest);
        ready(&admin).await;
        cluster
    }

    /// Starts `usher up` and waits until it is ready.
    pub async fn embedded() -> Self {
        let mut cluster = Self::new(tempfile::tempdir().expect("a folder"), None).await;
        cluster.scale(1).await;
        let admin = cluster.replicas[0].says("health, metrics http://").await;
        ready(&admin).await;
        cluster
    }

    async fn new(folder: TempDir, services: Option<OwnServices>) -> Self {
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
        if let Some(OwnServices { broker, postgres, pooler }) = &services {
            store = postgres.url();
            let address = pooler.as_ref().map_or_else(|| store.clone(), PgBouncer::url);
            let flows: Vec<&str> = chaos::EXPECTED.iter().map(|expected| expected.flow).collect();
            environment.insert("USHER_FLOW".into(), flows.join(","));
            environment.insert("USHER_LOG".into(), format!("kafka://{}", broker.address()));
            environment.insert("USHER_STORE".into(), address);
            // A short session timeout, so that the group soon removes a suspended or dead replica.
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

    /// Address (`host:port`) that receives webhooks.
    pub fn address(&self) -> &str {
        &self.listen
    }

    /// The destinations' doubles.
    pub fn lab(&self) -> &Lab {
        self.lab.lab()
    }

    /// The broker. `None` with the embedded backend.
    pub fn broker(&mut self) -> Option<&mut Broker> {
        self.services.as_mut().map(|services| &mut services.broker)
    }

    /// The Postgres server. `None` with the embedded backend.
    pub fn postgres(&self) -> Option<&Postgres> {
        self.services.as_ref().map(|services| &services.postgres)
    }

    /// Replicas that should be running.
    pub fn replicas(&self) -> &[Program] {
        &self.replicas
    }

    fn start_replica(&mut self) {
        let (name, arguments): (_, &[&str]) =
            if self.services.is_some() { ("dispatcher", &[]) } else { ("usher", &["up", "--no-lab"]) };
        self.replicas.push(Program::start(name, arguments, &self.environment, self.folder.path()));
    }

    /// Kills one replica with SIGKILL (`kill -9`) and starts another.
    pub async fn kill(&mut self, index: usize) {
        self.replicas.remove(index).kill().await;
        self.start_replica();
    }

    /// Changes the number of replicas to `count`: starts new ones, or terminates the oldest and waits until
    /// they have stopped.
    pub async fn scale(&mut self, count: usize) {
        while self.replicas.len() < count {
            self.start_replica();
        }
        let leaving: Vec<Program> = self.replicas.drain(..self.replicas.len() - count).collect();
        leaving.iter().for_each(Program::terminate);
        for mut replica in leaving {
            match replica.ended_within(STOP_DEADLINE).await {
                Some(ended) if ended.success() => {}
                Some(_) => self.ended_by_itself.push(last_output_line(&replica)),
                None => {
                    self.ended_by_itself.push(format!("did not stop when asked to: {}", last_output_line(&replica)))
                }
            }
        }
    }

    /// Replaces programs that have exited by themselves and records their last output line.
    pub fn mend(&mut self) {
        for index in (0..self.replicas.len()).rev() {
            if self.replicas[index].has_ended().is_some() {
                let replica = self.replicas.remove(index);
                self.ended_by_itself.push(last_output_line(&replica));
                self.start_replica();
            }
        }
        if let Some(ingest) = &mut self.ingest
            && ingest.has_ended().is_some()
        {
            self.ended_by_itself.push(last_output_line(ingest));
            *ingest = Program::start("ingest", &[], &self.environment, self.folder.path());
        }
    }

    /// Last output lines of programs that exited by themselves or did not stop properly.
    pub fn ended_by_itself(&self) -> &[String] {
        &self.ended_by_itself
    }

    /// Returns the number of ended and of unfinished runs, or `None` if the store does not answer.
    pub async fn ended(&self) -> Option<(usize, usize)> {
        let sql = "SELECT count(*) FILTER (WHERE ended_at IS NOT NULL), count(*) FILTER (WHERE ended_at IS NULL) \
                   FROM usher_run";
        let asked = sqlx::query_as::<_, (i64, i64)>(sql).fetch_one(&self.pool);
        let (ended, unfinished) = tokio::time::timeout(ASK_DEADLINE, asked).await.ok()?.ok()?;
        Some((usize::try_from(ended).ok()?, usize::try_from(unfinished).ok()?))
    }

    /// Returns the process ids of the owners of partitions, or `None` if the store does not answer.
    pub async fn owners(&self) -> Option<Vec<u32>> {
        let asked = sqlx::query_as::<_, (String,)>("SELECT DISTINCT owner FROM usher_ownership").fetch_all(&self.pool);
        let owners = tokio::time::timeout(ASK_DEADLINE, asked).await.ok()?.ok()?;
        Some(owners.iter().filter_map(|(owner,)| owner.split_once('-')?.0.parse().ok()).collect())
    }

    /// Returns the records of the store and the lab about `sent`.
    pub async fn ledger(&self, sent: Vec<SentWebhook>) -> Ledger {
        collect::collect(&self.pool, self.lab(), sent, true).await
    }

    /// Kills all programs and removes their data.
    pub async fn end(mut self) {
        for program in self.replicas.drain(..).chain(self.ingest.take()) {
            program.kill().await;
        }
    }

    /// Copies the output of all programs to `folder`.
    ///
    /// # Errors
    ///
    /// If a folder or file cannot be created, read or copied.
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

/// Returns the last non-empty output line of a program, at most 400 characters of it.
fn last_output_line(program: &Program) -> String {
    let output = program.output();
    let last = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
    last.chars().take(400).collect()
}
