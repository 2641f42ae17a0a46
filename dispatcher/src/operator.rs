//! Operators' actions on runs and flows, for every program that offers them: the command line and the console.
//!
//! An action on a run is a command in the log ([`crate::orders`]); a replica that owns the run's partition carries it out.
//! A pause is written to the store. Both are recorded with the operator's name and the time.

mod lag;
mod pauses;
mod redrives;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use lag::FlowLag;
pub use pauses::{CONFIRMED_WITHIN, confirmed_pause, describe_pause};
pub use redrives::{DEFAULT_REDRIVE_RATE, MAX_REDRIVE_RATE, REDRIVE_WINDOW, RedriveRunner, redrive_id, redrive_rows};
pub use status::{
    AccountStatus, FlowStatus, Need, NeedKind, PartitionStatus, Status, account_statuses, duration, status,
};
use usher_engine::arrival::CommandKind;
use usher_eventlog::{AppendError, Log, LogError, LogLayout};
use usher_proto::{EventId, EventRef, Offset, Partition, SubjectId, headers};
use usher_service::{ConfigError, clock};
use usher_store::{RunRecord, SqlStore, StoreError};

use crate::orders;

/// Maximum time without the execution of any awaited command.
const PATIENCE: Duration = Duration::from_secs(5);
/// Interval between queries for the results of commands.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Number of deaths at which a run is no longer redriven unless another number is given.
pub const MAX_DEATHS: u32 = 3;

/// Failure of an operator's action.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The store does not answer.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The log does not answer.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The log has not acknowledged the command. It may be carried out nevertheless.
    #[error("{0}")]
    Append(#[from] AppendError),
    /// The topic of the events does not exist, or cannot be read.
    #[error("there is no topic {topic}")]
    NoTopic {
        /// Name of the topic.
        topic: String,
        /// The log's answer.
        source: LogError,
    },
    /// The topic has fewer partitions than the layout.
    #[error("{0}")]
    Topic(#[from] ConfigError),
    /// The log holds the event no longer, or its body is not text.
    #[error("the log does not hold {0} any more: it cannot be run again")]
    NotInLog(String),
}

/// The run that a command is about.
#[derive(Debug, Clone)]
pub struct CommandTarget {
    /// Name of the flow.
    pub flow: String,
    /// The run's event.
    pub reference: EventRef,
    /// The event's subject, whose partition gets the command.
    pub subject: SubjectId,
    /// The run's partition.
    pub partition: i64,
    /// The offset of the event.
    pub offset: Offset,
    /// Index, from 0, of the step at which the run stands or has ended.
    pub step: i64,
    /// Number of times that the run has become dead.
    pub deaths: i64,
    /// Reason for giving it up, as a label; `None` if it is not dead.
    pub reason: Option<String>,
}

impl From<&RunRecord> for CommandTarget {
    fn from(run: &RunRecord) -> Self {
        Self {
            flow: run.flow.clone(),
            reference: run.reference.clone(),
            subject: run.subject.clone(),
            partition: run.partition,
            offset: run.offset,
            step: run.step,
            deaths: run.deaths,
            reason: run.reason.clone(),
        }
    }
}

/// Dead letters that a redrive selects, in the order in which it takes them up.
#[derive(Debug)]
pub struct RedrivePlan {
    /// Those that are taken up again: in the order in which their events arrived, which is kept within a key.
    pub targets: Vec<CommandTarget>,
    /// Number of those that are left alone, because they have become dead too often.
    pub too_often: usize,
}

impl RedrivePlan {
    /// Makes a plan of the selected dead letters. Runs that have died `max_deaths` times are left alone.
    pub fn new(mut selected: Vec<CommandTarget>, max_deaths: u32) -> Self {
        selected.sort_by(|a, b| (a.partition, a.offset, &a.flow).cmp(&(b.partition, b.offset, &b.flow)));
        let all = selected.len();
        selected.retain(|run| run.deaths < i64::from(max_deaths));
        Self { too_often: all - selected.len(), targets: selected }
    }
}

/// Results of commands.
#[derive(Debug)]
pub struct CommandResults {
    /// Flow and result of each executed command.
    pub came: Vec<(String, String)>,
    /// Number of commands that are not executed yet, by flow.
    pub open: BTreeMap<String, usize>,
    /// Flows on which a process works.
    pub worked: Vec<String>,
}

impl CommandResults {
    /// Returns the number of commands with this result.
    pub fn count(&self, result: &str) -> usize {
        self.came.iter().filter(|(_, came)| came == result).count()
    }

    /// Returns the result of the only command; `None` if it is not executed yet.
    pub fn only(&self) -> Option<&str> {
        self.came.first().map(|(_, word)| word.as_str())
    }

    /// Describes the commands that are not executed yet, in a line for each flow.
    pub fn describe_open(&self) -> Vec<String> {
        let line = |(flow, count): (&String, &usize)| {
            let what = if *count == 1 { "asked for".to_owned() } else { format!("{count} asked for") };
            let why = match self.worked.contains(flow) {
                true => format!("not carried out yet: look again with `usher runs --flow {flow}`"),
                false => format!("no process works on {flow}"),
            };
            format!("{what}; {why}")
        };
        self.open.iter().map(line).collect()
    }
}

/// Checks that flows read the topic of the layout: a command elsewhere would have no effect and no answer.
///
/// # Errors
///
/// The topic does not exist, has fewer partitions than the layout, or the log is unavailable.
pub async fn check_topic(log: &dyn Log, layout: &LogLayout) -> Result<(), OperatorError> {
    let topic = layout.topics.events();
    let missing = |source| OperatorError::NoTopic { topic: topic.clone(), source };
    let watermarks = log.watermarks(&topic).await.map_err(missing)?;
    if watermarks.len() < usize::try_from(layout.partitions).unwrap_or(0) {
        let why = format!("topic {topic} has {} partitions: say --partitions {0}", watermarks.len());
        return Err(ConfigError::new("USHER_PARTITIONS", why).into());
    }
    Ok(())
}

/// Sends operators' commands about runs.
#[derive(Clone)]
pub struct OperatorCommands {
    log: Arc<dyn Log>,
    layout: LogLayout,
    store: Arc<SqlStore>,
}

impl OperatorCommands {
    /// Returns a sender of commands through a log that flows of this store read.
    pub fn new(log: Arc<dyn Log>, layout: LogLayout, store: Arc<SqlStore>) -> Self {
        Self { log, layout, store }
    }

    /// Returns the store that is read for the results.
    pub fn store(&self) -> &Arc<SqlStore> {
        &self.store
    }

    /// Appends a command about a run to the log, and returns its id.
    ///
    /// # Errors
    ///
    /// The log has not acknowledged it.
    pub async fn send(&self, run: &CommandTarget, kind: &CommandKind, by: &str) -> Result<EventId, OperatorError> {
        let event = orders::event(&run.flow, &run.reference, &run.subject, by, kind, clock::now());
        let id = event.id.clone();
        self.log.append(&self.layout.events(), event.into_record()).await?;
        Ok(id)
    }

    /// Cancels a run. An attempt in flight is finished.
    ///
    /// # Errors
    ///
    /// The log or the store does not answer.
    pub async fn cancel(&self, run: &CommandTarget, by: &str) -> Result<CommandResults, OperatorError> {
        let id = self.send(run, &CommandKind::Cancel, by).await?;
        self.results(vec![(run.flow.clone(), id)]).await
    }

    /// Runs an ended run again from its first step. Its effects are repeated.
    ///
    /// # Errors
    ///
    /// The log does not hold the event any more, or the log or the store does not answer.
    pub async fn rerun(&self, run: &CommandTarget, by: &str) -> Result<CommandResults, OperatorError> {
        let gone = || OperatorError::NotInLog(run.reference.id().to_owned());
        // The store drops the body when a run ends; the log still has it for a while.
        let partition = Partition(i32::try_from(run.partition).map_err(|_| gone())?);
        let record = self.log.read(&self.layout.topics.events(), partition, run.offset).await?;
        let record = record.filter(|record| record.header(headers::EVENT_ID) == Some(run.reference.id()));
        let body = record.and_then(|record| String::from_utf8(record.body.to_vec()).ok()).ok_or_else(gone)?;
        let id = self.send(run, &CommandKind::Rerun { body }, by).await?;
        self.results(vec![(run.flow.clone(), id)]).await
    }

    /// Takes up dead letters again, at most `rate` a second, and waits for the results.
    ///
    /// # Errors
    ///
    /// The log or the store does not answer. Some commands may have been sent.
    pub async fn redrive(
        &self,
        targets: &[CommandTarget],
        rate: Option<f64>,
        by: &str,
    ) -> Result<CommandResults, OperatorError> {
        let mut sent = Vec::with_capacity(targets.len());
        let mut pace = rate.map(|rate| tokio::time::interval(Duration::from_secs_f64(1.0 / rate)));
        for run in targets {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            let deaths = u32::try_from(run.deaths).unwrap_or(u32::MAX);
            sent.push((run.flow.clone(), self.send(run, &CommandKind::Redrive { deaths }, by).await?));
        }
        self.results(sent).await
    }

    /// Waits for the results of these commands (flow and id), until none of them has been executed for five seconds.
    async fn results(&self, mut open: Vec<(String, EventId)>) -> Result<CommandResults, OperatorError> {
        let mut came = Vec::new();
        let mut until = Instant::now() + PATIENCE;
        loop {
            let mut still_open = Vec::new();
            let before = came.len();
            for (flow, command) in open {
                match self.store.command_result(&command).await? {
                    Some(word) => came.push((flow, word)),
                    None => still_open.push((flow, command)),
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
        let worked = self.store.worked_flows().await?;
        let mut by_flow = BTreeMap::new();
        for (flow, _) in open {
            *by_flow.entry(flow).or_default() += 1;
        }
        Ok(CommandResults { came, open: by_flow, worked })
    }
}
