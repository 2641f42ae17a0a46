//! Builds a mail in Nylas's format, and chooses its mailbox. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use usher_proto::Mailbox;

use crate::{PrepareError, StepInput};

/// Header of the mail that carries the idempotency key.
pub(super) const KEY_HEADER: &str = "X-Usher-Key";
/// Time before the event's arrival from which a mail is looked for, in seconds: the provider's clock differs.
const EARLIER: i64 = 300;

/// A request as it is stored. The header with the key is added when the request is sent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredMail {
    pub(super) grant: String,
    /// Address of the first recipient.
    pub(super) to: String,
    /// Earliest time at which the mail can have been sent, in seconds.
    pub(super) since: i64,
    pub(super) mail: Map<String, Value>,
}

/// Builds the mail for these inputs, to be sent from one of the mailboxes `grants`.
pub(super) fn prepare(inputs: &StepInput<'_>, grants: &[String]) -> Result<StoredMail, PrepareError> {
    let mail = mail(inputs)?;
    let to = mail["to"][0]["email"].as_str().unwrap_or_default().to_owned();
    let since = inputs.event.received_at.seconds() - EARLIER;
    Ok(StoredMail { grant: grant_for(grants, &to).to_owned(), to, since, mail })
}

/// Returns the mailbox for a recipient. It is always the same one, so that a conversation stays in one mailbox. The
/// mailbox with the highest digest of mailbox and recipient is used, so most recipients keep theirs after a mailbox
/// is added or removed.
pub(super) fn grant_for<'a>(grants: &'a [String], recipient: &str) -> &'a str {
    let weight = |grant: &&String| Sha256::digest(format!("{grant} {}", recipient.to_lowercase()).as_bytes());
    grants.iter().max_by_key(weight).map_or("", String::as_str)
}

/// Returns the mail for these inputs. Nylas accepts one body: HTML, or plain text if there is no HTML.
fn mail(inputs: &StepInput<'_>) -> Result<Map<String, Value>, PrepareError> {
    let mut mail = Map::new();
    // Without a `from`, the mail is sent as its mailbox.
    let from = inputs.params.contains_key("from").then(|| inputs.sender(None)).transpose()?;
    let lists = [
        ("to", inputs.recipients()?),
        ("cc", inputs.mailboxes("cc")?),
        ("bcc", inputs.mailboxes("bcc")?),
        ("from", from.into_iter().collect()),
        ("reply_to", inputs.mailboxes("reply_to")?),
    ];
    for (name, mailboxes) in lists.into_iter().filter(|(_, mailboxes)| !mailboxes.is_empty()) {
        mail.insert(name.into(), mailboxes.into_iter().map(entry).collect());
    }
    mail.insert("subject".into(), json!(inputs.subject()?));
    let headers = inputs.headers()?;
    if !headers.is_empty() {
        let header = |(name, value): (&str, String)| json!({ "name": name, "value": value });
        mail.insert("custom_headers".into(), headers.into_iter().map(header).collect());
    }
    match (inputs.params.get("html"), inputs.params.get("text")) {
        (Some(html), _) => mail.insert("body".into(), html.clone()),
        (None, Some(text)) => {
            mail.insert("is_plaintext".into(), json!(true));
            mail.insert("body".into(), text.clone())
        }
        (None, None) => return Err(PrepareError("the mail has neither html nor text".into())),
    };
    Ok(mail)
}

fn entry(Mailbox { name, address }: Mailbox) -> Value {
    if name.is_empty() { json!({ "email": address }) } else { json!({ "email": address, "name": name }) }
}

/// Returns the mail with the header by which it can be found.
pub(super) fn with_key_header(mut mail: Map<String, Value>, key: &str) -> Map<String, Value> {
    let ours = json!({ "name": KEY_HEADER, "value": key });
    match mail.get_mut("custom_headers").and_then(Value::as_array_mut) {
        Some(headers) => headers.push(ours),
        None => drop(mail.insert("custom_headers".into(), json!([ours]))),
    }
    mail
}
