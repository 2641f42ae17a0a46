//! The timeline of a flow's run for one event: each step with its time, and the mails and calls as they would be made.
//! Nothing is sent, and every call counts as answered at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};
use usher_engine::Run;
use usher_engine::field_diff::PreviousFields;
use usher_proto::Timestamp;

use super::super::context::UnreadableBody;
use super::super::template::environment;
use super::super::{Action, Call, Context, Flow, FlowStep, Unrenderable, evaluate};
use super::timeline_event::PreviewEvent;
use super::{answers, preview, scenes};

/// The run that an event starts, step by step.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowTimeline {
    /// The reason for which the event starts no run. `None` if it starts one.
    pub starts_nothing: Option<String>,
    /// True if the flow compares with fields that it has stored, and the timeline takes all of them as changed.
    pub all_changed: bool,
    /// The steps in order, up to one that fails. Empty if no run starts.
    pub steps: Vec<PlannedStep>,
}

/// One step of a timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStep {
    /// Time from the event to the moment at which the step is due, if nothing is late.
    pub after: Duration,
    /// Name of the step.
    pub step: String,
    /// The action.
    pub action: PlannedAction,
}

/// The action of a step in a timeline.
#[derive(Debug, Clone, PartialEq)]
pub enum PlannedAction {
    /// The run waits this long.
    Wait(Duration),
    /// A destination is called.
    Call {
        /// The operation, such as `resend.send`.
        operation: String,
        /// True if it sends a mail that the flow has written.
        is_mail: bool,
        /// The parameters as they are rendered.
        params: Map<String, Value>,
        /// The step's `when`, if it depends on the answer of an earlier step, which is not known before.
        condition: Option<String>,
    },
    /// The step does nothing, for this reason.
    Skipped(String),
    /// The run is dead-lettered; the text names the place.
    Failed(String),
}

impl Flow {
    /// Returns the timeline of the run that the event starts.
    pub fn timeline(&self, of: &PreviewEvent) -> FlowTimeline {
        // The first event of a user changes nothing that was known before.
        let all_changed = !self.remember.is_empty() && of.event.kind != "user.created";
        let mut timeline = FlowTimeline { starts_nothing: None, all_changed, steps: Vec::new() };
        if !self.starts_on(&of.event) {
            let schedule = self.schedule.iter().map(|schedule| format!("the schedule {schedule}"));
            let on: Vec<String> = self.on.iter().map(ToString::to_string).chain(schedule).collect();
            timeline.starts_nothing = Some(format!("the flow starts on {}", on.join(", ")));
            return timeline;
        }
        if !self.starts(&of.event) {
            let condition = self.starts_if.as_deref().unwrap_or_default();
            timeline.starts_nothing = Some(format!("if is false: {}", one_line(condition)));
            return timeline;
        }
        let before = match all_changed {
            true => scenes::before(self),
            false => PreviousFields::default(),
        };
        let mut run = Run { before: (!self.remember.is_empty()).then_some(before), ..scenes::run(&of.event) };
        let mut after = Duration::ZERO;
        for (index, step) in self.steps.iter().enumerate() {
            let action = match self.context_of(&run, of) {
                Ok(context) => {
                    let due = of.event.occurred_at.plus(after);
                    self.planned(step, &context, &run.results, due)
                }
                Err(error) => PlannedAction::Failed(error.to_string()),
            };
            let planned = PlannedStep { after, step: step.name.clone(), action };
            match &planned.action {
                PlannedAction::Wait(time) => after += *time,
                PlannedAction::Call { .. } => {
                    run.results.insert(index, answers::answer(self, index));
                }
                PlannedAction::Skipped(_) | PlannedAction::Failed(_) => {}
            }
            let is_last = matches!(planned.action, PlannedAction::Failed(_));
            timeline.steps.push(planned);
            if is_last {
                break;
            }
        }
        timeline
    }

    /// Creates the context of the run. Variables that are not set have placeholders.
    fn context_of(&self, run: &Run, of: &PreviewEvent) -> Result<Context, UnreadableBody> {
        let mut context = Context::new(self, run, of.subject.as_ref())?;
        let mut settings = self.settings.placeholders();
        settings.extend(self.settings.of(of.event.instance()));
        context.set_settings(settings);
        Ok(context)
    }

    /// Returns the action of a step that is due at this time.
    fn planned(
        &self,
        step: &FlowStep,
        context: &Context,
        answers: &BTreeMap<usize, Value>,
        due: Timestamp,
    ) -> PlannedAction {
        let condition = match self.decided(step, context, answers) {
            Ok(Decision::Due) => None,
            Ok(Decision::Open(when)) => Some(when),
            Ok(Decision::NotDue(when)) => return PlannedAction::Skipped(format!("when is false: {when}")),
            Err(error) => return PlannedAction::Failed(format!("when: {}", error.what)),
        };
        match &step.action {
            Action::Wait(wait) => match wait.end(context, due) {
                Ok(end) => PlannedAction::Wait(end.since(due)),
                Err(error) => PlannedAction::Failed(error.to_string()),
            },
            Action::Call(call) => self.called(call, context, condition),
        }
    }

    fn called(&self, call: &Call, context: &Context, condition: Option<String>) -> PlannedAction {
        if let Some(needs) = &call.needs {
            match evaluate(&needs.value, context) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let within = humantime::format_duration(needs.within);
                    return PlannedAction::Skipped(format!(
                        "{} is absent: the run waits for it up to {within}",
                        needs.value
                    ));
                }
                Err(error) => return PlannedAction::Failed(format!("needs: {}", error.what)),
            }
        }
        let operation = usher_connectors::operation(&call.connector, &call.operation);
        match preview::rendered(self, call, context) {
            Ok(params) => PlannedAction::Call {
                operation: format!("{}.{}", call.connector, call.operation),
                is_mail: operation.is_some_and(|operation| operation.takes_template),
                params,
                condition,
            },
            Err(why) => PlannedAction::Failed(why),
        }
    }

    /// Decides whether a step is due by its `when`.
    fn decided(
        &self,
        step: &FlowStep,
        context: &Context,
        answers: &BTreeMap<usize, Value>,
    ) -> Result<Decision, Unrenderable> {
        let Some(when) = &step.when else { return Ok(Decision::Due) };
        let shown = one_line(when);
        let answered: BTreeSet<&str> =
            answers.keys().filter_map(|index| Some(&*self.steps.get(*index)?.name)).collect();
        let due = evaluate(when, context).map(|value| value.is_some_and(|value| value.is_true()));
        if reads_an_answer(when, &answered) {
            return Ok(Decision::Open(shown));
        }
        Ok(if due? { Decision::Due } else { Decision::NotDue(shown) })
    }
}

/// The decision of a step's `when`, with its text on one line.
enum Decision {
    Due,
    NotDue(String),
    /// It depends on the answer of an earlier step.
    Open(String),
}

/// True if an expression reads a field of the answer of one of these steps.
fn reads_an_answer(expression: &str, answered: &BTreeSet<&str>) -> bool {
    let names =
        environment().compile_expression(expression).map(|it| it.undeclared_variables(true)).unwrap_or_default();
    names.iter().any(|name| {
        let mut parts = name.split('.');
        let is_of_step = parts.next() == Some("steps") && parts.next().is_some_and(|step| answered.contains(step));
        is_of_step && parts.next().is_some()
    })
}

fn one_line(expression: &str) -> String {
    expression.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{FlowSource, builtin};

    const CAMPAIGN: &str = r#"
on = ["clerk/user.created"]
if = "event.data.banned is not true"
[[step]]
name = "find"
use  = "stripe.create_customer"
email = "{{ user.email }}"
[[step]]
wait = "3d"
[[step]]
name = "offer"
when = "user.public_metadata.plan != 'pro'"
use  = "resend.send"
to = "{{ user.email }}"
subject = "Hello {{ user.first_name }}"
text = "Hi"
needs = "user.email"
needs_within = "2d"
[[step]]
wait_until = "{{ event.occurred_at | plus('108h') }}"
[[step]]
name = "late"
when = "steps.find.status == 'trialing'"
use  = "resend.send"
to = "{{ user.email }}"
subject = "Late"
text = "Hi"
[[step]]
name = "never"
when = "steps.offer is not defined"
use  = "resend.send"
to = "{{ user.email }}"
subject = "Never"
text = "Hi"
"#;

    fn campaign() -> Flow {
        let source = FlowSource {
            name: "campaign".into(),
            file: "campaign.toml".into(),
            toml: CAMPAIGN.into(),
            templates: BTreeMap::new(),
        };
        Flow::read(source).expect("it can run")
    }

    /// Returns the timeline for a user with these fields, a line each.
    fn lines(data: &str) -> Vec<String> {
        let text = format!(
            r#"{{"type": "user.created", "data": {{"object": "user", "id": "user_1", "first_name": "Ann",
            "primary_email_address_id": "idn_1", "email_addresses": [{{"id": "idn_1", "email_address": "ann@mail.test"}}]
            {data}}}}}"#
        );
        let timeline = campaign().timeline(&PreviewEvent::read(&campaign(), &text).expect("an event"));
        let line = |planned: &PlannedStep| {
            let action = match &planned.action {
                PlannedAction::Wait(time) => format!("wait {}", time.as_secs() / 3600),
                PlannedAction::Call { operation, condition, params, .. } => {
                    let to = params.get("to").and_then(Value::as_str).unwrap_or_default();
                    format!("{operation} {to} {condition:?}")
                }
                PlannedAction::Skipped(why) | PlannedAction::Failed(why) => why.clone(),
            };
            format!("{} {} {action}", planned.after.as_secs() / 3600, planned.step)
        };
        timeline.starts_nothing.into_iter().chain(timeline.steps.iter().map(line)).collect()
    }

    #[test]
    fn each_step_has_its_time_and_what_is_decided_by_an_answer_says_so() {
        let mail = "resend.send ann@mail.test";
        let open = "steps.find.status == 'trialing'";
        assert_eq!(
            lines(""),
            [
                "0 find stripe.create_customer  None".to_owned(),
                "0 step-2 wait 72".to_owned(),
                format!("72 offer {mail} None"),
                "72 step-4 wait 36".to_owned(),
                format!("108 late {mail} Some(\"{open}\")"),
                "108 never when is false: steps.offer is not defined".to_owned(),
            ]
        );
        let bought = lines(r#", "public_metadata": {"plan": "pro"}"#);
        assert_eq!(bought[2], "72 offer when is false: user.public_metadata.plan != 'pro'");
        assert_eq!(bought[5], format!("108 never {mail} None"), "the offer was not made");
        assert_eq!(lines(r#", "banned": true"#), ["if is false: event.data.banned is not true"]);
    }

    #[test]
    fn what_is_absent_is_waited_for_and_what_cannot_be_rendered_ends_the_run() {
        let absent = lines(r#", "primary_email_address_id": null"#);
        assert!(absent[2].ends_with("user.email is absent: the run waits for it up to 2days"), "{absent:?}");
        let failed = lines(r#", "first_name": {"a": 1}"#);
        assert!(failed[2].starts_with("72 offer subject: a table or a list is no text"), "{failed:?}");
        assert_eq!(failed.len(), 3);
    }

    #[test]
    fn an_event_that_starts_nothing_is_told() {
        let timeline = campaign().timeline(&PreviewEvent::sample("user.deleted").expect("a sample"));
        assert_eq!(timeline.starts_nothing.as_deref(), Some("the flow starts on clerk/user.created"));
        for text in ["", "[]", "{}", r#"{"type": 1, "data": {}}"#, r#"{"type": "user.created"}"#] {
            assert!(PreviewEvent::read(&campaign(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_built_in_flow_has_a_timeline_for_every_sample_that_starts_it() {
        for source in builtin() {
            let flow = Flow::check(source).expect("a built-in flow is good");
            let mut planned = 0;
            let samples = PreviewEvent::sample_names();
            let samples = samples.iter().map(|name| PreviewEvent::sample(name).expect("a sample"));
            for sample in samples.chain(PreviewEvent::of_schedule(&flow)) {
                let timeline = flow.timeline(&sample);
                planned += timeline.steps.len();
                for step in timeline.steps {
                    let kind = &sample.event.kind;
                    assert!(!matches!(step.action, PlannedAction::Failed(_)), "{} of {kind}: {step:?}", flow.name);
                }
            }
            assert!(planned > 0, "{}", flow.name);
        }
    }
}
