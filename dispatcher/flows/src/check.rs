//! Parses a flow's text into a [`Flow`], or into the list of all its problems.

mod duration;
mod flow;
mod schedule;
mod step;
mod toml;
mod value;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use minijinja::Environment;
use toml_edit::{Document, Item, TableLike};

use super::problem::suggestion;
use super::{Flow, FlowSettings, FlowSource, Problem, template};

/// Lines of a flow's parts in its file, counted from 1.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The lines of the top-level keys.
    pub(super) top: BTreeMap<String, usize>,
    /// For each step in order: its own line, and the lines of its keys.
    pub(super) steps: Vec<(usize, BTreeMap<String, usize>)>,
}

impl Lines {
    /// Returns the line of a step's key, or of the step if it has no such key.
    pub(super) fn of(&self, step: usize, key: &str) -> usize {
        self.steps.get(step).map_or(1, |(line, keys)| keys.get(key).copied().unwrap_or(*line))
    }
}

/// The result of reading a flow file.
pub(super) struct Reading {
    pub(super) flow: Flow,
    pub(super) lines: Lines,
    /// Problems that do not prevent the flow from running. A new flow is rejected because of them, but runs may
    /// continue with an earlier version that was accepted when they began.
    pub(super) objections: Vec<Problem>,
}

/// Reads a flow.
///
/// # Errors
///
/// The flow cannot run. The error lists every problem that prevents it, and every objection.
pub(super) fn read(source: FlowSource) -> Result<Reading, Vec<Problem>> {
    let document = Document::parse(source.toml.clone()).map_err(|error| vec![toml::problem(&source, &error)])?;
    let mut checker = Checker {
        source: &source,
        problems: Vec::new(),
        objections: Vec::new(),
        environment: template::environment(),
        remember: Vec::new(),
        settings: BTreeSet::new(),
        has_link: false,
        takes_secrets: false,
        lines: Lines::default(),
    };
    let flow = checker.flow(document.as_table());
    let Checker { mut problems, objections, lines, settings, .. } = checker;
    if problems.is_empty() {
        let settings = FlowSettings::named(settings);
        return Ok(Reading { flow: Flow { version: source.version(), source, settings, ..flow }, lines, objections });
    }
    problems.extend(objections);
    Err(Problem::in_order(problems))
}

/// Proof that a problem was recorded. Only [`Checker::refuse`] creates it, so that nothing is omitted
/// without a message.
struct Refused(());

/// A part of a flow, or the proof that a problem was recorded for it.
type Checked<T> = Result<T, Refused>;

/// A line in a file.
#[derive(Debug, Clone)]
struct Place {
    file: String,
    line: usize,
}

impl Place {
    /// Returns the place of a line of the text at this place. Lines are only counted in a template's own file; in a
    /// flow's file the place stays the same.
    fn at_line(&self, line: usize) -> Self {
        let line = if self.file.ends_with(".toml") { self.line } else { line };
        Self { file: self.file.clone(), line }
    }
}

struct Checker<'a> {
    source: &'a FlowSource,
    problems: Vec<Problem>,
    /// Problems that do not prevent the flow from running.
    objections: Vec<Problem>,
    environment: &'static Environment<'static>,
    /// Names of the fields of its subjects that the flow stores.
    remember: Vec<String>,
    /// Names of the variables that the flow's texts name.
    settings: BTreeSet<String>,
    /// True if the parameter that is being checked may contain the unsubscribe link.
    has_link: bool,
    /// True if the parameter that is being checked may name secrets.
    takes_secrets: bool,
    lines: Lines,
}

impl Checker<'_> {
    fn refuse(&mut self, place: &Place, message: impl Into<String>) -> Refused {
        self.problems.push(Problem { file: place.file.clone(), line: place.line, message: message.into() });
        Refused(())
    }

    /// Records a problem that does not prevent the rest from being checked.
    fn note(&mut self, place: &Place, message: impl Into<String>) {
        let Refused(()) = self.refuse(place, message);
    }

    /// Records a problem that does not prevent the flow from running: a run that began under an
    /// earlier version continues.
    fn object(&mut self, place: &Place, message: impl Into<String>) {
        self.objections.push(Problem { file: place.file.clone(), line: place.line, message: message.into() });
    }

    fn place(&self, item: &Item) -> Place {
        self.place_of(item.span())
    }

    fn place_of(&self, span: Option<Range<usize>>) -> Place {
        let line = span.map_or(1, |span| line_of(&self.source.toml, span.start));
        Place { file: self.source.file.clone(), line }
    }

    fn place_of_key(&self, table: &dyn TableLike, key: &str) -> Place {
        let span = table.key(key).and_then(toml_edit::Key::span);
        self.place_of(span.or_else(|| table.get(key).and_then(Item::span)))
    }

    /// Returns the first line of a template's file.
    fn place_in(&self, template: &str) -> Place {
        let folder = Path::new(&self.source.file).parent().unwrap_or(Path::new(""));
        Place { file: folder.join("templates").join(template).display().to_string(), line: 1 }
    }

    /// Returns the lines of a table's keys.
    fn lines_of(&self, table: &dyn TableLike) -> BTreeMap<String, usize> {
        table.iter().map(|(key, _)| (key.to_owned(), self.place_of_key(table, key).line)).collect()
    }

    /// Checks that every key of a table is one of `known`. `why` may return a specific message for another key.
    fn only(&mut self, table: &dyn TableLike, what: &str, known: &[&str], why: impl Fn(&str) -> Option<String>) {
        for (key, _) in table.iter().filter(|(key, _)| !known.contains(key)) {
            let place = self.place_of_key(table, key);
            let message = why(key)
                .unwrap_or_else(|| format!("{what} has no key {key}{}", suggestion(key, known.iter().copied())));
            self.note(&place, message);
        }
    }

    fn number(&mut self, table: &dyn TableLike, key: &str) -> Option<usize> {
        let item = table.get(key)?;
        let number = item.as_integer().filter(|n| (1..=10_000).contains(n)).and_then(|n| usize::try_from(n).ok());
        if number.is_none() {
            self.note(&self.place(item), format!("{key} is a whole number from 1 to 10000"));
        }
        number
    }

    fn flag(&mut self, table: &dyn TableLike, key: &str) -> bool {
        let Some(item) = table.get(key) else { return false };
        let flag = item.as_bool();
        if flag.is_none() {
            self.note(&self.place(item), format!("{key} is true or false"));
        }
        flag.unwrap_or(false)
    }

    fn text(&mut self, table: &dyn TableLike, key: &str) -> Option<String> {
        let item = table.get(key)?;
        let text = item.as_str().map(str::to_owned);
        if text.is_none() {
            let hint = item.as_bool().map(|flag| format!(": write {key} = \"{flag}\"")).unwrap_or_default();
            self.note(&self.place(item), format!("{key} is a text{hint}"));
        }
        text
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1)
}

#[cfg(test)]
mod messages;
#[cfg(test)]
mod tests;
