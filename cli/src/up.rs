//! `usher up`: runs everything in one process, with nothing to install or to configure.

mod browser;
mod delivery;
mod screen;
mod speed;
mod watch;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use usher_console::{ConsoleConfig, ConsoleLinks};
use usher_dispatcher::operator::OperatorCommands;
use usher_dispatcher::{Dispatcher, DispatcherConfig, PassedOverStep};
use usher_eventlog::{LogAddress, LogLayout, LogWatch};
use usher_flows::FlowFiles;
use usher_flows::Pattern;
use usher_ingest::IngestConfig;
use usher_lab::Lab;
use usher_proto::{Source, unsubscribe};
use usher_service::ConfigError;
use usher_service::disk::{DiskWatch, OwnFile};
use usher_service::options::Environment;
use usher_service::{Readiness, Scrapes, health, http, listen, settings, shutdown, telemetry};
use usher_sql::Database;
use usher_store::SqlStore;

use self::delivery::{CurrentMetrics, Delivery, Reload};
use self::screen::Screen;
use self::watch::FolderWatch;
use crate::data::{Addresses, DataDirectory};
use crate::{lab, output};

/// Runs everything in one process: ingest, all flows, an embedded log and store, and the lab.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArguments {
    /// The data directory: log, store and generated secrets.
    #[arg(long, env = "USHER_DATA", default_value = DATA)]
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
    /// Run only these flows, separated by commas; default: all of them.
    #[arg(long = "flow", env = "USHER_FLOW", value_delimiter = ',', value_name = "NAMES")]
    names: Vec<String>,
    /// Open the console in the browser once everything is ready.
    #[arg(long)]
    open: bool,
    /// Follow changes of the flow files (needs --flows): good ones take effect for new runs, others are reported.
    #[arg(long)]
    watch: bool,
    /// Let waits of flows pass this many times as fast, to try them: at 10000, 3 days take 26 seconds. Only with the lab.
    #[arg(long, value_name = "N", default_value_t = speed::USUAL, value_parser = speed::parse, conflicts_with = "no_lab")]
    speed: u32,
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

    let log_address = arguments.log.clone().map_or_else(|| data.log().parse(), Ok)?;
    let mut environment = environment.with("USHER_STORE", arguments.store.clone().unwrap_or_else(|| data.store()));
    // Only a secret generated here is printed; a configured one is the operator's.
    let mut made = None;
    if !arguments.no_lab && environment.get(SIGNING_SECRET)?.is_none() {
        let secret = data.signing_secret()?;
        environment = environment.with(SIGNING_SECRET, &secret);
        // The same secret serves the other senders, so that `usher send` can stand in for each of them.
        for variable in OTHER_SECRETS {
            if environment.get(variable)?.is_none() {
                environment = environment.with(variable, &secret);
            }
        }
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
        lab::send_webhooks(lab, addresses.listen, &environment)?;
    }
    let layout = arguments.layout.clone();
    let mut console_environment = environment.clone();
    if arguments.speed > speed::USUAL && environment.get(CONSOLE_NAME)?.is_none() {
        // Who looks at the console has to know why waits end early.
        let name = format!("{}, waits {} times as fast", addresses.admin, arguments.speed);
        console_environment = console_environment.with(CONSOLE_NAME, name);
    }
    let ingest_arguments = usher_ingest::config::IngestArguments {
        listen: addresses.listen,
        admin: addresses.admin,
        log: log_address.clone(),
        layout: layout.clone(),
    };
    let ingest = IngestConfig::new(ingest_arguments, &environment)?;
    let files = arguments.files.clone();
    let names = arguments.names.clone();
    let speed = arguments.speed;
    let load = move || {
        let config = DispatcherConfig::new(log_address.clone(), layout.clone(), &files, &names, &environment)?;
        Ok(DispatcherConfig { wait_speed: speed, ..config })
    };
    let dispatcher: DispatcherConfig = load()?;
    let console = ConsoleConfig::new(addresses.admin, &console_environment)?;
    let console_place = console.describe_place(addresses.admin);

    let ingest = Arc::new(ingest);
    let tell = {
        let ingest = ingest.clone();
        move |dispatcher: &DispatcherConfig| tell_gaps(dispatcher, &ingest)
    };
    tell(&dispatcher);
    let reload = folder_to_watch(&arguments)?.map(|folder| Reload {
        folder: FolderWatch::new(folder),
        load: Box::new(load),
        tell: Box::new(tell),
    });
    let names: Vec<&str> = dispatcher.flows.iter().map(|flow| flow.name.as_str()).collect();
    let from = arguments.files.folder.as_ref().map_or_else(|| "built in".to_owned(), |from| from.display().to_string());
    let watched = if arguments.watch { ", whose changes take effect" } else { "" };
    let flows = format!("{} ({from}{watched})", names.join(", "));
    let shown = lab.as_ref().map(|lab| lab.lab().clone());
    let lab = lab.map(|lab| tokio::spawn(parts.clone().watch("the lab", lab_stop.clone(), lab.stopped())));
    let admin = AdminServer { listener: admin, console, lab: shown };
    let served = serve(&ingest, (dispatcher, reload), listener, admin, &parts, || {
        data.announce(&addresses)?;
        let screen = Screen {
            addresses: &addresses,
            console: &console_place,
            secret: made.as_deref(),
            flows: &flows,
            speed,
            data: &arguments.data,
        };
        screen.lines().iter().for_each(|line| output::notice(line));
        if arguments.open {
            browser::open(console_place.clone());
        }
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

/// Default data directory.
const DATA: &str = "./usher-data";
/// The name of the environment on the pages of the console.
const CONSOLE_NAME: &str = "USHER_CONSOLE_NAME";
const SIGNING_SECRET: &str = "CLERK_WEBHOOK_SIGNING_SECRET";
/// The settings of the other senders' secrets.
const OTHER_SECRETS: [&str; 3] = ["RESEND_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRET", "NYLAS_WEBHOOK_SECRET"];

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

/// Returns the folder whose changes are to be followed; `None` if none are.
fn folder_to_watch(arguments: &UpArguments) -> Result<Option<&Path>, ConfigError> {
    match &arguments.files.folder {
        _ if !arguments.watch => Ok(None),
        Some(folder) => Ok(Some(folder)),
        None => Err(ConfigError(
            "--watch follows a folder of your own: copy the built-in flows and say --flows FOLDER (or USHER_FLOWS)"
                .into(),
        )),
    }
}

/// Returns the files of the log and of the store, as far as they are this process's own.
fn own_files(log: &LogAddress, dispatcher: &DispatcherConfig) -> Vec<OwnFile> {
    let log = match log {
        LogAddress::Sqlite { path } => Some(OwnFile { name: "log", path: path.clone() }),
        LogAddress::Kafka { .. } => None,
    };
    let store = dispatcher.store.own_file().map(|path| OwnFile { name: "store", path: path.to_owned() });
    log.into_iter().chain(store).collect()
}

/// Tells which flows do not run, or get nothing, for want of a setting.
fn tell_gaps(dispatcher: &DispatcherConfig, ingest: &IngestConfig) {
    for (flow, why) in &dispatcher.left_out {
        output::notice(&format!("flow {flow} is left out: {why}"));
    }
    for PassedOverStep { flow, step, instance, settings } in dispatcher.passed_over() {
        output::notice(&format!("flow {flow} passes over step {step} for instance {instance}: {settings} is not set"));
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
    /// The lab that the console shows; `None` if there is none.
    lab: Option<Lab>,
}

/// Starts the dispatcher first, then ingest: no event is accepted before every flow has its first offsets.
async fn serve(
    ingest: &IngestConfig,
    flows: (DispatcherConfig, Option<Reload>),
    listener: TcpListener,
    admin: AdminServer,
    parts: &Parts,
    on_ready: impl FnOnce() -> anyhow::Result<()>,
) {
    let mut running = JoinSet::new();
    if let Err(error) = start(ingest, flows, listener, admin, parts, &mut running, on_ready).await {
        parts.fail(error);
    }
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            parts.fail(error.into());
        }
    }
}

async fn start(
    ingest: &IngestConfig,
    flows: (DispatcherConfig, Option<Reload>),
    listener: TcpListener,
    admin: AdminServer,
    parts: &Parts,
    running: &mut JoinSet<()>,
    on_ready: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stop = &parts.stop;
    let (dispatcher, reload) = flows;
    let log = usher_eventlog::open(&ingest.log, &ingest.kafka).await?;
    let ready = Readiness::needing(Dispatcher::needs(&dispatcher));
    let registry = Registry::new();
    let door = Readiness::needing(usher_ingest::NEEDS);
    let router = usher_ingest::router(ingest, log.clone(), &registry)?;
    // A pool of its own, so that a page that reads much does not delay the flows.
    let store = Arc::new(SqlStore::reader(Database::open(&dispatcher.store.existing())?));
    let commands = OperatorCommands::new(log.clone(), dispatcher.layout.clone(), store.clone());
    let links = ConsoleLinks { commands: Some(commands), lab: admin.lab };
    let console = usher_console::router(admin.console, store, links, stop.clone());
    let scrapes = Scrapes::default();
    let metrics = CurrentMetrics::default();
    registry.register(Box::new(metrics.clone()))?;
    let disks = DiskWatch::new(own_files(&ingest.log, &dispatcher), &registry)?;
    running.spawn({
        let (stop, scrapes) = (stop.clone(), scrapes.clone());
        async move {
            stop.run_until_cancelled(disks.run(scrapes)).await;
        }
    });
    let delivery =
        Delivery { log: log.clone(), readiness: ready.clone(), scrapes: scrapes.clone(), metrics, stop: stop.clone() };
    running.spawn(parts.clone().run("the flows", delivery.run(dispatcher, reload)));
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
