//! Operators' actions on runs and flows, for every program that offers them: the command line and the console.
//!
//! An action on a run is a command in the log ([`crate::orders`]); a replica that owns the run's partition carries it out.
//! A pause is written to the store. Both are recorded with the operator's name and the time.

mod bulk;
mod explain;
mod moves;
mod pauses;
mod redrives;
mod replay;
mod sending;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use bulk::{
    BulkAction, BulkOptions, BulkOutcome, BulkPlan, BulkProgress, CommandTarget, LeftAlone, MAX_DEATHS, MOST_SELECTED,
};
pub use explain::{RunCircumstances, answer};
pub use moves::{MovePlan, MoveTarget, NotMoved};
pub use pauses::{CONFIRMED_WITHIN, confirmed_pause, describe_pause};
pub use redrives::{DEFAULT_REDRIVE_RATE, MAX_REDRIVE_RATE, REDRIVE_WINDOW, RedriveRunner, redrive_id, redrive_rows};
pub use replay::{LogSpan, NotReplayed, ReplayOutcome, ReplayPlan, ReplayTarget};
pub use status::{AccountStatus, FlowLag, FlowStatus, Need, NeedKind, PartitionStatus, Status, duration, status};
use usher_engine::arrival::CommandKind;
use usher_eventlog::{AppendError, Log, LogError, LogLayout};
use usher_proto::{EventId, Partition, headers};
use usher_service::{ConfigError, clock};
use usher_store::{SqlStore, StoreError};

use crate::orders;

/// Maximum time without the execution of any awaited command.
const PATIENCE: Duration = Duration::from_secs(5);
/// Interval between queries for the results of commands.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
        self.results(vec![(run.flow.clone(), id)], &|_| ()).await
    }

    /// Ends the wait or the pause of a run, which goes on at once.
    ///
    /// # Errors
    ///
    /// The log or the store does not answer.
    pub async fn wake(&self, run: &CommandTarget, by: &str) -> Result<CommandResults, OperatorError> {
        let id = self.send(run, &CommandKind::Wake, by).await?;
        self.results(vec![(run.flow.clone(), id)], &|_| ()).await
    }

    /// Runs an ended run again from its first step. Its effects are repeated.
    ///
    /// # Errors
    ///
    /// The log does not hold the event any more, or the log or the store does not answer.
    pub async fn rerun(&self, run: &CommandTarget, by: &str) -> Result<CommandResults, OperatorError> {
        let id = self.send(run, &self.rerun_command(run).await?, by).await?;
        self.results(vec![(run.flow.clone(), id)], &|_| ()).await
    }

    /// Returns the command that runs a run again, with the body of its event.
    async fn rerun_command(&self, run: &CommandTarget) -> Result<CommandKind, OperatorError> {
        let gone = || OperatorError::NotInLog(run.reference.id().to_owned());
        // The store drops the body when a run ends; the log still has it for a while.
        let partition = Partition(i32::try_from(run.partition).map_err(|_| gone())?);
        let record = self.log.read(&self.layout.topics.events(), partition, run.offset).await?.ok_or_else(gone)?;
        // A run that a replay has begun is where its command is.
        let record = orders::replayed(&record).unwrap_or(record);
        if record.header(headers::EVENT_ID) != Some(run.reference.id()) {
            return Err(gone());
        }
        let body = String::from_utf8(record.body.to_vec()).map_err(|_| gone())?;
        Ok(CommandKind::Rerun { body })
    }

    /// Waits for the results of these commands (flow and id), until none of them has been executed for five seconds. Reports
    /// the number of those that were executed.
    async fn results(
        &self,
        mut open: Vec<(String, EventId)>,
        executed: &(dyn Fn(usize) + Sync),
    ) -> Result<CommandResults, OperatorError> {
        let mut came = Vec::new();
        let mut until = Instant::now() + PATIENCE;
        loop {
            let begun = Instant::now();
            let before = came.len();
            let ids: Vec<EventId> = open.iter().map(|(_, id)| id.clone()).collect();
            let results = self.store.command_results(&ids).await?;
            let results: BTreeMap<EventId, String> = results.into_iter().map(|row| (row.id, row.came)).collect();
            open.retain(|(flow, id)| match results.get(id) {
                None => true,
                Some(word) => {
                    came.push((flow.clone(), word.clone()));
                    false
                }
            });
            if came.len() > before {
                until = Instant::now() + PATIENCE;
                executed(came.len());
            }
            if open.is_empty() || Instant::now() >= until {
                break;
            }
            // Of very many commands, a look takes its time: the store is left alone for as long.
            tokio::time::sleep(begun.elapsed().max(LOOK_EVERY)).await;
        }
        let worked = self.store.worked_flows().await?;
        let mut by_flow = BTreeMap::new();
        for (flow, _) in open {
            *by_flow.entry(flow).or_default() += 1;
        }
        Ok(CommandResults { came, open: by_flow, worked })
    }
}
