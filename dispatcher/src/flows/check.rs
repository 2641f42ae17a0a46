//! From a flow's text to a [`Flow`], or to everything that is wrong with it.

use std::collections::BTreeSet;
use std::time::Duration;

use minijinja::Environment;
use serde_json::{Map, Value};
use toml_edit::{Document, Item, TableLike, Value as Toml};
use usher_proto::Instance;
use usher_proto::unsubscribe::is_list_name;

use super::context::{BEFORE, EVENT, REMEMBERED, ROOTS, UNSUBSCRIBE_URL};
use super::problem::suggestion;
use super::{Action, Call, Flow, FlowSource, FlowStep, Needs, OnDoubt, Pattern, Problem, template};
use crate::connectors::{self, ATTEMPT_DEADLINE, Operation};
use crate::engine::RetryPolicy;
use crate::engine::start::From;

const FLOW_KEYS: [&str; 12] = [
    "on",
    "if",
    "cancel_on",
    "instances",
    "priority",
    "from",
    "concurrency",
    "expires_after",
    "expires_if",
    "remember",
    "retry",
    "step",
];
const RETRY_KEYS: [&str; 4] = ["attempts", "first", "max", "within"];
const WAIT_KEYS: [&str; 3] = ["name", "when", "wait"];
const CALL_KEYS: [&str; 10] =
    ["name", "when", "use", "template", "marketing", "needs", "needs_within", "timeout", "on_doubt", "for_deleted"];

/// The longest an attempt may take; what waits for it to end at a rebalance or a stop waits in vain.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

/// Steps of one flow that may be under way at once in a process, unless it says otherwise.
const CONCURRENCY: usize = 64;
/// How long a step waits for what it needs, unless it says otherwise.
const NEEDS_WITHIN: Duration = Duration::from_secs(24 * 3600);

pub(super) fn check(source: FlowSource) -> Result<Flow, Vec<Problem>> {
    let document = match Document::parse(source.toml.clone()) {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(&source.toml, span.start));
            let message = error.message().to_owned();
            return Err(vec![Problem { file: source.file, line, message }]);
        }
    };
    let (problems, remember) = (Vec::new(), Vec::new());
    let mut checker =
        Checker { source: &source, problems, environment: template::environment(), remember, has_link: false };
    let flow = checker.flow(document.as_table());
    let problems = checker.problems;
    match flow {
        Some(flow) if problems.is_empty() => Ok(Flow { version: source.version(), source, ..flow }),
        _ => Err(problems),
    }
}

/// What to do in doubt unless the step says it: rather not at all than twice. But receivers of Standard Webhooks are to
/// know a message again by its id, and a 503 of theirs must not be the end of it.
fn default_on_doubt(connector: &str) -> OnDoubt {
    if connector == "http" { OnDoubt::Send } else { OnDoubt::DeadLetter }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1)
}

struct Checker<'a> {
    source: &'a FlowSource,
    problems: Vec<Problem>,
    environment: Environment<'static>,
    /// What the flow remembers of its subjects.
    remember: Vec<String>,
    /// Whether what is being checked can show the link that ends marketing mail.
    has_link: bool,
}

impl Checker<'_> {
    fn problem<T>(&mut self, at: &Item, message: impl Into<String>) -> Option<T> {
        self.problem_at(at.span().map_or(0, |span| span.start), message)
    }

    fn problem_at<T>(&mut self, offset: usize, message: impl Into<String>) -> Option<T> {
        let line = line_of(&self.source.toml, offset);
        self.problems.push(Problem { file: self.source.file.clone(), line, message: message.into() });
        None
    }

    fn flow(&mut self, table: &toml_edit::Table) -> Option<Flow> {
        self.only(table, "a flow", &FLOW_KEYS);
        let name = self.source.name.clone();
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(valid) {
            self.problem_at::<()>(
                0,
                format!("{name:?} is no flow's name: use a-z, 0-9 and '-', it becomes part of topics"),
            );
        }
        let on = self.patterns(table, "on");
        if on.is_empty() && !table.contains_key("on") {
            self.problem_at::<()>(
                0,
                "on is missing: say which events start the flow, for instance [\"clerk/user.created\"]",
            );
        }
        let from = table.get("from").and_then(|item| match item.as_str() {
            Some("beginning") => Some(From::Beginning),
            Some("now") => Some(From::Now),
            _ => self.problem(item, "from may be \"beginning\" or \"now\""),
        });
        let instances = self.instances(table);
        let urgent = self.urgent(table);
        let concurrency = self.number(table, "concurrency").unwrap_or(CONCURRENCY);
        let expires_after = self.duration(table, "expires_after");
        let (starts_if, expires_if) = (self.on_event(table, "if"), self.on_event(table, "expires_if"));
        if let (Some(item), None) = (table.get("expires_if"), expires_after) {
            self.problem::<()>(item, "expires_if says what expires, but expires_after does not say when");
        }
        self.remember = self.remembered(table);
        let retry = self.retry(table);
        let steps = self.steps(table);
        Some(Flow {
            name,
            version: String::new(),
            source: self.source.clone(),
            on,
            cancel_on: self.patterns(table, "cancel_on"),
            instances,
            urgent,
            starts_if,
            from,
            concurrency,
            expires_after,
            expires_if,
            remember: self.remember.clone(),
            retry,
            steps,
        })
    }

    /// Every key must be one of these.
    fn only(&mut self, table: &dyn TableLike, what: &str, known: &[&str]) {
        for (key, item) in table.iter() {
            if !known.contains(&key) {
                let at = table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
                let hint = suggestion(key, known.iter().copied());
                self.problem_at::<()>(at.map_or(0, |span| span.start), format!("{what} has no key {key}{hint}"));
            }
        }
    }

    fn patterns(&mut self, table: &dyn TableLike, key: &str) -> Vec<Pattern> {
        let Some(item) = table.get(key) else { return Vec::new() };
        let wrong = format!("{key} is a list of events such as \"clerk/user.created\" or \"clerk/user.*\"");
        let Some(list) = item.as_array().filter(|list| !list.is_empty()) else {
            self.problem::<()>(item, wrong);
            return Vec::new();
        };
        let read = |value: &Toml| value.as_str().and_then(Pattern::parse);
        let patterns: Vec<Option<Pattern>> = list.iter().map(read).collect();
        if patterns.iter().any(Option::is_none) {
            self.problem::<()>(item, wrong);
        }
        patterns.into_iter().flatten().collect()
    }

    /// Without a word the flow runs for the default instance only: another one must be asked for, so that what is tried
    /// out at a development instance never reaches the accounts of the live one.
    fn instances(&mut self, table: &dyn TableLike) -> BTreeSet<Instance> {
        let Some(item) = table.get("instances") else { return [Instance::default()].into() };
        let wrong = "instances is a list such as [\"default\", \"staging\"]: \"default\" is the one of \
                     CLERK_WEBHOOK_SIGNING_SECRET, \"staging\" that of CLERK_WEBHOOK_SIGNING_SECRET_STAGING";
        let name = |value: &Toml| value.as_str()?.parse::<Instance>().ok();
        let names = item.as_array().filter(|list| !list.is_empty()).and_then(|list| list.iter().map(name).collect());
        names.or_else(|| self.problem(item, wrong)).unwrap_or_default()
    }

    fn urgent(&mut self, table: &dyn TableLike) -> bool {
        let Some(item) = table.get("priority") else { return false };
        match item.as_str() {
            Some("urgent") => true,
            Some("normal") => false,
            _ => self.problem(item, "priority may be \"urgent\" or \"normal\"").unwrap_or_default(),
        }
    }

    /// An expression that is looked at when an event arrives.
    fn on_event(&mut self, table: &dyn TableLike, key: &str) -> Option<String> {
        let text = self.text(table, key)?;
        let item = table.get(key)?;
        let environment = self.environment.clone();
        match environment.compile_expression(&text) {
            Ok(expression) => {
                let names = expression.undeclared_variables(true);
                if let Some(name) = names.iter().find(|name| name.split('.').next() != Some(EVENT)) {
                    let why = "it is looked at when the event arrives, and sees only event, such as event.data.slug";
                    self.problem::<()>(item, format!("{key} names {name}, but {why}"));
                }
            }
            Err(error) => self.problem(item, error.to_string())?,
        }
        Some(text)
    }

    fn remembered(&mut self, table: &dyn TableLike) -> Vec<String> {
        let Some(item) = table.get("remember") else { return Vec::new() };
        let names = item.as_array().map(|list| list.iter().map(|name| name.as_str().map(str::to_owned)).collect());
        names.flatten().filter(|names: &Vec<String>| !names.is_empty()).unwrap_or_else(|| {
            self.problem::<()>(item, "remember is a list of fields of the user such as [\"email\", \"totp_enabled\"]");
            Vec::new()
        })
    }

    fn retry(&mut self, table: &dyn TableLike) -> RetryPolicy {
        let default = RetryPolicy::default();
        let Some(item) = table.get("retry") else { return default };
        let Some(retry) = item.as_table_like() else {
            self.problem::<()>(item, "retry is a table such as { attempts = 5, first = \"1s\", max = \"5m\" }");
            return default;
        };
        self.only(retry, "retry", &RETRY_KEYS);
        RetryPolicy {
            attempts: self.number(retry, "attempts").map_or(default.attempts, |n| u32::try_from(n).unwrap_or(u32::MAX)),
            first: self.duration(retry, "first").unwrap_or(default.first),
            max: self.duration(retry, "max").unwrap_or(default.max),
            within: self.duration(retry, "within").unwrap_or(default.within),
        }
    }

    fn number(&mut self, table: &dyn TableLike, key: &str) -> Option<usize> {
        let item = table.get(key)?;
        let number = item.as_integer().filter(|n| (1..=10_000).contains(n)).and_then(|n| usize::try_from(n).ok());
        number.or_else(|| self.problem(item, format!("{key} is a whole number from 1 to 10000")))
    }

    fn duration(&mut self, table: &dyn TableLike, key: &str) -> Option<Duration> {
        let item = table.get(key)?;
        let duration = item.as_str().and_then(|text| humantime::parse_duration(text).ok());
        duration.or_else(|| self.problem(item, format!("{key} is a time such as \"30s\", \"10m\", \"12h\" or \"3d\"")))
    }

    fn flag(&mut self, table: &dyn TableLike, key: &str) -> bool {
        let Some(item) = table.get(key) else { return false };
        item.as_bool().or_else(|| self.problem(item, format!("{key} is true or false"))).unwrap_or(false)
    }

    fn text(&mut self, table: &dyn TableLike, key: &str) -> Option<String> {
        let item = table.get(key)?;
        item.as_str().map(str::to_owned).or_else(|| self.problem(item, format!("{key} is a text")))
    }

    fn steps(&mut self, table: &toml_edit::Table) -> Vec<FlowStep> {
        let missing = "a flow has at least one [[step]]";
        let Some(list) = table.get("step").and_then(Item::as_array_of_tables).filter(|list| !list.is_empty()) else {
            let offset = table.get("step").and_then(Item::span).map_or(0, |span| span.start);
            self.problem_at::<()>(offset, missing);
            return Vec::new();
        };
        let mut steps: Vec<FlowStep> = Vec::new();
        for (index, table) in list.iter().enumerate() {
            let earlier: Vec<String> = steps.iter().map(|step| step.name.clone()).collect();
            if let Some(step) = self.step(table, index, &earlier) {
                steps.push(step);
            }
        }
        steps
    }

    fn step(&mut self, table: &toml_edit::Table, index: usize, earlier: &[String]) -> Option<FlowStep> {
        let start = table.span().map_or(0, |span| span.start);
        let name = self.text(table, "name").unwrap_or_else(|| format!("step-{}", index + 1));
        if earlier.contains(&name) {
            self.problem_at::<()>(start, format!("there is a step {name} already; give this one a name of its own"));
        }
        let when = self.text(table, "when");
        if let (Some(when), Some(item)) = (&when, table.get("when")) {
            self.expression(item, when, earlier);
        }
        let action = match (table.contains_key("wait"), table.get("use")) {
            (true, None) => {
                self.only(table, "a wait", &WAIT_KEYS);
                Action::Wait(self.duration(table, "wait")?)
            }
            (false, Some(item)) => Action::Call(self.call(table, item, earlier)?),
            _ => return self.problem_at(start, "a step has either use = \"connector.operation\" or wait = \"3d\""),
        };
        Some(FlowStep { name, when, action })
    }

    fn call(&mut self, table: &toml_edit::Table, used: &Item, earlier: &[String]) -> Option<Call> {
        let (connector, operation) = self.operation(used)?;
        let params: Vec<&str> = operation.params.iter().map(|param| param.name).collect();
        let known: Vec<&str> = CALL_KEYS.into_iter().chain(params.iter().copied()).collect();
        self.only(table, used.as_str().unwrap_or_default(), &known);
        let marketing = self.marketing(table, operation);
        let mut rendered = Map::new();
        for param in operation.params {
            // The link is made for its recipient, who must be known before it.
            self.has_link = marketing.is_some() && !operation.writes_to.contains(&param.name);
            match table.get(param.name) {
                Some(item) => {
                    let value = self.value(item, earlier)?;
                    if !param.shape.accepts(&value) {
                        self.problem::<()>(item, format!("{} is {}", param.name, param.shape.describe()));
                    }
                    rendered.insert(param.name.to_owned(), value);
                }
                None if param.required => {
                    let message = format!("{} needs {}", operation.name, param.name);
                    self.problem::<()>(used, message);
                }
                None => {}
            }
        }
        self.has_link = marketing.is_some();
        let template = self.template(table, operation, earlier);
        self.has_link = false;
        let needs = self.text(table, "needs");
        if let (Some(needs), Some(item)) = (&needs, table.get("needs")) {
            self.expression(item, needs, earlier);
        }
        let within = self.duration(table, "needs_within");
        if needs.is_none() && within.is_some() {
            self.problem::<()>(used, "needs_within says how long to wait, but needs does not say for what");
        }
        Some(Call {
            connector: connector.to_owned(),
            operation: operation.name.to_owned(),
            params: rendered,
            template,
            marketing,
            needs: needs.map(|value| Needs { value, within: within.unwrap_or(NEEDS_WITHIN) }),
            timeout: self.timeout(table),
            on_doubt: self.on_doubt(table, connector),
            for_deleted: self.flag(table, "for_deleted"),
        })
    }

    fn marketing(&mut self, table: &dyn TableLike, operation: &Operation) -> Option<String> {
        let item = table.get("marketing")?;
        let Some(list) = item.as_str().filter(|list| is_list_name(list)) else {
            let what = "marketing is the name of the list whose mail this is, such as \"news\": a-z, 0-9, - and _";
            return self.problem(item, what);
        };
        let Some(for_whom) = operation.writes_to.first() else {
            return self.problem(item, format!("{} writes to nobody, so it is no marketing", operation.name));
        };
        if table.get(for_whom).and_then(Item::as_array).is_some_and(|list| list.len() > 1) {
            let why = format!("{for_whom} is one address in marketing mail: the link that ends it is made for one");
            self.problem::<()>(item, why);
        }
        Some(list.to_owned())
    }

    fn timeout(&mut self, table: &dyn TableLike) -> Duration {
        let timeout = self.duration(table, "timeout").unwrap_or(ATTEMPT_DEADLINE);
        if let Some(item) = table.get("timeout").filter(|_| timeout.is_zero() || timeout > LONGEST_TIMEOUT) {
            self.problem::<()>(item, "timeout may be up to \"5m\"");
        }
        timeout
    }

    fn on_doubt(&mut self, table: &dyn TableLike, connector: &str) -> OnDoubt {
        let Some(item) = table.get("on_doubt") else { return default_on_doubt(connector) };
        match item.as_str() {
            Some("send") => OnDoubt::Send,
            Some("dead_letter") => OnDoubt::DeadLetter,
            _ => self.problem(item, "on_doubt may be \"send\" or \"dead_letter\"").unwrap_or(OnDoubt::DeadLetter),
        }
    }

    fn operation(&mut self, item: &Item) -> Option<(&'static str, &'static Operation)> {
        let text = item.as_str().unwrap_or_default();
        let all =
            || connectors::OPERATIONS.iter().flat_map(|(connector, list)| list.iter().map(move |op| (*connector, op)));
        let found = all().find(|(connector, operation)| text == format!("{connector}.{}", operation.name));
        found.or_else(|| {
            let names: Vec<String> =
                all().map(|(connector, operation)| format!("{connector}.{}", operation.name)).collect();
            let hint = suggestion(text, names.iter().map(String::as_str));
            self.problem(item, format!("there is no {text:?}{hint}"))
        })
    }

    fn template(&mut self, table: &toml_edit::Table, operation: &Operation, earlier: &[String]) -> Option<String> {
        let name = self.text(table, "template")?;
        let item = table.get("template")?;
        if !operation.takes_template {
            return self.problem(item, format!("{} sends no template", operation.name));
        }
        let source = self.source;
        let files = ["html", "txt"].map(|extension| format!("{name}.{extension}"));
        let texts: Vec<(&String, &String)> =
            files.iter().filter_map(|file| source.templates.get_key_value(file)).collect();
        if texts.is_empty() {
            let known = source.templates.keys().filter_map(|file| file.rsplit_once('.').map(|(stem, _)| stem));
            let hint = suggestion(&name, known);
            return self.problem(item, format!("there is no templates/{name}.html or templates/{name}.txt{hint}"));
        }
        for (file, text) in texts {
            self.template_text(item, &format!("templates/{file}: "), text, earlier);
        }
        Some(name)
    }

    /// A parameter's value as JSON; texts are checked as templates.
    fn value(&mut self, item: &Item, earlier: &[String]) -> Option<Value> {
        if let Some(table) = item.as_table_like() {
            let fields = table.iter().map(|(key, item)| Some((key.to_owned(), self.value(item, earlier)?)));
            return Some(Value::Object(fields.collect::<Option<_>>()?));
        }
        match item.as_value()? {
            Toml::String(text) => {
                self.template_text(item, "", text.value(), earlier);
                Some(Value::String(text.value().clone()))
            }
            Toml::Integer(number) => Some(Value::from(*number.value())),
            Toml::Float(number) => Some(Value::from(*number.value())),
            Toml::Boolean(flag) => Some(Value::from(*flag.value())),
            Toml::Array(items) => {
                let items = items.iter().map(|value| self.value(&Item::Value(value.clone()), earlier));
                Some(Value::Array(items.collect::<Option<_>>()?))
            }
            Toml::Datetime(_) => self.problem(item, "write a time as a text"),
            Toml::InlineTable(_) => None,
        }
    }

    fn template_text(&mut self, item: &Item, place: &str, text: &str, earlier: &[String]) {
        let environment = self.environment.clone();
        match environment.template_from_str(text) {
            Ok(template) => self.names(item, place, &template.undeclared_variables(true), earlier),
            Err(error) => {
                self.problem::<()>(item, format!("{place}{error}"));
            }
        }
    }

    fn expression(&mut self, item: &Item, text: &str, earlier: &[String]) {
        let environment = self.environment.clone();
        match environment.compile_expression(text) {
            Ok(expression) => self.names(item, "", &expression.undeclared_variables(true), earlier),
            Err(error) => {
                self.problem::<()>(item, error.to_string());
            }
        }
    }

    /// Names must begin with what there is, and `steps.<name>` must be an earlier step.
    fn names(&mut self, item: &Item, place: &str, names: &std::collections::HashSet<String>, earlier: &[String]) {
        let remembers = !self.remember.is_empty();
        let roots: Vec<&str> = ROOTS.into_iter().chain(REMEMBERED.into_iter().filter(|_| remembers)).collect();
        for name in names {
            let mut parts = name.split('.');
            let (root, next) = (parts.next().unwrap_or_default(), parts.next());
            if !roots.contains(&root) {
                let hint = if REMEMBERED.contains(&root) {
                    "; say remember = [\"email\"] at the top: which fields the flow is to compare".to_owned()
                } else {
                    suggestion(root, roots.iter().copied())
                };
                self.problem::<()>(item, format!("{place}{root} is not known here{hint}"));
            } else if let (BEFORE, Some(field)) = (root, next)
                && !self.remember.iter().any(|known| known == field)
            {
                let hint = suggestion(field, self.remember.iter().map(String::as_str));
                self.problem::<()>(item, format!("{place}the flow does not remember {field}{hint}"));
            } else if root == UNSUBSCRIBE_URL && !self.has_link {
                let why =
                    format!("{place}{root} is known in what marketing mail says, in a step with marketing = \"news\"");
                self.problem::<()>(item, why);
            } else if let ("steps", Some(step)) = (root, next)
                && !earlier.iter().any(|known| known == step)
            {
                let hint = suggestion(step, earlier.iter().map(String::as_str));
                self.problem::<()>(item, format!("{place}there is no earlier step {step}{hint}"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
