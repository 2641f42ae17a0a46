//! Runs that are moved to another flow: which of the selected ones can be, and the commands about them.

use std::collections::BTreeMap;

use serde::Serialize;
use usher_engine::RunState;
use usher_engine::arrival::{CommandKind, TakeOver};
use usher_proto::{EventId, SubjectId};
use usher_store::{BoundedCount, MovableRow, RunFilter, SqlStore, StoreError};

use super::bulk::{BulkOptions, BulkOutcome, BulkProgress, MOST_SELECTED};
use super::sending::{HasSubject, send_in_order};
use super::{CommandTarget, OperatorCommands, OperatorError};

/// Reasons for which a run stays in its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotMoved {
    /// It has ended.
    Ended,
    /// An attempt is under way, or may have had its effect: its request belongs to the flow's name.
    UnderWay,
    /// The other flow has no step of the name of the one at which it stands.
    NoStep,
    /// Its version cannot be read, so the name of its step is not known.
    Unreadable,
}

/// A run that is to be moved.
#[derive(Debug, Clone)]
pub struct MoveTarget {
    /// The run.
    pub run: CommandTarget,
    /// The name of its step.
    pub step: String,
    order: TakeOver,
}

impl HasSubject for MoveTarget {
    fn subject(&self) -> &SubjectId {
        &self.run.subject
    }
}

/// The runs that are to go on in another flow, and those of the selected ones that stay.
#[derive(Debug)]
pub struct MovePlan {
    /// The flow in which they are to go on.
    pub to: String,
    /// Number of the selected runs.
    pub matching: BoundedCount,
    /// The runs, in the order in which their events arrived.
    pub targets: Vec<MoveTarget>,
    /// Numbers of those that stay.
    pub left_alone: BTreeMap<NotMoved, usize>,
}

impl MovePlan {
    /// Selects the runs of a filter, at most [`MOST_SELECTED`]. `steps` returns the names of the steps of a version of their flow,
    /// if it can be read; `to_steps` are those of the flow `to`.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn select(
        store: &SqlStore,
        filter: &RunFilter,
        versions: &BTreeMap<String, Vec<String>>,
        to: &str,
        to_steps: &[String],
    ) -> Result<Self, StoreError> {
        let mut rows = store.movable(filter, MOST_SELECTED + 1).await?;
        let matching = BoundedCount { count: rows.len().min(MOST_SELECTED) as u64, more: rows.len() > MOST_SELECTED };
        rows.truncate(MOST_SELECTED);
        let mut plan = Self { to: to.to_owned(), matching, targets: Vec::new(), left_alone: BTreeMap::new() };
        for row in rows {
            match target(row, versions, to_steps) {
                Ok(target) => plan.targets.push(target),
                Err(why) => *plan.left_alone.entry(why).or_default() += 1,
            }
        }
        Ok(plan)
    }
}

fn target(row: MovableRow, versions: &BTreeMap<String, Vec<String>>, to: &[String]) -> Result<MoveTarget, NotMoved> {
    let MovableRow { run, version, is_free } = row;
    if run.state.is_terminal() {
        return Err(NotMoved::Ended);
    }
    if !is_free || run.state == RunState::Running {
        return Err(NotMoved::UnderWay);
    }
    let steps = versions.get(&version).ok_or(NotMoved::Unreadable)?.clone();
    let at = usize::try_from(run.step).map_err(|_| NotMoved::Unreadable)?;
    let step = steps.get(at).ok_or(NotMoved::NoStep)?.clone();
    if !to.contains(&step) {
        return Err(NotMoved::NoStep);
    }
    let order = TakeOver { from: run.flow.clone(), version, at, steps, to: None };
    Ok(MoveTarget { run: run.into(), step, order })
}

impl OperatorCommands {
    /// Moves the runs of a plan, waits for the results, and reports the progress.
    ///
    /// # Errors
    ///
    /// The store does not answer when it is asked for the results. The commands are sent.
    pub async fn move_runs(
        &self,
        plan: &MovePlan,
        options: &BulkOptions,
        progress: &(dyn Fn(BulkProgress) + Sync),
    ) -> Result<BulkOutcome, OperatorError> {
        let mut sent: Vec<(String, EventId)> = Vec::with_capacity(plan.targets.len());
        let send = async |target: &MoveTarget| {
            // The flow that takes the run over carries the command out.
            let run = CommandTarget { flow: plan.to.clone(), ..target.run.clone() };
            self.send(&run, &CommandKind::TakeOver(Box::new(target.order.clone())), &options.by).await
        };
        let failure = send_in_order(&plan.targets, options, send, |_, id| {
            sent.push((plan.to.clone(), id));
            progress(BulkProgress { commanded: sent.len(), executed: 0 });
        })
        .await;
        let commanded = sent.len();
        let executed = |executed| progress(BulkProgress { commanded, executed });
        let results = self.results(sent, &executed).await?;
        Ok(BulkOutcome { commanded, not_in_log: 0, left: plan.targets.len() - commanded, failure, results })
    }
}
