//! One run: its steps with what they did, and why it does not go on.

use serde::Serialize;
use serde_json::Value;
use usher_dispatcher::operator::{RunCircumstances, answer};
use usher_engine::RunState;
use usher_flows::{Action, Flow, FlowSource, FlowStep, Wait};
use usher_proto::Timestamp;
use usher_store::{ActionRecord, AttemptRecord, EffectRecord, FlowStore as _, RunContent, RunRecord, SqlStore};

use super::Moment;
use crate::mask::Masking;
use crate::problem::ConsoleError;

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RunStep {
    pub(crate) name: String,
    /// The operation that the step calls, or the length of its wait.
    pub(crate) action: String,
    /// done, nothing, now, dead or later.
    pub(crate) state: &'static str,
    /// The id that the destination has given to the effect.
    pub(crate) effect: Option<String>,
    pub(crate) at: Option<Moment>,
    /// The attempts at the step, in order; the newest if there were very many.
    pub(crate) attempts: Vec<StepAttempt>,
}

/// One attempt at a step, or the reason for which the step was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct StepAttempt {
    /// Number of the attempt, from 1; 0 for a step that was passed over.
    pub(crate) number: i64,
    pub(crate) at: Moment,
    /// The time that it took, in milliseconds.
    pub(crate) took_ms: u64,
    pub(crate) outcome: String,
    /// Status and error name of the destination's answer.
    pub(crate) answer: String,
    /// The destination's words; only if an operator has asked to see them.
    pub(crate) message: Option<String>,
    /// The stored time of the next attempt.
    pub(crate) next_at: Option<Moment>,
}

impl StepAttempt {
    fn new(attempt: &AttemptRecord, content: Option<&RunContent>, now: Timestamp) -> Self {
        let messages = content.map(|content| content.messages.as_slice()).unwrap_or_default();
        let message = messages.iter().find(|message| message.at == attempt.at && message.step == attempt.step);
        Self {
            number: attempt.attempt,
            at: Moment::new(attempt.at, now),
            took_ms: attempt.ms,
            outcome: attempt.outcome.clone(),
            answer: Masking::Masked.sentence(&answer(attempt)),
            message: message.map(|message| Masking::Shown.sentence(&message.message)),
            next_at: attempt.next_at.map(|at| Moment::new(at, now)),
        }
    }
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunDetail {
    pub(crate) flow: String,
    pub(crate) version: String,
    pub(crate) state: String,
    /// A sentence about what it waits for at this moment; `None` if it has ended.
    pub(crate) blocker: Option<String>,
    /// The reason for which it ended as it did, empty if its effects tell; `None` if it has not ended.
    pub(crate) ending: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) note: Option<String>,
    /// Number of attempts made of the present step.
    pub(crate) attempts: i64,
    /// Number of times that it has become dead.
    pub(crate) deaths: i64,
    pub(crate) destination: Option<String>,
    pub(crate) failed_at: Option<Moment>,
    pub(crate) due_at: Option<Moment>,
    pub(crate) admitted_at: Moment,
    pub(crate) ended_at: Option<Moment>,
    pub(crate) steps: Vec<RunStep>,
    /// The request of the last failed attempt; only if an operator has asked to see it.
    pub(crate) request: Option<String>,
    /// The operators' actions about it, oldest first.
    pub(crate) actions: Vec<RunAction>,
}

/// An operator's action.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunAction {
    pub(crate) at: Moment,
    pub(crate) who: String,
    pub(crate) what: String,
    pub(crate) came: String,
}

impl RunAction {
    pub(crate) fn new(action: ActionRecord, now: Timestamp) -> Self {
        let ActionRecord { at, who, what, came } = action;
        Self { at: Moment::new(at, now), who, what, came }
    }
}

impl RunDetail {
    /// Returns true if the run can be cancelled.
    pub(crate) fn is_open(&self) -> bool {
        self.ended_at.is_none()
    }

    /// Returns true if the run can be woken.
    pub(crate) fn waits(&self) -> bool {
        [RunState::Waiting, RunState::Parked].iter().any(|state| state.label() == self.state)
    }

    /// Returns true if the run was given up.
    pub(crate) fn is_dead(&self) -> bool {
        self.state == RunState::Dead.label()
    }

    /// Reads what belongs to a run. `version` is that of its flow.
    pub(crate) async fn read(
        store: &SqlStore,
        run: RunRecord,
        version: &str,
        circumstances: &RunCircumstances,
        content: Option<&RunContent>,
        now: Timestamp,
    ) -> Result<Self, ConsoleError> {
        let masking = if content.is_some() { Masking::Shown } else { Masking::Masked };
        let steps = match store.flow(&run.flow, version).await? {
            Some(source) => read_steps(&source),
            None => Vec::new(),
        };
        let actions = store.actions(&run.flow, &run.reference).await?;
        let moment = |at| Moment::new(at, now);
        Ok(Self {
            version: version.to_owned(),
            blocker: (run.ended_at.is_none()).then(|| circumstances.blocker(&run)),
            ending: (run.ended_at.is_some()).then(|| masking.sentence(&circumstances.ending(&run))),
            steps: steps_of(&run, &steps, content, now),
            request: content.and_then(|content| content.request.as_deref()).map(request_text),
            actions: actions.into_iter().map(|action| RunAction::new(action, now)).collect(),
            error: run.error.as_deref().map(|error| masking.sentence(error)),
            failed_at: run.failed_at.map(moment),
            due_at: run.due_at.map(moment),
            admitted_at: moment(run.admitted_at),
            ended_at: run.ended_at.map(moment),
            flow: run.flow,
            state: run.state,
            reason: run.reason,
            note: run.note,
            attempts: run.attempts,
            deaths: run.deaths,
            destination: run.destination,
        })
    }
}

/// Name of a step, and what it does.
pub(crate) struct StepName {
    pub(crate) name: String,
    pub(crate) action: String,
}

/// Reads the steps of a stored version of a flow. None if this version of Usher cannot read it.
pub(crate) fn read_steps(source: &str) -> Vec<StepName> {
    let flow = serde_json::from_str::<FlowSource>(source).ok().and_then(|source| Flow::read(source).ok());
    let name = |step: FlowStep| StepName {
        action: match step.action {
            Action::Wait(Wait::For(time)) => format!(
                "waits {}",
                Moment::new(Timestamp::default().plus(time), Timestamp::default()).relative().trim_start_matches("in ")
            ),
            Action::Wait(Wait::Until(template)) => format!("waits until {template}"),
            Action::Call(call) => format!("{}.{}", call.connector, call.operation),
        },
        name: step.name,
    };
    flow.map(|flow| flow.steps.into_iter().map(name).collect()).unwrap_or_default()
}

/// Returns the steps with their states. An effect of a step that the flow does not have any more is shown as well.
fn steps_of(run: &RunRecord, names: &[StepName], content: Option<&RunContent>, now: Timestamp) -> Vec<RunStep> {
    let effect = |name: &str| run.effects.iter().rev().find(|effect| effect.step == name);
    let done = run.state == RunState::Done.label();
    let dead = run.state == RunState::Dead.label();
    let step = |(at, step): (usize, &StepName)| {
        let found = effect(&step.name);
        let is_present = i64::try_from(at).is_ok_and(|at| at == run.step);
        let is_past = i64::try_from(at).is_ok_and(|at| at < run.step) || done;
        let state = match (found, is_past, is_present) {
            (Some(_), ..) => "done",
            (None, true, _) => "nothing",
            (None, false, true) if dead => "dead",
            (None, false, true) if run.ended_at.is_none() => "now",
            (None, false, _) => "later",
        };
        shown_step(&step.name, &step.action, state, found, now)
    };
    let attempts = |name: &str| -> Vec<StepAttempt> {
        let of_step = run.story.iter().filter(|attempt| attempt.name == name && attempt.pass == run.pass);
        of_step.map(|attempt| StepAttempt::new(attempt, content, now)).collect()
    };
    let mut steps: Vec<RunStep> = names.iter().enumerate().map(step).collect();
    let is_unknown = |effect: &&EffectRecord| names.iter().all(|step| step.name != effect.step);
    for effect in run.effects.iter().filter(is_unknown) {
        steps.push(shown_step(&effect.step, &effect.connector, "done", Some(effect), now));
    }
    for step in &mut steps {
        step.attempts = attempts(&step.name);
    }
    steps
}

fn shown_step(name: &str, action: &str, state: &'static str, effect: Option<&EffectRecord>, now: Timestamp) -> RunStep {
    RunStep {
        name: name.to_owned(),
        action: action.to_owned(),
        state,
        effect: effect.map(|effect| Masking::Masked.sentence(&effect.id)),
        at: effect.map(|effect| Moment::new(effect.at, now)),
        attempts: Vec::new(),
    }
}

/// Returns a stored request as text.
fn request_text(stored: &[u8]) -> String {
    let (_, request) = usher_suppression::kept(stored);
    match serde_json::from_slice(request) {
        Ok(json) => pretty(&json),
        Err(_) => usher_proto::visible::lines(&String::from_utf8_lossy(request)).into_owned(),
    }
}

/// Returns a JSON text over several lines, with control characters escaped.
pub(crate) fn pretty(value: &Value) -> String {
    usher_proto::visible::json(&serde_json::to_string_pretty(value).unwrap_or_default()).into_owned()
}
