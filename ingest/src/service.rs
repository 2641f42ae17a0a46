//! The service `ingest` as a program, which is the binary of that name, and part of the binary `usher`.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use prometheus::Registry;
use tokio::net::TcpListener;
use usher_eventlog::{LogAddress, LogWatch};
use usher_service::options::{self, Environment};
use usher_service::{ConfigError, exit};
use usher_service::{Readiness, Scrapes, files, health, http, shutdown, telemetry};

use crate::{IngestConfig, NEEDS};

/// Runs the service until it is told to stop, or cannot go on. The command line and the environment are those of the process.
pub async fn program() -> ExitCode {
    files::private_by_default();
    let environment = Environment::from_process();
    let arguments = match options::parse(&environment) {
        Ok(arguments) => arguments,
        Err(code) => return code.into(),
    };
    match run(arguments, environment).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(error.as_ref()),
    }
}

async fn run(arguments: crate::config::IngestArguments, environment: Environment) -> anyhow::Result<()> {
    let _export = telemetry::start_service(&environment, "usher-ingest")?;
    let config = IngestConfig::new(arguments, &environment)?;
    if let LogAddress::Sqlite { .. } = config.log {
        let why = "ingest is a service of its own and cannot share a SQLite log with the dispatcher: set \
                   kafka://host:9092, or run everything in one process with `usher up`";
        return Err(ConfigError::new("USHER_LOG", why).into());
    }
    let stop = shutdown::on_signal()?;
    let readiness = Readiness::needing(NEEDS);
    let registry = Registry::new();
    let log = usher_eventlog::open(&config.log, &config.kafka).await?;
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let listener = bind(config.listen).await?;
    let admin = bind(config.admin).await?;
    tracing::info!(
        listen = %listener.local_addr()?,
        admin = %admin.local_addr()?,
        log = %config.log,
        "ingest listening"
    );

    let router = crate::router(&config, log.clone(), &registry)?;
    let watch = LogWatch::new(log.clone(), config.layout.topics.events(), readiness.clone(), &registry)?;
    let pages = health::router(readiness, registry, Scrapes::default())?;
    let pages = tokio::spawn(http::serve(admin, pages, stop.clone()));
    let watch = tokio::spawn(config.prepare(log.clone(), watch, stop.clone()));
    let finished = shutdown::drain(&stop, http::serve(listener, router, stop.clone())).await;
    if finished.is_none() {
        tracing::warn!("drain deadline passed with open requests; their senders will repeat them");
    }
    log.flush().await;
    stop.cancel();
    // A client that is still reading a page must not delay the stop.
    pages.abort();
    watch.await??;
    Ok(())
}
