//! Builds the message: all bytes except the Message-ID. Pure, except for the random boundary between its parts. It is
//! stored as it is sent.

use std::time::{Duration, SystemTime};

use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox as Written, MultiPart, SinglePart};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use usher_proto::address::NotAnAddress;
use usher_proto::{Mailbox, Timestamp};

use crate::{PrepareError, StepInput, cannot_set, not_an_address};

/// Headers that the connector sets itself, from their own parameters or from the message.
const OURS: [&str; 14] = [
    "bcc",
    "cc",
    "content-disposition",
    "content-transfer-encoding",
    "content-type",
    "date",
    "from",
    "message-id",
    "mime-version",
    "reply-to",
    "return-path",
    "sender",
    "subject",
    "to",
];

/// A mail as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mail {
    /// Address for `MAIL FROM`.
    pub(super) from: String,
    /// Addresses for `RCPT TO`.
    pub(super) to: Vec<String>,
    /// Headers and body, without the Message-ID.
    pub(super) message: String,
}

/// Builds the mail for these inputs. `default_from` is the sender if the flow gives none. `now` becomes the `Date`: a
/// mail that is sent again later keeps its original date.
pub(super) fn prepare(
    inputs: &StepInput<'_>,
    default_from: Option<&Mailbox>,
    now: Timestamp,
) -> Result<Mail, PrepareError> {
    let text = |name: &str| inputs.params.get(name).and_then(Value::as_str);
    let from = written("from", inputs.sender(default_from)?)?;
    let to = inputs.recipients()?.into_iter().map(|mailbox| written("to", mailbox));
    let to: Vec<Written> = to.collect::<Result<_, _>>()?;
    let millis = Duration::from_millis(u64::try_from(now.millis()).unwrap_or_default());
    let mut builder =
        Message::builder().from(from.clone()).date(SystemTime::UNIX_EPOCH + millis).subject(inputs.subject()?);
    for mailbox in &to {
        builder = builder.to(mailbox.clone());
    }
    let written_all = |name: &str| -> Result<Vec<Written>, PrepareError> {
        inputs.mailboxes(name)?.into_iter().map(|mailbox| written(name, mailbox)).collect()
    };
    let (cc, bcc) = (written_all("cc")?, written_all("bcc")?);
    for mailbox in &cc {
        builder = builder.cc(mailbox.clone());
    }
    for mailbox in inputs.mailboxes("reply_to")? {
        builder = builder.reply_to(written("reply_to", mailbox)?);
    }
    for (name, value) in inputs.headers()? {
        builder = builder.raw_header(header(name, value)?);
    }
    let message = match (text("text"), text("html")) {
        (Some(text), Some(html)) => {
            builder.multipart(MultiPart::alternative_plain_html(text.to_owned(), html.to_owned()))
        }
        (Some(text), None) => builder.singlepart(SinglePart::plain(text.to_owned())),
        (None, Some(html)) => builder.singlepart(SinglePart::html(html.to_owned())),
        (None, None) => return Err(PrepareError("the mail has neither html nor text".into())),
    };
    let message = message.map_err(|error| PrepareError(error.to_string()))?;
    let message =
        String::from_utf8(message.formatted()).map_err(|_| PrepareError("the message came out unreadable".into()))?;
    // Hidden recipients stand in the envelope alone.
    let to = to.iter().chain(&cc).chain(&bcc).map(|mailbox| mailbox.email.to_string()).collect();
    Ok(Mail { from: from.email.to_string(), to, message })
}

impl Mail {
    /// Returns the mail's Message-ID for this key, without angle brackets: the key itself if RFC 5322 allows it there
    /// (3.6.4, dot-atom), else a digest of it.
    pub(super) fn message_id(&self, key: &str) -> String {
        let domain = self.from.rsplit_once('@').map_or("", |(_, domain)| domain);
        let domain = if !domain.is_empty() && domain.is_ascii() { domain } else { "usher.invalid" };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
        if key.split('.').all(|atom| !atom.is_empty() && atom.chars().all(allowed)) {
            return format!("{key}@{domain}");
        }
        let digest = hex::encode(Sha256::digest(key.as_bytes()));
        format!("usher/{digest}@{domain}")
    }
}

/// Returns a mailbox for the headers; a display name with non-ASCII letters is encoded. SMTP allows fewer addresses
/// than other destinations do.
fn written(name: &str, mailbox: Mailbox) -> Result<Written, PrepareError> {
    let address = mailbox.address.parse().map_err(|_| not_an_address(name, NotAnAddress))?;
    Ok(Written::new(Some(mailbox.name).filter(|name| !name.is_empty()), address))
}

fn header(name: &str, value: String) -> Result<HeaderValue, PrepareError> {
    if OURS.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(cannot_set(name));
    }
    let header = HeaderName::new_from_ascii(name.to_owned()).map_err(|_| cannot_set(name))?;
    Ok(HeaderValue::new(header, value))
}
