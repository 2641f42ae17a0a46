//! `usher up`: runs everything in one process, with nothing to install or to configure.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use usher_console::ConsoleConfig;
use usher_dispatcher::Dispatcher;
use usher_dispatcher::operator::OperatorCommands;
use usher_eventlog::{LogAddress, LogLayout, LogWatch};
use usher_flows::FlowFiles;
use usher_flows::Pattern;
use usher_lab::Lab;
use usher_proto::{Source, unsubscribe};
use usher_service::ConfigError;
use usher_service::options::Environment;
use usher_service::{Readiness, health, http, listen, settings, shutdown, telemetry};
use usher_sql::Database;
use usher_store::SqlStore;

use crate::data::{Addresses, DataDirectory};
use crate::{lab, output};

/// Runs everything in one process: ingest, all flows, an embedded log and store, and the lab.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArguments {
    /// The data directory: log, store and generated secrets.
    #[arg(long, env = "USHER_DATA", default_value = "./usher-data")]
    data: PathBuf,
    /// The address to receive webhooks on.
    #[arg(long, env = "USHER_LISTEN", default_value = "127.0.0.1:8080", value_parser = listen::parse)]
    listen: SocketAddr,
    /// The address of the console, and of /healthz, /readyz and /metrics.
    #[arg(long, env = "USHER_ADMIN", default_value = "127.0.0.1:8081", value_parser = listen::parse)]
    admin: SocketAddr,
    /// The address of the lab: doubles of the destinations, so that no real one is reached.
    #[arg(long, env = "USHER_LAB", default_value = "127.0.0.1:8090", value_parser = listen::parse)]
    lab: SocketAddr,
    /// Number of newest effects and requests that the lab keeps; older ones are only counted.
    #[arg(long, env = "USHER_LAB_KEEP", default_value_t = usher_lab::KEEP, value_parser = lab::parse_keep)]
    lab_keep: usize,
    /// Do not run the lab: the destinations are those of the environment.
    #[arg(long)]
    no_lab: bool,
    /// Another log than the one in the data directory: `kafka://host:9092` or `sqlite:PATH`.
    #[arg(long, env = "USHER_LOG")]
    log: Option<LogAddress>,
    /// Another store than the one in the data directory: postgres://... or sqlite:PATH.
    #[arg(long, env = "USHER_STORE")]
    store: Option<String>,
    /// Layout of the log's topics.
    #[command(flatten)]
    layout: LogLayout,
    /// Location of the flow files.
    #[command(flatten)]
    files: FlowFiles,
}

pub(crate) async fn run(arguments: UpArguments, environment: Environment) -> anyhow::Result<()> {
    let _export = telemetry::start_service(&environment, "usher")?;
    telemetry::install_tls();
    if arguments.no_lab {
        needs_secret(&environment)?;
    }
    let data = DataDirectory::take(&arguments.data)?;
    let asked = shutdown::on_signal()?;
    let parts = Parts { stop: asked.child_token(), failed: Arc::default() };
    let stop = parts.stop.clone();

    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let listener = bind(arguments.listen).await?;
    let admin = bind(arguments.admin).await?;
    // The lab outlives the flows, so that requests in flight when the flows stop still get their responses.
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
    // Only a secret generated here is printed; a configured one is the operator's.
    let mut made = None;
    if !arguments.no_lab && environment.get(SIGNING_SECRET)?.is_none() {
        let secret = data.signing_secret()?;
        environment = environment.with(SIGNING_SECRET, &secret);
        made = Some(secret);
    }
    // Links in marketing mail lead to this process, unless its public address is configured.
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
    let ingest_arguments = usher_ingest::config::IngestArguments {
        listen: addresses.listen,
        admin: addresses.admin,
        log: log_address.clone(),
        layout: layout.clone(),
    };
    let ingest = usher_ingest::IngestConfig::new(ingest_arguments, &environment)?;
    let dispatcher = usher_dispatcher::DispatcherConfig::new(log_address, layout, &arguments.files, &[], &environment)?;
    let console = ConsoleConfig::new(addresses.admin, &environment)?;
    let console_place = console.describe_place(addresses.admin);

    for (flow, settings) in &dispatcher.left_out {
        output::notice(&format!("flow {flow} is left out: no {settings}... variable is set"));
    }
    for flow in &dispatcher.flows {
        for instance in &flow.instances {
            let sources: BTreeSet<Source> = flow.on.iter().map(Pattern::source).collect();
            for setting in sources.into_iter().filter_map(|source| ingest.unset_secret(source, instance)) {
                let name = &flow.name;
                output::notice(&format!("flow {name} gets no webhook of instance {instance}: {setting} is not set"));
            }
        }
    }
    let lab = lab.map(|lab| tokio::spawn(parts.clone().watch("the lab", lab_stop.clone(), lab.stopped())));
    let admin = AdminServer { listener: admin, console };
    let served = serve(ingest, dispatcher, listener, admin, &parts, || {
        data.announce(&addresses)?;
        announce(&addresses, &console_place, made.as_deref(), &arguments.data);
        Ok(())
    });
    let in_time = shutdown::drain(&stop, served).await.is_some();
    lab_stop.cancel();
    if let Some(lab) = lab {
        lab.await?;
    }
    match parts.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => return Err(error),
        None if !asked.is_cancelled() => anyhow::bail!("a part of the process has ended by itself"),
        None if !in_time => tracing::warn!("drain deadline passed with work in flight; it continues at the next start"),
        None => {}
    }
    Ok(())
}

const SIGNING_SECRET: &str = "CLERK_WEBHOOK_SIGNING_SECRET";

/// Fails if no signing secret is set. With real destinations the webhooks come from a real sender, so a secret
/// generated here could never be right.
fn needs_secret(environment: &Environment) -> Result<(), ConfigError> {
    if !environment.with_prefix(SIGNING_SECRET)?.is_empty() {
        return Ok(());
    }
    let mut why =
        "not set: --no-lab is for webhooks of a real endpoint: copy its signing secret (whsec_...) from its page in \
                   Clerk's dashboard"
            .to_owned();
    if let Some(other) = settings::named_otherwise(environment) {
        why.push_str(&format!("; is it the one in {other}?"));
    }
    Err(ConfigError::new(SIGNING_SECRET, why))
}

/// The shared shutdown of the parts of the process. Once one part ends, even by a panic, all of them stop. The error of
/// the first part that failed is kept and reported.
#[derive(Clone)]
struct Parts {
    stop: CancellationToken,
    failed: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Parts {
    fn fail(&self, error: anyhow::Error) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.cancel();
    }

    /// Runs a part. Its end is an error unless the process is stopping.
    async fn run(self, name: &'static str, work: impl Future<Output = anyhow::Result<()>>) {
        let _stops = self.stop.clone().drop_guard();
        match work.await {
            Err(error) => self.fail(error),
            Ok(()) if !self.stop.is_cancelled() => self.fail(anyhow!("{name} has ended by itself")),
            Ok(()) => {}
        }
    }

    /// Does the same for a part that has its own stop token.
    async fn watch(self, name: &'static str, stops: CancellationToken, work: impl Future<Output = ()>) {
        work.await;
        if !stops.is_cancelled() {
            self.fail(anyhow!("{name} has ended by itself"));
        }
    }
}

/// The server of the operators' pages.
struct AdminServer {
    listener: TcpListener,
    console: ConsoleConfig,
}

/// Starts the dispatcher first, then ingest: no event is accepted before every flow has its first offsets.
async fn serve(
    ingest: usher_ingest::IngestConfig,
    dispatcher: usher_dispatcher::DispatcherConfig,
    listener: TcpListener,
    admin: AdminServer,
    parts: &Parts,
    on_ready: impl FnOnce() -> anyhow::Result<()>,
) {
    let mut running = JoinSet::new();
    if let Err(error) = start(ingest, dispatcher, listener, admin, parts, &mut running, on_ready).await {
        parts.fail(error);
    }
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            parts.fail(error.into());
        }
    }
}

async fn start(
    ingest: usher_ingest::IngestConfig,
    dispatcher: usher_dispatcher::DispatcherConfig,
    listener: TcpListener,
    admin: AdminServer,
    parts: &Parts,
    running: &mut JoinSet<()>,
    on_ready: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stop = &parts.stop;
    let log = usher_eventlog::open(&ingest.log, &ingest.kafka).await?;
    let ready = Readiness::needing(Dispatcher::needs(&dispatcher));
    let registry = Registry::new();
    let door = Readiness::needing(usher_ingest::NEEDS);
    let router = usher_ingest::router(&ingest, log.clone(), &registry)?;
    // A pool of its own, so that a page that reads much does not delay the flows.
    let store = Arc::new(SqlStore::reader(Database::open(&dispatcher.store.existing())?));
    let commands = OperatorCommands::new(log.clone(), dispatcher.layout.clone(), store.clone());
    let console = usher_console::router(admin.console, store, Some(commands), stop.clone());
    let flows = Dispatcher::new(dispatcher, log.clone(), ready.clone(), &registry)?;
    let scrapes = flows.scrapes();
    let flows = flows.run(stop.clone());
    running.spawn(parts.clone().run("the flows", async move { Ok(flows.await?) }));
    // One readiness page for both: senders of webhooks should learn that events are stored while no
    // flow processes them.
    let pages = health::router(ready.clone().and(&door), registry, scrapes)?.merge(console);
    let serve_pages = http::serve(admin.listener, pages, stop.clone());
    let pages = async move {
        serve_pages.await;
        Ok(())
    };
    running.spawn(parts.clone().run("the server of the admin pages", pages));
    if stop.run_until_cancelled(ready.ready()).await.is_none() {
        return Ok(());
    }

    // A separate registry, because the dispatcher's watch already has the same metrics on the page.
    let watch = LogWatch::new(log.clone(), ingest.layout.topics.events(), door.clone(), &Registry::new())?;
    let prepare = ingest.prepare(log.clone(), watch, stop.clone());
    running.spawn(parts.clone().run("ingest's check of the log", async move { Ok(prepare.await?) }));
    let serve_webhooks = http::serve(listener, router, stop.clone());
    let server = async move {
        serve_webhooks.await;
        log.flush().await;
        Ok(())
    };
    running.spawn(parts.clone().run("the server of webhooks", server));
    if stop.run_until_cancelled(door.ready()).await.is_some() {
        on_ready()?;
    }
    Ok(())
}

fn announce(addresses: &Addresses, console_place: &str, secret: Option<&str>, data: &std::path::Path) {
    let secret = secret.unwrap_or("as configured");
    let default = data == std::path::Path::new("./usher-data");
    let at = if default { String::new() } else { format!(" --data {}", data.display()) };
    output::notice(&format!("usher is ready: webhooks on http://{}/webhooks/clerk", addresses.listen));
    output::notice(&format!("  signing secret  {secret}"));
    output::notice(&format!("  console         {console_place}"));
    output::notice(&format!("  health, metrics http://{}", addresses.admin));
    if let Some(lab) = addresses.lab {
        output::notice(&format!(
            "  lab             http://{lab}/effects (doubles of every destination: nothing real is reached)"
        ));
    }
    output::notice(&format!("  try             usher send user.created{at}    and then    usher runs{at}"));
}
