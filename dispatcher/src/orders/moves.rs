//! A run that is moved to another flow, as the command about it has it. The flow that takes the run over carries the command out,
//! because the other one may have no file any more.

use serde::{Deserialize, Serialize};
use usher_engine::arrival::{Command, CommandKind, TakeOver, TakenOverStep};
use usher_flows::Flow;

/// A run as it was when it was selected.
#[derive(Serialize, Deserialize)]
pub(super) struct MovedRun {
    flow: String,
    version: String,
    step: usize,
    steps: Vec<String>,
}

impl MovedRun {
    pub(super) fn of(order: &TakeOver) -> Self {
        let TakeOver { from, version, at, steps, to: _ } = order.clone();
        Self { flow: from, version, step: at, steps }
    }

    pub(super) fn order(self) -> CommandKind {
        let Self { flow, version, step, steps } = self;
        CommandKind::TakeOver(Box::new(TakeOver { from: flow, version, at: step, steps, to: None }))
    }
}

/// Finds the steps of this flow that have the names of the run's steps, if the command is to take a run over.
pub(crate) fn match_steps(mut command: Command, flow: &Flow) -> Command {
    if let CommandKind::TakeOver(order) = &mut command.order {
        let index = |name: &String| flow.steps.iter().position(|step| step.name == *name);
        order.to = order.steps.get(order.at).and_then(index).map(|step| TakenOverStep {
            step,
            connector: flow.connector(step).map(str::to_owned),
            results: order.steps.iter().enumerate().filter_map(|(at, name)| Some((at, index(name)?))).collect(),
        });
    }
    command
}
