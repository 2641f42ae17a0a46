//! Operators' actions in the console: the same as on the command line, by the same code, with the caller's name.

use serde::Deserialize;
use usher_dispatcher::operator::{
    BulkAction, BulkPlan, CommandTarget, DEFAULT_REDRIVE_RATE, LeftAlone, MAX_DEATHS, MAX_REDRIVE_RATE,
    OperatorCommands, confirmed_pause, describe_pause, redrive_id, redrive_rows,
};
use usher_engine::RunState;
use usher_proto::{EventRef, Timestamp};
use usher_service::clock;
use usher_store::{NewRedrive, RunFilter, RunRecord};

use crate::Console;
use crate::access::Caller;
use crate::model::{DeadFilter, DeadLetters};
use crate::problem::ConsoleError;

/// Number of runs from which on an operator types the number before a redrive.
pub(crate) const TYPED_FROM: usize = 100;
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
    /// The run is cancelled, woken, or queued again.
    Done,
    /// Nothing: the run has ended or goes on meanwhile, or an attempt is in flight that is finished first.
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

/// Ends the wait or the pause of a run.
pub(crate) async fn wake(console: &Console, caller: &Caller, asked: &RunCommand) -> Result<CameOf, ConsoleError> {
    let run = find(console, asked).await?;
    if ![RunState::Waiting, RunState::Parked].iter().any(|state| state.label() == run.state) {
        return Err(ConsoleError::Conflict(format!("the run does not wait: it is {}", run.state)));
    }
    let came = commands(console)?.wake(&CommandTarget::from(&run), &caller.name).await?;
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
    /// The runs, in order.
    pub(crate) targets: Vec<CommandTarget>,
    /// Number of dead letters that match.
    pub(crate) matching: usize,
    /// True if there are older dead letters that were not looked at.
    pub(crate) more: bool,
    /// Number of those that match and have died too often.
    pub(crate) too_often: usize,
    /// Dead letters that were given up after this time are not touched.
    pub(crate) until: Timestamp,
}

impl RedriveChoice {
    /// Returns true if the operator types the number of runs.
    pub(crate) fn is_typed(&self) -> bool {
        self.targets.len() >= TYPED_FROM
    }
}

/// Plans a redrive of the dead letters of a selection, without doing anything.
pub(crate) async fn plan_redrive(console: &Console, of: &DeadFilter) -> Result<RedriveChoice, ConsoleError> {
    let now = clock::now();
    let letters = DeadLetters::read_all(console, &of.read(console, now).await?, now).await?;
    let matching = letters.rows.len();
    let plan =
        BulkPlan::new(BulkAction::Redrive { max_deaths: MAX_DEATHS }, letters.targets(), letters.more, letters.until);
    let too_often = plan.left_alone_for(LeftAlone::DiedTooOften);
    Ok(RedriveChoice { targets: plan.targets, matching, more: letters.more, too_often, until: letters.until })
}

/// An order to redrive.
#[derive(Debug, Clone, Default)]
pub(crate) struct RedriveOrder {
    /// Number of runs that the operator has confirmed.
    pub(crate) runs: Option<usize>,
    /// The number as the operator has typed it; wanted from [`TYPED_FROM`] runs on.
    pub(crate) typed: Option<usize>,
    /// Largest number of commands a second.
    pub(crate) rate: Option<u32>,
}

/// Begins a redrive of the dead letters of a selection, and returns its id. It is carried out by the process of the console
/// that holds it, whether or not anybody looks.
pub(crate) async fn redrive(
    console: &Console,
    caller: &Caller,
    of: &DeadFilter,
    order: &RedriveOrder,
) -> Result<String, ConsoleError> {
    let bad = |why: &str| ConsoleError::BadRequest(why.to_owned());
    let Some(runner) = console.redrives() else { return Err(ConsoleError::NoLog) };
    if of.until.is_empty() {
        return Err(bad("until: the time of the dry run is wanted, so that later dead letters stay"));
    }
    let Some(expected) = order.runs else {
        return Err(bad("runs: the number of runs that the dry run has told is wanted"));
    };
    let rate = order.rate.unwrap_or(DEFAULT_REDRIVE_RATE);
    if !(1..=MAX_REDRIVE_RATE).contains(&rate) {
        return Err(ConsoleError::BadRequest(format!("rate: a whole number from 1 to {MAX_REDRIVE_RATE}, a second")));
    }
    if expected >= TYPED_FROM && order.typed != Some(expected) {
        return Err(ConsoleError::BadRequest(format!("{expected} runs: type this number to confirm it")));
    }
    let selection = serde_urlencoded::to_string(of.parts()).unwrap_or_default();
    let until: Timestamp = of.until.parse().map_err(|error| ConsoleError::BadRequest(format!("until: {error}")))?;
    let id = redrive_id(&selection, until, expected);
    // The same order, sent twice.
    if console.store().redrive(&id).await?.is_some() {
        return Ok(id);
    }
    let choice = plan_redrive(console, of).await?;
    if expected != choice.targets.len() {
        let why = format!("{expected} runs were confirmed, and it would be {} now: look again", choice.targets.len());
        return Err(ConsoleError::Conflict(why));
    }
    if choice.targets.is_empty() {
        return Err(ConsoleError::Conflict("there is nothing to redrive".to_owned()));
    }
    let redrive = NewRedrive {
        id: id.clone(),
        at: clock::now(),
        who: caller.name.clone(),
        until,
        selection,
        skipped: i64::try_from(choice.too_often).unwrap_or(i64::MAX),
        rate: i64::from(rate),
    };
    console.store().begin_redrive(&redrive, &redrive_rows(&choice.targets)).await?;
    runner.wake();
    Ok(id)
}

/// Stops a redrive: what is asked for goes on, nothing more is.
pub(crate) async fn stop_redrive(console: &Console, caller: &Caller, id: &str) -> Result<(), ConsoleError> {
    if console.store().redrive(id).await?.is_none() {
        return Err(ConsoleError::NotFound(format!("there is no redrive {id}")));
    }
    match console.store().stop_redrive(id, &caller.name, clock::now()).await? {
        true => Ok(()),
        false => Err(ConsoleError::Conflict("the redrive has ended, or is stopped already".to_owned())),
    }
}

/// Records that the caller sees personal data unmasked. To be called before it is shown.
pub(crate) async fn record_shown(console: &Console, caller: &Caller, identity: &str) -> Result<(), ConsoleError> {
    Ok(console.store().record_shown(identity, &caller.name, clock::now()).await?)
}
