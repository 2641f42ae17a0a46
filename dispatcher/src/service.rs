//! The service `dispatcher` as a program, which is the binary of that name, and part of the binary `usher`.

use std::process::ExitCode;

use anyhow::Context as _;
use prometheus::Registry;
use tokio::net::TcpListener;
use usher_eventlog::LogAddress;
use usher_service::options::{self, Environment};
use usher_service::{ConfigError, exit};
use usher_service::{Readiness, files, health, http, shutdown, telemetry};

use crate::config::DispatcherArguments;
use crate::{Dispatcher, DispatcherConfig};

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

async fn run(arguments: DispatcherArguments, environment: Environment) -> anyhow::Result<()> {
    let _export = telemetry::start_service(&environment, "usher-dispatcher")?;
    telemetry::install_tls();
    let DispatcherArguments { names, admin, log, layout, files } = arguments;
    let config = DispatcherConfig::new(log, layout, &files, &names, &environment)?;
    if let LogAddress::Sqlite { .. } = config.log {
        let why = "dispatcher is a service of its own and cannot share a SQLite log with ingest: set \
                   kafka://host:9092, or run everything in one process with `usher up`";
        return Err(ConfigError::new("USHER_LOG", why).into());
    }
    let asked = shutdown::on_signal()?;
    let stop = asked.child_token();
    let readiness = Readiness::needing(Dispatcher::needs(&config));
    let registry = Registry::new();
    let listener = TcpListener::bind(admin).await.with_context(|| format!("cannot listen on {admin}"))?;
    tracing::info!(admin = %listener.local_addr()?, log = %config.log, flows = ?names, "dispatcher starting");

    let log = usher_eventlog::open(&config.log, &config.kafka).await?;
    let dispatcher = Dispatcher::new(config, log, readiness.clone(), &registry)?;
    let pages = health::router(readiness, registry, dispatcher.scrapes())?;
    let pages = tokio::spawn(http::serve(listener, pages, stop.clone()));
    let finished = shutdown::drain(&stop, dispatcher.run(stop.clone())).await;
    stop.cancel();
    // A client that is still reading a page must not delay the shutdown.
    pages.abort();
    if let Some(ended) = finished {
        return Ok(ended?);
    }
    anyhow::ensure!(asked.is_cancelled(), "a flow cannot go on, and others did not end by the deadline: see the log");
    tracing::warn!("drain deadline passed with work in flight; it continues at the next start");
    Ok(())
}
