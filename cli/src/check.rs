//! `usher check`: reports every problem of flow files, before anything is started.

mod against_store;

use std::path::PathBuf;

use anyhow::Context as _;
use usher_engine::start::{Known, start_offset};
use usher_eventlog::{LogAddress, LogLayout};
use usher_flows::{Flow, FlowFiles, FlowSource};
use usher_service::options::Environment;
use usher_service::{ConfigError, clock};

use crate::data::StoreLocation;
use crate::output;

/// Number of the next times of a schedule that are shown.
const SHOWN_TIMES: usize = 3;

/// Validates flow files: builds each step with samples of the events that start it. Reports the file, the line and the
/// correction of each problem.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArguments {
    /// Flow files, or folders of them. Default: the files of the flow folder, else the built-in flows.
    paths: Vec<PathBuf>,
    /// Location of the flow files.
    #[command(flatten)]
    files: FlowFiles,
    /// Also check that each flow can start on the log and the store that are there, and that no unfinished run has lost its
    /// flow.
    #[arg(long)]
    start: bool,
    /// Also report how many runs are on which version of each flow, and which would be stranded with these files.
    #[arg(long)]
    against_store: bool,
    /// Location of the store, for --start and --against-store.
    #[command(flatten)]
    place: StoreLocation,
    /// Address of the log, for --start, if it is not in the data directory: `kafka://host:9092` or `sqlite:PATH`.
    #[arg(long, env = "USHER_LOG")]
    log: Option<LogAddress>,
    /// Layout of the log's topics.
    #[command(flatten)]
    layout: LogLayout,
}

pub(crate) async fn run(arguments: &CheckArguments, environment: &Environment) -> anyhow::Result<()> {
    let sources = if arguments.paths.is_empty() { arguments.files.read()? } else { named(&arguments.paths)? };
    let mut problems = Vec::new();
    let mut flows = Vec::new();
    for source in sources {
        match Flow::check(source) {
            Ok(flow) => {
                for warning in &flow.warnings {
                    output::line(&format!("warning: {warning}"))?;
                }
                for warning in unset_secrets(&flow, environment)? {
                    output::line(&format!("warning: {warning}"))?;
                }
                let file = &flow.source.file;
                let version = &flow.version;
                let steps = match flow.steps.len() {
                    1 => "1 step".to_owned(),
                    count => format!("{count} steps"),
                };
                output::line(&format!("{file}: good, {steps}, version {version}"))?;
                if let Some(schedule) = &flow.schedule {
                    let next = schedule.following(clock::now(), SHOWN_TIMES);
                    let next: Vec<String> = next.into_iter().map(|at| schedule.local(at)).collect();
                    output::line(&format!("{file}: fires next at {}", next.join(", ")))?;
                }
                flows.push(flow);
            }
            Err(found) => problems.extend(found.iter().map(ToString::to_string)),
        }
    }
    if arguments.paths.is_empty() && problems.is_empty() {
        problems.extend(Flow::same_by_former_name(&flows).map(|problem| problem.to_string()));
    }
    if arguments.against_store {
        let store = arguments.place.store().await?;
        problems.extend(against_store::report(&store, &flows, arguments.paths.is_empty()).await?);
    }
    if arguments.start {
        problems.extend(start_problems(arguments, environment, &flows).await?);
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems.join("\n")).into()) }
}

/// Returns a warning for each secret that a flow names and that is not set here. A start would be refused; a check is also
/// run where secrets are not at hand.
fn unset_secrets(flow: &Flow, environment: &Environment) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    if !flow.enabled {
        // It does not start with the others.
        return Ok(warnings);
    }
    for instance in &flow.instances {
        let environment = environment.scoped_to(instance.as_str());
        for (step, name) in flow.secrets() {
            if environment.secret(&name)?.is_none() {
                let file = &flow.source.file;
                let whose = if instance.is_default() { String::new() } else { format!(" for the instance {instance}") };
                warnings.push(format!(
                    "{file}: step {step}: the secret {name} is not set here{whose}, and a start needs it"
                ));
            }
        }
    }
    Ok(warnings)
}

/// Returns why flows cannot start on the log and the store, by the decision that a start makes, one text for each flow. Unfinished runs
/// of flows without a file are told.
async fn start_problems(
    arguments: &CheckArguments,
    environment: &Environment,
    flows: &[Flow],
) -> anyhow::Result<Vec<String>> {
    let CheckArguments { place, layout, .. } = arguments;
    let store = place.store().await?;
    let address = match &arguments.log {
        Some(address) => address.clone(),
        None => place.log()?,
    };
    let log = usher_eventlog::open(&address, &usher_eventlog::kafka_properties(environment)?).await?;
    let topic = layout.topics.events();
    let watermarks = log.watermarks(&topic).await.with_context(|| address.to_string())?;
    let mut problems = Vec::new();
    for flow in flows {
        let mut places = store.places(&flow.name).await?;
        if let (Some(was), true) = (&flow.was, places.is_empty()) {
            places = store.places(was).await?;
        }
        let committed = log.committed(&layout.topics.group(&flow.name), &topic).await?;
        let problem = watermarks.iter().find_map(|(partition, marks)| {
            let known = Known {
                committed: committed.get(partition).copied(),
                stored: places.get(partition).copied(),
                operator_offset: None,
            };
            start_offset(known, marks.low, marks.high, flow.from).err()
        });
        problems.extend(problem.map(|problem| format!("{}: {problem}", flow.source.file)));
    }
    for (flow, runs) in store.under_way().await? {
        // Only all files of a folder say which flows are gone.
        let is_known = |known: &Flow| known.name == flow || known.was.as_ref() == Some(&flow);
        if !arguments.against_store && arguments.paths.is_empty() && !flows.iter().any(is_known) {
            let runs = if runs == 1 { "1 run waits".to_owned() } else { format!("{runs} runs wait") };
            output::line(&format!("warning: flow {flow} has no good file: {runs} until it is back under that name"))?;
        }
    }
    Ok(problems)
}

/// Reads the flows of folders, and single flow files with the templates beside each.
fn named(paths: &[PathBuf]) -> Result<Vec<FlowSource>, ConfigError> {
    let mut sources = Vec::new();
    for path in paths {
        if path.is_dir() {
            sources.extend(usher_flows::read_folder(path)?);
            continue;
        }
        let shown = path.display().to_string();
        if !path.exists() {
            return Err(ConfigError::new(&shown, "no such file"));
        }
        if path.extension().is_none_or(|extension| extension != "toml") {
            return Err(ConfigError::new(&shown, "it is not read: flows are <name>.toml"));
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .map_or_else(|| PathBuf::from("."), PathBuf::from);
        let file = folder.join(path.file_name().unwrap_or_default()).display().to_string();
        let found = usher_flows::read_folder(&folder)?.into_iter().find(|source| source.file == file);
        sources.push(found.ok_or_else(|| ConfigError::new(&shown, "it is no file"))?);
    }
    Ok(sources)
}
