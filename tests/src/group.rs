//! A group of replicas in this process, so that a test can wrap the store or the log of each, together with the lab.
//! There is no ingest: events are appended directly to the log, in the order in which they are sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usher_dispatcher::DispatcherConfig;
use usher_eventlog::{Log, LogAddress, LogLayout};
use usher_flows::FlowFiles;
use usher_lab::{Lab, LabHandle};
use usher_proto::Topics;
use usher_service::options::Environment;
use usher_service::telemetry;
use usher_store::RunStore;

use crate::backend::Backend;
use crate::checker::Expected;
use crate::database::OwnDatabase;
use crate::events::{User, Webhook};
use crate::ledger::SentWebhook;
use crate::replica::Replica;
use crate::report::{ChaosReport, Course};
use crate::{chaos, collect, eventually, settings, unique};

/// Number of partitions.
const PARTITIONS: i32 = 8;
/// Maximum time until all runs have ended.
const END_DEADLINE: Duration = Duration::from_secs(120);

/// The lab, a log, a store, and the events sent.
pub struct Group {
    expected: Vec<Expected>,
    lab: LabHandle,
    _lab_stop: tokio_util::sync::DropGuard,
    environment: Environment,
    address: LogAddress,
    layout: LogLayout,
    /// Outlives the replicas, as a real log does.
    log: Arc<dyn Log>,
    pool: AnyPool,
    database: Option<OwnDatabase>,
    sent: Vec<SentWebhook>,
    folder: TempDir,
}

impl Group {
    /// Creates a group without replicas for these flows of the chaos test.
    pub async fn new(backend: &Backend, flows: &[&str]) -> Self {
        telemetry::install_tls();
        let folder = tempfile::tempdir().expect("a folder");
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let lab = Lab::start_with(listener, None, settings::EVERYTHING, stop.clone()).expect("the lab starts");

        // The pool of the test itself reaches the database directly.
        let (address, store, pool, database) = match backend {
            Backend::Embedded => {
                let store = format!("sqlite://{}", folder.path().join("store.db").display());
                (LogAddress::Sqlite { path: folder.path().join("log.db") }, store.clone(), store, None)
            }
            Backend::Real(services) => {
                let address = LogAddress::Kafka { brokers: services.kafka.clone() };
                let database = OwnDatabase::make(&services.postgres).await;
                (address, services.store(&database), database.url(), Some(database))
            }
        };
        let prefix = unique("t");
        let settings = settings::of(&lab, &prefix).into_iter().chain([("USHER_STORE".to_owned(), store)]);
        let environment =
            settings.fold(Environment::from_vars([]), |environment, (name, value)| environment.with(&name, value));
        let files: Vec<_> = chaos::flows().into_iter().filter(|(name, _)| flows.contains(name)).collect();
        settings::flows(folder.path(), &[], &files);
        sqlx::any::install_default_drivers();
        Self {
            expected: chaos::EXPECTED.into_iter().filter(|expected| flows.contains(&expected.flow)).collect(),
            lab,
            _lab_stop: stop.drop_guard(),
            environment,
            log: usher_eventlog::open(&address, &[]).await.expect("the log opens"),
            address,
            layout: LogLayout { topics: Topics::new(&prefix).expect("a plain word"), partitions: PARTITIONS },
            pool: AnyPoolOptions::new().max_connections(2).connect_lazy(&pool).expect("an address"),
            database,
            sent: Vec::new(),
            folder,
        }
    }

    /// The destinations' doubles.
    pub fn lab(&self) -> &Lab {
        self.lab.lab()
    }

    /// The log.
    pub fn log(&self) -> Arc<dyn Log> {
        self.log.clone()
    }

    /// Connections to the store's database.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Starts a replica with a wrapped store and waits until it is ready.
    pub async fn with_store(
        &self,
        around: impl FnOnce(Arc<dyn RunStore>) -> Arc<dyn RunStore> + Send + 'static,
    ) -> Replica {
        self.with_log_and_store(self.log(), around).await
    }

    /// Starts a replica with a wrapped log and store and waits until it is ready.
    pub async fn with_log_and_store(
        &self,
        log: Arc<dyn Log>,
        around: impl FnOnce(Arc<dyn RunStore>) -> Arc<dyn RunStore> + Send + 'static,
    ) -> Replica {
        let files = FlowFiles { folder: Some(self.folder.path().join("flows")) };
        let config = DispatcherConfig::new(self.address.clone(), self.layout.clone(), &files, &[], &self.environment);
        let mut replica = Replica::start(config.expect("good settings"), log, around);
        replica.ready().await;
        replica
    }

    /// Starts an unmodified replica and waits until it is ready.
    pub async fn honest(&self) -> Replica {
        self.with_store(|store| store).await
    }

    /// Sends the `user.created` event of each of these users.
    pub async fn create(&mut self, users: &[User]) {
        for user in users {
            self.send(&user.created(), user.seq).await;
        }
    }

    /// Sends a `user.updated` event of each of these users.
    pub async fn update(&mut self, users: &[User]) {
        for user in users.iter().map(User::changed) {
            self.send(&user.updated(), user.seq).await;
        }
    }

    async fn send(&mut self, webhook: &Webhook, seq: u64) {
        self.log.append(&self.layout.events(), webhook.record()).await.expect("it is kept");
        let event = webhook.id.clone();
        let key = webhook.user.clone();
        let kind = webhook.kind.clone();
        self.sent.push(SentWebhook { event, key, kind, seq, posts: 1, acknowledged: true });
    }

    /// Waits until the last event of each user has ended in every flow that it starts and no run is in flight.
    pub async fn settled(&self) {
        let last: BTreeSet<&str> = self
            .sent
            .iter()
            .filter(|sent| !self.sent.iter().any(|other| other.key == sent.key && other.seq > sent.seq))
            .map(|sent| sent.event.as_str())
            .collect();
        let flows_of = |event: &str| {
            let sent = self.sent.iter().find(|sent| sent.event == event).expect("it was sent");
            self.expected.iter().filter(|flow| flow.on.contains(&sent.kind.as_str())).count()
        };
        let owed: usize = last.iter().map(|event| flows_of(event)).sum();
        let sql = "SELECT event, ended_at FROM usher_run";
        eventually("all last events have ended", END_DEADLINE, || async {
            let runs: Vec<(String, Option<i64>)> = sqlx::query_as(sql).fetch_all(&self.pool).await.ok()?;
            let all = runs.iter().all(|(_, ended_at)| ended_at.is_some());
            (all && runs.iter().filter(|(event, _)| last.contains(event.as_str())).count() == owed).then_some(())
        })
        .await;
    }

    /// Ends the group and reports on its ledger.
    pub async fn close(self, title: &str) -> ChaosReport {
        let with_rows = self.expected.iter().any(|expected| expected.keeps_rows);
        let ledger = collect::collect(&self.pool, self.lab(), self.sent.clone(), with_rows).await;
        let report = ChaosReport::new(Course { title: title.into(), ..Course::default() }, ledger, &self.expected, &[]);
        self.pool.close().await;
        if let Some(database) = self.database {
            database.remove().await;
        }
        report
    }
}
