//! Connectors, one file per destination.
//!
//! A connector contains all knowledge about its destination and none about flows, retries or the store: it turns
//! parameters into an exact request, sends the request, and classifies the answer as an outcome. A new connector needs
//! a file and its entries in the lists below.

mod fit;
mod http;
mod limits;
mod path;
mod rehearsal;

mod algolia;
mod database;
mod mailchimp;
mod novu;
mod nylas;
mod request_gate;
mod resend;
mod smtp;
mod stripe;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use usher_proto::address::{NotAnAddress, one_line};
use usher_proto::{Event, Json, Mailbox};
use usher_service::ConfigError;
use usher_service::options::Environment;

use crate::engine::Outcome;
use crate::engine::quota::Quota;
use crate::sql::Database;
use crate::subject;

/// Default time limit of one attempt as a whole; a step may set another one.
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(30);

/// Time for which a destination is relied on to remember an idempotency key. Destinations promise a day; the difference
/// allows for clock skew.
const KEYS_LIVE: Duration = Duration::from_secs(23 * 3600);

/// All connectors with their operations. The check of flow files reads this list.
pub const OPERATIONS: &[(&str, &[Operation])] = &[
    ("resend", resend::OPERATIONS),
    ("smtp", smtp::OPERATIONS),
    ("stripe", stripe::OPERATIONS),
    ("database", database::OPERATIONS),
    ("http", webhook::OPERATIONS),
    ("mailchimp", mailchimp::OPERATIONS),
    ("novu", novu::OPERATIONS),
    ("algolia", algolia::OPERATIONS),
    ("nylas", nylas::OPERATIONS),
];

/// Default quotas by connector, used where `<NAME>_QUOTA` is not set. The boolean is true if the quota is only assumed;
/// then the rate-limit headers of the destination's answers take precedence.
const QUOTAS: [(&str, &str, bool); 4] = [
    // New teams have ten requests per second; older teams have two, and their rate-limit headers report it.
    ("resend", "2/s", true),
    // Each endpoint allows 25 requests per second. The whole of a live account allows four times as many.
    ("stripe", "20/s", false),
    // The limit of the free plan. Other plans report a higher one.
    ("novu", "60/s", true),
    // Mailchimp allows ten concurrent requests per key. Two are left for other programs that use the key.
    ("mailchimp", "8 at once", false),
];

/// Returns the quota of a connector's account, and true if it is only assumed. Reads `<NAME>_QUOTA`.
pub(crate) fn quota(connector: &str, environment: &Environment) -> Result<(Quota, bool), ConfigError> {
    let variable = format!("{}_QUOTA", connector.to_uppercase());
    let read = |text: &str| text.parse().map_err(|error| ConfigError::new(&variable, error));
    if let Some(text) = environment.get(&variable)? {
        return Ok((read(&text)?, false));
    }
    let default = QUOTAS.iter().find(|(name, ..)| *name == connector);
    default.map_or_else(|| Ok(Default::default()), |(_, text, assumed)| Ok((read(text)?, *assumed)))
}

/// True if the answers of a connector's destination may contain rate limits. A mail server and a database have no
/// headers. `http` has a different receiver behind each address, so the limits of one do not apply to the others.
pub(crate) fn may_announce(connector: &str) -> bool {
    !matches!(connector, "smtp" | "database" | "http")
}

/// Prefixes of the settings' names by connector. Connectors that need no setting are not listed.
pub const SETTINGS: &[(&str, &str)] = &[
    ("resend", "RESEND_"),
    ("smtp", "SMTP_"),
    ("stripe", "STRIPE_"),
    ("mailchimp", "MAILCHIMP_"),
    ("novu", "NOVU_"),
    ("algolia", "ALGOLIA_"),
    ("nylas", "NYLAS_"),
];

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
pub(crate) const HEADERS: &str = "headers";

/// Returns the connector's operation of this name, or `None` if there is none.
pub fn operation(connector: &str, name: &str) -> Option<&'static Operation> {
    let (_, operations) = OPERATIONS.iter().find(|(known, _)| *known == connector)?;
    operations.iter().find(|operation| operation.name == name)
}

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
}

/// Type of a parameter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamType {
    /// A text, rendered as a template.
    Text,
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
    /// A table of texts.
    Table,
    /// A table of any JSON values. A text that consists of one `{{ expression }}` has the expression's type; an empty
    /// result is omitted. The table is rendered to its JSON text.
    Json,
    /// As `Json`, but it stays a table, and an empty result is null, which overwrites the destination's value.
    Record,
    /// A table of texts that select the affected objects. An empty result is rendered as null: if it were omitted, the
    /// selection would match other objects.
    Whose,
    /// An address that is the same for every event, so that data from an event cannot choose the destination.
    Address,
    /// A name from the flow file or the environment, never from an event.
    Name,
}

impl ParamType {
    /// True if a value from a flow file has this type.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Text | Self::Html => value.is_string(),
            Self::Sender | Self::Email => value.as_str().is_some_and(|text| self.may_be_mailbox(text)),
            Self::Mailboxes => match value.as_array() {
                Some(items) => items.iter().all(|item| item.as_str().is_some_and(|text| self.may_be_mailbox(text))),
                None => value.as_str().is_some_and(|text| self.may_be_mailbox(text)),
            },
            Self::Texts => {
                value.is_string() || value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
            }
            Self::Number => value.is_u64(),
            Self::Table | Self::Whose => value.as_object().is_some_and(|fields| fields.values().all(Value::is_string)),
            Self::Json | Self::Record => value.is_object(),
            Self::Address => value.as_str().is_some_and(webhook::is_address),
            Self::Name => value.as_str().is_some_and(|name| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            }),
        }
    }

    /// True if a text is a mailbox or a template. A template is checked after rendering.
    fn may_be_mailbox(self, text: &str) -> bool {
        is_template(text) || if self == Self::Sender { sender(text).is_ok() } else { text.parse::<Mailbox>().is_ok() }
    }

    /// Returns a description for error messages.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Html => "a text, sent as HTML",
            Self::Sender | Self::Email => "an address such as \"dana@work.test\" or \"Dana <dana@work.test>\"",
            Self::Mailboxes => "an address such as \"dana@work.test\" or \"Dana <dana@work.test>\", or a list of them",
            Self::Texts => "a text or a list of texts",
            Self::Number => "a whole number from 0",
            Self::Table | Self::Whose => "a table of texts, such as { plan = \"pro\" }",
            Self::Json | Self::Record => "a table, such as { text = \"hi\", count = 1 }",
            Self::Address => "an address such as \"https://host/path\", without user, password, dot segments and {{ }}",
            Self::Name => "a name of a-z, 0-9 and _",
        }
    }
}

const fn required(name: &'static str, shape: ParamType) -> Param {
    Param { name, required: true, shape, variable: None }
}

const fn optional(name: &'static str, shape: ParamType) -> Param {
    Param { name, required: false, shape, variable: None }
}

const fn optional_or(name: &'static str, shape: ParamType, variable: &'static str) -> Param {
    Param { name, required: false, shape, variable: Some(variable) }
}

/// Input from which an operation's request is built.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// Name of the operation.
    pub operation: &'a str,
    /// Rendered parameters. An empty text is absent, or null in a [`ParamType::Record`] and a [`ParamType::Whose`]. A
    /// [`ParamType::Json`] is a text: see `json`.
    pub params: &'a Map<String, Value>,
    /// Event that started the run.
    pub event: &'a Event,
    /// The event's `data` as a tree. Counts and nesting that the tree cannot represent are replaced by the text that
    /// was sent; see `sent`.
    pub data: &'a Value,
    /// Number of reruns ordered for the run.
    pub rerun: u32,
}

impl<'a> StepInput<'a> {
    /// Returns the event's `data` as it was sent, or `None` if the event has no data.
    fn sent(&self) -> Option<Json<'a>> {
        subject::data(self.event)
    }

    /// Returns a [`ParamType::Json`] parameter as text. Counts keep the digits that were sent.
    fn json(&self, name: &str) -> Option<&'a str> {
        self.params.get(name)?.as_str()
    }

    /// Returns a parameter, or an error if it is empty.
    fn required(&self, name: &str) -> Result<&Value, PrepareError> {
        self.params.get(name).ok_or_else(|| PrepareError(format!("{name} came out empty")))
    }

    /// Returns the sender of a mail: the `from` parameter, or else the default from the settings.
    fn sender(&self, default: Option<&Mailbox>) -> Result<Mailbox, PrepareError> {
        match self.params.get("from") {
            Some(text) => sender(text.as_str().unwrap_or_default()).map_err(|error| not_an_address("from", error)),
            None => default.cloned().ok_or_else(|| PrepareError(format!("from is not given, and {FROM} is not set"))),
        }
    }

    /// Returns the mailboxes of a parameter; none if it is absent. Fails if one of its texts is not a mailbox.
    fn mailboxes(&self, name: &str) -> Result<Vec<Mailbox>, PrepareError> {
        let texts = match self.params.get(name) {
            None => &[][..],
            Some(Value::Array(texts)) => texts,
            Some(text) => std::slice::from_ref(text),
        };
        let read =
            |text: &Value| text.as_str().unwrap_or_default().parse().map_err(|error| not_an_address(name, error));
        texts.iter().map(read).collect()
    }

    /// Returns the recipients of a mail. Fails if there is none.
    fn recipients(&self) -> Result<Vec<Mailbox>, PrepareError> {
        self.required("to")?;
        let to = self.mailboxes("to")?;
        if to.is_empty() { Err(PrepareError("to came out empty".into())) } else { Ok(to) }
    }

    /// Returns the subject of a mail, folded into one line.
    fn subject(&self) -> Result<String, PrepareError> {
        Ok(one_line(self.required("subject")?.as_str().unwrap_or_default()))
    }

    /// Returns the additional headers of a mail, each value folded into one line.
    fn headers(&self) -> Result<Vec<(&'a str, String)>, PrepareError> {
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
    fn email(&self) -> Result<Option<String>, PrepareError> {
        Ok(self.mailboxes("email")?.pop().map(|mailbox| mailbox.address))
    }
}

fn cannot_set(header: &str) -> PrepareError {
    PrepareError(format!("headers cannot set {header:?}"))
}

/// Variable that holds the default sender of mails.
const FROM: &str = "USHER_FROM";

/// Returns the default sender of mails, used where a flow sets no `from`. Reads `USHER_FROM`.
pub(crate) fn default_sender(environment: &Environment) -> Result<Option<Mailbox>, ConfigError> {
    let read = |text: String| {
        let sender = sender(&text).and_then(Mailbox::with_ascii_domain);
        sender.map_err(|error| ConfigError::new(FROM, format!("it is {error}")))
    };
    environment.get(FROM)?.map(read).transpose()
}

/// Parses a sender. Fails if the display name contains another address: mail clients could show that one instead, or
/// parse it as a second sender.
fn sender(text: &str) -> Result<Mailbox, NotAnAddress> {
    let mailbox: Mailbox = text.parse()?;
    let is_address =
        |word: &str| word.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    let between = |c: char| c.is_whitespace() || ",;:<>()\"".contains(c);
    if mailbox.name.split(between).any(is_address) { Err(NotAnAddress) } else { Ok(mailbox) }
}

fn not_an_address(name: &str, error: NotAnAddress) -> PrepareError {
    PrepareError(format!("{name} is {error}"))
}

/// True if a text from a flow file is a template.
fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// A step of a flow that uses a connector, as the flow file has it: nothing is rendered yet.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    /// Name of the flow.
    pub flow: &'a str,
    /// Name of the step.
    pub step: &'a str,
    /// Parameters of the step.
    pub params: &'a Map<String, Value>,
}

impl Use<'_> {
    /// Returns a parameter that is a text.
    fn text(&self, name: &str) -> Option<&str> {
        self.params.get(name).and_then(Value::as_str)
    }

    /// Returns the error that a parameter is invalid for the reason `why`.
    fn wrong(&self, param: &str, why: &str) -> ConfigError {
        ConfigError::new(&format!("flow {}, step {}, {param}", self.flow, self.step), why)
    }
}

/// A request cannot be built from these inputs. The message names the parameter, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PrepareError(pub String);

/// Effect of a repeated request with the same idempotency key at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// Repeating a write leaves the same state.
    Natural,
    /// Requests with the same key have one effect within this time.
    KeyFor(Duration),
    /// A repeated request has its effect again.
    None,
}

/// Result of looking up the effect of a request whose answer was lost.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// The request had its effect.
    Found(crate::engine::Effect),
    /// The request had no effect and will have none.
    Absent,
    /// The destination cannot answer this.
    Unknown,
    /// The destination cannot answer now. The outcome causes a retry.
    Later(Outcome),
}

/// Client of one destination.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Returns how the destination treats repeated requests.
    fn idempotency(&self) -> Idempotency;

    /// Queries the destination for the effect of an earlier attempt. Called where
    /// [`idempotency`](Connector::idempotency) does not already settle it.
    async fn lookup(&self, request: &[u8], idempotency_key: &str) -> Lookup {
        let _ = (request, idempotency_key);
        Lookup::Unknown
    }

    /// Checks that the flows' use of this connector is compatible with its settings. Called once, before anything
    /// starts. Facts that only the destination could report do not prevent a start while it is unreachable.
    ///
    /// # Errors
    ///
    /// A parameter of a step does not fit the settings, or a setting that a step needs is missing.
    async fn check(&self, uses: &[Use<'_>]) -> Result<(), ConfigError> {
        let _ = uses;
        Ok(())
    }

    /// Returns the sub-accounts of this account if the quota applies to each of them and not to all together, such as
    /// mailboxes. Most connectors have none.
    fn sub_accounts(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the sub-account that a request uses, or `None` if there are no sub-accounts.
    fn part(&self, request: &[u8]) -> Option<String> {
        let _ = request;
        None
    }

    /// Builds the exact request, as bytes that only this connector reads. A pure function of its inputs, except for a
    /// date in the request: the request is stored, and sent again unchanged while its outcome is unknown.
    ///
    /// # Errors
    ///
    /// The inputs do not make a valid request.
    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError>;

    /// Sends the request once. `idempotency_key` is the same for all attempts that must have a single effect.
    async fn attempt(&self, request: &[u8], idempotency_key: &str) -> Outcome;
}

/// The connectors that flows use, by name; in a dispatcher by [account](crate::engine::account).
pub type Connectors = BTreeMap<String, Arc<dyn Connector>>;

/// Opens the connectors that `used` names, each from its own settings. Missing settings are reported here, before
/// anything starts. `database` is the database that users are written to.
///
/// # Errors
///
/// A setting is missing or invalid, or a name is not a connector's.
pub fn open(used: &[&str], environment: &Environment, database: &Database) -> Result<Connectors, ConfigError> {
    open_with(used, environment, || Arc::new(database::Directory::new(database.clone())))
}

fn open_with(
    used: &[&str],
    environment: &Environment,
    directory: impl Fn() -> Arc<dyn Connector>,
) -> Result<Connectors, ConfigError> {
    let mut connectors = Connectors::new();
    for name in used {
        let connector: Arc<dyn Connector> = match *name {
            "resend" => Arc::new(resend::Resend::from_environment(environment)?),
            "smtp" => Arc::new(smtp::Smtp::from_environment(environment)?),
            "stripe" => Arc::new(stripe::Stripe::from_environment(environment)?),
            "database" => directory(),
            "http" => Arc::new(webhook::SignedPost::from_environment(environment)?),
            "mailchimp" => Arc::new(mailchimp::Mailchimp::from_environment(environment)?),
            "novu" => Arc::new(novu::Novu::from_environment(environment)?),
            "algolia" => Arc::new(algolia::Algolia::from_environment(environment)?),
            "nylas" => Arc::new(nylas::Nylas::from_environment(environment)?),
            other => return Err(ConfigError::new("use", format!("there is no connector {other}"))),
        };
        connectors.insert((*name).to_owned(), connector);
    }
    Ok(connectors)
}

/// Returns the setting `name`, or an error with the description `what` if it is not set.
fn setting(environment: &Environment, name: &str, what: &str) -> Result<String, ConfigError> {
    environment.get(name)?.ok_or_else(|| ConfigError::new(name, format!("not set: {what}")))
}

pub use fit::Unfit;
pub(crate) use fit::{check, fit, phones};
pub(crate) use rehearsal::for_rehearsal;
pub(crate) use request_gate::{RequestGate, calling};

#[cfg(test)]
mod testing;

/// Asserts that an outcome is a retry for this cause, or a rejection for this reason.
#[cfg(test)]
fn assert_outcome(outcome: &Outcome, expected: Result<crate::engine::Cause, usher_proto::Reason>, case: &str) {
    let found = match outcome {
        Outcome::Retry { cause, .. } => Some(Ok(*cause)),
        Outcome::Reject { reason, .. } => Some(Err(*reason)),
        Outcome::Done(_) | Outcome::Overtaken => None,
    };
    assert_eq!(found, Some(expected), "{case}");
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{ATTEMPT_DEADLINE, OPERATIONS};

    /// Each connector has a section of its own.
    #[test]
    fn the_documentation_names_every_operation_parameter_and_variable() {
        let document = include_str!("../../../docs/destinations.md");
        for (connector, operations) in OPERATIONS {
            let (_, section) = document.split_once(&format!("\n## `{connector}`\n")).expect(connector);
            let section = section.split("\n## ").next().unwrap_or_default();
            let named = |name: &str| section.contains(&format!("`{name}`"));
            for operation in *operations {
                assert!(named(&format!("{connector}.{}", operation.name)), "{connector}.{}", operation.name);
                for param in operation.params {
                    assert!(named(param.name), "{connector}.{}: {}", operation.name, param.name);
                    assert!(param.variable.is_none_or(named), "{connector}: {:?}", param.variable);
                }
                assert!(named("template") || !operation.takes_template, "{connector}: template");
            }
            for part in ["**Needed**", "**Does**", "**Limits**", "**Once**", "\n| answer | outcome |", "```toml"] {
                assert!(section.contains(part), "{connector}: {part}");
            }
        }
        assert!(document.contains(&format!("may take {} s", ATTEMPT_DEADLINE.as_secs())));
    }

    /// Every example step is valid in a flow.
    #[test]
    fn the_documentations_examples_are_steps() {
        let document = include_str!("../../../docs/destinations.md");
        let examples: Vec<&str> =
            document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert_eq!(examples.len(), OPERATIONS.len());
        for example in examples {
            let toml = format!("on = [\"clerk/user.created\"]\n{example}");
            let templates = [("welcome.html".to_owned(), "Hello".to_owned())].into();
            let name = "example".to_owned();
            let file = "example.toml".to_owned();
            let source = crate::flows::FlowSource { name, file, toml, templates };
            if let Err(problems) = crate::flows::Flow::check(source) {
                panic!("{example}{problems:?}");
            }
        }
    }

    /// Returns the value of a variable that names a real service to test against. If it is not set, the test does
    /// nothing and reports that on stderr; if `CI` is set, that is a failure.
    pub(super) fn real(variable: &str) -> Option<String> {
        let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
        if value.is_none() {
            assert!(std::env::var_os("CI").is_none(), "CI is set, so {variable} must say what to test against");
            // The test harness captures the output of macros such as `eprintln!`, but not direct writes to stderr.
            let _ = writeln!(std::io::stderr(), "not run here: {variable} is not set");
        }
        value
    }
}
