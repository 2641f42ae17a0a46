//! Builds a mail in Resend's format. Pure. The body is stored as it is sent, except for its files.

use serde_json::{Map, Value, json};
use usher_proto::{Mailbox, Timestamp};

use crate::attachments::{ATTACHMENTS, AttachmentFolder};
use crate::{PrepareError, StepInput};

/// Size of all files of a mail in bytes, at most. Resend accepts mails of 40 MB in base64, which is four thirds of the files.
const MOST_ATTACHED: u64 = 29 * 1024 * 1024;

/// Returns the body of a request, without the content of its files. `from` is the sender if the flow gives none.
pub(super) fn prepare(
    inputs: &StepInput<'_>,
    from: Option<&Mailbox>,
    folder: &AttachmentFolder,
) -> Result<Map<String, Value>, PrepareError> {
    let mut mail = Map::new();
    mail.insert("from".into(), json!(inputs.sender(from)?.to_text()));
    mail.insert("to".into(), texts(&inputs.recipients()?));
    mail.insert("subject".into(), json!(inputs.subject()?));
    for name in ["cc", "bcc", "reply_to"] {
        let mailboxes = inputs.mailboxes(name)?;
        if !mailboxes.is_empty() {
            mail.insert(name.into(), texts(&mailboxes));
        }
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
    let has_content = mail.contains_key("html") || mail.contains_key("text");
    match (hosted_template(inputs)?, has_content) {
        (Some(template), false) => drop(mail.insert("template".into(), template)),
        (Some(_), true) => {
            return Err(PrepareError("the mail has html or text, and hosted_template stands in place of them".into()));
        }
        (None, true) => {}
        (None, false) => return Err(PrepareError("the mail has neither html nor text".into())),
    }
    if let Some(time) = inputs.params.get("scheduled_at").and_then(Value::as_str) {
        let time: Timestamp =
            time.parse().map_err(|_| PrepareError("scheduled_at is no time such as 2026-01-31T09:00:00Z".into()))?;
        mail.insert("scheduled_at".into(), json!(time.to_string()));
    }
    if let Some(tags) = inputs.params.get("tags").and_then(Value::as_object) {
        let tag = |(name, value): (&String, &Value)| json!({ "name": name, "value": value });
        mail.insert("tags".into(), tags.iter().map(tag).collect());
    }
    let files = folder.prepare(inputs, MOST_ATTACHED)?;
    if !files.is_empty() {
        mail.insert(ATTACHMENTS.into(), json!(files));
    }
    Ok(mail)
}

/// Returns the template that is stored at Resend, with its variables; `None` if the flow names none.
fn hosted_template(inputs: &StepInput<'_>) -> Result<Option<Value>, PrepareError> {
    let variables = inputs.json("variables");
    let Some(id) = inputs.params.get("hosted_template") else {
        let why = "variables are those of a hosted_template, and there is none";
        return if variables.is_some() { Err(PrepareError(why.into())) } else { Ok(None) };
    };
    let variables: Map<String, Value> = variables
        .map_or_else(|| Ok(Map::new()), serde_json::from_str)
        .map_err(|error| PrepareError(error.to_string()))?;
    // Resend's OpenAPI document, `EmailTemplateInput`: strings and numbers.
    if let Some((name, _)) = variables.iter().find(|(_, value)| !value.is_string() && !value.is_number()) {
        return Err(PrepareError(format!(
            "variables: {name} is neither a text nor a number, and Resend has no others"
        )));
    }
    let mut template = Map::from_iter([("id".to_owned(), id.clone())]);
    if !variables.is_empty() {
        template.insert("variables".into(), Value::Object(variables));
    }
    Ok(Some(Value::Object(template)))
}

/// Returns a single address as a text, several as a list.
fn texts(mailboxes: &[Mailbox]) -> Value {
    match mailboxes {
        [one] => json!(one.to_text()),
        several => several.iter().map(Mailbox::to_text).collect(),
    }
}
