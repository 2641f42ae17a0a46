//! Operators' commands about runs, sent through the log: `usher cancel`, `usher rerun` and `usher dlq redrive`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use usher_dispatcher::orders;
use usher_engine::RunState;
use usher_engine::arrival::CommandKind;
use usher_eventlog::{Log, LogAddress, LogLayout};
use usher_proto::{EventId, Partition, headers};
use usher_service::ConfigError;
use usher_service::clock;
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
    /// Opens the log that the flows read.
    pub(crate) async fn log(&self, environment: &Environment) -> anyhow::Result<Arc<dyn Log>> {
        let address = match &self.log {
            Some(address) => address.clone(),
            None => self.place.log()?,
        };
        let log = usher_eventlog::open(&address, &usher_eventlog::kafka_properties(environment)?).await?;
        // A command in a topic that no flow reads would have no effect and no answer.
        let topic = self.layout.topics.events();
        let watermarks = log.watermarks(&topic).await.with_context(|| format!("{address} has no topic {topic}"))?;
        if watermarks.len() < usize::try_from(self.layout.partitions)? {
            let why = format!("topic {topic} has {} partitions: say --partitions {0}", watermarks.len());
            return Err(ConfigError::new("USHER_PARTITIONS", why).into());
        }
        Ok(log)
    }

    /// Appends a command about a run to the log, and returns its id.
    pub(crate) async fn order(&self, log: &dyn Log, run: &RunRecord, order: &CommandKind) -> anyhow::Result<EventId> {
        let event = orders::event(&run.flow, &run.reference, &run.subject, &self.by, order, clock::now());
        let id = event.id.clone();
        log.append(&self.layout.events(), event.into_record()).await?;
        Ok(id)
    }

    /// Waits for the results of these commands (flow and id), until none of them has been executed for [`PATIENCE`].
    pub(crate) async fn await_results(&self, mut open: Vec<(String, EventId)>) -> anyhow::Result<CommandResults> {
        let store = self.place.store().await?;
        let mut came = Vec::new();
        let mut until = Instant::now() + PATIENCE;
        loop {
            let mut still_open = Vec::new();
            let before = came.len();
            for (flow, order) in open {
                match store.command_result(&order).await? {
                    Some(word) => came.push((flow, word)),
                    None => still_open.push((flow, order)),
                }
            }
            open = still_open;
            if came.len() > before {
                until = Instant::now() + PATIENCE;
            }
            if open.is_empty() || Instant::now() >= until {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let worked = store.worked_flows().await?;
        let open = open.into_iter().map(|(flow, _)| flow).collect();
        Ok(CommandResults { came, open, worked })
    }
}

/// Maximum time without the execution of any awaited command.
const PATIENCE: Duration = Duration::from_secs(5);
/// Interval between queries for the results of commands.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Results of commands.
pub(crate) struct CommandResults {
    /// Flow and result of each executed command.
    pub(crate) came: Vec<(String, String)>,
    /// Flow of each command that is not executed yet.
    open: Vec<String>,
    /// Flows on which a process works.
    worked: Vec<String>,
}

impl CommandResults {
    /// Prints the number of commands that are not executed yet, flow by flow.
    pub(crate) fn say_open(&self) -> anyhow::Result<()> {
        let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
        self.open.iter().for_each(|flow| *counts.entry(flow).or_default() += 1);
        for (flow, count) in counts {
            let what = if count == 1 { "asked for".to_owned() } else { format!("{count} asked for") };
            let why = match self.worked.contains(flow) {
                true => format!("not carried out yet: look again with `usher runs --flow {flow}`"),
                false => format!("no process works on {flow}"),
            };
            output::line(&format!("{what}; {why}"))?;
        }
        Ok(())
    }
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
    let log = desk.log(environment).await?;
    let order = desk.order(&*log, &found, &CommandKind::Cancel).await?;
    let came = desk.await_results(vec![(run.flow.clone(), order)]).await?;
    let name = format!("{}/{}", run.flow, run.event);
    match came.came.first().map(|(_, word)| word.as_str()) {
        Some("cancelled") => output::line(&format!("{name} is cancelled; it was {}", found.state)),
        Some(_) => match find(&desk, &run).await? {
            ended if ended.ended_at.is_some() => {
                output::line(&format!("{name} ended before the order came: {}", ended.state))
            }
            _ => output::line(&format!("{name} ends when the attempt that is under way has been answered")),
        },
        None => came.say_open(),
    }
}

pub(crate) async fn rerun(arguments: Rerun, environment: &Environment) -> anyhow::Result<()> {
    let Rerun { desk, run } = arguments;
    let found = find(&desk, &run).await?;
    if !found.state.parse::<RunState>()?.is_terminal() {
        bail!("{}/{} has not ended yet: {}", run.flow, run.event, found.state);
    }
    let log = desk.log(environment).await?;
    // The store drops the body when a run ends; the log still has it for a while.
    let partition = Partition(i32::try_from(found.partition)?);
    let record = log.read(&desk.layout.topics.events(), partition, found.offset).await?;
    let record = record.filter(|record| record.header(headers::EVENT_ID) == Some(&found.event));
    let record =
        record.ok_or_else(|| anyhow!("the log does not hold {} any more: it cannot be run again", run.event))?;
    let body = String::from_utf8(record.body.to_vec()).context("the event's body")?;
    let order = desk.order(&*log, &found, &CommandKind::Rerun { body }).await?;
    let came = desk.await_results(vec![(run.flow.clone(), order)]).await?;
    match came.came.first().map(|(_, word)| word.as_str()) {
        Some("queued") => output::line(&format!("{}/{} is run again; it was {}", run.flow, run.event, found.state)),
        Some(_) => bail!("{}/{} is run again already: nothing came of this order", run.flow, run.event),
        None => came.say_open(),
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
