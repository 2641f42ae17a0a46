//! `usher up`: everything in one process, with nothing to install and nothing to configure.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usher_dispatcher::Dispatcher;
use usher_dispatcher::config::FlowFiles;
use usher_lab::Lab;
use usher_log::{LogAddress, LogLayout, LogWatch};
use usher_proto::unsubscribe;
use usher_service::options::Environment;
use usher_service::{Readiness, health, http, shutdown, telemetry};

use crate::data::{Addresses, DataDirectory};
use crate::{lab, output};

/// Runs everything in one process: ingest, all flows, an embedded log and store, and the lab.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where everything is kept.
    #[arg(long, env = "USHER_DATA", default_value = "./usher-data")]
    data: PathBuf,
    /// The address to take webhooks on.
    #[arg(long, env = "USHER_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The address of /healthz, /readyz and /metrics.
    #[arg(long, env = "USHER_ADMIN", default_value = "127.0.0.1:8081")]
    admin: SocketAddr,
    /// The address of the lab: doubles of the destinations, so that nothing real is reached.
    #[arg(long, env = "USHER_LAB", default_value = "127.0.0.1:8090")]
    lab: SocketAddr,
    /// How many of the newest effects and requests the lab keeps; the others are counted.
    #[arg(long, env = "USHER_LAB_KEEP", default_value_t = usher_lab::KEEP, value_parser = lab::parse_keep)]
    lab_keep: usize,
    /// Without the lab: the destinations are those of the environment.
    #[arg(long)]
    no_lab: bool,
    /// Another log than the one in the data directory: kafka://host:9092 or sqlite:PATH.
    #[arg(long, env = "USHER_LOG")]
    log: Option<LogAddress>,
    /// Another store than the one in the data directory: postgres://... or sqlite:PATH.
    #[arg(long, env = "USHER_STORE")]
    store: Option<String>,
    /// How the log's topics are laid out.
    #[command(flatten)]
    layout: LogLayout,
    /// Where the flow files are.
    #[command(flatten)]
    files: FlowFiles,
}

pub(crate) async fn run(arguments: Arguments, environment: Environment) -> anyhow::Result<()> {
    telemetry::start(&environment)?;
    telemetry::install_tls();
    let data = DataDirectory::take(&arguments.data)?;
    let stop = shutdown::on_signal()?;

    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let (listener, admin) = (bind(arguments.listen).await?, bind(arguments.admin).await?);
    // The lab outlives the flows, so that what is under way when they stop still gets its answers.
    let lab_stop = CancellationToken::new();
    let lab = match arguments.no_lab {
        true => None,
        false => Some(Lab::start_with(bind(arguments.lab).await?, None, arguments.lab_keep, lab_stop.clone())?),
    };
    let addresses = Addresses {
        listen: listener.local_addr()?,
        admin: admin.local_addr()?,
        lab: lab.as_ref().map(usher_lab::LabHandle::address),
    };

    let log_address = arguments.log.map_or_else(|| data.log().parse(), Ok)?;
    let mut environment = environment.with("USHER_STORE", arguments.store.unwrap_or_else(|| data.store()));
    // Only the one made here is shown; one that was configured is the operator's secret.
    let mut made = None;
    if environment.get("CLERK_WEBHOOK_SIGNING_SECRET")?.is_none() {
        let secret = data.signing_secret()?;
        environment = environment.with("CLERK_WEBHOOK_SIGNING_SECRET", &secret);
        made = Some(secret);
    }
    // Links in marketing mail lead back here, unless it is known how this is reached from outside.
    if environment.get("USHER_PUBLIC_URL")?.is_none() {
        environment = environment.with("USHER_PUBLIC_URL", format!("http://{}", addresses.listen));
    }
    if environment.get(unsubscribe::SECRETS)?.is_none() {
        environment = environment.with(unsubscribe::SECRETS, data.unsubscribe_secret()?);
    }
    if let Some(lab) = &lab {
        environment = lab::stand_in(environment, lab)?;
    }
    let layout = arguments.layout;
    let ingest_arguments = usher_ingest::config::Arguments {
        listen: addresses.listen,
        admin: addresses.admin,
        log: log_address.clone(),
        layout: layout.clone(),
    };
    let ingest = usher_ingest::Config::new(ingest_arguments, &environment)?;
    let dispatcher = usher_dispatcher::Config::new(log_address, layout, &arguments.files, &[], &environment)?;

    for (flow, settings) in &dispatcher.left_out {
        output::notice(&format!("flow {flow} is left out: no {settings}... variable is set"));
    }
    let served = serve(ingest, dispatcher, listener, admin, &stop, || {
        data.announce(&addresses)?;
        announce(&addresses, made.as_deref(), &arguments.data);
        Ok(())
    });
    let result = shutdown::drain(&stop, served).await;
    stop.cancel();
    lab_stop.cancel();
    if let Some(lab) = lab {
        lab.stopped().await;
    }
    result.unwrap_or_else(|| {
        tracing::warn!("work was still under way at the deadline; it goes on at the next start");
        Ok(())
    })
}

/// The dispatcher first, then ingest: nothing is accepted before every flow has its first offsets.
async fn serve(
    ingest: usher_ingest::Config,
    dispatcher: usher_dispatcher::Config,
    listener: TcpListener,
    admin: TcpListener,
    stop: &CancellationToken,
    on_ready: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let log = usher_log::open(&ingest.log, &ingest.kafka).await?;
    let (ready, registry) = (Readiness::needing(Dispatcher::needs(&dispatcher)), Registry::new());
    let door = Readiness::needing(usher_ingest::NEEDS);
    let router = usher_ingest::router(&ingest, log.clone(), &registry)?;
    let flows = Dispatcher::new(dispatcher, log.clone(), ready.clone(), &registry)?;
    let flows = tokio::spawn(stop_after(flows.run(stop.clone()), stop.clone()));
    let pages = health::router(ready.clone().and(&door), registry);
    let pages = tokio::spawn(http::serve(admin, pages, stop.clone()));

    if stop.run_until_cancelled(ready.ready()).await.is_some() {
        // The dispatcher's has the same metrics on the page already.
        let watch = LogWatch::new(log.clone(), ingest.layout.topics.events(), door.clone(), &Registry::new())?;
        let watch = tokio::spawn(ingest.prepare(log.clone(), watch, stop.clone()));
        let server = tokio::spawn(http::serve(listener, router, stop.clone()));
        if stop.run_until_cancelled(door.ready()).await.is_some() {
            on_ready()?;
        }
        server.await?;
        log.flush().await;
        watch.await??;
    }
    pages.await?;
    flows.await?
}

/// Whatever ends the flows ends the process.
async fn stop_after<T>(work: impl Future<Output = T>, stop: CancellationToken) -> T {
    let result = work.await;
    stop.cancel();
    result
}

fn announce(addresses: &Addresses, secret: Option<&str>, data: &std::path::Path) {
    let secret = secret.unwrap_or("as configured");
    let default = data == std::path::Path::new("./usher-data");
    let at = if default { String::new() } else { format!(" --data {}", data.display()) };
    output::notice(&format!("usher is ready: webhooks on http://{}/webhooks/clerk", addresses.listen));
    output::notice(&format!("  signing secret  {secret}"));
    output::notice(&format!("  health, metrics http://{}", addresses.admin));
    if let Some(lab) = addresses.lab {
        output::notice(&format!(
            "  lab             http://{lab}/effects (doubles of every destination: nothing real is reached)"
        ));
    }
    output::notice(&format!("  try             usher send user.created{at}    and then    usher runs{at}"));
}
