//! Builds a mail in Resend's format. Pure. The body is stored as it is sent.

use serde_json::{Map, Value, json};
use usher_proto::Mailbox;

use crate::{PrepareError, StepInput};

/// Returns the body of a request. `from` is the sender if the flow gives none.
pub(super) fn prepare(inputs: &StepInput<'_>, from: Option<&Mailbox>) -> Result<Map<String, Value>, PrepareError> {
    let mut mail = Map::new();
    mail.insert("from".into(), json!(inputs.sender(from)?.to_text()));
    mail.insert("to".into(), texts(&inputs.recipients()?));
    mail.insert("subject".into(), json!(inputs.subject()?));
    let reply_to = inputs.mailboxes("reply_to")?;
    if !reply_to.is_empty() {
        mail.insert("reply_to".into(), texts(&reply_to));
    }
    for name in ["html", "text"] {
        if let Some(value) = inputs.params.get(name) {
            mail.insert(name.into(), value.clone());
        }
    }
    let headers = inputs.headers()?;
    if !headers.is_empty() {
        let header = |(name, value): (&str, String)| (name.to_owned(), json!(value));
        mail.insert("headers".into(), headers.into_iter().map(header).collect());
    }
    if !mail.contains_key("html") && !mail.contains_key("text") {
        return Err(PrepareError("the mail has neither html nor text".into()));
    }
    if let Some(tags) = inputs.params.get("tags").and_then(Value::as_object) {
        let tag = |(name, value): (&String, &Value)| json!({ "name": name, "value": value });
        mail.insert("tags".into(), tags.iter().map(tag).collect());
    }
    Ok(mail)
}

/// Returns a single address as a text, several as a list.
fn texts(mailboxes: &[Mailbox]) -> Value {
    match mailboxes {
        [one] => json!(one.to_text()),
        several => several.iter().map(Mailbox::to_text).collect(),
    }
}
