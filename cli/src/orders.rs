//! Operators' orders about runs, given through the log: `usher cancel`, `usher rerun`, and what `usher dlq redrive` uses.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use usher_dispatcher::engine::RunState;
use usher_dispatcher::engine::arrival::CommandKind;
use usher_dispatcher::orders;
use usher_dispatcher::store::{RunFilter, RunRecord};
use usher_eventlog::{Log, LogAddress, LogLayout};
use usher_proto::{EventId, Partition, headers};
use usher_service::ConfigError;
use usher_service::clock;
use usher_service::options::Environment;

use crate::data::Place;
use crate::output;

/// Where the operator's orders go: the store tells what there is, the log takes what is to become of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Desk {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Where the log is, if not in the data directory: kafka://host:9092 or sqlite:PATH.
    #[arg(long, env = "USHER_LOG")]
    log: Option<LogAddress>,
    /// How its topics are laid out.
    #[command(flatten)]
    pub(crate) layout: LogLayout,
    /// Who gives the order: kept with what came of it.
    #[arg(long, env = "USER", default_value = "unknown")]
    pub(crate) by: String,
}

impl Desk {
    /// Opens the log that the flows read.
    pub(crate) async fn log(&self, environment: &Environment) -> anyhow::Result<Arc<dyn Log>> {
        let address = match &self.log {
            Some(address) => address.clone(),
            None => self.place.log()?,
        };
        let log = usher_eventlog::open(&address, &usher_eventlog::kafka_properties(environment)?).await?;
        // An order in a topic that nobody reads would never be heard of.
        let topic = self.layout.topics.events();
        let watermarks = log.watermarks(&topic).await.with_context(|| format!("{address} has no topic {topic}"))?;
        if watermarks.len() < usize::try_from(self.layout.partitions)? {
            let why = format!("topic {topic} has {} partitions: say --partitions {0}", watermarks.len());
            return Err(ConfigError::new("USHER_PARTITIONS", why).into());
        }
        Ok(log)
    }

    /// Gives an order about a run, and returns its id.
    pub(crate) async fn order(&self, log: &dyn Log, run: &RunRecord, order: &CommandKind) -> anyhow::Result<EventId> {
        let event = orders::event(&run.flow, &run.reference, &run.subject, &self.by, order, clock::now());
        let id = event.id.clone();
        log.append(&self.layout.events(), event.into_record()).await?;
        Ok(id)
    }

    /// Waits until it is known what came of these orders (flow and id), for as long as any of them is carried out
    /// within [`PATIENCE`].
    pub(crate) async fn what_came(&self, mut open: Vec<(String, EventId)>) -> anyhow::Result<CameOf> {
        let store = self.place.store().await?;
        let mut came = Vec::new();
        let mut until = Instant::now() + PATIENCE;
        loop {
            let mut still_open = Vec::new();
            let before = came.len();
            for (flow, order) in open {
                match store.came_of(&order).await? {
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
        Ok(CameOf { came, open, worked })
    }
}

/// Time limit for an order to be carried out, in which nothing else was.
const PATIENCE: Duration = Duration::from_secs(5);
/// Interval between looks at what came of orders.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Results of orders.
pub(crate) struct CameOf {
    /// Of those that were carried out: the flow, and the word for it.
    pub(crate) came: Vec<(String, String)>,
    /// The flows of those that were not carried out yet.
    open: Vec<String>,
    /// The flows that some process works on.
    worked: Vec<String>,
}

impl CameOf {
    /// Says which orders nobody has carried out yet, flow by flow.
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

/// A run: FLOW/EVENT, as `usher runs` shows it.
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

/// Ends a run that has not ended. An attempt that is under way is finished; nothing follows it.
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    desk: Desk,
    /// The run: FLOW/EVENT.
    run: RunName,
}

/// Runs once more what has ended, from its first step. It has its effects again.
#[derive(Debug, clap::Args)]
pub(crate) struct Rerun {
    #[command(flatten)]
    desk: Desk,
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
    let came = desk.what_came(vec![(run.flow.clone(), order)]).await?;
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
    // The store drops a body when its run has ended; the log still has it for a while.
    let partition = Partition(i32::try_from(found.partition)?);
    let record = log.read(&desk.layout.topics.events(), partition, found.offset).await?;
    let record = record.filter(|record| record.header(headers::EVENT_ID) == Some(&found.event));
    let record =
        record.ok_or_else(|| anyhow!("the log does not hold {} any more: it cannot be run again", run.event))?;
    let body = String::from_utf8(record.body.to_vec()).context("the event's body")?;
    let order = desk.order(&*log, &found, &CommandKind::Rerun { body }).await?;
    let came = desk.what_came(vec![(run.flow.clone(), order)]).await?;
    match came.came.first().map(|(_, word)| word.as_str()) {
        Some("queued") => output::line(&format!("{}/{} is run again; it was {}", run.flow, run.event, found.state)),
        Some(_) => bail!("{}/{} is run again already: nothing came of this order", run.flow, run.event),
        None => came.say_open(),
    }
}

async fn find(desk: &Desk, run: &RunName) -> anyhow::Result<RunRecord> {
    let filter = RunFilter { event: Some(run.event.clone()), flow: Some(run.flow.clone()), ..RunFilter::default() };
    let mut found = desk.place.store().await?.runs(&filter, 10).await?;
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(|of| format!("{}/{}", of.flow, of.reference)).collect();
        bail!("flow {} has several runs on {}: specify one of {}", run.flow, run.event, names.join(", "));
    }
    found.pop().ok_or_else(|| anyhow!("flow {} has no run on {}", run.flow, run.event))
}
