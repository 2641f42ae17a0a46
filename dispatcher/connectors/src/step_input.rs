//! The inputs from which an operation's request is built, and what all mail connectors read from them.

use serde_json::{Map, Value};
use usher_proto::address::{NotAnAddress, one_line};
use usher_proto::{Event, Json, Mailbox};
use usher_service::ConfigError;
use usher_service::options::Environment;

/// Input from which an operation's request is built.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// Name of the operation.
    pub operation: &'a str,
    /// Rendered parameters. An empty text is absent, or null as a [`ParamType::Id`](super::ParamType::Id), in a
    /// [`ParamType::Record`](super::ParamType::Record) or a [`ParamType::Selector`](super::ParamType::Selector), and in a parameter
    /// that [clears](super::Param::clears). A [`ParamType::Json`](super::ParamType::Json) is a text:
    /// see `json`.
    pub params: &'a Map<String, Value>,
    /// Event that started the run.
    pub event: &'a Event,
    /// Newest known state of the event's subject, as JSON; `None` if none is known.
    pub known: Option<&'a str>,
    /// Number of reruns ordered for the run.
    pub rerun: u32,
}

impl<'a> StepInput<'a> {
    /// Returns the event's `data` as it was sent, or `None` if the event has no data.
    pub(super) fn sent(&self) -> Option<Json<'a>> {
        self.event.data()
    }

    /// Returns the event's `data` as a tree. Numbers and nesting that the tree cannot represent are replaced by the text that
    /// was sent; see `sent`. Read for few operations, so it is not kept.
    pub(super) fn data(&self) -> Value {
        self.sent().map_or(Value::Null, Json::to_value)
    }

    /// Returns a [`ParamType::Json`](super::ParamType::Json) parameter as text. Numbers keep the digits that were sent.
    pub(super) fn json(&self, name: &str) -> Option<&'a str> {
        self.params.get(name)?.as_str()
    }

    /// Returns a parameter, or an error if it is empty.
    pub(super) fn required(&self, name: &str) -> Result<&Value, PrepareError> {
        let value = self.params.get(name).filter(|value| !value.is_null());
        value.ok_or_else(|| PrepareError(format!("{name} came out empty")))
    }

    /// Returns the sender of a mail: the `from` parameter, or else the default from the settings.
    pub(super) fn sender(&self, default: Option<&Mailbox>) -> Result<Mailbox, PrepareError> {
        match self.params.get("from") {
            Some(text) => sender(text.as_str().unwrap_or_default()).map_err(|error| not_an_address("from", error)),
            None => default.cloned().ok_or_else(|| PrepareError(format!("from is not given, and {FROM} is not set"))),
        }
    }

    /// Returns the mailboxes of a parameter; none if it is absent. Fails if one of its texts is not a mailbox.
    pub(super) fn mailboxes(&self, name: &str) -> Result<Vec<Mailbox>, PrepareError> {
        let texts = match self.params.get(name) {
            None | Some(Value::Null) => &[][..],
            Some(Value::Array(texts)) => texts,
            Some(text) => std::slice::from_ref(text),
        };
        let read =
            |text: &Value| text.as_str().unwrap_or_default().parse().map_err(|error| not_an_address(name, error));
        texts.iter().map(read).collect()
    }

    /// Returns the recipients of a mail. Fails if there is none.
    pub(super) fn recipients(&self) -> Result<Vec<Mailbox>, PrepareError> {
        self.required("to")?;
        let to = self.mailboxes("to")?;
        if to.is_empty() { Err(PrepareError("to came out empty".into())) } else { Ok(to) }
    }

    /// Returns the subject of a mail, folded into one line.
    pub(super) fn subject(&self) -> Result<String, PrepareError> {
        Ok(one_line(self.required("subject")?.as_str().unwrap_or_default()))
    }

    /// Returns the additional headers of a mail, each value folded into one line.
    pub(super) fn headers(&self) -> Result<Vec<(&'a str, String)>, PrepareError> {
        let given = self.params.get("headers").and_then(Value::as_object).into_iter().flatten();
        let header = |(name, value): (&'a String, &Value)| {
            // RFC 5322, 3.6.8: printable ASCII except the colon.
            let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            let value = one_line(value.as_str().unwrap_or_default());
            if valid { Ok((name.as_str(), value)) } else { Err(cannot_set(name)) }
        };
        given.map(header).collect()
    }

    /// Returns the address of the `email` parameter, or `None` if it is absent.
    pub(super) fn email(&self) -> Result<Option<String>, PrepareError> {
        Ok(self.mailboxes("email")?.pop().map(|mailbox| mailbox.address))
    }
}

pub(super) fn cannot_set(header: &str) -> PrepareError {
    PrepareError(format!("headers cannot set {header:?}"))
}

/// Variable that holds the default sender of mails.
pub(super) const FROM: &str = "USHER_FROM";

/// Returns the default sender of mails, used where a flow sets no `from`. Reads `USHER_FROM`.
///
/// # Errors
///
/// `USHER_FROM` is not a mailbox that can be a sender.
pub fn default_sender(environment: &Environment) -> Result<Option<Mailbox>, ConfigError> {
    let read = |text: String| {
        let sender = sender(&text).and_then(Mailbox::with_ascii_domain);
        sender.map_err(|error| ConfigError::new(FROM, format!("it is {error}")))
    };
    environment.get(FROM)?.map(read).transpose()
}

/// Parses a sender. Fails if the display name contains another address: mail clients could show that one instead, or
/// parse it as a second sender.
pub(super) fn sender(text: &str) -> Result<Mailbox, NotAnAddress> {
    let mailbox: Mailbox = text.parse()?;
    let is_address =
        |word: &str| word.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    let between = |c: char| c.is_whitespace() || ",;:<>()\"".contains(c);
    if mailbox.name.split(between).any(is_address) { Err(NotAnAddress) } else { Ok(mailbox) }
}

pub(super) fn not_an_address(name: &str, error: NotAnAddress) -> PrepareError {
    PrepareError(format!("{name} is {error}"))
}

/// True if a text from a flow file is a template.
pub(super) fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// A step of a flow that uses a connector, as the flow file has it: nothing is rendered yet.
#[derive(Debug, Clone, Copy)]
pub struct StepUse<'a> {
    /// Name of the flow.
    pub flow: &'a str,
    /// Name of the step.
    pub step: &'a str,
    /// Name of the operation.
    pub operation: &'a str,
    /// Parameters of the step.
    pub params: &'a Map<String, Value>,
}

impl StepUse<'_> {
    /// Returns a parameter that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.params.get(name).and_then(Value::as_str)
    }

    /// Returns the error that a parameter is invalid for the reason `why`.
    pub(super) fn wrong(&self, param: &str, why: &str) -> ConfigError {
        ConfigError::new(&format!("flow {}, step {}, {param}", self.flow, self.step), why)
    }
}

/// A request cannot be built from these inputs. The message names the parameter, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PrepareError(pub String);
