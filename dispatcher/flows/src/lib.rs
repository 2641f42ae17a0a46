//! Flows: files that define the events that start a run, and the steps of the run. All flow files are read and checked
//! before anything starts.

mod arrival;
mod builtin;
mod check;
mod context;
mod events;
mod examples;
mod files;
mod flow_settings;
mod functions;
mod greeting;
mod lexer;
mod nulls;
mod pieces;
mod plain_text;
mod problem;
mod rehearsal;
mod schedule;
mod sent;
mod source;
mod template;
mod times;
mod wait;

use std::collections::BTreeSet;
use std::time::Duration;

pub use builtin::builtin;
pub use context::Context;
pub use examples::examples;
pub use files::FlowFiles;
pub use flow_settings::FlowSettings;
pub use problem::Problem;
pub use rehearsal::{
    FlowTimeline, MailPreview, NotAPreviewEvent, PlannedAction, PlannedStep, PreviewEvent, PreviewOutcome,
};
pub use schedule::{InvalidPace, Schedule, SubjectPace, firing_event};
use serde_json::{Map, Value};
pub use source::{FlowSource, read_folder};
pub use template::Unrenderable;
pub use template::{evaluate, render, render_some};
use usher_connectors::StepUse;
use usher_engine::RetryPolicy;
use usher_engine::start::StartFrom;
use usher_proto::{Event, Instance, Source};
pub use wait::Wait;

/// Longest duration that a flow may specify, and longest wait. A longer one is assumed to be a typing error.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 24 * 3600);

/// A flow that has been checked.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The name of the flow: the name of its file without `.toml`.
    pub name: String,
    /// A digest of the flow's file and templates. A run continues with the version that it began with.
    pub version: String,
    /// The source text that the flow was read from.
    pub source: FlowSource,
    /// False if the flow runs only where it is named.
    pub enabled: bool,
    /// Patterns of the events that start a run. Empty if the flow has a schedule.
    pub on: Vec<Pattern>,
    /// The schedule by which the flow starts; `None` if events start it.
    pub schedule: Option<Schedule>,
    /// Patterns of the events that cancel the earlier runs of their key.
    pub cancel_on: Vec<Pattern>,
    /// An expression on an event of `cancel_on`. If it is false, the event cancels nothing.
    pub cancel_if: Option<String>,
    /// The sender's instances whose events start a run.
    pub instances: BTreeSet<Instance>,
    /// True if calls of this flow have priority over those of other flows.
    pub urgent: bool,
    /// An expression on the event. If it is false, the event starts no run.
    pub starts_if: Option<String>,
    /// Starting point in the log if the flow has never read it.
    pub from: Option<StartFrom>,
    /// Maximum number of steps in flight in one process.
    pub concurrency: usize,
    /// Maximum age of an event. A run that reaches it expires. `None` if runs do not expire.
    pub expires_after: Option<Duration>,
    /// An expression on the event. If it is false, the run does not expire.
    pub expires_if: Option<String>,
    /// Names of the fields of subjects that the flow stores, to determine which of them an event changes.
    pub remember: Vec<String>,
    /// The former name of the flow, whose runs, positions and pause it takes over; `None` if it always had this one.
    pub was: Option<String>,
    /// The retry policy for failed attempts.
    pub retry: RetryPolicy,
    /// The variables of the environment that the flow names.
    pub settings: FlowSettings,
    /// The steps in order, at least one.
    pub steps: Vec<FlowStep>,
    /// Warnings about parts that can run but may be unintended. Empty unless the flow was checked.
    pub warnings: Vec<Problem>,
}

/// One step of a flow.
#[derive(Debug, Clone)]
pub struct FlowStep {
    /// The name of the step, unique in the flow. Later steps access its result as `steps.<name>`.
    pub name: String,
    /// An expression that is evaluated when the step is due. If it is false, the step is skipped.
    pub when: Option<String>,
    /// The action of the step.
    pub action: Action,
}

impl FlowStep {
    /// True if the step is also executed when its subject was deleted in the meantime.
    pub fn for_deleted(&self) -> bool {
        matches!(&self.action, Action::Call(Call { for_deleted: true, .. }))
    }
}

/// The action of a step.
#[derive(Debug, Clone)]
pub enum Action {
    /// Waits.
    Wait(Wait),
    /// One call of a connector.
    Call(Call),
}

/// One call of a connector.
#[derive(Debug, Clone)]
pub struct Call {
    /// The connector's name.
    pub connector: String,
    /// The operation's name.
    pub operation: String,
    /// The parameters by name. Strings in them are templates.
    pub params: Map<String, Value>,
    /// The name of the template whose HTML and text are sent.
    pub template: Option<String>,
    /// The mailing list of a marketing mail; `None` for other calls. Recipients can unsubscribe from the list and are
    /// then no longer written to.
    pub marketing: Option<String>,
    /// The value that must be present before the call can be made.
    pub needs: Option<Needs>,
    /// Maximum duration of one attempt.
    pub timeout: Duration,
    /// The decision when it cannot be determined whether an attempt took effect.
    pub on_unknown_outcome: OnUnknownOutcome,
    /// True if the call is also made when its subject was deleted in the meantime, because it cleans up or warns.
    pub for_deleted: bool,
    /// True if the step is passed over where its destination is not configured.
    pub optional: bool,
}

/// The decision when it cannot be determined whether an attempt took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknownOutcome {
    /// Send again: a duplicate is preferred to a loss.
    Send,
    /// Dead-letter the run for an operator to inspect: a loss is preferred to a duplicate.
    DeadLetter,
}

/// A value that a step requires, and the maximum time to wait for it.
#[derive(Debug, Clone)]
pub struct Needs {
    /// An expression, for example `user.email`. The value is present if it is neither undefined nor none nor empty.
    pub value: String,
    /// Maximum time that the run waits for an event of its subject that provides the value. After it the step has
    /// nothing to do.
    pub within: Duration,
}

/// A pattern of event types: `source/type`, where the type may end in `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    source: Source,
    kind: String,
    prefix: bool,
}

impl Pattern {
    /// Parses `source/type` or `source/type.*`; `None` if the text is not a valid pattern.
    pub fn parse(text: &str) -> Option<Self> {
        let (source, kind) = text.split_once('/')?;
        let source = source.parse().ok()?;
        let (kind, prefix) = kind.strip_suffix('*').map_or((kind, false), |prefix| (prefix, true));
        let valid = !kind.contains('*') && (prefix || !kind.is_empty());
        valid.then(|| Self { source, kind: kind.to_owned(), prefix })
    }

    /// Returns the type, or the prefix of types.
    fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns the sender of the events that match.
    pub fn source(&self) -> Source {
        self.source
    }

    /// True if the pattern matches all types that begin with its text.
    fn is_prefix(&self) -> bool {
        self.prefix
    }

    /// True if a type matches the pattern. The source is not compared.
    fn takes(&self, kind: &str) -> bool {
        if self.prefix { kind.starts_with(&self.kind) } else { kind == self.kind }
    }

    /// True if the event matches the pattern.
    pub fn matches(&self, event: &Event) -> bool {
        self.takes(&event.kind) && event.source == self.source
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let star = if self.prefix { "*" } else { "" };
        write!(formatter, "{}/{}{star}", self.source.label(), self.kind)
    }
}

impl Flow {
    /// Reads a flow that was checked when it was new. Problems that do not prevent it from running are accepted.
    ///
    /// # Errors
    ///
    /// The flow cannot run. The error lists every problem that prevents it, and also the problems that
    /// are otherwise accepted.
    pub fn read(source: FlowSource) -> Result<Self, Vec<Problem>> {
        check::read(source).map(|reading| reading.flow)
    }

    /// Reads a flow and rehearses it with a sample of every event that it starts on.
    ///
    /// # Errors
    ///
    /// The flow cannot run, or parts of it would never work. The error lists every problem.
    pub fn check(source: FlowSource) -> Result<Self, Vec<Problem>> {
        let check::Reading { flow, lines, objections } = check::read(source)?;
        if !objections.is_empty() {
            return Err(Problem::in_order(objections));
        }
        let rehearsal::Findings { errors, warnings } = rehearsal::rehearse(&flow, &lines);
        if errors.is_empty() { Ok(Self { warnings, ..flow }) } else { Err(errors) }
    }

    /// Returns a problem if two flows are the same one by their former names: `was` names a flow that has a file, or two flows name
    /// the same.
    pub fn same_by_former_name(flows: &[Self]) -> Option<Problem> {
        flows.iter().enumerate().find_map(|(at, flow)| {
            let was = flow.was.as_ref()?;
            let has_file = flows.iter().any(|other| other.name == *was);
            let twin = flows[..at].iter().find(|other| other.was.as_ref() == Some(was));
            let why = match twin {
                Some(other) => format!("{} has the same former name", other.name),
                None if has_file => "a flow of that name has a file: one of the two goes on with its runs".to_owned(),
                None => return None,
            };
            Some(Problem { file: flow.source.file.clone(), line: 1, message: format!("was = \"{was}\": {why}") })
        })
    }

    /// Returns the connector that a step uses; `None` for a wait and for an index beyond the last step.
    pub fn connector(&self, step: usize) -> Option<&str> {
        match &self.steps.get(step)?.action {
            Action::Call(call) => Some(&call.connector),
            Action::Wait(_) => None,
        }
    }

    /// Returns the connectors of all steps, in order and with duplicates.
    pub fn connectors(&self) -> impl Iterator<Item = &str> {
        (0..self.steps.len()).filter_map(|step| self.connector(step))
    }

    /// Returns the steps that use a connector, each with the connector's name.
    pub fn uses(&self) -> impl Iterator<Item = (&str, StepUse<'_>)> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Call(call) => {
                let (flow, step, operation) = (self.name.as_str(), step.name.as_str(), call.operation.as_str());
                Some((call.connector.as_str(), StepUse { flow, step, operation, params: &call.params }))
            }
            Action::Wait(_) => None,
        })
    }

    /// Returns the names of the secrets that the steps name, each with the step.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, String)> {
        self.uses().flat_map(|(_, used)| {
            let names = usher_connectors::secrets_of(used.params);
            names.into_iter().map(move |name| (used.step, name))
        })
    }

    /// Returns the steps that are passed over where their destination is not configured, each with its connector.
    pub fn optional(&self) -> impl Iterator<Item = (&str, &str)> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Call(call) if call.optional => Some((step.name.as_str(), call.connector.as_str())),
            Action::Call(_) | Action::Wait(_) => None,
        })
    }

    /// Returns the connectors that the flow cannot do without, in order and with duplicates.
    pub fn required(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Call(call) if !call.optional => Some(call.connector.as_str()),
            Action::Call(_) | Action::Wait(_) => None,
        })
    }

    /// Returns the name of the first step that sends marketing mail, or `None` if there is none.
    pub fn marketing(&self) -> Option<&str> {
        let is_marketing = |step: &&FlowStep| matches!(&step.action, Action::Call(call) if call.marketing.is_some());
        self.steps.iter().find(is_marketing).map(|step| step.name.as_str())
    }

    /// True if this step or a later one is also executed when its subject was deleted in the meantime.
    pub fn goes_on_deleted(&self, step: usize) -> bool {
        self.steps.iter().skip(step).any(FlowStep::for_deleted)
    }
}
