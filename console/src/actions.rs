//! Operators' actions in the console: the same as on the command line, by the same code, with the caller's name.

use serde::Deserialize;
use usher_dispatcher::operator::{
    CommandTarget, MAX_DEATHS, OperatorCommands, RedrivePlan, confirmed_pause, describe_pause,
};
use usher_proto::{EventRef, Timestamp};
use usher_service::clock;
use usher_store::{RunFilter, RunRecord};

use crate::Console;
use crate::access::Caller;
use crate::model::{DeadLetters, DeadSelection};
use crate::problem::ConsoleError;

/// Largest number of dead letters that one redrive takes up: it is done while the operator waits.
pub(crate) const MOST_REDRIVEN: usize = 1_000;
/// Longest reason of a pause, in characters.
const LONGEST_REASON: usize = 300;

/// A flow, and the operator's words.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FlowAction {
    pub(crate) flow: String,
    pub(crate) why: String,
}

/// A run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RunCommand {
    pub(crate) flow: String,
    /// The event's reference.
    pub(crate) event: String,
}

/// Pauses a flow, and waits for the confirmation of its replicas. Returns it in words.
pub(crate) async fn pause(console: &Console, caller: &Caller, asked: &FlowAction) -> Result<String, ConsoleError> {
    known_flow(console, &asked.flow).await?;
    let why: String =
        asked.why.trim().chars().filter(|c| !usher_proto::visible::is_control(*c)).take(LONGEST_REASON).collect();
    let why = (!why.is_empty()).then_some(why.as_str());
    if !console.store().set_paused(&asked.flow, true, &caller.name, why, clock::now()).await? {
        return Err(ConsoleError::Conflict(format!("{} is paused already", asked.flow)));
    }
    Ok(describe_pause(&confirmed_pause(console.store(), &asked.flow).await?))
}

/// Resumes a flow.
pub(crate) async fn resume(console: &Console, caller: &Caller, asked: &FlowAction) -> Result<(), ConsoleError> {
    known_flow(console, &asked.flow).await?;
    match console.store().set_paused(&asked.flow, false, &caller.name, None, clock::now()).await? {
        true => Ok(()),
        false => Err(ConsoleError::Conflict(format!("{} is not paused", asked.flow))),
    }
}

async fn known_flow(console: &Console, flow: &str) -> Result<(), ConsoleError> {
    match console.store().flow_names().await?.iter().any(|name| name == flow) {
        true => Ok(()),
        false => Err(ConsoleError::NotFound(format!("no flow {flow} has run here"))),
    }
}

fn commands(console: &Console) -> Result<&OperatorCommands, ConsoleError> {
    console.commands().ok_or(ConsoleError::NoLog)
}

async fn find(console: &Console, asked: &RunCommand) -> Result<RunRecord, ConsoleError> {
    let none = || ConsoleError::NotFound(format!("flow {} has no run on {}", asked.flow, asked.event));
    let reference: EventRef = asked.event.parse().map_err(|_| none())?;
    let event = Some(reference.as_str().to_owned());
    let filter = RunFilter { event, flow: Some(asked.flow.clone()), ..RunFilter::default() };
    console.store().runs(&filter, 1).await?.pop().ok_or_else(none)
}

/// The result of a command about one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CameOf {
    /// The run is cancelled, or queued again.
    Done,
    /// Nothing: the run has ended meanwhile, or an attempt is in flight that is finished first.
    Nothing,
    /// No replica has carried it out yet.
    Open,
}

impl CameOf {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Nothing => "nothing",
            Self::Open => "open",
        }
    }

    fn of(result: Option<&str>) -> Self {
        match result {
            None => Self::Open,
            Some("nothing") => Self::Nothing,
            Some(_) => Self::Done,
        }
    }
}

/// Cancels a run that has not ended.
pub(crate) async fn cancel(console: &Console, caller: &Caller, asked: &RunCommand) -> Result<CameOf, ConsoleError> {
    let run = find(console, asked).await?;
    if run.ended_at.is_some() {
        return Err(ConsoleError::Conflict(format!("the run has ended already: {}", run.state)));
    }
    let came = commands(console)?.cancel(&CommandTarget::from(&run), &caller.name).await?;
    Ok(CameOf::of(came.only()))
}

/// Runs an ended run again from its first step.
pub(crate) async fn rerun(console: &Console, caller: &Caller, asked: &RunCommand) -> Result<CameOf, ConsoleError> {
    let run = find(console, asked).await?;
    if run.ended_at.is_none() {
        return Err(ConsoleError::Conflict(format!("the run has not ended yet: {}", run.state)));
    }
    let came = commands(console)?.rerun(&CommandTarget::from(&run), &caller.name).await?;
    Ok(CameOf::of(came.only()))
}

/// A plan of a redrive, and what it leaves out.
pub(crate) struct RedriveChoice {
    /// The runs, in order; at most [`MOST_REDRIVEN`].
    pub(crate) targets: Vec<CommandTarget>,
    /// Number of dead letters that match.
    pub(crate) matching: usize,
    /// Number of those that have died too often.
    pub(crate) too_often: usize,
    /// Number of those that the next redrive would take up.
    pub(crate) later: usize,
    /// Dead letters that were given up after this time are not touched.
    pub(crate) until: Timestamp,
}

/// Plans a redrive of the dead letters of a selection, without doing anything.
pub(crate) async fn plan_redrive(console: &Console, of: &DeadSelection) -> Result<RedriveChoice, ConsoleError> {
    let letters = DeadLetters::read(console, of, clock::now()).await?;
    let matching = letters.rows.len();
    let RedrivePlan { mut targets, too_often } = RedrivePlan::new(letters.targets(), MAX_DEATHS);
    let later = targets.len().saturating_sub(MOST_REDRIVEN);
    targets.truncate(MOST_REDRIVEN);
    Ok(RedriveChoice { targets, matching, too_often, later, until: letters.until })
}

/// The result of a redrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct RedriveResult {
    /// Number of runs that are queued again.
    pub(crate) taken_up: usize,
    /// Number of runs that were dead no longer.
    pub(crate) nothing: usize,
    /// Number of commands that no replica has carried out yet.
    pub(crate) open: usize,
}

/// Takes up the dead letters of a selection again. `expected` is the number that the operator has confirmed.
pub(crate) async fn redrive(
    console: &Console,
    caller: &Caller,
    of: &DeadSelection,
    expected: Option<usize>,
) -> Result<RedriveResult, ConsoleError> {
    if of.until.is_none() {
        return Err(ConsoleError::BadRequest(
            "until: the time of the dry run is wanted, so that later dead letters stay".to_owned(),
        ));
    }
    let choice = plan_redrive(console, of).await?;
    if let Some(expected) = expected
        && expected != choice.targets.len()
    {
        let why = format!("{expected} runs were confirmed, and it would be {} now: look again", choice.targets.len());
        return Err(ConsoleError::Conflict(why));
    }
    let came = commands(console)?.redrive(&choice.targets, None, &caller.name).await?;
    let taken_up = came.count("queued");
    Ok(RedriveResult { taken_up, nothing: came.came.len() - taken_up, open: came.open.values().sum() })
}

/// Records that the caller sees personal data unmasked. To be called before it is shown.
pub(crate) async fn record_shown(console: &Console, caller: &Caller, identity: &str) -> Result<(), ConsoleError> {
    Ok(console.store().record_shown(identity, &caller.name, clock::now()).await?)
}
