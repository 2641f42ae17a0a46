//! The description of a connector, of its operations and of their parameters. Flow checks, the start and the rehearsal
//! know connectors only through it; the limits of values stand in `limits.rs`.

use std::sync::Arc;

use serde_json::Value;
use usher_proto::Mailbox;
use usher_service::ConfigError;
use usher_service::options::Environment;
use usher_sql::Database;

use super::step_input::{is_template, sender};
use super::{Connector, http};

/// A connector as the rest of the code sees it: one value for each, in [`CONNECTORS`](super::CONNECTORS).
pub struct ConnectorSpec {
    /// Name; flow files write it before an operation's name.
    pub name: &'static str,
    /// Prefix of its settings' names, which ends in `_`, or the name of the setting without which it cannot be opened;
    /// `None` if it needs no setting.
    pub settings: Option<&'static str>,
    /// Its operations.
    pub operations: &'static [Operation],
    /// The quota where `<NAME>_QUOTA` is not set; `None` if there is no limit then.
    pub default_quota: Option<DefaultQuota>,
    /// True if the destination's answers may contain rate limits that apply to the whole account.
    pub announces_limits: bool,
    /// Names of the operations that are sent again by default when the outcome of an attempt is unknown: their receivers
    /// must recognise a repeated message by its id. Otherwise a loss is preferred to a duplicate, and the run is
    /// dead-lettered.
    pub repeats_unknown_outcomes: &'static [&'static str],
    /// True if it writes to the users' database, whose tables are created at the start.
    pub writes_to_database: bool,
    /// Valid settings that reach nothing, with which flows are rehearsed.
    pub placeholders: &'static [(&'static str, &'static str)],
    /// Opens the connector from its settings. `None` as the database is for rehearsals: then nothing is written.
    pub(super) open: Open,
}

/// Opens a connector.
pub(super) type Open = fn(&Environment, Option<&Database>) -> Result<Arc<dyn Connector>, ConfigError>;

/// The quota of an account whose operator has configured none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultQuota {
    /// The limit, as `<NAME>_QUOTA` writes it.
    pub limit: &'static str,
    /// True if it is only assumed; then the rate-limit headers of the destination's answers take precedence.
    pub is_assumed: bool,
}

/// An operation of a connector.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// Name; flow files write it after the connector's name and a dot.
    pub name: &'static str,
    /// Parameters that a flow may set.
    pub params: &'static [Param],
    /// True if the operation sends a template's HTML and text, as `html` and `text`.
    pub takes_template: bool,
    /// Parameters that contain the addresses of the people written to. The first is the main recipient. Suppressed
    /// recipients are removed from these parameters.
    pub writes_to: &'static [&'static str],
}

impl Operation {
    /// True if the operation sends a mail whose headers the flow can choose.
    pub fn takes_headers(&self) -> bool {
        self.params.iter().any(|param| param.name == HEADERS)
    }
}

/// Parameter that contains the additional headers of a mail.
pub const HEADERS: &str = "headers";

/// A parameter of an operation.
#[derive(Debug, PartialEq, Eq)]
pub struct Param {
    /// Key in the flow file.
    pub name: &'static str,
    /// True if a flow must set it.
    pub required: bool,
    /// Type of its value.
    pub shape: ParamType,
    /// Environment variable that supplies the value if the flow does not. If it is given, one of the two must be set.
    pub variable: Option<&'static str>,
    /// True if texts in it may name secrets, `{{ secret.NAME }}`, which are filled in when the request is sent.
    pub takes_secrets: bool,
    /// True if an empty result is null, which clears the destination's value. Otherwise an empty result is absent.
    pub clears: bool,
}

impl Param {
    /// Returns the parameter as one whose texts may name secrets.
    pub(super) const fn with_secrets(self) -> Self {
        Self { takes_secrets: true, ..self }
    }

    /// True if an empty result is null: to clear a value, or because an id that is left out would select something else.
    pub fn is_null_if_empty(&self) -> bool {
        self.clears || self.shape == ParamType::Id
    }
}

/// Type of a parameter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamType {
    /// A text, rendered as a template.
    Text,
    /// A text that selects the affected object. An empty result is rendered as null: if it were omitted, the operation
    /// would affect another object in its place.
    Id,
    /// A text that is sent as HTML: values inserted by a template are escaped.
    Html,
    /// One mailbox, the sender of a mail. Its display name must not contain another address.
    Sender,
    /// One mailbox, or a list of them.
    Mailboxes,
    /// One mailbox, of which only the address is sent.
    Email,
    /// A text or a list of texts.
    Texts,
    /// A non-negative integer.
    Number,
    /// True or false, or a template that renders as one of them. An empty result is absent.
    Flag,
    /// A table of texts.
    Table,
    /// A table of any JSON values. A text that consists of one `{{ expression }}` has the expression's type; an empty
    /// result is omitted. The table is rendered to its JSON text.
    Json,
    /// As `Json`, but it stays a table, and an empty result is null, which overwrites the destination's value.
    Record,
    /// A table of texts that select the affected objects. An empty result is rendered as null: if it were omitted, the
    /// selection would match other objects.
    Selector,
    /// A web address whose scheme, host and port are the same for every event, so that data from an event cannot choose the
    /// destination. Each expression on the event is rendered as a [placeholder](super::data_placeholder).
    Address,
    /// A name from the flow file or the environment, never from an event.
    Name,
    /// A text from the flow file, never from an event.
    Literal,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// True or false, from the flow file.
    Switch,
    /// A status of HTTP, or a list of them.
    Statuses,
    /// A table of names, each with the place of a value in an answer.
    Places,
}

impl ParamType {
    /// True if a value from a flow file has this type.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Text | Self::Id | Self::Html => value.is_string(),
            Self::Sender | Self::Email => value.as_str().is_some_and(|text| self.may_be_mailbox(text)),
            Self::Mailboxes => match value.as_array() {
                Some(items) => items.iter().all(|item| item.as_str().is_some_and(|text| self.may_be_mailbox(text))),
                None => value.as_str().is_some_and(|text| self.may_be_mailbox(text)),
            },
            Self::Texts => {
                value.is_string() || value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
            }
            Self::Number => value.is_u64(),
            Self::Flag => value.is_boolean() || value.as_str().is_some_and(is_template),
            Self::Table | Self::Selector => {
                value.as_object().is_some_and(|fields| fields.values().all(Value::is_string))
            }
            Self::Json | Self::Record => value.is_object(),
            Self::Address => value.as_str().is_some_and(|text| http::check_address(text).is_ok()),
            Self::Literal => value.as_str().is_some_and(|text| !text.is_empty() && !is_template(text)),
            Self::Choice(choices) => value.as_str().is_some_and(|text| choices.contains(&text)),
            Self::Switch => value.is_boolean(),
            Self::Statuses => http::are_statuses(value),
            Self::Places => http::are_places(value),
            Self::Name => value.as_str().is_some_and(|name| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            }),
        }
    }

    /// True if a text is a mailbox or a template. A template is checked after rendering.
    fn may_be_mailbox(self, text: &str) -> bool {
        is_template(text) || if self == Self::Sender { sender(text).is_ok() } else { text.parse::<Mailbox>().is_ok() }
    }

    /// Returns what is wrong with a value from a flow file that this type does not accept, where more can be told than the
    /// [description](Self::describe).
    pub fn problem(self, value: &Value) -> Option<String> {
        match (self, value) {
            (Self::Address, Value::String(text)) => http::check_address(text).err().map(str::to_owned),
            (Self::Choice(choices), _) => Some(format!("it may be {}", choices.join(", "))),
            _ => None,
        }
    }

    /// Returns a description for error messages.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Text | Self::Id => "a text",
            Self::Html => "a text, sent as HTML",
            Self::Sender | Self::Email => "an address such as \"dana@work.test\" or \"Dana <dana@work.test>\"",
            Self::Mailboxes => "an address such as \"dana@work.test\" or \"Dana <dana@work.test>\", or a list of them",
            Self::Texts => "a text or a list of texts",
            Self::Number => "a whole number from 0",
            Self::Flag => "true, false, or a text such as \"{{ not user.unsafe_metadata.newsletter }}\"",
            Self::Table | Self::Selector => "a table of texts, such as { plan = \"pro\" }",
            Self::Json | Self::Record => "a table, such as { text = \"hi\", count = 1 }",
            Self::Address => "an address such as \"https://host/path\", without user, password and dot segments",
            Self::Name => "a name of a-z, 0-9 and _",
            Self::Literal => "a text without {{ }}",
            Self::Choice(_) => "one of a few texts",
            Self::Switch => "true or false",
            Self::Statuses => "a list of statuses such as [\"2xx\", \"404\"]",
            Self::Places => "a table such as { text = \"choices.0.text\" }, each name with its place in the answer",
        }
    }
}

pub(super) const fn required(name: &'static str, shape: ParamType) -> Param {
    Param { name, required: true, shape, variable: None, takes_secrets: false, clears: false }
}

pub(super) const fn optional(name: &'static str, shape: ParamType) -> Param {
    Param { name, required: false, shape, variable: None, takes_secrets: false, clears: false }
}

pub(super) const fn optional_or(name: &'static str, shape: ParamType, variable: &'static str) -> Param {
    Param { name, required: false, shape, variable: Some(variable), takes_secrets: false, clears: false }
}

/// Returns an optional parameter whose empty result clears the destination's value.
pub(super) const fn clearing(name: &'static str, shape: ParamType) -> Param {
    Param { name, required: false, shape, variable: None, takes_secrets: false, clears: true }
}
