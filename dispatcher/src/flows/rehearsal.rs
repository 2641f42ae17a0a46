//! Trying a flow out before anything depends on it: each step is made, up to the exact request, with a sample of every event
//! that the flow starts on, with and without what an event may lack. What would die for everybody is an error; what would
//! die for some is a warning.

mod names;
mod scenes;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::check::Lines;
use super::pieces::whole;
use super::{Action, Call, Context, Flow, FlowStep, Problem, evaluate, events, render, render_some};
use crate::connectors::{self, Connectors, Inputs};
use crate::reach;
use scenes::Scene;

/// What a rehearsal has found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What can never work.
    pub(super) errors: Vec<Problem>,
    /// What may not be meant.
    pub(super) warnings: Vec<Problem>,
}

/// The link that ends marketing mail, as far as its form goes.
const LINK: &str = "https://usher.test/unsubscribe/x";

/// Rehearses a flow. `lines` are where its parts stand.
pub(super) fn rehearse(flow: &Flow, lines: &Lines) -> Findings {
    let mut findings = Findings::default();
    unknown_events(flow, lines, &mut findings);
    let mut scenes = scenes::of(flow);
    let uses = names::uses(flow, lines);
    names::check(flow, &uses, &mut scenes, &mut findings);
    if !findings.errors.is_empty() {
        // The steps would fail for the same reasons, in other words.
        return findings.in_order();
    }
    match connectors::for_rehearsal(flow) {
        Ok(connectors) => perform(flow, lines, &connectors, &scenes, &mut findings),
        Err(error) => findings.errors.push(problem(flow, 1, error.to_string())),
    }
    findings.in_order()
}

impl Findings {
    fn in_order(mut self) -> Self {
        for list in [&mut self.errors, &mut self.warnings] {
            list.sort();
            list.dedup();
        }
        self
    }
}

fn problem(flow: &Flow, line: usize, message: impl Into<String>) -> Problem {
    Problem { file: flow.source.file.clone(), line, message: message.into() }
}

/// Types that Clerk is not known to send. It may have learnt them since.
fn unknown_events(flow: &Flow, lines: &Lines, findings: &mut Findings) {
    for (key, patterns) in [("on", &flow.on), ("cancel_on", &flow.cancel_on)] {
        for pattern in patterns {
            let Some(kind) = pattern.clerk_type() else { continue };
            if events::CLERK.iter().any(|known| pattern.takes(known)) {
                continue;
            }
            let hint = events::nearest(kind).map(|known| format!("; did you mean {known}?")).unwrap_or_default();
            let line = lines.top.get(key).copied().unwrap_or(1);
            let star = if pattern.is_prefix() { "*" } else { "" };
            findings.warnings.push(problem(
                flow,
                line,
                format!("{key}: Clerk is not known to send {kind}{star}{hint}"),
            ));
        }
    }
}

/// What became of a step in one scene.
enum Played {
    /// It does not apply: `when` is false, or it waits for what it needs.
    LeftOut,
    /// Its request was made.
    Made,
    /// It would be given up.
    Failed(Failure),
}

/// Why a step would be given up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Failure {
    /// Where: a key of the step, or a template's file.
    place: String,
    what: String,
}

fn perform(flow: &Flow, lines: &Lines, connectors: &Connectors, scenes: &[Scene], findings: &mut Findings) {
    let wanted = |scene: &&Scene| flow.wants(&scene.context).unwrap_or(true);
    let played: Vec<&Scene> = scenes.iter().filter(wanted).collect();
    for (index, step) in flow.steps.iter().enumerate() {
        let Action::Call(call) = &step.action else { continue };
        let play = |scene: &Scene, ignore_when: bool| play(step, call, flow, connectors, scene, ignore_when);
        let mut results: Vec<(&Scene, Played)> = played.iter().map(|scene| (*scene, play(scene, false))).collect();
        // Where no sample brings a step about, it is tried all the same; then only what fails always is told.
        let is_forced = results.iter().all(|(_, played)| matches!(played, Played::LeftOut));
        if is_forced {
            results = played.iter().map(|scene| (*scene, play(scene, true))).collect();
        }
        judge(flow, lines, index, step, call, &results, is_forced, findings);
    }
}

#[expect(clippy::too_many_arguments, reason = "one caller, which has them all at hand")]
fn judge(
    flow: &Flow,
    lines: &Lines,
    index: usize,
    step: &FlowStep,
    call: &Call,
    results: &[(&Scene, Played)],
    is_forced: bool,
    findings: &mut Findings,
) {
    // By type of event: it is an error where every whole sample of one type fails.
    let mut by_kind: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    let mut failures: BTreeMap<&Failure, Vec<&Scene>> = BTreeMap::new();
    for (scene, played) in results {
        match played {
            Played::LeftOut => {}
            Played::Made => by_kind.entry(&scene.kind).or_default().0 |= scene.is_whole(),
            Played::Failed(failure) => {
                by_kind.entry(&scene.kind).or_default().1 |= scene.is_whole();
                failures.entry(failure).or_default().push(scene);
            }
        }
    }
    let always = |kind: &str| by_kind.get(kind).is_some_and(|(made, failed)| *failed && !*made);
    let all_always = by_kind.keys().all(|kind| always(kind));
    for (failure, scenes) in failures {
        let fatal: BTreeSet<&str> = scenes
            .iter()
            .filter(|scene| scene.is_whole() && always(&scene.kind))
            .map(|scene| scene.kind.as_str())
            .collect();
        let for_everybody = !fatal.is_empty() && !is_of_metadata(call, failure);
        let is_error = for_everybody && (!is_forced || all_always);
        if is_forced && !is_error {
            continue;
        }
        let with = if is_error {
            format!("with {}", listed(&fatal))
        } else {
            scenes.first().map(|scene| scene.describe()).unwrap_or_default()
        };
        let hint = hint(call, failure);
        let message = format!("step {}: {}: {} ({with}){hint}", step.name, failure.place, failure.what);
        let message = if failure.place.is_empty() {
            format!("step {}: {} ({with}){hint}", step.name, failure.what)
        } else {
            message
        };
        let key = failure.place.split('.').next().unwrap_or_default();
        let list = if is_error { &mut findings.errors } else { &mut findings.warnings };
        list.push(problem(flow, lines.of(index, key), message));
    }
}

/// Whether a parameter is made of metadata: what stands in them is the application's own, and in no sample.
fn is_of_metadata(call: &Call, failure: &Failure) -> bool {
    let key = failure.place.split('.').next().unwrap_or_default();
    call.params.get(key).is_some_and(|value| names::texts(value).iter().any(|text| text.contains("_metadata")))
}

/// The most types of events that a message names.
const NAMED: usize = 3;

fn listed(kinds: &BTreeSet<&str>) -> String {
    let named: Vec<&str> = kinds.iter().take(NAMED).copied().collect();
    let more = kinds.len() - named.len();
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}

/// What helps where somebody's address, or whatever else a parameter cannot do without, is not there.
fn hint(call: &Call, failure: &Failure) -> String {
    if !failure.what.ends_with("came out empty") || call.needs.is_some() {
        return String::new();
    }
    let given = call.params.get(&failure.place).and_then(Value::as_str).and_then(whole);
    given.map(|expression| format!("; say needs = \"{expression}\", or leave it out by when")).unwrap_or_default()
}

/// Makes a step's request as an attempt does, but for what only the store and the settings know.
fn play(
    step: &FlowStep,
    call: &Call,
    flow: &Flow,
    connectors: &Connectors,
    scene: &Scene,
    ignore_when: bool,
) -> Played {
    match request(step, call, flow, connectors, scene, ignore_when) {
        Ok(true) => Played::Made,
        Ok(false) => Played::LeftOut,
        Err(failure) => Played::Failed(failure),
    }
}

fn request(
    step: &FlowStep,
    call: &Call,
    flow: &Flow,
    connectors: &Connectors,
    scene: &Scene,
    ignore_when: bool,
) -> Result<bool, Failure> {
    let unrenderable = |key: &'static str| {
        move |error: super::Unrenderable| {
            let place = if key.is_empty() { error.place } else { key.to_owned() };
            Failure { place, what: error.what }
        }
    };
    let cannot = |error: connectors::CannotPrepare| of_text(call, &error.0);
    let fit = |params: &mut Map<String, Value>| {
        connectors::fit(&call.connector, &call.operation, params).map_err(|unfit| of_text(call, &unfit.what))
    };
    if let Some(when) = step.when.as_deref().filter(|_| !ignore_when)
        && !evaluate(when, &scene.context).map_err(unrenderable("when"))?.is_some_and(|value| value.is_true())
    {
        return Ok(false);
    }
    if let Some(needs) = &call.needs
        && evaluate(&needs.value, &scene.context).map_err(unrenderable("needs"))?.is_none()
    {
        return Ok(false);
    }
    let writes_to = connectors::operation(&call.connector, &call.operation).map_or(&[][..], |it| it.writes_to);
    let mut people = render_some(call, writes_to, &scene.context).map_err(unrenderable(""))?;
    fit(&mut people)?;
    reach::recipients(&mut people, writes_to).map_err(cannot)?;
    let mut context: Context = scene.context.clone();
    if call.marketing.is_some() {
        context.set_unsubscribe_url(LINK);
    }
    let mut params: Map<String, Value> = render(flow, call, &context).map_err(unrenderable(""))?;
    params.retain(|name, _| !writes_to.contains(&name.as_str()));
    fit(&mut params)?;
    params.extend(people);
    let Some(connector) = connectors.get(&call.connector) else { return Ok(false) };
    let (operation, data) = (call.operation.as_str(), context.event_data());
    let inputs = Inputs { operation, params: &params, event: &scene.event, data, pass: 0 };
    connector.prepare(&inputs).map_err(cannot)?;
    Ok(true)
}

/// A connector's words begin with the parameter, where it is one.
fn of_text(call: &Call, text: &str) -> Failure {
    let operation = connectors::operation(&call.connector, &call.operation);
    let params = operation.map_or(&[][..], |operation| operation.params);
    let first = text.split_whitespace().next().unwrap_or_default();
    match params.iter().find(|param| param.name == first) {
        Some(param) => {
            let what = text[param.name.len()..].trim_start().to_owned();
            Failure { place: param.name.to_owned(), what }
        }
        None => Failure { place: String::new(), what: text.to_owned() },
    }
}
