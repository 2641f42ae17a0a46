//! A peer: Restate, which subscribes to the topic and calls a virtual object for each user. Its journal keeps the order by key
//! and what has been done; a call may be repeated if the process is killed between the answer and the journal's entry.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use usher_tests::{eventually, free_port, unique};

use super::{DispatchRound, STARTS_WITHIN, TEXT};
use crate::meter::{Meter, Processes, peak_memory};
use crate::parts::PeerProcess;
use crate::peers;
use crate::report::Sample;

/// Name of the arm.
pub(super) const NAME: &str = "Restate, virtual object by user";

/// Installs the server and the SDK.
///
/// # Errors
///
/// npm fails.
pub(super) async fn install() -> anyhow::Result<()> {
    peers::install_node("restate").await
}

/// A running server and the service that it calls.
struct RestateServer {
    server: PeerProcess,
    service: PeerProcess,
    admin: String,
}

impl RestateServer {
    async fn start(kafka: &str, url: &str, folder: &Path) -> anyhow::Result<Self> {
        let peer = peers::folder("restate");
        let mut node = Command::new("node");
        node.arg(peer.join("service.js")).args([url, TEXT]);
        let mut service = PeerProcess::start(node)?;
        let address = service.address().await?;
        let admin = free_port();
        let config = folder.join("restate.toml");
        std::fs::write(&config, settings(kafka, folder, admin))?;
        // The program itself: npm's wrapper would be one more process.
        let program = format!("node_modules/@restatedev/restate-server-linux-{}/bin/restate-server", architecture());
        let mut restate = Command::new(peer.join(program));
        restate.arg("--config-file").arg(&config).arg("--no-logo").current_dir(folder);
        let server = PeerProcess::start(restate)?;
        let admin = format!("http://127.0.0.1:{admin}");
        let started = Self { server, service, admin };
        started.register(address).await?;
        Ok(started)
    }

    async fn register(&self, service: SocketAddr) -> anyhow::Result<()> {
        let health = format!("{}/health", self.admin);
        let healthy = || async { reqwest::get(&health).await.ok()?.error_for_status().ok() };
        eventually("Restate is healthy", STARTS_WITHIN, healthy).await;
        // Its partitions may have no leader yet.
        let request = json!({ "uri": format!("http://{service}") });
        let registered = || async { self.post("deployments", &request).await.ok() };
        eventually("the service is registered", STARTS_WITHIN, registered).await;
        Ok(())
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let request = reqwest::Client::new().post(format!("{}/{path}", self.admin));
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        anyhow::ensure!(status.is_success(), "{path}: {status}: {text}");
        Ok(())
    }
}

/// Name of this machine's architecture in Node's packages.
const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" }
}

fn settings(kafka: &str, folder: &Path, admin: u16) -> String {
    let node = free_port();
    let ingress = free_port();
    format!(
        "base-dir = \"{}\"\nlisten-mode = \"tcp\"\nbind-ip = \"127.0.0.1\"\nbind-port = {node}\ndisable-telemetry = true\n\
         log-filter = \"off\"\n[admin]\nbind-ip = \"127.0.0.1\"\nbind-port = {admin}\n\
         [ingress]\nbind-ip = \"127.0.0.1\"\nbind-port = {ingress}\n\
         [[ingress.kafka-clusters]]\nname = \"bench\"\nbrokers = [\"PLAINTEXT://{kafka}\"]\n",
        folder.display()
    )
}

/// Runs it once. Time and CPU count from the first effect, in its favour: it does not say when its partitions are assigned.
pub(super) async fn run(round: &DispatchRound<'_>) -> anyhow::Result<Sample> {
    let DispatchRound { services, topic, scenario, sink, .. } = *round;
    sink.reset();
    let folder = TempDir::new()?;
    let restate = RestateServer::start(&services.kafka, &sink.url(), folder.path()).await?;
    let server = restate.server.pid();
    let service = restate.service.pid();
    let meter = Meter::start(vec![("server", Processes::One(server)), ("service", Processes::One(service))])?;
    let subscription = json!({
        "source": format!("kafka://bench/{topic}"), "sink": "service://poster/post",
        "options": { "auto.offset.reset": "earliest", "group.id": unique("restate") },
    });
    restate.post("subscriptions", &subscription).await.context("the subscription")?;
    sink.first(STARTS_WITHIN).await?;
    let begun = Instant::now();
    sink.reached(scenario.events, scenario.deadline() + Duration::from_secs(60)).await?;
    let sample = round.sample(NAME, begun, &meter, peak_memory(server)? + peak_memory(service)?)?;
    // The service first: it would complain of each call that ends with the server.
    restate.service.kill().await?;
    restate.server.kill().await?;
    Ok(sample)
}
