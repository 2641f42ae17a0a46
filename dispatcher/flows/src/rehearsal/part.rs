//! One step of a flow in one scene. Its request is prepared as in an attempt, except for the data that only the store
//! and the settings contain.

use serde_json::{Map, Value};
use usher_connectors::{Connector, Connectors, StepInput, SubjectChange};

use super::super::wait::{WAIT_UNTIL, until};
use super::super::{Action, Call, Context, Flow, FlowStep, Unrenderable, Wait, evaluate, render, render_some};
use super::LINK;
use super::names::texts;
use super::scenes::Scene;

/// The result of a step in one scene.
pub(super) enum Played {
    /// The step was skipped: `when` is false, or a value that it needs is absent.
    LeftOut,
    /// The request was prepared.
    Made,
    /// The run would be dead-lettered.
    Failed(Failure),
}

/// The cause of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Failure {
    /// A key of the step, or a template's file.
    pub(super) place: String,
    pub(super) what: String,
}

impl Failure {
    /// Returns the key of the step that the failure concerns. The result is not a key of the step if the place is empty
    /// or a template's file.
    pub(super) fn key(&self) -> &str {
        self.place.split('.').next().unwrap_or_default()
    }
}

/// A step in one scene.
enum Due<T> {
    /// It is skipped: `when` is false, or a value that it needs is absent.
    No,
    /// It waits.
    Wait,
    /// It calls its destination.
    Call(T),
}

/// A step, with everything that preparing its request requires.
pub(super) struct Part<'a> {
    pub(super) flow: &'a Flow,
    pub(super) step: &'a FlowStep,
    pub(super) connectors: &'a Connectors,
}

impl Part<'_> {
    /// True if the failing text accesses metadata, or the time of a wait accesses the answer of an earlier step. Others
    /// define their content, so no sample contains it.
    pub(super) fn is_open(&self, failure: &Failure) -> bool {
        let texts = match (failure.key(), &self.step.action) {
            ("when", _) => self.step.when.as_deref().into_iter().collect(),
            (WAIT_UNTIL, Action::Wait(Wait::Until(until))) if until.contains("steps") => return true,
            (_, Action::Wait(Wait::Until(until))) => vec![until.as_str()],
            (_, Action::Wait(Wait::For(_))) => Vec::new(),
            ("needs", Action::Call(call)) => call.needs.iter().map(|needs| needs.value.as_str()).collect(),
            (key, Action::Call(call)) => match call.params.get(key) {
                Some(value) => texts(value),
                None => self.flow.source.templates.get(&failure.place).map(String::as_str).into_iter().collect(),
            },
        };
        texts.iter().any(|text| text.contains("_metadata"))
    }

    /// Prepares the request in a scene, or reads the time of a wait. If `ignore_when` is set, `when` is not evaluated.
    pub(super) fn play(&self, scene: &Scene, ignore_when: bool) -> Played {
        match self.request(scene, ignore_when) {
            Ok(true) => Played::Made,
            Ok(false) => Played::LeftOut,
            Err(failure) => Played::Failed(failure),
        }
    }

    /// Prepares the request. Returns false if the step is skipped.
    fn request(&self, scene: &Scene, ignore_when: bool) -> Result<bool, Failure> {
        let prepare = |call: &Call, connector: &dyn Connector, inputs: &StepInput<'_>| {
            connector.prepare(inputs).map_err(|error| of_text(call, &error.0))
        };
        match self.with_inputs(scene, ignore_when, prepare)? {
            Due::No => Ok(false),
            Due::Wait => Ok(true),
            Due::Call(prepared) => prepared.map(|_| true),
        }
    }

    /// Returns the parameters of the step in a scene, and the change that it makes to the event's subject. Returns `None` if
    /// the step makes no call, or would be dead-lettered.
    pub(super) fn change(&self, scene: &Scene) -> Option<(Map<String, Value>, SubjectChange)> {
        let change = |_: &Call, connector: &dyn Connector, inputs: &StepInput<'_>| {
            (inputs.params.clone(), connector.subject_change(inputs))
        };
        match self.with_inputs(scene, false, change) {
            Ok(Due::Call(change)) => Some(change),
            Ok(Due::No | Due::Wait) | Err(_) => None,
        }
    }

    /// True if the step is due in a scene: its `when` holds.
    pub(super) fn is_due(step: &FlowStep, scene: &Scene) -> bool {
        let holds = |when: &String| evaluate(when, &scene.context).is_ok_and(|it| it.is_some_and(|it| it.is_true()));
        step.when.as_ref().is_none_or(holds)
    }

    /// Renders the parameters of the step and passes them to its connector.
    fn with_inputs<T>(
        &self,
        scene: &Scene,
        ignore_when: bool,
        use_them: impl FnOnce(&Call, &dyn Connector, &StepInput<'_>) -> T,
    ) -> Result<Due<T>, Failure> {
        let Self { flow, step, connectors } = self;
        let unrenderable = |key: &'static str| {
            move |error: Unrenderable| {
                let place = if key.is_empty() { error.place } else { key.to_owned() };
                Failure { place, what: error.what }
            }
        };
        if let Some(when) = step.when.as_deref().filter(|_| !ignore_when)
            && !evaluate(when, &scene.context).map_err(unrenderable("when"))?.is_some_and(|value| value.is_true())
        {
            return Ok(Due::No);
        }
        let call = match &step.action {
            Action::Call(call) => call,
            Action::Wait(Wait::Until(text)) => {
                until(text, &scene.context).map_err(unrenderable(""))?;
                return Ok(Due::Wait);
            }
            Action::Wait(Wait::For(_)) => return Ok(Due::Wait),
        };
        let cannot = |message: String| of_text(call, &message);
        let fit = |params: &mut Map<String, Value>| fit(call, params);
        if let Some(needs) = &call.needs
            && evaluate(&needs.value, &scene.context).map_err(unrenderable("needs"))?.is_none()
        {
            return Ok(Due::No);
        }
        let writes_to =
            usher_connectors::operation(&call.connector, &call.operation).map_or(&[][..], |it| it.writes_to);
        let mut people = render_some(call, writes_to, &scene.context).map_err(unrenderable(""))?;
        fit(&mut people)?;
        usher_suppression::recipients(&mut people, writes_to).map_err(|error| cannot(error.0))?;
        let mut context: Context = scene.context.clone();
        if call.marketing.is_some() {
            context.set_unsubscribe_url(LINK);
        }
        let mut params: Map<String, Value> = render(flow, call, &context).map_err(unrenderable(""))?;
        params.retain(|name, _| !writes_to.contains(&name.as_str()));
        fit(&mut params)?;
        params.extend(people);
        let Some(connector) = connectors.get(&call.connector) else { return Ok(Due::No) };
        let operation = call.operation.as_str();
        let known = scene.known.as_deref();
        let inputs = StepInput { operation, params: &params, event: &scene.event, known, rerun: 0 };
        Ok(Due::Call(use_them(call, &**connector, &inputs)))
    }
}

/// Brings rendered parameters into the form that the operation takes.
pub(super) fn fit(call: &Call, params: &mut Map<String, Value>) -> Result<(), Failure> {
    usher_connectors::fit(&call.connector, &call.operation, params).map_err(|unfit| of_text(call, &unfit.what))
}

/// Converts a connector's message to a failure. The message begins with the name of the parameter, if it concerns one.
fn of_text(call: &Call, text: &str) -> Failure {
    let operation = usher_connectors::operation(&call.connector, &call.operation);
    let params = operation.map_or(&[][..], |operation| operation.params);
    let first = text.split_whitespace().next().unwrap_or_default();
    match params.iter().find(|param| param.name == first) {
        Some(param) => {
            let what = text[param.name.len()..].trim_start().to_owned();
            Failure { place: param.name.to_owned(), what }
        }
        None => Failure { place: String::new(), what: text.to_owned() },
    }
}
