//! Flows: files that say which events start a run, and what its steps are. Read and checked whole before anything starts.

mod arrival;
mod builtin;
mod check;
mod context;
mod events;
mod functions;
mod greeting;
mod lexer;
mod nulls;
mod pieces;
mod problem;
mod rehearsal;
mod sent;
mod source;
mod template;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};
use usher_proto::{Event, Instance};

use crate::engine::RetryPolicy;
use crate::engine::start::From;

pub use builtin::builtin;
pub(crate) use context::Context;
pub use problem::Problem;
pub use source::{FlowSource, read_folder};
pub(crate) use template::Unrenderable;
pub(crate) use template::{evaluate, render, render_some};

/// A flow that has been checked.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Its name: the file's, without `.toml`.
    pub name: String,
    /// A digest of its file and templates: a run goes on with the version it began with.
    pub version: String,
    /// What it was read from.
    pub source: FlowSource,
    /// Which events start a run.
    pub on: Vec<Pattern>,
    /// Which events end the runs of their key that came before them.
    pub cancel_on: Vec<Pattern>,
    /// The sender's instances whose events start a run.
    pub instances: BTreeSet<Instance>,
    /// Whether its calls go before those of other flows.
    pub urgent: bool,
    /// An expression on the event: where it is false the event starts no run.
    pub starts_if: Option<String>,
    /// Where it begins if it has never read the log.
    pub from: Option<From>,
    /// Steps under way at once, in one process.
    pub concurrency: usize,
    /// How old an event may become before its run is worth nothing.
    pub expires_after: Option<Duration>,
    /// An expression on the event: where it is false the event does not expire.
    pub expires_if: Option<String>,
    /// Fields of subjects that it remembers, to know what an event changes.
    pub remember: Vec<String>,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// What is done, in order. At least one.
    pub steps: Vec<FlowStep>,
    /// Warnings about parts that can run and may not be meant. Empty unless the flow was checked.
    pub warnings: Vec<Problem>,
}

/// One step of a flow.
#[derive(Debug, Clone)]
pub struct FlowStep {
    /// Its name, unique in the flow; later steps see its result as `steps.<name>`.
    pub name: String,
    /// An expression looked at when the step is due; where it is false the step is skipped.
    pub when: Option<String>,
    /// What it does.
    pub action: Action,
}

impl FlowStep {
    /// Whether it is made also where its subject was deleted meanwhile.
    pub fn for_deleted(&self) -> bool {
        matches!(&self.action, Action::Call(Call { for_deleted: true, .. }))
    }
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Nothing, for this long.
    Wait(Duration),
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
    /// Its parameters; texts are templates.
    pub params: Map<String, Value>,
    /// The template whose HTML and text it sends.
    pub template: Option<String>,
    /// The list whose mail it is, if it is marketing: its recipients can end that, and are not written to once they have.
    pub marketing: Option<String>,
    /// What must be known before it can be made.
    pub needs: Option<Needs>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// What to do when it cannot be known whether an attempt took effect.
    pub on_unknown_outcome: OnUnknownOutcome,
    /// Whether it is made also where its subject was deleted meanwhile: it clears away, or warns.
    pub for_deleted: bool,
}

/// Which way to err when it cannot be known whether an attempt took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknownOutcome {
    /// Do it again: rather twice than not at all.
    Send,
    /// Give it up for somebody to look at: rather not at all than twice.
    DeadLetter,
}

/// A value that a step cannot do without, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Needs {
    /// An expression, for instance `user.email`. It is there when it is neither undefined, none nor empty.
    pub value: String,
    /// How long the run waits for news of its subject that bring it; then there is nothing to do.
    pub within: Duration,
}

/// Which events: `source/type`, where the type may end in `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    source: String,
    kind: String,
    prefix: bool,
}

impl Pattern {
    /// Reads `source/type` or `source/type.*`.
    pub fn parse(text: &str) -> Option<Self> {
        let (source, kind) = text.split_once('/')?;
        source.parse::<usher_proto::Source>().ok()?;
        let (kind, prefix) = kind.strip_suffix('*').map_or((kind, false), |prefix| (prefix, true));
        let valid = !kind.contains('*') && (prefix || !kind.is_empty());
        valid.then(|| Self { source: source.to_owned(), kind: kind.to_owned(), prefix })
    }

    /// The type that it names of Clerk's, or what its types begin with; none of another sender.
    fn clerk_type(&self) -> Option<&str> {
        (self.source == usher_proto::Source::Clerk.label()).then_some(&*self.kind)
    }

    /// True if it stands for all types that begin so.
    fn is_prefix(&self) -> bool {
        self.prefix
    }

    /// True if a type is one of these, whoever sends it.
    fn takes(&self, kind: &str) -> bool {
        if self.prefix { kind.starts_with(&self.kind) } else { kind == self.kind }
    }

    /// Whether the event is one of these.
    pub fn matches(&self, event: &Event) -> bool {
        self.takes(&event.kind) && event.source.label() == self.source
    }
}

impl Flow {
    /// Reads a flow that has been checked when it was new: whatever can run passes.
    ///
    /// # Errors
    /// Everything because of which it cannot run.
    pub fn read(source: FlowSource) -> Result<Self, Vec<Problem>> {
        check::read(source).map(|reading| reading.flow)
    }

    /// Reads a flow and rehearses it with a sample of every event that it starts on.
    ///
    /// # Errors
    /// Everything that is wrong with it: what cannot run, and what would never work.
    pub fn check(source: FlowSource) -> Result<Self, Vec<Problem>> {
        let check::Reading { flow, lines, objections } = check::read(source)?;
        if !objections.is_empty() {
            return Err(Problem::in_order(objections));
        }
        let rehearsal::Findings { errors, warnings } = rehearsal::rehearse(&flow, &lines);
        if errors.is_empty() { Ok(Self { warnings, ..flow }) } else { Err(errors) }
    }

    /// The connector that a step uses, none for a wait.
    pub fn connector(&self, step: usize) -> Option<&str> {
        match &self.steps.get(step)?.action {
            Action::Call(call) => Some(&call.connector),
            Action::Wait(_) => None,
        }
    }

    /// The connectors of all steps.
    pub fn connectors(&self) -> impl Iterator<Item = &str> {
        (0..self.steps.len()).filter_map(|step| self.connector(step))
    }

    /// Whether this step, or a later one, is made also where its subject was deleted meanwhile.
    pub fn goes_on_deleted(&self, step: usize) -> bool {
        self.steps.iter().skip(step).any(FlowStep::for_deleted)
    }

    /// Whether the event ends earlier runs of its key.
    pub fn cancels_on(&self, event: &Event) -> bool {
        self.cancel_on.iter().any(|pattern| pattern.matches(event))
    }
}
