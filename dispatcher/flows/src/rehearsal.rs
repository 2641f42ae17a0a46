//! Rehearses a flow before it is used. Each step is executed, up to the exact request, with samples of every event that
//! the flow starts on, with and without the values that an event may lack. A step that would be dead-lettered for every
//! user is an error; one that would be dead-lettered for some users is a warning. A step that would start itself without end is
//! an error, too.

mod answers;
mod echo;
mod names;
mod part;
mod preview;
mod scenes;
mod timeline;
mod timeline_event;

use std::collections::{BTreeMap, BTreeSet};

use part::{Failure, Part, Played};
pub use preview::{MailPreview, PreviewOutcome};
use scenes::Scene;
#[cfg(test)]
pub(crate) use scenes::run as unbegun_run;
use serde_json::Value;
pub use timeline::{FlowTimeline, PlannedAction, PlannedStep};
pub use timeline_event::{NotAPreviewEvent, PreviewEvent};
use usher_connectors::Connectors;
use usher_proto::Source;

use super::check::Lines;
use super::pieces::whole;
use super::{Action, Flow, Problem, events};

/// The results of a rehearsal.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Steps and names that can never work.
    pub(super) errors: Vec<Problem>,
    /// Parts that can run but may be unintended.
    pub(super) warnings: Vec<Problem>,
}

/// A placeholder with the form of an unsubscribe link.
const LINK: &str = "https://usher.test/unsubscribe/x";

/// Rehearses a flow. `lines` are the lines of its parts.
pub(super) fn rehearse(flow: &Flow, lines: &Lines) -> Findings {
    let mut findings = Findings::default();
    unknown_events(flow, lines, &mut findings);
    let mut scenes = scenes::of(flow);
    let uses = names::uses(flow, lines);
    names::check(flow, lines, &uses, &mut scenes, &mut findings);
    if !findings.errors.is_empty() {
        // The steps would fail for the same reasons, with different messages.
        return findings.in_order();
    }
    match usher_connectors::for_rehearsal(&flow.uses().collect::<Vec<_>>()) {
        Ok(connectors) => perform(flow, lines, &connectors, &scenes, &mut findings),
        Err(error) => findings.errors.push(problem(flow, 1, error.to_string())),
    }
    findings.in_order()
}

impl Findings {
    fn in_order(self) -> Self {
        Self { errors: Problem::in_order(self.errors), warnings: Problem::in_order(self.warnings) }
    }
}

fn problem(flow: &Flow, line: usize, message: impl Into<String>) -> Problem {
    Problem { file: flow.source.file.clone(), line, message: message.into() }
}

/// Warns about event types that a source is not known to send, which it may have added since; and about senders that
/// exist only if they are configured, which is not known here.
fn unknown_events(flow: &Flow, lines: &Lines, findings: &mut Findings) {
    for (key, patterns) in [("on", &flow.on), ("cancel_on", &flow.cancel_on)] {
        for pattern in patterns {
            if let Source::Sender(name) = pattern.source() {
                let line = lines.top.get(key).copied().unwrap_or(1);
                let setting = name.setting("SECRET");
                let message = format!("{key}: {name} is a sender only where {setting} is set");
                findings.warnings.push(problem(flow, line, message));
            }
            let source = pattern.source();
            let kind = pattern.kind();
            let Some(types) = usher_senders::event_types(source) else { continue };
            if types.iter().any(|known| pattern.takes(known)) {
                continue;
            }
            let line = lines.top.get(key).copied().unwrap_or(1);
            let star = if pattern.is_prefix() { "*" } else { "" };
            let meant = match pattern.is_prefix() {
                true => events::nearest_family(source, kind),
                false => events::nearest(source, kind),
            };
            let name = events::name(source);
            let hint = meant.map(|known| format!("; did you mean {known}{star}?")).unwrap_or_default();
            findings.warnings.push(problem(
                flow,
                line,
                format!("{key}: {name} is not known to send {kind}{star}{hint}"),
            ));
        }
    }
}

fn perform(flow: &Flow, lines: &Lines, connectors: &Connectors, scenes: &[Scene], findings: &mut Findings) {
    let wanted = |scene: &&Scene| flow.wants(&scene.context).unwrap_or(true);
    let mut wanted: Vec<&Scene> = scenes.iter().filter(wanted).collect();
    // No sample satisfies the flow's `if`, although real events will. All samples are then used.
    let none_wanted = wanted.is_empty();
    if none_wanted {
        wanted = scenes.iter().collect();
    }
    for (index, step) in flow.steps.iter().enumerate() {
        let part = Part { flow, step, connectors };
        let play = |ignore_when: bool| -> Vec<(&Scene, Played)> {
            wanted.iter().map(|scene| (*scene, part.play(scene, ignore_when))).collect()
        };
        let mut results = play(false);
        // A step that no sample triggers is rehearsed without its `when`; then only a failure in all
        // samples is reported.
        let is_left_out = results.iter().all(|(_, played)| matches!(played, Played::LeftOut));
        if is_left_out {
            results = play(true);
        }
        let is_forced = is_left_out || none_wanted;
        for (key, is_error, message) in judge(&part, &results, is_forced) {
            let list = if is_error { &mut findings.errors } else { &mut findings.warnings };
            list.push(problem(flow, lines.of(index, &key), message));
        }
        if let Some((key, is_error, message)) = echo::judge(&part, index, &wanted) {
            let list = if is_error { &mut findings.errors } else { &mut findings.warnings };
            list.push(problem(flow, lines.of(index, &key), message));
        }
    }
}

/// Returns the failures of a step that are to be reported, each as the key of the step, a flag that is true for an
/// error, and the message.
fn judge(part: &Part<'_>, results: &[(&Scene, Played)], is_forced: bool) -> Vec<(String, bool, String)> {
    let mut made = BTreeSet::new();
    let mut failures: BTreeMap<&Failure, Vec<&Scene>> = BTreeMap::new();
    for (scene, played) in results {
        match played {
            Played::LeftOut => {}
            Played::Made if scene.is_whole() => {
                made.insert(scene.kind.as_str());
            }
            Played::Made => {}
            Played::Failed(failure) => failures.entry(failure).or_default().push(scene),
        }
    }
    let mut told = Vec::new();
    for (failure, scenes) in failures {
        // A failure is an error if it occurs in every complete sample of one event type.
        let whole = scenes.iter().filter(|scene| scene.is_whole()).map(|scene| scene.kind.as_str());
        let fatal: BTreeSet<&str> = whole.filter(|kind| !made.contains(kind)).collect();
        let is_error = !fatal.is_empty() && !part.is_open(failure) && (!is_forced || made.is_empty());
        if is_forced && !is_error {
            continue;
        }
        let with = match scenes.first() {
            Some(scene) if !is_error => scene.describe(),
            Some(_) | None => format!("with {}", listed(&fatal)),
        };
        let place = if failure.place.is_empty() { String::new() } else { format!("{}: ", failure.place) };
        let hint = hint(&part.step.action, failure);
        let message = format!("step {}: {place}{} ({with}){hint}", part.step.name, failure.what);
        told.push((failure.key().to_owned(), is_error, message));
    }
    told
}

/// Maximum number of event types that a message names.
const NAMED: usize = 3;

fn listed(kinds: &BTreeSet<&str>) -> String {
    let named: Vec<&str> = kinds.iter().take(NAMED).copied().collect();
    let more = kinds.len() - named.len();
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}

/// Returns advice for a step that fails because the value of a parameter, such as an address, is absent. Empty
/// for other failures.
fn hint(action: &Action, failure: &Failure) -> String {
    let Action::Call(call) = action else { return String::new() };
    if !failure.what.ends_with("came out empty") || call.needs.is_some() {
        return String::new();
    }
    let given = call.params.get(&failure.place).and_then(Value::as_str).and_then(whole);
    given.map(|expression| format!("; say needs = \"{expression}\", or leave it out by when")).unwrap_or_default()
}
