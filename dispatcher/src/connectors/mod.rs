//! The destinations, one file each.
//!
//! A connector knows everything of its destination and nothing of flows, retries or the store: it turns parameters into
//! an exact request, sends one, and says what it came to. Adding one costs a file and its lines in the lists below.

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

/// How long one attempt may take in all, unless its step says otherwise.
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(30);

/// How long destinations with idempotency keys are relied on to remember them: they say a day, and clocks differ.
const KEYS_LIVE: Duration = Duration::from_secs(23 * 3600);

/// Every connector and what it can do, for the check of flow files.
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

/// What an account may be asked where nobody says (`<NAME>_QUOTA`), and whether that is only assumed: then the
/// destination's own word, in the headers of its answers, counts instead.
const QUOTAS: [(&str, &str, bool); 4] = [
    // Ten a second for teams of today; two for those of before, which their headers say.
    ("resend", "2/s", true),
    // Each endpoint has 25 a second; a live account has four times as many in all.
    ("stripe", "20/s", false),
    // The free plan's; others say more.
    ("novu", "60/s", true),
    // Ten for all that use the key; somebody else may.
    ("mailchimp", "8 at once", false),
];

/// What a connector's account may be asked, and whether that is only assumed. Reads `<NAME>_QUOTA`.
pub(crate) fn quota(connector: &str, environment: &Environment) -> Result<(Quota, bool), ConfigError> {
    let variable = format!("{}_QUOTA", connector.to_uppercase());
    let read = |text: &str| text.parse().map_err(|error| ConfigError::new(&variable, error));
    if let Some(text) = environment.get(&variable)? {
        return Ok((read(&text)?, false));
    }
    let default = QUOTAS.iter().find(|(name, ..)| *name == connector);
    default.map_or_else(|| Ok(Default::default()), |(_, text, assumed)| Ok((read(text)?, *assumed)))
}

/// True if a connector's destination may announce limits in its answers. A mail server and a database have no headers,
/// and behind `http` there is a receiver of its own for each address: what one of them says does not hold for the
/// others.
pub(crate) fn may_announce(connector: &str) -> bool {
    !matches!(connector, "smtp" | "database" | "http")
}

/// What the names of a connector's settings begin with. One that can do without any is not here.
pub const SETTINGS: &[(&str, &str)] = &[
    ("resend", "RESEND_"),
    ("smtp", "SMTP_"),
    ("stripe", "STRIPE_"),
    ("mailchimp", "MAILCHIMP_"),
    ("novu", "NOVU_"),
    ("algolia", "ALGOLIA_"),
    ("nylas", "NYLAS_"),
];

/// Something a connector can do.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name, after the connector's and a dot.
    pub name: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// Whether it sends a template's HTML and text, as `html` and `text`.
    pub takes_template: bool,
    /// Which of its parameters are addresses of people that it writes to; the first is whom it is for. Whoever must not be
    /// written to is left out of them.
    pub writes_to: &'static [&'static str],
}

impl Operation {
    /// Whether it is a mail with headers of the flow's choice.
    pub fn takes_headers(&self) -> bool {
        self.params.iter().any(|param| param.name == HEADERS)
    }
}

/// The parameter that holds a mail's own headers.
pub(crate) const HEADERS: &str = "headers";

/// What a connector can do under this name.
pub fn operation(connector: &str, name: &str) -> Option<&'static Operation> {
    let (_, operations) = OPERATIONS.iter().find(|(known, _)| *known == connector)?;
    operations.iter().find(|operation| operation.name == name)
}

/// A parameter of an operation.
#[derive(Debug, PartialEq, Eq)]
pub struct Param {
    /// Its key in the flow file.
    pub name: &'static str,
    /// Whether a flow must give it.
    pub required: bool,
    /// What it may be.
    pub shape: ParamType,
    /// The variable that stands in where a flow does not give it; then one of the two must.
    pub variable: Option<&'static str>,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamType {
    /// A text, rendered as a template.
    Text,
    /// A text that is sent as HTML: what a template puts into it is escaped.
    Html,
    /// One mailbox, and none in its name: who a mail is from.
    Sender,
    /// One mailbox, or a list of them.
    Mailboxes,
    /// One mailbox of which the address alone is sent.
    Email,
    /// A text or a list of texts.
    Texts,
    /// A whole number.
    Number,
    /// A table of texts.
    Table,
    /// A table of any JSON. A text that is one `{{ expression }}` has the expression's type; one that comes out empty
    /// is left out. It is rendered to the text of its JSON.
    Json,
    /// The same, in which one that comes out empty is null: it is written over what is there.
    Record,
    /// A table of texts that say who is meant. One that comes out empty is null, for without it others would be meant.
    Whose,
    /// An address that is the same for every event: what comes with an event must not choose where it is sent.
    Address,
    /// A name from the flow's file or the environment, never from an event.
    Name,
}

impl ParamType {
    /// Whether a value has this shape.
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

    /// A template is looked at when it is rendered.
    fn may_be_mailbox(self, text: &str) -> bool {
        is_template(text) || if self == Self::Sender { sender(text).is_ok() } else { text.parse::<Mailbox>().is_ok() }
    }

    /// How to say what it is.
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

/// What an operation is to do it with.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The operation's name.
    pub operation: &'a str,
    /// Its parameters, rendered; a text that came out empty is absent, or null in a [`ParamType::Record`] and a
    /// [`ParamType::Whose`]. A [`ParamType::Json`] is a text: see `json`.
    pub params: &'a Map<String, Value>,
    /// The event that started the run.
    pub event: &'a Event,
    /// The event's `data` as a tree, in which a number or a depth that no tree has stands as the text that was sent;
    /// see `sent`.
    pub data: &'a Value,
    /// How often the run was ordered to be done anew.
    pub rerun: u32,
}

impl<'a> StepInput<'a> {
    /// The event's `data` as it was sent; none where it has none.
    fn sent(&self) -> Option<Json<'a>> {
        subject::data(self.event)
    }

    /// A parameter of any JSON, as text: numbers have the digits that were sent.
    fn json(&self, name: &str) -> Option<&'a str> {
        self.params.get(name)?.as_str()
    }

    /// A parameter that may not be empty.
    fn required(&self, name: &str) -> Result<&Value, PrepareError> {
        self.params.get(name).ok_or_else(|| PrepareError(format!("{name} came out empty")))
    }

    /// Who a mail is from: the parameter, else what the settings say.
    fn sender(&self, default: Option<&Mailbox>) -> Result<Mailbox, PrepareError> {
        match self.params.get("from") {
            Some(text) => sender(text.as_str().unwrap_or_default()).map_err(|error| not_an_address("from", error)),
            None => default.cloned().ok_or_else(|| PrepareError(format!("from is not given, and {FROM} is not set"))),
        }
    }

    /// The mailboxes of a parameter, none where it is absent. Each text is one, or the request is refused.
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

    /// Whom a mail is to; at least one.
    fn recipients(&self) -> Result<Vec<Mailbox>, PrepareError> {
        self.required("to")?;
        let to = self.mailboxes("to")?;
        if to.is_empty() { Err(PrepareError("to came out empty".into())) } else { Ok(to) }
    }

    /// What a mail is about, in one line.
    fn subject(&self) -> Result<String, PrepareError> {
        Ok(one_line(self.required("subject")?.as_str().unwrap_or_default()))
    }

    /// The headers that a mail has besides its own, each in one line.
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

    /// The address of a person, where it is given.
    fn email(&self) -> Result<Option<String>, PrepareError> {
        Ok(self.mailboxes("email")?.pop().map(|mailbox| mailbox.address))
    }
}

fn cannot_set(header: &str) -> PrepareError {
    PrepareError(format!("headers cannot set {header:?}"))
}

/// The variable that says who mails are from where a flow does not.
const FROM: &str = "USHER_FROM";

/// Who mails are from where a flow does not say.
pub(crate) fn default_sender(environment: &Environment) -> Result<Option<Mailbox>, ConfigError> {
    let read = |text: String| {
        let sender = sender(&text).and_then(Mailbox::with_ascii_domain);
        sender.map_err(|error| ConfigError::new(FROM, format!("it is {error}")))
    };
    environment.get(FROM)?.map(read).transpose()
}

/// Reads who a mail is from. A name that holds another address would be shown in its place, or be read as a second one.
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

/// Whether a text of a flow is a template.
fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// What a step of a flow asks of a connector, as its file says it: nothing is rendered yet.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    /// The flow's name.
    pub flow: &'a str,
    /// The step's name.
    pub step: &'a str,
    /// Its parameters.
    pub params: &'a Map<String, Value>,
}

impl Use<'_> {
    /// A parameter that is given as a text.
    fn text(&self, name: &str) -> Option<&str> {
        self.params.get(name).and_then(Value::as_str)
    }

    /// The parameter cannot be what it is.
    fn wrong(&self, param: &str, why: &str) -> ConfigError {
        ConfigError::new(&format!("flow {}, step {}, {param}", self.flow, self.step), why)
    }
}

/// A request cannot be made of these inputs. Names the parameter, not its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PrepareError(pub String);

/// What a destination makes of the same request under the same idempotency key, when it comes a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// A repeated write leaves the same state.
    Natural,
    /// Requests with the same key have one effect, for this long.
    KeyFor(Duration),
    /// A repeated request has its effect again.
    None,
}

/// Whether a request whose answer was lost has had its effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// It has.
    Found(crate::engine::Effect),
    /// It has not, and will not.
    Absent,
    /// The destination cannot say.
    Unknown,
    /// It does not answer now, but will: an outcome to repeat.
    Later(Outcome),
}

/// One destination.
#[async_trait]
pub trait Connector: Send + Sync {
    /// What the destination remembers.
    fn idempotency(&self) -> Idempotency;

    /// Asks the destination whether an earlier attempt had its effect. Called where its idempotency does not answer that.
    async fn lookup(&self, request: &[u8], idempotency_key: &str) -> Lookup {
        let _ = (request, idempotency_key);
        Lookup::Unknown
    }

    /// Whether what flows ask for goes together with these settings. Asked once, before anything starts. What only the
    /// destination could say does not prevent a start while the destination is not there.
    async fn check(&self, uses: &[Use<'_>]) -> Result<(), ConfigError> {
        let _ = uses;
        Ok(())
    }

    /// The accounts behind this one, where the quota is of each and not of all together: mailboxes, say. None for most.
    fn sub_accounts(&self) -> Vec<String> {
        Vec::new()
    }

    /// Which of them a request goes through.
    fn part(&self, request: &[u8]) -> Option<String> {
        let _ = request;
        None
    }

    /// The exact request, as bytes that only this connector reads. A pure function of its inputs, but for a date that the
    /// request carries: it is kept, and sent again as it is while its outcome is not known.
    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError>;

    /// Sends it once. `idempotency_key` is the same for every attempt that must have one effect between them.
    async fn attempt(&self, request: &[u8], idempotency_key: &str) -> Outcome;
}

/// The connectors that some flow uses, by name; in a dispatcher by [account](crate::engine::account).
pub type Connectors = BTreeMap<String, Arc<dyn Connector>>;

/// Makes the connectors that `used` names, each from its own settings. A missing key is told here, before anything
/// starts. `database` is where users are written.
///
/// # Errors
/// A setting is missing, or cannot be what it is.
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
            "http" => Arc::new(webhook::Webhook::from_environment(environment)?),
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

/// The setting `name`, which must be there.
fn setting(environment: &Environment, name: &str, what: &str) -> Result<String, ConfigError> {
    environment.get(name)?.ok_or_else(|| ConfigError::new(name, format!("not set: {what}")))
}

pub use fit::Unfit;
pub(crate) use fit::{check, fit, phones};
pub(crate) use rehearsal::for_rehearsal;
pub(crate) use request_gate::{RequestGate, calling};

#[cfg(test)]
mod testing;

/// Whether an outcome is a retry for this cause, or a rejection for this reason.
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

    /// One section a connector.
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

    /// Every example step is one that a flow can have.
    #[test]
    fn the_documentations_examples_are_steps() {
        let document = include_str!("../../../docs/destinations.md");
        let examples: Vec<&str> =
            document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert_eq!(examples.len(), OPERATIONS.len());
        for example in examples {
            let toml = format!("on = [\"clerk/user.created\"]\n{example}");
            let templates = [("welcome.html".to_owned(), "Hello".to_owned())].into();
            let (name, file) = ("example".to_owned(), "example.toml".to_owned());
            let source = crate::flows::FlowSource { name, file, toml, templates };
            if let Err(problems) = crate::flows::Flow::check(source) {
                panic!("{example}{problems:?}");
            }
        }
    }

    /// What a variable says about a real service to test against. Without it the test does nothing, and says so; with
    /// `CI` set that is a failure.
    pub(super) fn real(variable: &str) -> Option<String> {
        let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
        if value.is_none() {
            assert!(std::env::var_os("CI").is_none(), "CI is set, so {variable} must say what to test against");
            // The harness swallows what the macros print, not what is written.
            let _ = writeln!(std::io::stderr(), "not run here: {variable} is not set");
        }
        value
    }
}
