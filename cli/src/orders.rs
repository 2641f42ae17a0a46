//! Operators' commands about runs, sent through the log: `usher cancel`, `usher wake`, `usher rerun` and `usher dlq redrive`.

use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use usher_dispatcher::operator::{BulkAction, CommandResults, CommandTarget, OperatorCommands, check_topic};
use usher_engine::RunState;
use usher_eventlog::{Log, LogAddress, LogLayout};
use usher_service::ConfigError;
use usher_service::options::Environment;
use usher_store::{RunFilter, RunRecord};

use crate::bulk::{self, BulkArguments, Selection};
use crate::data::StoreLocation;
use crate::output;

/// Access to the store, which is read for the state of runs, and to the log, to which commands are appended.
#[derive(Debug, clap::Args)]
pub(crate) struct OperatorTarget {
    #[command(flatten)]
    pub(crate) place: StoreLocation,
    /// Address of the log, if it is not in the data directory: `kafka://host:9092` or `sqlite:PATH`.
    #[arg(long, env = "USHER_LOG")]
    log: Option<LogAddress>,
    /// Layout of the log's topics.
    #[command(flatten)]
    pub(crate) layout: LogLayout,
    /// Name of the operator, stored with the result of the command.
    #[arg(long, env = "USER", default_value = "unknown")]
    pub(crate) by: String,
}

impl OperatorTarget {
    /// Opens the log that the flows read, and the store.
    pub(crate) async fn commands(&self, environment: &Environment) -> anyhow::Result<OperatorCommands> {
        let store = Arc::new(self.place.store().await?);
        Ok(OperatorCommands::new(self.log(environment).await?, self.layout.clone(), store))
    }

    /// Opens the log that the flows read.
    pub(crate) async fn log(&self, environment: &Environment) -> anyhow::Result<Arc<dyn Log>> {
        let address = match &self.log {
            Some(address) => address.clone(),
            None => self.place.log()?,
        };
        let log = usher_eventlog::open(&address, &usher_eventlog::kafka_properties(environment)?).await?;
        check_topic(&*log, &self.layout).await.with_context(|| address.to_string())?;
        Ok(log)
    }
}

/// Prints the number of commands that are not executed yet, flow by flow.
pub(crate) fn print_open(results: &CommandResults) -> anyhow::Result<()> {
    results.describe_open().iter().try_for_each(|line| output::line(line))
}

/// Name of a run: `FLOW/EVENT`, as `usher runs` shows it.
#[derive(Debug, Clone)]
pub(crate) struct RunName {
    flow: String,
    event: String,
}

impl FromStr for RunName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((flow, event)) if !flow.is_empty() && !event.is_empty() => {
                Ok(Self { flow: flow.to_owned(), event: event.to_owned() })
            }
            _ => Err("a run is FLOW/EVENT, for instance email/msg_2ab, as `usher runs` shows it".to_owned()),
        }
    }
}

/// Cancels runs that have not ended: one, or all that match. An attempt in flight is finished; no further one follows.
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    desk: OperatorTarget,
    #[command(flatten)]
    which: RunSelection,
}

/// Ends the wait of runs, which go on at once: one, or all that match. A run that waits for its next attempt makes it now; one
/// that waits for a value looks for it again.
#[derive(Debug, clap::Args)]
pub(crate) struct Wake {
    #[command(flatten)]
    desk: OperatorTarget,
    #[command(flatten)]
    which: RunSelection,
}

/// Runs ended runs again from their first step: one, or all that match. Side effects are repeated.
#[derive(Debug, clap::Args)]
pub(crate) struct Rerun {
    #[command(flatten)]
    desk: OperatorTarget,
    #[command(flatten)]
    which: RunSelection,
}

/// One run, or a selection of many.
#[derive(Debug, clap::Args)]
struct RunSelection {
    /// The run: FLOW/EVENT. Without it, options select the runs.
    run: Option<RunName>,
    #[command(flatten)]
    which: Selection,
    /// In these states, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "STATE[,STATE]")]
    state: Vec<RunState>,
    #[command(flatten)]
    how: BulkArguments,
}

impl RunSelection {
    /// Returns the one run that is named. `None` if options select the runs.
    fn one(&self) -> anyhow::Result<Option<&RunName>> {
        let Self { run, which, state, how } = self;
        let is_of_all = which.is_of_all() && state.is_empty();
        let Some(run) = run else {
            bulk::refuse_all_unless_asked(is_of_all, how.all, "runs")?;
            return Ok(None);
        };
        if !is_of_all || how.all || how.dry_run || how.json {
            let why = "a run is named, so there is nothing to select: leave out either the run or the options";
            return Err(ConfigError(why.to_owned()).into());
        }
        Ok(Some(run))
    }

    async fn run(self, desk: &OperatorTarget, action: BulkAction, environment: &Environment) -> anyhow::Result<()> {
        let Self { which, state, how, .. } = self;
        let filter = RunFilter { states: state, ..which.filter(&desk.place.store().await?).await? };
        bulk::run(desk, action, &filter, &how, environment).await
    }
}

pub(crate) async fn cancel(arguments: Cancel, environment: &Environment) -> anyhow::Result<()> {
    let Cancel { desk, which } = arguments;
    let Some(run) = which.one()? else { return which.run(&desk, BulkAction::Cancel, environment).await };
    let found = find(&desk, run).await?;
    if found.state.parse::<RunState>()?.is_terminal() {
        bail!("{}/{} has ended already: {}", run.flow, run.event, found.state);
    }
    let came = desk.commands(environment).await?.cancel(&CommandTarget::from(&found), &desk.by).await?;
    let name = format!("{}/{}", run.flow, run.event);
    match came.only() {
        Some("cancelled") => output::line(&format!("{name} is cancelled; it was {}", found.state)),
        Some(_) => match find(&desk, run).await? {
            ended if ended.ended_at.is_some() => {
                output::line(&format!("{name} ended before the order came: {}", ended.state))
            }
            _ => output::line(&format!("{name} ends when the attempt that is under way has been answered")),
        },
        None => print_open(&came),
    }
}

pub(crate) async fn wake(arguments: Wake, environment: &Environment) -> anyhow::Result<()> {
    let Wake { desk, which } = arguments;
    let Some(run) = which.one()? else { return which.run(&desk, BulkAction::Wake, environment).await };
    let found = find(&desk, run).await?;
    let name = format!("{}/{}", run.flow, run.event);
    match found.state.parse::<RunState>()? {
        RunState::Waiting | RunState::Parked => {}
        state if state.is_terminal() => bail!("{name} has ended already: {}", found.state),
        _ => bail!("{name} does not wait: it is {}", found.state),
    }
    let came = desk.commands(environment).await?.wake(&CommandTarget::from(&found), &desk.by).await?;
    match came.only() {
        Some("woken") => output::line(&format!("{name} goes on; it was {}", found.state)),
        Some(_) => output::line(&format!("{name} goes on already: nothing came of this order")),
        None => print_open(&came),
    }
}

pub(crate) async fn rerun(arguments: Rerun, environment: &Environment) -> anyhow::Result<()> {
    let Rerun { desk, which } = arguments;
    let Some(run) = which.one()? else { return which.run(&desk, BulkAction::Rerun, environment).await };
    let found = find(&desk, run).await?;
    if !found.state.parse::<RunState>()?.is_terminal() {
        bail!("{}/{} has not ended yet: {}", run.flow, run.event, found.state);
    }
    let came = desk.commands(environment).await?.rerun(&CommandTarget::from(&found), &desk.by).await?;
    match came.only() {
        Some("queued") => output::line(&format!("{}/{} is run again; it was {}", run.flow, run.event, found.state)),
        Some(_) => bail!("{}/{} is run again already: nothing came of this order", run.flow, run.event),
        None => print_open(&came),
    }
}

async fn find(desk: &OperatorTarget, run: &RunName) -> anyhow::Result<RunRecord> {
    let filter = RunFilter { event: Some(run.event.clone()), flow: Some(run.flow.clone()), ..RunFilter::default() };
    let mut found = desk.place.store().await?.runs(&filter, 10).await?;
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(|of| format!("{}/{}", of.flow, of.reference)).collect();
        bail!("flow {} has several runs on {}: specify one of {}", run.flow, run.event, names.join(", "));
    }
    found.pop().ok_or_else(|| anyhow!("flow {} has no run on {}", run.flow, run.event))
}
