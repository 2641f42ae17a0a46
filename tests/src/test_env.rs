//! A test environment: the lab and the real programs that use it, on one of the backends.

mod passing;
mod results;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usher_eventlog::{Creation, Log, LogAddress, LogLayout, TopicSpec};
use usher_lab::{Lab, LabHandle};
use usher_service::{clock, telemetry};
use usher_sql::DatabaseAddress;

use crate::backend::Backend;
use crate::database::OwnDatabase;
use crate::events::Webhook;
use crate::program::Program;
use crate::{eventually, private, settings, unique};

/// Signing secret of all webhooks.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Deadline for operations that take moments on an idle machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Time for the last metrics of a program that is about to be killed.
const METRICS_DEADLINE: Duration = Duration::from_secs(5);

/// Built-in flows of the default environment.
const USUAL: &[&str] = &["email", "trial", "db-sync"];

/// Differences from the default environment.
#[derive(Default)]
pub struct Options {
    /// Flow files (name and text) in addition to the built-in flows. If set, the default flows are not loaded.
    pub flows: Vec<(&'static str, &'static str)>,
    /// Built-in flows to load instead of the default ones.
    pub built_in: &'static [&'static str],
    /// Data folder of the embedded backend. `None` uses a folder of its own.
    pub data: Option<PathBuf>,
    /// Address of a Kafka other than the shared one.
    pub kafka: Option<String>,
    /// Additional environment variables of the programs.
    pub settings: Vec<(&'static str, String)>,
}

/// The lab and the programs.
pub struct TestEnv {
    folder: TempDir,
    backend: Backend,
    lab: LabHandle,
    _lab_stop: tokio_util::sync::DropGuard,
    environment: Vec<(String, String)>,
    data: PathBuf,
    /// Folder of the flow files.
    flows: PathBuf,
    store: DatabaseAddress,
    store_url: String,
    database: Option<OwnDatabase>,
    /// `usher up` or `ingest`. `None` while stopped.
    ingest: Option<Program>,
    /// `dispatcher`, if it is a separate service.
    dispatcher: Option<Program>,
    ingest_address: String,
    /// Address of the operators' pages of `ingest` or `usher up`.
    admin: String,
    /// Address of the pages of `dispatcher`, if it is a separate service.
    dispatcher_admin: String,
    client: reqwest::Client,
    /// Time by which the programs' clock is ahead of the machine's.
    ahead: Duration,
}

impl TestEnv {
    /// Starts the default environment with three built-in flows, and waits until everything is ready.
    pub async fn start(backend: Backend) -> Self {
        Self::with(backend, Options::default()).await
    }

    /// Starts an environment with options, and waits until everything is ready.
    pub async fn with(backend: Backend, options: Options) -> Self {
        telemetry::install_tls();
        let folder = tempfile::tempdir().expect("a folder");
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let lab = Lab::start_with(listener, None, settings::EVERYTHING, stop.clone()).expect("the lab starts");
        let data = options.data.unwrap_or_else(|| folder.path().join("data"));

        let mut environment = settings::of(&lab, &unique("t"));
        environment.extend(options.settings.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let usual = options.built_in.is_empty() && options.flows.is_empty();
        let built_in = if usual { USUAL } else { options.built_in };
        let flows = settings::flows(folder.path(), built_in, &options.flows);
        environment.insert("USHER_FLOWS".into(), flows.clone());
        let mut database = None;
        let store = match &backend {
            Backend::Embedded => format!("sqlite://{}", data.join("store.db").display()),
            Backend::Real(services) => {
                let kafka = options.kafka.as_ref().unwrap_or(&services.kafka);
                environment.insert("USHER_LOG".into(), format!("kafka://{kafka}"));
                let own = OwnDatabase::make(&services.postgres).await;
                environment.insert("USHER_STORE".into(), services.store(&own));
                let url = own.url();
                database = Some(own);
                url
            }
        };
        let mut env = Self {
            folder,
            backend,
            lab,
            _lab_stop: stop.drop_guard(),
            environment: environment.into_iter().collect(),
            data,
            flows: flows.into(),
            store: DatabaseAddress::parse("USHER_STORE", &store).expect("an address"),
            store_url: store,
            database,
            ingest: None,
            dispatcher: None,
            ingest_address: String::new(),
            admin: String::new(),
            dispatcher_admin: String::new(),
            client: reqwest::Client::new(),
            ahead: Duration::ZERO,
        };
        env.start_dispatcher().await;
        env.start_ingest().await;
        env
    }

    /// Starts `usher up` or `ingest` and waits until it is ready.
    pub async fn start_ingest(&mut self) {
        let embedded = matches!(self.backend, Backend::Embedded);
        let data = self.data.display().to_string();
        let (name, arguments, says): (_, Vec<&str>, _) = if embedded {
            ("usher", vec!["up", "--no-lab", "--data", &data], "usher is ready: webhooks on http://")
        } else {
            ("ingest", vec![], "\"listen\":\"")
        };
        let mut program = Program::start(name, &arguments, &self.environment, self.folder.path());
        self.ingest_address = program.says(says).await;
        let says = if embedded { "health, metrics http://" } else { "\"admin\":\"" };
        self.admin = program.says(says).await;
        self.ingest = Some(program);
        self.ready(&self.admin).await;
    }

    /// Starts `dispatcher` with all flows, if it is a separate service, and waits until it is ready.
    pub async fn start_dispatcher(&mut self) {
        if matches!(self.backend, Backend::Embedded) {
            return;
        }
        let mut environment = self.environment.clone();
        environment.push(("USHER_FLOW".into(), self.flows().join(",")));
        let mut program = Program::start("dispatcher", &[], &environment, self.folder.path());
        let admin = program.says("\"admin\":\"").await;
        self.dispatcher = Some(program);
        self.ready(&admin).await;
        self.dispatcher_admin = admin;
    }

    fn flows(&self) -> Vec<String> {
        std::fs::read_dir(&self.flows)
            .expect("the flows")
            .map(|entry| entry.expect("a file").path())
            .filter(|path| path.is_file())
            .map(|path| path.file_stem().expect("a name").display().to_string())
            .collect()
    }

    async fn ready(&self, address: &str) {
        let url = format!("http://{address}/readyz");
        eventually(&format!("{url} is ready"), SOON, || async {
            self.client.get(&url).send().await.ok().filter(|page| page.status().is_success()).map(drop)
        })
        .await;
    }

    /// The process that receives webhooks: `usher up` or `ingest`.
    pub fn ingest(&mut self) -> &mut Program {
        self.ingest.as_mut().expect("it runs")
    }

    /// The process that delivers, if it is a separate one.
    pub fn dispatcher(&mut self) -> Option<&mut Program> {
        self.dispatcher.as_mut()
    }

    /// The process that delivers: `usher up` or `dispatcher`.
    pub fn deliverer(&mut self) -> &mut Program {
        self.dispatcher.as_mut().or(self.ingest.as_mut()).expect("it runs")
    }

    /// Output so far of the process that delivers.
    pub fn deliverer_output(&self) -> String {
        self.dispatcher.as_ref().or(self.ingest.as_ref()).expect("it runs").output()
    }

    /// Terminates the process that delivers and waits until it has stopped. `usher up` also stops receiving webhooks.
    pub async fn stop_delivering(&mut self) {
        let mut program = self.dispatcher.take().or_else(|| self.ingest.take()).expect("it runs");
        program.terminate();
        let ended = program.ended(SOON).await;
        assert!(ended.success(), "{}", program.output());
    }

    /// Starts the stopped process again and waits until it is ready.
    pub async fn go_on_delivering(&mut self) {
        if matches!(self.backend, Backend::Embedded) {
            self.start_ingest().await
        } else {
            self.start_dispatcher().await
        }
    }

    /// Kills the process that receives webhooks with SIGKILL (`kill -9`).
    pub async fn kill_ingest(&mut self) {
        self.ingest.take().expect("it runs").kill().await;
    }

    /// Kills the process that delivers with SIGKILL, if it is a separate one.
    pub async fn kill_dispatcher(&mut self) {
        if let Some(program) = self.dispatcher.take() {
            program.kill().await;
        }
    }

    /// Kills the process that delivers with SIGKILL, `usher up` included.
    pub async fn kill_delivering(&mut self) {
        self.kill_dispatcher().await;
        if matches!(self.backend, Backend::Embedded) {
            self.kill_ingest().await;
        }
    }

    /// Starts the process that delivers, without waiting until it is ready.
    pub fn start_delivering(&self) -> Program {
        let mut environment = self.environment.clone();
        let data = self.data.display().to_string();
        let (name, arguments): (_, Vec<&str>) = match self.backend {
            Backend::Embedded => ("usher", vec!["up", "--no-lab", "--data", &data]),
            Backend::Real(_) => ("dispatcher", vec![]),
        };
        environment.push(("USHER_FLOW".into(), self.flows().join(",")));
        Program::start(name, &arguments, &environment, self.folder.path())
    }

    /// Starts `ingest` as a separate service, without waiting until it is ready.
    pub fn spawn_ingest(&self) -> Program {
        Program::start("ingest", &[], &self.environment, self.folder.path())
    }

    /// Copies the store while nothing delivers, and returns the name of the copy.
    pub async fn back_up_store(&self) -> String {
        let Some(database) = &self.database else {
            // SQLite itself makes the copy: files copied while another process closes the database may be inconsistent.
            let copy = self.data.join("copy.db").display().to_string();
            let pool = self.pool().await;
            sqlx::query("VACUUM INTO $1").bind(&copy).execute(&pool).await.expect("a copy is made");
            pool.close().await;
            return copy;
        };
        database.copy().await
    }

    /// Replaces the store by a copy while nothing delivers.
    pub async fn restore_store(&mut self, copy: &str) {
        match &self.database {
            Some(database) => database.restore(copy).await,
            None => {
                self.store_url = format!("sqlite://{copy}");
                self.store = DatabaseAddress::parse("USHER_STORE", &self.store_url).expect("an address");
                self.environment.push(("USHER_STORE".into(), self.store_url.clone()));
            }
        }
    }

    /// Returns the number of rows that the store has returned so far. Panics if the store is a file.
    pub async fn rows_read(&self) -> i64 {
        self.database.as_ref().expect("a database of its own").rows_read().await
    }

    /// Returns the number of transactions of the store so far. Panics if the store is a file.
    pub async fn transactions(&self) -> i64 {
        self.database.as_ref().expect("the store is a server").transactions().await
    }

    /// Empties the store while nothing delivers.
    pub async fn lose_store(&mut self) {
        match &self.database {
            Some(database) => database.empty().await,
            None => {
                for name in ["store.db", "store.db-wal", "store.db-shm"] {
                    // Not all of these files always exist.
                    let _ = std::fs::remove_file(self.data.join(name));
                }
            }
        }
    }

    /// Empties the log while nothing runs. The committed offsets of the groups are lost with it.
    pub async fn lose_log(&self) {
        let layout = self.layout();
        match self.variable("USHER_LOG") {
            None => {
                for name in ["log.db", "log.db-wal", "log.db-shm"] {
                    let _ = std::fs::remove_file(self.data.join(name));
                }
            }
            Some(address) => {
                let brokers = address.strip_prefix("kafka://").expect("Kafka");
                crate::broker::delete_topic(brokers, &layout.topics.events()).await;
            }
        }
        // Creates the topic again, as an operator would.
        let log = self.log().await;
        let events = TopicSpec { creation: Creation::Always, ..layout.events() };
        eventually("the topic is made again", SOON, || async { log.ensure(std::slice::from_ref(&events)).await.ok() })
            .await;
    }

    /// Sets a variable for programs that start from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Kills `ingest` with SIGKILL, if it is a separate process.
    pub async fn kill_separate_ingest(&mut self) {
        if matches!(self.backend, Backend::Real(_)) {
            self.kill_ingest().await;
        }
    }

    /// Starts `ingest` again, if it is a separate process, and waits until it is ready.
    pub async fn start_separate_ingest(&mut self) {
        if matches!(self.backend, Backend::Real(_)) {
            self.start_ingest().await;
        }
    }

    /// The destinations' doubles.
    pub fn lab(&self) -> &Lab {
        self.lab.lab()
    }

    /// Folder for the test's own files.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Value of a variable of the programs. `None` if it is not set.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Name of the topic with this suffix.
    pub fn topic(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.variable("USHER_TOPIC_PREFIX").expect("it is set"))
    }

    /// Layout of the topics.
    pub fn layout(&self) -> LogLayout {
        let prefix = self.variable("USHER_TOPIC_PREFIX").expect("it is set");
        LogLayout { topics: prefix.parse().expect("a prefix"), partitions: 8 }
    }

    /// Runs `usher` with these arguments until it exits. Returns the exit code and both streams.
    pub fn usher(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = std::process::Command::new(crate::program::programs().join("usher"))
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .env("USHER_DATA", &self.data)
            .output()
            .expect("usher runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // Standard output is what was asked for, which may be an event.
        private::assert_kept("usher", &text(&output.stderr), &private::secrets(&self.environment));
        (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
    }

    /// Starts `usher console` on a free address.
    pub fn start_console(&self) -> Program {
        self.start_usher(&["console", "--listen", "127.0.0.1:0", "--by", "ann"])
    }

    /// Starts `usher` with these arguments: a command that does not end by itself, or that is to be interrupted.
    pub fn start_usher(&self, arguments: &[&str]) -> Program {
        let data = ("USHER_DATA".to_owned(), self.data.display().to_string());
        let environment: Vec<_> = self.environment.iter().cloned().chain([data]).collect();
        Program::start("usher", arguments, &environment, self.folder.path())
    }

    /// Opens the log that the programs use.
    pub async fn log(&self) -> Arc<dyn Log> {
        let address = self.variable("USHER_LOG").map_or_else(
            || LogAddress::Sqlite { path: self.data.join("log.db") },
            |text| text.parse().expect("an address"),
        );
        usher_eventlog::open(&address, &[]).await.expect("the log opens")
    }

    /// Address that receives webhooks.
    pub fn address(&self) -> &str {
        &self.ingest_address
    }

    /// Address of the operators' pages of `ingest` or `usher up`.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Posts to a path with these headers. Returns status and body.
    pub async fn post(&self, path: &str, headers: &[(&str, String)], body: Vec<u8>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.ingest_address);
        let request = headers.iter().fold(self.client.post(url), |request, (name, value)| request.header(*name, value));
        let response = request.body(body).send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Fetches a page of the process that receives webhooks. Returns status and text.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let response =
            self.client.get(format!("http://{}{path}", self.ingest_address)).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    /// Fetches one of the operators' pages of `ingest` or `usher up`. Returns status and text.
    pub async fn admin_page(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("http://{}{path}", self.admin)).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    /// Sends a webhook once. Returns the status, or `None` if there was no answer.
    pub async fn send_once(&self, webhook: &Webhook) -> Option<u16> {
        let url = format!("http://{}/webhooks/clerk", self.ingest_address);
        let headers = webhook.headers_at(SECRET, clock::now().plus(self.ahead));
        let request = headers.iter().fold(self.client.post(url), |request, (name, value)| request.header(*name, value));
        let response = request.body(webhook.body.clone()).timeout(Duration::from_secs(15)).send().await.ok()?;
        Some(response.status().as_u16())
    }

    /// Sends a webhook. Panics if it is not answered 204.
    pub async fn send(&self, webhook: &Webhook) {
        assert_eq!(self.send_once(webhook).await, Some(204));
    }

    /// Sends a webhook repeatedly until it is answered 204, as Svix would.
    pub async fn send_until_kept(&self, webhook: &Webhook) {
        eventually("the webhook is kept", SOON, || async {
            self.send_once(webhook).await.filter(|status| *status == 204)
        })
        .await;
    }

    /// Sends many webhooks concurrently, at most 32 at a time.
    pub async fn send_all(&self, webhooks: &[Webhook]) {
        futures::stream::iter(webhooks).for_each_concurrent(32, |webhook| self.send_until_kept(webhook)).await;
    }

    /// Kills all programs and removes their data. Their metrics and their output are searched for personal data and secrets.
    pub async fn end(mut self) {
        let admin = self.admin.clone();
        for (address, program) in [(&admin, &self.ingest), (&self.dispatcher_admin, &self.dispatcher)] {
            let page = self.client.get(format!("http://{address}/metrics")).timeout(METRICS_DEADLINE).send().await;
            // A test may have left the program suspended or dead.
            if let (Ok(page), Some(program)) = (page, program) {
                program.assert_keeps_private("/metrics", &page.text().await.unwrap_or_default());
            }
        }
        for program in [self.ingest.take(), self.dispatcher.take()].into_iter().flatten() {
            program.kill().await;
        }
        if let Some(database) = self.database.take() {
            database.remove().await;
        }
    }
}
