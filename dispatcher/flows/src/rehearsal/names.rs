//! Looks up the names that a flow uses in the samples. At run time a name that does not exist need not cause an error:
//! it can be a condition that is never true.

use serde_json::Value;
use usher_proto::Source;

use super::super::check::Lines;
use super::super::context::{EVENT, Sight};
use super::super::pieces::{Piece, blocks, pieces};
use super::super::problem::nearest;
use super::super::template::environment;
use super::super::wait::WAIT_UNTIL;
use super::super::{Action, Flow, Problem, Wait};
use super::scenes::{self, Scene};
use super::{Findings, problem};

/// A text of a flow and its place.
pub(super) struct Uses {
    /// Prefix of messages: `step welcome: `, or empty outside of steps.
    whose: String,
    file: String,
    line: usize,
    text: String,
    is_expression: bool,
}

/// Returns every expression and template of a flow.
pub(super) fn uses(flow: &Flow, lines: &Lines) -> Vec<Uses> {
    let mut uses = Vec::new();
    let file = flow.source.file.as_str();
    let mut add = |whose: &str, file: &str, line: usize, text: &str, is_expression: bool| {
        let whose = whose.to_owned();
        let file = file.to_owned();
        let text = text.to_owned();
        uses.push(Uses { whose, file, line, text, is_expression });
    };
    for (key, expression) in [("if", &flow.starts_if), ("expires_if", &flow.expires_if)] {
        if let Some(expression) = expression {
            add("", file, lines.top.get(key).copied().unwrap_or(1), expression, true);
        }
    }
    if let Some(subjects) = flow.schedule.as_ref().and_then(|schedule| schedule.subjects.as_ref()) {
        add("", file, lines.top.get("subjects").copied().unwrap_or(1), subjects, true);
    }
    for (index, step) in flow.steps.iter().enumerate() {
        let whose = format!("step {}: ", step.name);
        if let Some(when) = &step.when {
            add(&whose, file, lines.of(index, "when"), when, true);
        }
        let call = match &step.action {
            Action::Call(call) => call,
            Action::Wait(Wait::Until(until)) => {
                add(&whose, file, lines.of(index, WAIT_UNTIL), until, false);
                continue;
            }
            Action::Wait(Wait::For(_)) => continue,
        };
        if let Some(needs) = &call.needs {
            add(&whose, file, lines.of(index, "needs"), &needs.value, true);
        }
        for (name, value) in &call.params {
            for text in texts(value) {
                add(&whose, file, lines.of(index, name), text, false);
            }
        }
        for extension in ["html", "txt"] {
            let Some(template) = &call.template else { continue };
            let name = format!("{template}.{extension}");
            if let Some(text) = flow.source.templates.get(&name) {
                let folder = std::path::Path::new(file).parent().unwrap_or(std::path::Path::new(""));
                add(&whose, &folder.join("templates").join(name).display().to_string(), 1, text, false);
            }
        }
    }
    uses
}

/// Returns the strings in a parameter.
pub(super) fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

/// Looks up the names in the scenes. A name that no sample contains and that is not similar to an existing one may be
/// new at Clerk: it causes a warning and is added to the scenes as null.
pub(super) fn check(flow: &Flow, lines: &Lines, uses: &[Uses], scenes: &mut [Scene], findings: &mut Findings) {
    remembered(flow, lines, findings);
    look_up(uses, scenes::are_incomplete(&flow.on), scenes, findings);
    if let Some(expression) = &flow.cancel_if {
        let mut scenes = scenes::of_patterns(flow, &flow.cancel_on);
        let file = flow.source.file.clone();
        let line = lines.top.get("cancel_if").copied().unwrap_or(1);
        let text = expression.clone();
        let used = Uses { whose: String::new(), file, line, text, is_expression: true };
        look_up(&[used], scenes::are_incomplete(&flow.cancel_on), &mut scenes, findings);
    }
}

/// Looks up the names of texts in the scenes. `is_open` is true if there are events without a sample.
fn look_up(uses: &[Uses], is_open: bool, scenes: &mut [Scene], findings: &mut Findings) {
    for used in uses {
        for name in used.names() {
            used.lookup(&name, is_open, scenes, findings);
        }
        for expression in used.expressions() {
            let comparable = |path: &String| !is_open || !path.starts_with(EVENT);
            for (path, literal) in comparisons(expression).into_iter().filter(|(path, _)| comparable(path)) {
                if let Some(message) = mismatch(&path, &literal, scenes) {
                    findings.errors.push(used.problem(message));
                }
            }
        }
    }
}

/// Reports stored fields that no user has, because they never change.
fn remembered(flow: &Flow, lines: &Lines, findings: &mut Findings) {
    let Some(known) = scenes::known_fields() else { return };
    for field in flow.remember.iter().filter(|field| !known.contains_key(*field)) {
        let line = lines.top.get("remember").copied().unwrap_or(1);
        match nearest(field, known.keys().map(String::as_str)) {
            Some(meant) => {
                findings.errors.push(problem(
                    flow,
                    line,
                    format!("remember: a user has no {field}; did you mean {meant}?"),
                ));
            }
            None => findings.warnings.push(problem(flow, line, format!("remember: no sample of a user has {field}"))),
        }
    }
}

impl Uses {
    fn problem(&self, message: impl std::fmt::Display) -> Problem {
        Problem { file: self.file.clone(), line: self.line, message: format!("{}{message}", self.whose) }
    }

    pub(super) fn names(&self) -> Vec<String> {
        let environment = environment();
        let names = if self.is_expression {
            environment.compile_expression(&self.text).map(|compiled| compiled.undeclared_variables(true))
        } else {
            environment.template_from_str(&self.text).map(|compiled| compiled.undeclared_variables(true))
        };
        let mut names: Vec<String> = names.unwrap_or_default().into_iter().collect();
        names.sort();
        names
    }

    fn expressions(&self) -> Vec<&str> {
        if self.is_expression { vec![&self.text] } else { blocks(&self.text) }
    }

    fn lookup(&self, name: &str, is_open: bool, scenes: &mut [Scene], findings: &mut Findings) {
        let root = name.split('.').next().unwrap_or_default();
        if root != "user" && root != EVENT {
            return;
        }
        // Fields of an event of which there is no sample may have any name.
        if root == EVENT && is_open {
            return;
        }
        let Some(message) = missing(name, scenes) else { return };
        // Only Clerk's samples are whole: the objects of other senders have more fields than their samples show.
        let is_whole = root != EVENT || scenes.iter().all(|scene| scene.event.source == Source::Clerk);
        match message {
            Missing { what, meant: Some(meant) } if !is_whole => {
                findings.warnings.push(self.problem(format!("{what} in any sample; did you mean {meant}?")));
                for scene in scenes {
                    scene.context.make_known(name);
                }
            }
            Missing { what, meant: Some(meant) } => {
                findings.errors.push(self.problem(format!("{what}; did you mean {meant}?")));
            }
            Missing { what, meant: None } => {
                findings.warnings.push(self.problem(format!("{what} in any sample of these events")));
                for scene in scenes {
                    scene.context.make_known(name);
                }
            }
        }
    }
}

struct Missing {
    what: String,
    meant: Option<String>,
}

/// Returns the missing part of a name that no scene contains; `None` if a scene contains the name or cannot check it.
fn missing(name: &str, scenes: &[Scene]) -> Option<Missing> {
    let mut found = None;
    for scene in scenes {
        match scene.context.look(name) {
            Sight::There(_) | Sight::Open => return None,
            Sight::Missing { owner, field, known } => {
                // Some objects, such as a deleted user, have too few fields for a suggestion; another scene
                // may have one.
                let meant = nearest(&field, known.keys().map(String::as_str)).map(str::to_owned);
                let is_better = found.as_ref().is_none_or(|found: &Missing| found.meant.is_none());
                if is_better {
                    found = Some(Missing { what: format!("{owner} has no {field}"), meant });
                }
            }
        }
    }
    found
}

/// Returns the names that are compared with a constant.
fn comparisons(expression: &str) -> Vec<(String, Literal)> {
    const SIGNS: [&str; 6] = ["==", "!=", "<", ">", "<=", ">="];
    let found = pieces(expression);
    let mut compared = Vec::new();
    for (at, window) in found.windows(3).enumerate() {
        let [left, Piece::Symbol(sign), right] = window else { continue };
        if !SIGNS.contains(sign) {
            continue;
        }
        // Next to another operator the operand is part of a larger expression, which may have another type.
        if !at.checked_sub(1).is_none_or(|at| is_boundary(&found[at])) || !found.get(at + 3).is_none_or(is_boundary) {
            continue;
        }
        let pair = match (left, right) {
            (Piece::Path(path), literal) | (literal, Piece::Path(path)) if Literal::of(literal).is_some() => {
                Some((path, literal))
            }
            _ => None,
        };
        if let Some((path, literal)) = pair
            && let Some(literal) = Literal::of(literal)
        {
            compared.push((path.join("."), literal));
        }
    }
    compared
}

/// True if a comparison can begin after this piece or end before it.
fn is_boundary(piece: &Piece<'_>) -> bool {
    match piece {
        Piece::Path(parts) => matches!(parts[..], ["and" | "or" | "not" | "if" | "elif" | "else"]),
        Piece::Symbol(sign) => matches!(*sign, "(" | ")" | ","),
        Piece::Text(_) | Piece::Number(_) => false,
    }
}

/// A constant in an expression.
#[derive(Debug)]
enum Literal {
    Text(String),
    Number(String),
    Flag(bool),
}

impl Literal {
    fn of(token: &Piece<'_>) -> Option<Self> {
        match token {
            Piece::Text(text) => Some(Self::Text((*text).to_owned())),
            Piece::Number(number) => Some(Self::Number((*number).to_owned())),
            Piece::Path(parts) if parts[..] == ["true"] => Some(Self::Flag(true)),
            Piece::Path(parts) if parts[..] == ["false"] => Some(Self::Flag(false)),
            Piece::Path(_) | Piece::Symbol(_) => None,
        }
    }

    fn is_like(&self, value: &Value) -> bool {
        match self {
            Self::Text(_) => value.is_string(),
            Self::Number(_) => value.is_number(),
            Self::Flag(_) => value.is_boolean(),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Text(text) => format!("'{text}' is a text"),
            Self::Number(number) => format!("{number} is a number"),
            Self::Flag(flag) => format!("{flag} is true or false"),
        }
    }
}

/// Returns a message if a value never has the type of the constant that it is compared with: the comparison then always
/// has the same result.
fn mismatch(path: &str, literal: &Literal, scenes: &[Scene]) -> Option<String> {
    let mut other = None;
    for scene in scenes {
        match scene.context.look(path) {
            Sight::There(Value::Null) | Sight::Missing { .. } => {}
            Sight::Open => return None,
            Sight::There(value) if literal.is_like(value) => return None,
            Sight::There(value) => other = Some(value),
        }
    }
    let what = match other? {
        Value::String(_) => "a text",
        Value::Number(_) if path.ends_with("_at") => "a number, milliseconds since 1970",
        Value::Number(_) => "a number",
        Value::Bool(_) => "true or false",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
        Value::Null => return None,
    };
    Some(format!("{path} is {what}, and {}: that comes out the same for everybody", literal.describe()))
}
