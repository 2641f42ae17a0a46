//! Checks the steps of a flow.

use std::time::Duration;

use serde_json::Map;
use toml_edit::{Item, Table, TableLike};
use usher_connectors::{ATTEMPT_DEADLINE, Operation};
use usher_proto::unsubscribe::is_list_name;

use super::super::problem::{nearest, suggestion};
use super::super::wait::{WAIT_UNTIL, until};
use super::super::{Action, Call, Context, FlowStep, Needs, OnUnknownOutcome, Wait};
use super::flow::FLOW_KEYS;
use super::{Checked, Checker};

const WAIT_KEYS: [&str; 4] = ["name", "when", "wait", WAIT_UNTIL];
const CALL_KEYS: &[&str] = &[
    "name",
    "when",
    "use",
    "template",
    "marketing",
    "needs",
    "needs_within",
    "timeout",
    "on_unknown_outcome",
    "for_deleted",
    "optional",
];

/// Keys that users expect but that do not exist, each with an explanation.
const NOT_THERE: &[(&str, &str)] = &[
    ("headers", "http.request sends headers of a flow's own"),
    ("method", "http.request has one; http.post is always a POST"),
    ("cc", "only a mail has it: resend.send, smtp.send and nylas.send"),
    ("bcc", "only a mail has it: resend.send, smtp.send and nylas.send"),
    ("hosted_template", "only Resend has templates of its own: resend.send"),
    ("scheduled_at", "only Resend sends later: resend.send; a wait, such as wait = \"3d\", can still be cancelled"),
    ("attachments", "only resend.send has them, from the folder of USHER_ATTACHMENTS"),
    ("delay", "a step of its own waits: [[step]] with wait = \"3d\""),
    ("organization_id", "clerk.set_organization_metadata writes to an organization"),
];

/// Operations that are not offered on purpose, each with the reason.
const NOT_OFFERED: [(&str, &str); 2] = [
    (
        "clerk.delete_user",
        "a mistake in a flow would delete people for good; delete them in your application or Clerk's dashboard",
    ),
    ("clerk.ban_user", "a mistake in a flow would lock people out; ban them in your application or Clerk's dashboard"),
];

/// Maximum timeout of an attempt. A rebalance or a stop would wait in vain for a longer attempt to end.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Default of the time that a step waits for the value that it needs.
const NEEDS_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// Maximum length of a step's name in characters. The name becomes part of idempotency keys.
const LONGEST_NAME: usize = 64;

/// Returns the default decision after an unknown outcome.
fn default_on_unknown_outcome(connector: &str, operation: &str) -> OnUnknownOutcome {
    match usher_connectors::spec(connector) {
        Some(spec) if spec.repeats_unknown_outcomes.contains(&operation) => OnUnknownOutcome::Send,
        _ => OnUnknownOutcome::DeadLetter,
    }
}

impl Checker<'_> {
    pub(super) fn steps(&mut self, table: &Table) -> Vec<FlowStep> {
        let list = match table.get("step") {
            Some(Item::ArrayOfTables(list)) if !list.is_empty() => list,
            Some(item) => {
                self.note(
                    &self.place_of(item.span().or_else(|| table.key("step")?.span())),
                    "write [[step]]: steps are a list",
                );
                return Vec::new();
            }
            None => {
                self.note(&self.place_of(None), "a flow has at least one [[step]]");
                return Vec::new();
            }
        };
        let mut steps: Vec<FlowStep> = Vec::new();
        for (index, table) in list.iter().enumerate() {
            let earlier: Vec<String> = steps.iter().map(|step| step.name.clone()).collect();
            let line = self.place_of(table.span()).line;
            let lines = self.lines_of(table);
            self.lines.steps.push((line, lines));
            // The problem of a refused step is already recorded.
            if let Ok(step) = self.step(table, index, &earlier) {
                steps.push(step);
            }
        }
        steps
    }

    fn step(&mut self, table: &Table, index: usize, earlier: &[String]) -> Checked<FlowStep> {
        let start = self.place_of(table.span());
        let name = self.step_name(table, earlier).unwrap_or_else(|| format!("step-{}", index + 1));
        let when = self.text(table, "when");
        if let (Some(when), Some(item)) = (&when, table.get("when")) {
            self.expression(&self.place(item), when, earlier);
        }
        let action = match (table.contains_key("wait"), table.get(WAIT_UNTIL), table.get("use")) {
            (true, None, None) => {
                self.only(table, "a wait", &WAIT_KEYS, elsewhere);
                Action::Wait(Wait::For(self.wait(table, "wait").unwrap_or_default()))
            }
            (false, Some(until), None) => {
                self.only(table, "a wait", &WAIT_KEYS, elsewhere);
                Action::Wait(Wait::Until(self.wait_until(table, until, earlier)))
            }
            (true, Some(until), None) => {
                return Err(self.refuse(&self.place(until), "a wait has either wait = \"3d\" or wait_until, not both"));
            }
            (false, None, Some(item)) => Action::Call(self.call(table, item, earlier)?),
            _ => {
                self.only_known_keys(table);
                return Err(self.refuse(
                    &start,
                    "a step has either use = \"connector.operation\", or wait = \"3d\", or wait_until",
                ));
            }
        };
        Ok(FlowStep { name, when, action })
    }

    fn wait_until(&mut self, table: &Table, item: &Item, earlier: &[String]) -> String {
        let place = self.place(item);
        if let Some(time) = item.as_datetime() {
            self.note(&place, format!("write a time as a text: {WAIT_UNTIL} = \"{time}\""));
            return String::new();
        }
        let text = self.text(table, WAIT_UNTIL).unwrap_or_default();
        self.template_text(&place, &text, earlier);
        // A text without expressions is the same for every event.
        if !text.contains("{{")
            && !text.contains("{%")
            && let Err(error) = until(&text, &Context::none())
        {
            let hint = match humantime::parse_duration(&text) {
                Ok(_) => format!("a length of time is wait = \"{text}\""),
                Err(_) => "or an expression such as \"{{ event.data.trial_end }}\"".to_owned(),
            };
            self.object(&place, format!("{error}; {hint}"));
        }
        text
    }

    /// Records messages about misplaced keys of a step that is neither a wait nor a call.
    fn only_known_keys(&mut self, table: &Table) {
        for (key, _) in table.iter() {
            if let Some(why) = elsewhere(key).filter(|_| key != "name") {
                self.note(&self.place_of_key(table, key), why);
            }
        }
    }

    fn step_name(&mut self, table: &Table, earlier: &[String]) -> Option<String> {
        let name = self.text(table, "name")?;
        let place = self.place_of_key(table, "name");
        let is_fit = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.chars().count() > LONGEST_NAME || !name.chars().all(is_fit) {
            let used = table.get("use").and_then(Item::as_str).unwrap_or_default();
            let operation =
                used.split_once('.').and_then(|(connector, name)| usher_connectors::operation(connector, name));
            let meant = operation.and_then(|operation| operation.params.iter().find(|it| it.name.ends_with("_name")));
            let hint = meant.map(|param| format!("; the name that {used} sends is {}", param.name)).unwrap_or_default();
            let what = format!("name is the step's own: up to {LONGEST_NAME} letters, digits, - and _{hint}");
            self.object(&place, what);
        }
        if earlier.contains(&name) {
            self.note(&place, format!("there is a step {name} already; give this one a name of its own"));
        }
        Some(name)
    }

    fn call(&mut self, table: &Table, used: &Item, earlier: &[String]) -> Checked<Call> {
        let (connector, operation) = self.operation(used)?;
        let params: Vec<&str> = operation.params.iter().map(|param| param.name).collect();
        let known: Vec<&str> = CALL_KEYS.iter().copied().chain(params.iter().copied()).collect();
        self.only(table, used.as_str().unwrap_or_default(), &known, elsewhere);
        let marketing = self.marketing(table, operation);
        let mut given = Map::new();
        let mut is_refused = Ok(());
        for param in operation.params {
            // The link is built for its recipient, who must be known first.
            self.has_link = marketing.is_some() && !operation.writes_to.contains(&param.name);
            self.takes_secrets = param.takes_secrets;
            match table.get(param.name) {
                Some(item) => match self.param(param, item, earlier) {
                    Ok(value) => {
                        if param.shape.accepts(&value)
                            && let Err(unfit) = usher_connectors::check(connector, operation.name, param.name, &value)
                        {
                            self.object(&self.place(item), unfit.to_string());
                        }
                        given.insert(param.name.to_owned(), value);
                    }
                    Err(refused) => is_refused = Err(refused),
                },
                None if param.required => {
                    let message = format!("{} needs {}", operation.name, param.name);
                    self.note(&self.place(used), message);
                }
                None => {}
            }
        }
        self.takes_secrets = false;
        self.has_link = marketing.is_some();
        let template = self.template(table, operation, earlier);
        self.has_link = false;
        is_refused?;
        Ok(Call {
            connector: connector.to_owned(),
            operation: operation.name.to_owned(),
            params: given,
            template,
            marketing,
            needs: self.needs(table, earlier),
            timeout: self.timeout(table),
            on_unknown_outcome: self.on_unknown_outcome(table, connector, operation.name),
            for_deleted: self.flag(table, "for_deleted"),
            optional: self.flag(table, "optional"),
        })
    }

    fn needs(&mut self, table: &Table, earlier: &[String]) -> Option<Needs> {
        let needs = self.text(table, "needs");
        if let (Some(needs), Some(item)) = (&needs, table.get("needs")) {
            self.expression(&self.place(item), needs, earlier);
        }
        let within = self.wait(table, "needs_within");
        if let (None, Some(_)) = (&needs, within) {
            let place = self.place_of_key(table, "needs_within");
            self.note(&place, "needs_within says how long to wait, but needs does not say for what");
        }
        needs.map(|value| Needs { value, within: within.unwrap_or(NEEDS_WITHIN) })
    }

    fn marketing(&mut self, table: &dyn TableLike, operation: &Operation) -> Option<String> {
        let item = table.get("marketing")?;
        let place = self.place(item);
        let Some(list) = item.as_str().filter(|list| is_list_name(list)) else {
            let what = "marketing is the name of the list whose mail this is, such as \"news\": a-z, 0-9, - and _";
            self.note(&place, what);
            return None;
        };
        let Some(for_whom) = operation.writes_to.first() else {
            self.note(&place, format!("{} writes to nobody, so it is no marketing", operation.name));
            return None;
        };
        if let Some(to) = table.get(for_whom)
            && to.as_array().is_some_and(|list| list.len() > 1)
        {
            let why = format!("{for_whom} is one address in marketing mail: the link that ends it is made for one");
            self.note(&self.place(to), why);
        }
        for others in operation.writes_to.iter().skip(1).filter(|others| table.contains_key(others)) {
            let why = format!(
                "marketing mail has no {others}: the link that ends it is made for the one address in {for_whom}"
            );
            self.note(&self.place_of_key(table, others), why);
        }
        Some(list.to_owned())
    }

    fn timeout(&mut self, table: &dyn TableLike) -> Duration {
        let timeout = self.duration(table, "timeout").unwrap_or(ATTEMPT_DEADLINE);
        if let Some(item) = table.get("timeout").filter(|_| timeout.is_zero() || timeout > LONGEST_TIMEOUT) {
            self.note(&self.place(item), "timeout may be up to \"5m\"");
        }
        timeout
    }

    fn on_unknown_outcome(&mut self, table: &dyn TableLike, connector: &str, operation: &str) -> OnUnknownOutcome {
        let Some(item) = table.get("on_unknown_outcome") else {
            return default_on_unknown_outcome(connector, operation);
        };
        match item.as_str() {
            Some("send") => return OnUnknownOutcome::Send,
            Some("dead_letter") => {}
            _ => self.note(&self.place(item), "on_unknown_outcome may be \"send\" or \"dead_letter\""),
        }
        OnUnknownOutcome::DeadLetter
    }

    fn operation(&mut self, item: &Item) -> Checked<(&'static str, &'static Operation)> {
        let text = item.as_str().unwrap_or_default();
        let all = usher_connectors::operations;
        let found = all().find(|(connector, operation)| text == format!("{connector}.{}", operation.name));
        found.ok_or_else(|| {
            let connector = text.split('.').next().unwrap_or_default();
            let name = |(connector, operation): (&str, &Operation)| format!("{connector}.{}", operation.name);
            let of_connector = |(known, _): &(&str, &Operation)| *known == connector;
            let names: Vec<String> = all().map(name).collect();
            let own: Vec<String> = all().filter(of_connector).map(name).collect();
            if let Some((_, why)) = NOT_OFFERED.iter().find(|(name, _)| *name == text) {
                return self.refuse(&self.place(item), format!("{text} is not offered: {why}"));
            }
            let hint = match (nearest(text, names.iter().map(String::as_str)), own.is_empty()) {
                (Some(meant), _) => format!("; did you mean {meant}?"),
                (None, false) => format!("; {connector} can {}", own.join(", ")),
                (None, true) => {
                    let connectors: Vec<&str> = usher_connectors::CONNECTORS.iter().map(|spec| spec.name).collect();
                    format!(
                        "; there are {}; any other HTTP API, such as Slack's, is reached by http.request",
                        connectors.join(", ")
                    )
                }
            };
            self.refuse(&self.place(item), format!("there is no {text:?}{hint}"))
        })
    }

    fn template(&mut self, table: &dyn TableLike, operation: &Operation, earlier: &[String]) -> Option<String> {
        let name = self.text(table, "template")?;
        let place = self.place_of(table.get("template").and_then(Item::span));
        if !operation.takes_template {
            self.note(&place, format!("{} sends no template", operation.name));
            return None;
        }
        let source = self.source;
        let texts: Vec<(&str, &String, &String)> = [("html", "html"), ("text", "txt")]
            .into_iter()
            .filter_map(|(param, extension)| {
                let (file, text) = source.templates.get_key_value(&format!("{name}.{extension}"))?;
                Some((param, file, text))
            })
            .collect();
        if texts.is_empty() {
            self.note(&place, no_template(&name, source.templates.keys().map(String::as_str)));
            return None;
        }
        for (param, file, text) in texts {
            if table.contains_key(param) {
                let twice = format!("templates/{file} is what {param} says: give one of the two");
                self.object(&self.place_of_key(table, param), twice);
            }
            self.template_text(&self.place_in(file), text, earlier);
        }
        Some(name)
    }
}

/// Returns a message about a key that no step has, if the intended meaning is known.
fn elsewhere(key: &str) -> Option<String> {
    if FLOW_KEYS.contains(&key) && key != "from" {
        return Some(format!("{key} is a key of the flow: move it above the first [[step]]"));
    }
    let (_, why) = NOT_THERE.iter().find(|(known, _)| *known == key)?;
    Some(format!("there is no key {key}: {why}"))
}

fn no_template<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let stems = known.clone().filter_map(|file| file.rsplit_once('.').map(|(stem, _)| stem));
    if let Some((stem, _)) = name.rsplit_once('.')
        && stems.clone().any(|known| known == stem)
    {
        return format!("template = \"{stem}\", without .html or .txt: both are sent where both are there");
    }
    format!("there is no templates/{name}.html or templates/{name}.txt{}", suggestion(name, stems))
}
