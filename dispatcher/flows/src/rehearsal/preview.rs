//! The mails that a flow would send, made of the samples of a rehearsal, for people to look at.

use serde_json::{Map, Value};

use super::super::{Action, Call, Context, Flow, FlowStep, evaluate, render};
use super::scenes::{self, Scene};
use super::{LINK, part};

/// The mail of a step for one sample event.
#[derive(Debug, Clone, PartialEq)]
pub struct MailPreview {
    /// The sample in words: the event's type, and the values that it lacks.
    pub sample: String,
    /// Name of the step.
    pub step: String,
    /// Its operation, such as `resend.send`.
    pub operation: String,
    /// The mail, or the reason for which there is none.
    pub outcome: PreviewOutcome,
}

/// The mail of a step, or the reason for which there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum PreviewOutcome {
    /// The parameters of the operation as they are rendered: `to`, `subject`, `html`, `text` and others. An address of
    /// the sender that is not among them comes from the settings.
    Mail(Map<String, Value>),
    /// The flow does not start, the step's `when` is false, or the value that it needs is absent.
    LeftOut,
    /// It cannot be rendered; the text names the place.
    Failed(String),
}

impl Flow {
    /// Returns the mails that the flow would send for the sample events on which it starts: for each sample, those of all
    /// steps that send one.
    pub fn previews(&self) -> Vec<MailPreview> {
        let mut previews = Vec::new();
        for scene in scenes::of(self) {
            for step in &self.steps {
                let Action::Call(call) = &step.action else { continue };
                let operation = usher_connectors::operation(&call.connector, &call.operation);
                if !operation.is_some_and(|operation| operation.takes_template) {
                    continue;
                }
                previews.push(MailPreview {
                    sample: scene.words(),
                    step: step.name.clone(),
                    operation: format!("{}.{}", call.connector, call.operation),
                    outcome: self.preview(step, call, &scene),
                });
            }
        }
        previews
    }

    fn preview(&self, step: &FlowStep, call: &Call, scene: &Scene) -> PreviewOutcome {
        let is_due = self.wants(&scene.context).unwrap_or(true)
            && step.when.as_deref().is_none_or(|when| {
                evaluate(when, &scene.context).is_ok_and(|value| value.is_some_and(|value| value.is_true()))
            })
            && call
                .needs
                .as_ref()
                .is_none_or(|needs| evaluate(&needs.value, &scene.context).is_ok_and(|value| value.is_some()));
        if !is_due {
            return PreviewOutcome::LeftOut;
        }
        match rendered(self, call, &scene.context) {
            Ok(params) => PreviewOutcome::Mail(params),
            Err(why) => PreviewOutcome::Failed(why),
        }
    }
}

/// Returns the parameters of a call as they are rendered. The error is a text that names the place.
pub(super) fn rendered(flow: &Flow, call: &Call, context: &Context) -> Result<Map<String, Value>, String> {
    let mut context = context.clone();
    if call.marketing.is_some() {
        context.set_unsubscribe_url(LINK);
    }
    let mut params = render(flow, call, &context).map_err(|error| error.to_string())?;
    part::fit(call, &mut params).map_err(|failure| format!("{}: {}", failure.place, failure.what))?;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    #[test]
    fn every_built_in_flow_that_writes_to_people_shows_its_mails() {
        let mut shown = 0;
        for source in builtin() {
            let name = source.name.clone();
            let flow = Flow::check(source).expect("a built-in flow is good");
            for preview in flow.previews() {
                match preview.outcome {
                    PreviewOutcome::Mail(mail) => {
                        assert!(mail.contains_key("to") && mail.contains_key("subject"), "{name}: {mail:?}");
                        assert!(mail.contains_key("html") || mail.contains_key("text"), "{name}: {mail:?}");
                        shown += 1;
                    }
                    PreviewOutcome::LeftOut => {}
                    PreviewOutcome::Failed(why) => panic!("{name}, {}, {}: {why}", preview.step, preview.sample),
                }
            }
        }
        assert!(shown > 10, "{shown}");
    }
}
