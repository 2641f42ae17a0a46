//! A Prometheus server of its own, which evaluates the alert rules.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use usher_tests::test_env::SOON;
use usher_tests::{eventually, free_port};

use crate::metrics::root;

/// A running Prometheus. Killed when dropped.
pub(super) struct PrometheusServer {
    address: String,
    _process: Child,
    _folder: TempDir,
}

impl PrometheusServer {
    /// Starts a server that scrapes these targets (job and address) every second, and waits until each was scraped.
    pub(super) async fn start(targets: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let job =
            |(name, address): &(&str, &str)| json!({ "job_name": name, "static_configs": [{ "targets": [address] }] });
        let configuration = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": [root().join("deploy/prometheus/alerts.yml")],
            "scrape_configs": targets.iter().map(job).collect::<Vec<_>>(),
        });
        let file = folder.path().join("prometheus.yml");
        // JSON is YAML.
        std::fs::write(&file, configuration.to_string()).expect("a file");
        let address = format!("127.0.0.1:{}", free_port());
        let log = std::fs::File::create(folder.path().join("log")).expect("a file");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("Prometheus starts");
        let server = Self { address, _process: process, _folder: folder };
        let wanted = targets.len().to_string();
        eventually("all targets are scraped", SOON, || async {
            let up = server.try_query("sum(up)").await?;
            (up[0]["value"][1].as_str()? == wanted).then_some(())
        })
        .await;
        server
    }

    /// Returns the result of an instant query.
    pub(super) async fn query(&self, expression: &str) -> Value {
        self.try_query(expression).await.unwrap_or_else(|| panic!("{expression} is answered"))
    }

    /// Returns the names of the alerts that are pending or fire.
    pub(super) async fn alerts(&self) -> Vec<String> {
        let answer = self.get("alerts", &[]).await.expect("an answer");
        let alerts = answer["data"]["alerts"].as_array().expect("alerts");
        alerts.iter().map(|alert| alert["labels"]["alertname"].as_str().expect("a name").to_owned()).collect()
    }

    /// Returns all present series of Usher, as text.
    pub(super) async fn series(&self) -> BTreeSet<String> {
        let result = self.query("{__name__=~\"usher_.+\"}").await;
        result.as_array().expect("series").iter().map(|series| series["metric"].to_string()).collect()
    }

    async fn try_query(&self, expression: &str) -> Option<Value> {
        let answer = self.get("query", &[("query", expression)]).await?;
        (answer["status"] == "success").then(|| answer["data"]["result"].clone())
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let mut url = reqwest::Url::parse(&format!("http://{}/api/v1/{path}", self.address)).expect("an address");
        url.query_pairs_mut().extend_pairs(parameters);
        let text = reqwest::get(url).await.ok()?.text().await.ok()?;
        serde_json::from_str(&text).ok()
    }
}
