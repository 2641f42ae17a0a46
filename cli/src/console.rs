//! `usher console`: serves the console of a cluster, whose services run elsewhere.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use usher_console::{ConsoleConfig, ConsoleLinks};
use usher_service::options::Environment;
use usher_service::{http, listen, shutdown, telemetry};

use crate::orders::OperatorTarget;
use crate::output;

/// Serves the console: pages and an HTTP API for operators. `usher up` serves it on its own.
#[derive(Debug, clap::Args)]
pub(crate) struct ConsoleArguments {
    #[command(flatten)]
    target: OperatorTarget,
    /// The address to serve on. On another one than loopback a token is needed: `USHER_CONSOLE_TOKEN`.
    #[arg(long, default_value = "127.0.0.1:8081", value_parser = listen::parse)]
    listen: SocketAddr,
}

pub(crate) async fn run(arguments: ConsoleArguments, environment: Environment) -> anyhow::Result<()> {
    let ConsoleArguments { target, listen } = arguments;
    let _export = telemetry::start_service(&environment, "usher-console")?;
    telemetry::install_tls();
    let stop = shutdown::on_signal()?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let config = ConsoleConfig::new(address, &environment)?.acting_as(&target.by);
    let place = config.describe_place(address);
    let commands = target.commands(&environment).await?;
    let store = commands.store().clone();
    let links = ConsoleLinks { commands: Some(commands), lab: None };
    let router = usher_console::router(config, store, links, stop.clone());
    output::notice(&format!("usher console is ready: {place}"));
    if shutdown::drain(&stop, http::serve(listener, router, stop.clone())).await.is_none() {
        tracing::warn!("drain deadline passed with requests in flight");
    }
    Ok(())
}
