//! Operators' commands about runs, sent through the log: `usher cancel`, `usher rerun` and `usher dlq redrive`.

use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use usher_dispatcher::operator::{CommandResults, CommandTarget, OperatorCommands, check_topic};
use usher_engine::RunState;
use usher_eventlog::{Log, LogAddress, LogLayout};
use usher_service::options::Environment;
use usher_store::{RunFilter, RunRecord};

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

/// Cancels a run that has not ended. An attempt in flight is finished; no further one follows.
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    desk: OperatorTarget,
    /// The run: FLOW/EVENT.
    run: RunName,
}

/// Runs an ended run again from its first step. Side effects are repeated.
#[derive(Debug, clap::Args)]
pub(crate) struct Rerun {
    #[command(flatten)]
    desk: OperatorTarget,
    /// The run: FLOW/EVENT.
    run: RunName,
}

pub(crate) async fn cancel(arguments: Cancel, environment: &Environment) -> anyhow::Result<()> {
    let Cancel { desk, run } = arguments;
    let found = find(&desk, &run).await?;
    if found.state.parse::<RunState>()?.is_terminal() {
        bail!("{}/{} has ended already: {}", run.flow, run.event, found.state);
    }
    let came = desk.commands(environment).await?.cancel(&CommandTarget::from(&found), &desk.by).await?;
    let name = format!("{}/{}", run.flow, run.event);
    match came.only() {
        Some("cancelled") => output::line(&format!("{name} is cancelled; it was {}", found.state)),
        Some(_) => match find(&desk, &run).await? {
            ended if ended.ended_at.is_some() => {
                output::line(&format!("{name} ended before the order came: {}", ended.state))
            }
            _ => output::line(&format!("{name} ends when the attempt that is under way has been answered")),
        },
        None => print_open(&came),
    }
}

pub(crate) async fn rerun(arguments: Rerun, environment: &Environment) -> anyhow::Result<()> {
    let Rerun { desk, run } = arguments;
    let found = find(&desk, &run).await?;
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
