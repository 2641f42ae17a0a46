//! The mails that a flow would send, made of sample events.

use serde_json::{Map, Value};
use usher_flows::{Flow, FlowSource, MailPreview, PreviewOutcome};
use usher_store::FlowStore as _;

use crate::Console;
use crate::problem::ConsoleError;

/// One mail of a sample event.
pub(crate) struct FlowMail {
    pub(crate) step: String,
    pub(crate) operation: String,
    /// The reason for which there is no mail.
    pub(crate) problem: Option<String>,
    /// Everything but the content, in the order in which it is read: recipient, sender, subject, others.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) html: Option<String>,
    pub(crate) text: Option<String>,
}

/// The mails of one of a flow's samples.
pub(crate) struct FlowMails {
    /// All samples in words; empty if the flow sends no mail.
    pub(crate) samples: Vec<String>,
    /// The one that is shown.
    pub(crate) sample: String,
    pub(crate) mails: Vec<FlowMail>,
}

/// Returns the mails that a version of a flow would send for a sample; for the first one if there is none of that name.
pub(crate) async fn flow_mails(
    console: &Console,
    flow: &str,
    version: &str,
    sample: &str,
) -> Result<FlowMails, ConsoleError> {
    let none = FlowMails { samples: Vec::new(), sample: String::new(), mails: Vec::new() };
    let Some(stored) = console.store().flow(flow, version).await? else { return Ok(none) };
    // A version of an earlier Usher may not be readable any more: it shows its file alone.
    let Ok(source) = serde_json::from_str::<FlowSource>(&stored) else { return Ok(none) };
    let Ok(flow) = Flow::read(source) else { return Ok(none) };
    let previews = flow.previews();
    let mut samples: Vec<String> = Vec::new();
    for preview in &previews {
        if !samples.contains(&preview.sample) {
            samples.push(preview.sample.clone());
        }
    }
    let shown = samples.iter().find(|known| *known == sample).or(samples.first()).cloned().unwrap_or_default();
    let mails = previews.into_iter().filter(|preview| preview.sample == shown).map(FlowMail::from).collect();
    Ok(FlowMails { samples, sample: shown, mails })
}

impl From<MailPreview> for FlowMail {
    fn from(preview: MailPreview) -> Self {
        let MailPreview { sample: _, step, operation, outcome } = preview;
        let (problem, mail) = match outcome {
            PreviewOutcome::Mail(mail) => (None, mail),
            PreviewOutcome::LeftOut => {
                let why = "No mail for this sample: the flow does not start, the step's condition is false, or a value that it needs is absent.";
                (Some(why.to_owned()), Map::new())
            }
            PreviewOutcome::Failed(why) => (Some(format!("It cannot be made: {why}")), Map::new()),
        };
        let text = |name: &str| mail.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut fields: Vec<(String, String)> = mail
            .iter()
            .filter(|(name, _)| *name != "html" && *name != "text")
            .map(|(name, value)| (name.clone(), words(value)))
            .collect();
        let order =
            |name: &str| ["to", "from", "reply_to", "subject"].iter().position(|known| *known == name).unwrap_or(9);
        fields.sort_by_key(|(name, _)| order(name));
        Self { step, operation, problem, fields, html: text("html"), text: text("text") }
    }
}

/// Returns a value of a mail's field as text.
pub(crate) fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
