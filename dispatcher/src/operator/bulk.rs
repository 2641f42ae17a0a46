//! Operators' actions on many runs: which of the selected runs an action takes, and its execution, which can be stopped.
//!
//! The targets are fixed before the first command, so that what arrives later is not touched. A command names what it found,
//! such as the number of deaths, so that it does nothing to a run that has changed meanwhile.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use usher_engine::RunState;
use usher_engine::arrival::CommandKind;
use usher_proto::{EventId, EventRef, Offset, SubjectId, Timestamp};
use usher_store::{BoundedCount, RunFilter, RunRecord, RunTargetRow, SqlStore, StoreError};

use super::sending::{HasSubject, send_in_order};
use super::{CommandResults, OperatorCommands, OperatorError};

/// Number of deaths at which a run is no longer redriven unless another number is given.
pub const MAX_DEATHS: u32 = 3;
/// Largest number of runs that one action takes.
pub const MOST_SELECTED: usize = 100_000;

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
    /// State of the run, as a label.
    pub state: String,
    /// Number of times that the run has become dead.
    pub deaths: i64,
    /// Reason for giving it up, as a label; `None` if it is not dead.
    pub reason: Option<String>,
}

impl HasSubject for CommandTarget {
    fn subject(&self) -> &SubjectId {
        &self.subject
    }
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
            state: run.state.clone(),
            deaths: run.deaths,
            reason: run.reason.clone(),
        }
    }
}

impl From<RunTargetRow> for CommandTarget {
    fn from(row: RunTargetRow) -> Self {
        let RunTargetRow { flow, reference, subject, partition, offset, step, state, deaths, reason } = row;
        Self { flow, reference, subject, partition, offset, step, state: state.label().to_owned(), deaths, reason }
    }
}

/// An action on many runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkAction {
    /// Cancels runs that have not ended.
    Cancel,
    /// Ends the waits and pauses of runs.
    Wake,
    /// Runs ended runs again from their first step.
    Rerun,
    /// Takes up dead letters again.
    Redrive {
        /// Runs that have died this number of times are left alone.
        max_deaths: u32,
    },
}

/// Reasons for which an action leaves a run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftAlone {
    /// It has died too often.
    DiedTooOften,
    /// It has ended already.
    Ended,
    /// It has not ended yet.
    NotEnded,
    /// It is not dead.
    NotDead,
    /// It neither waits nor is parked.
    NotWaiting,
}

impl BulkAction {
    /// Returns the reason for which the action leaves a run alone; `None` if it takes it.
    fn leaves_alone(self, run: &CommandTarget) -> Option<LeftAlone> {
        let has_ended = run.state.parse::<RunState>().is_ok_and(RunState::is_terminal);
        let is_dead = run.state == RunState::Dead.label();
        match self {
            Self::Cancel => has_ended.then_some(LeftAlone::Ended),
            Self::Wake if has_ended => Some(LeftAlone::Ended),
            Self::Wake => {
                let waits = [RunState::Waiting, RunState::Parked].iter().any(|state| state.label() == run.state);
                (!waits).then_some(LeftAlone::NotWaiting)
            }
            Self::Rerun => (!has_ended).then_some(LeftAlone::NotEnded),
            Self::Redrive { .. } if !is_dead => Some(LeftAlone::NotDead),
            Self::Redrive { max_deaths } => (run.deaths >= i64::from(max_deaths)).then_some(LeftAlone::DiedTooOften),
        }
    }

    /// Returns the result of a command that did what it should.
    pub const fn succeeded(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Wake => "woken",
            Self::Rerun | Self::Redrive { .. } => "queued",
        }
    }
}

/// The runs that an action takes, and those of the selected ones that it leaves alone.
#[derive(Debug)]
pub struct BulkPlan {
    /// The action.
    pub action: BulkAction,
    /// The time of the selection. Runs that come to match it later are not touched.
    pub as_of: Timestamp,
    /// Number of the selected runs.
    pub matching: BoundedCount,
    /// The runs that the action takes: in the order in which their events arrived, which is kept within a key.
    pub targets: Vec<CommandTarget>,
    /// Numbers of those that it leaves alone.
    pub left_alone: BTreeMap<LeftAlone, usize>,
}

impl BulkPlan {
    /// Makes a plan for the selected runs. `more` is true if there are others that were not read.
    pub fn new(action: BulkAction, mut selected: Vec<CommandTarget>, more: bool, as_of: Timestamp) -> Self {
        selected.sort_by(|a, b| (a.partition, a.offset, &a.flow).cmp(&(b.partition, b.offset, &b.flow)));
        let matching = BoundedCount { count: selected.len() as u64, more };
        let mut left_alone = BTreeMap::new();
        selected.retain(|run| match action.leaves_alone(run) {
            None => true,
            Some(why) => {
                *left_alone.entry(why).or_default() += 1;
                false
            }
        });
        Self { action, as_of, matching, targets: selected, left_alone }
    }

    /// Selects the runs of a filter, at most [`MOST_SELECTED`], and makes a plan for them.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn select(
        store: &SqlStore,
        action: BulkAction,
        filter: &RunFilter,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut rows = store.targets(filter, MOST_SELECTED + 1).await?;
        let more = rows.len() > MOST_SELECTED;
        rows.truncate(MOST_SELECTED);
        Ok(Self::new(action, rows.into_iter().map(CommandTarget::from).collect(), more, now))
    }

    /// Returns the number of selected runs that are left alone for this reason.
    pub fn left_alone_for(&self, why: LeftAlone) -> usize {
        self.left_alone.get(&why).copied().unwrap_or_default()
    }
}

/// Progress of an action on many runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkProgress {
    /// Number of runs for which the log has acknowledged a command, or that cannot have one.
    pub commanded: usize,
    /// Number of commands that were executed.
    pub executed: usize,
}

/// The result of an action on many runs.
#[derive(Debug)]
pub struct BulkOutcome {
    /// Number of commands that the log has acknowledged.
    pub commanded: usize,
    /// Number of runs that cannot be run again, because the log does not hold their events any more.
    pub not_in_log: usize,
    /// Number of runs that were not commanded, because the action was stopped or has failed.
    pub left: usize,
    /// The failure that ended the action early. The command during which it happened may be executed nevertheless.
    pub failure: Option<OperatorError>,
    /// The results of the commands.
    pub results: CommandResults,
}

/// The way in which an action on many runs is carried out.
#[derive(Debug, Clone)]
pub struct BulkOptions {
    /// Maximum number of commands a second; as fast as the log accepts them if there is none.
    pub rate: Option<f64>,
    /// The operator.
    pub by: String,
    /// Ends the action after the commands that are being sent.
    pub stop: CancellationToken,
}

impl OperatorCommands {
    /// Carries out a plan, waits for the results, and reports the progress.
    ///
    /// # Errors
    ///
    /// The store does not answer when it is asked for the results. The commands are sent.
    pub async fn carry_out(
        &self,
        plan: &BulkPlan,
        options: &BulkOptions,
        progress: &(dyn Fn(BulkProgress) + Sync),
    ) -> Result<BulkOutcome, OperatorError> {
        let mut sent: Vec<(String, EventId)> = Vec::with_capacity(plan.targets.len());
        let mut not_in_log = 0;
        let send = async |run: &CommandTarget| match self.send_of(plan.action, run, &options.by).await {
            Ok(id) => Ok(Some(id)),
            Err(OperatorError::NotInLog(_)) => Ok(None),
            Err(error) => Err(error),
        };
        let failure = send_in_order(&plan.targets, options, send, |run, came| {
            match came {
                Some(id) => sent.push((run.flow.clone(), id)),
                None => not_in_log += 1,
            }
            progress(BulkProgress { commanded: sent.len() + not_in_log, executed: 0 });
        })
        .await;
        let commanded = sent.len();
        let executed = |executed| progress(BulkProgress { commanded: commanded + not_in_log, executed });
        let results = self.results(sent, &executed).await?;
        let left = plan.targets.len() - commanded - not_in_log;
        Ok(BulkOutcome { commanded, not_in_log, left, failure, results })
    }

    async fn send_of(&self, action: BulkAction, run: &CommandTarget, by: &str) -> Result<EventId, OperatorError> {
        let kind = match action {
            BulkAction::Cancel => CommandKind::Cancel,
            BulkAction::Wake => CommandKind::Wake,
            BulkAction::Rerun => self.rerun_command(run).await?,
            BulkAction::Redrive { .. } => {
                CommandKind::Redrive { deaths: u32::try_from(run.deaths).unwrap_or(u32::MAX) }
            }
        };
        self.send(run, &kind, by).await
    }
}

#[cfg(test)]
mod tests {
    use usher_proto::{Instance, Key, Source};

    use super::*;

    fn run(user: &str, offset: i64, state: &str, deaths: i64) -> CommandTarget {
        let instance = Instance::default();
        CommandTarget {
            flow: "email".into(),
            reference: EventRef::new(Source::Clerk, &instance, &EventId::new(format!("msg_{offset}"))),
            subject: SubjectId::new(Source::Clerk, &instance, &Key::new(user)),
            partition: 0,
            offset: Offset(offset),
            step: 0,
            state: state.into(),
            deaths,
            reason: None,
        }
    }

    fn plan(action: BulkAction, selected: &[CommandTarget]) -> BulkPlan {
        BulkPlan::new(action, selected.to_vec(), false, Timestamp::from_seconds(1))
    }

    #[test]
    fn a_plan_takes_the_runs_that_its_action_is_for_in_the_order_of_their_arrival() {
        let selected = [run("b", 3, "dead", 1), run("a", 2, "waiting", 0), run("a", 1, "dead", 3)];
        let offsets = |plan: &BulkPlan| plan.targets.iter().map(|run| run.offset.0).collect::<Vec<_>>();
        let redrive = plan(BulkAction::Redrive { max_deaths: 3 }, &selected);
        assert_eq!((offsets(&redrive), redrive.matching.count), (vec![3], 3));
        assert_eq!(redrive.left_alone_for(LeftAlone::DiedTooOften), 1);
        assert_eq!(redrive.left_alone_for(LeftAlone::NotDead), 1);
        let cancel = plan(BulkAction::Cancel, &selected);
        assert_eq!((offsets(&cancel), cancel.left_alone_for(LeftAlone::Ended)), (vec![2], 2));
        let wake = plan(
            BulkAction::Wake,
            &[run("a", 4, "parked", 0), run("a", 5, "queued", 0), selected[0].clone(), selected[1].clone()],
        );
        assert_eq!(offsets(&wake), [2, 4]);
        assert_eq!((wake.left_alone_for(LeftAlone::Ended), wake.left_alone_for(LeftAlone::NotWaiting)), (1, 1));
        let rerun = plan(BulkAction::Rerun, &selected);
        assert_eq!((offsets(&rerun), rerun.left_alone_for(LeftAlone::NotEnded)), (vec![1, 3], 1));
    }
}
