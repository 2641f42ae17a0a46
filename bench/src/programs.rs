//! Usher's programs as they are measured: their settings and their addresses.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use usher_tests::program::Program;

use crate::services::BenchServices;

/// Signing secret of all webhooks and requests. Hexadecimal digits are base64, too.
pub(crate) const SECRET: &str = "whsec_8e1bb2a04d6a4d1e9c3cb2eb1f0ad5e7";

/// Settings of a program, as pairs of name and value.
pub(crate) type ProgramSettings = Vec<(String, String)>;

/// Returns the settings that all programs need.
pub(crate) fn settings(flows: &str) -> ProgramSettings {
    [
        ("RUST_LOG", "info"),
        ("USHER_LOG_FORMAT", "json"),
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
        ("HTTP_SIGNING_SECRET", SECRET),
        ("HTTP_ALLOW_PLAIN", "true"),
        ("USHER_LISTEN", "127.0.0.1:0"),
        ("USHER_ADMIN", "127.0.0.1:0"),
        ("USHER_FLOWS", flows),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Adds settings.
pub(crate) fn add<const N: usize>(settings: &mut ProgramSettings, more: [(&str, String); N]) {
    settings.extend(more.map(|(name, value)| (name.to_owned(), value)));
}

/// Writes flows, as pairs of name and text, into a folder below `folder`, and returns that one.
///
/// # Errors
///
/// They cannot be written.
pub(crate) fn write_flows<T: AsRef<str>>(folder: &Path, flows: &[(&str, T)]) -> anyhow::Result<String> {
    let into = folder.join("flows");
    std::fs::create_dir_all(&into)?;
    for (name, text) in flows {
        std::fs::write(into.join(format!("{name}.toml")), text.as_ref())?;
    }
    Ok(into.display().to_string())
}

/// A running program of Usher that receives webhooks. Killed when dropped.
pub(crate) struct Receiver {
    /// The process.
    pub(crate) program: Program,
    /// Address of the webhooks.
    pub(crate) address: SocketAddr,
}

/// Time for a program to be ready.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Waits until the program with these pages is ready.
pub(crate) async fn ready(admin: &str) {
    let page = format!("http://{admin}/readyz");
    let ready = || async { reqwest::get(&page).await.ok()?.error_for_status().ok() };
    usher_tests::eventually("the program is ready", STARTS_WITHIN, ready).await;
}

/// Path of webhooks.
pub(crate) const WEBHOOKS: &str = "/webhooks/clerk";

impl Receiver {
    /// Starts `ingest` on Kafka.
    ///
    /// # Errors
    ///
    /// It does not listen.
    pub(crate) async fn ingest(services: &BenchServices, prefix: &str, folder: &Path) -> anyhow::Result<Self> {
        let mut settings = settings("");
        settings.retain(|(name, _)| name != "USHER_FLOWS");
        let more = [("USHER_LOG", format!("kafka://{}", services.kafka)), ("USHER_TOPIC_PREFIX", prefix.to_owned())];
        add(&mut settings, more);
        let mut program = Program::start("ingest", &[], &settings, folder);
        let address = program.says("\"listen\":\"").await.parse()?;
        let admin = program.says("\"admin\":\"").await;
        ready(&admin).await;
        Ok(Self { program, address })
    }

    /// Starts `usher up` with its files in `data`.
    ///
    /// # Errors
    ///
    /// It does not listen.
    pub(crate) async fn up(settings: &ProgramSettings, data: &Path, folder: &Path) -> anyhow::Result<Self> {
        let data = data.display().to_string();
        let mut program = Program::start("usher", &["up", "--no-lab", "--data", &data], settings, folder);
        let address = program.says("usher is ready: webhooks on http://").await.parse()?;
        Ok(Self { program, address })
    }

    /// Id of the process.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.program.pid().with_context(|| format!("it has ended: {}", self.program.output()))
    }
}
