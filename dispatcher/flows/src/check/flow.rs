//! Checks the top-level keys of a flow.

use std::collections::BTreeSet;

use toml_edit::{Item, TableLike, Value as Toml};
use usher_engine::RetryPolicy;
use usher_engine::start::StartFrom;
use usher_proto::{Instance, Source};

use super::super::events;
use super::super::problem::suggestion;
use super::super::{Flow, FlowSettings, Pattern};
use super::schedule::pattern;
use super::{Checker, Place};

pub(super) const FLOW_KEYS: &[&str] = &[
    "enabled",
    "on",
    "if",
    "cancel_on",
    "cancel_if",
    "instances",
    "priority",
    "from",
    "concurrency",
    "expires_after",
    "expires_if",
    "remember",
    "retry",
    "was",
    "time_zone",
    "subjects",
    "pace",
    "if_missed",
    "step",
];
const RETRY_KEYS: [&str; 4] = ["attempts", "first", "max", "within"];

/// Default of the maximum number of steps of one flow in flight in one process.
pub(super) const CONCURRENCY: usize = 64;

impl Checker<'_> {
    pub(super) fn flow(&mut self, table: &toml_edit::Table) -> Flow {
        self.only(table, "a flow", FLOW_KEYS, |_| None);
        self.lines.top = self.lines_of(table);
        let name = self.source.name.clone();
        let top = self.place_of(None);
        if !is_flow_name(&name) {
            self.note(&top, format!("{name:?} is no flow's name: use a-z, 0-9 and '-', it becomes part of topics"));
        }
        if !table.contains_key("on") {
            let why = "on is missing: say which events start the flow, for instance [\"clerk/user.created\"]";
            self.note(&top, why);
        }
        let on = self.patterns(table, "on");
        let schedule = self.schedule(table);
        let expires_after = self.wait(table, "expires_after");
        if let (Some(item), None) = (table.get("expires_if"), expires_after) {
            self.note(&self.place(item), "expires_if says what expires, but expires_after does not say when");
        }
        if let (Some(item), false) = (table.get("cancel_if"), table.contains_key("cancel_on")) {
            let why = "cancel_if says which of the events of cancel_on cancel runs, but there is no cancel_on";
            self.note(&self.place(item), why);
        }
        self.remember = self.remembered(table);
        Flow {
            name,
            version: String::new(),
            source: self.source.clone(),
            enabled: !table.contains_key("enabled") || self.flag(table, "enabled"),
            // Of the past of the log a schedule needs nothing: its own events of an earlier life would be made again.
            from: self.from(table).or(schedule.is_some().then_some(StartFrom::Now)),
            on,
            schedule,
            cancel_on: self.patterns(table, "cancel_on"),
            cancel_if: self.on_event(table, "cancel_if"),
            instances: self.instances(table),
            urgent: self.urgent(table),
            starts_if: self.on_event(table, "if"),
            concurrency: self.number(table, "concurrency").unwrap_or(CONCURRENCY),
            expires_after,
            expires_if: self.on_event(table, "expires_if"),
            remember: self.remember.clone(),
            was: self.was(table),
            retry: self.retry(table),
            settings: FlowSettings::default(),
            steps: self.steps(table),
            warnings: Vec::new(),
        }
    }

    /// Returns the former name of the flow, whose runs and positions it takes over.
    fn was(&mut self, table: &dyn TableLike) -> Option<String> {
        let was = self.text(table, "was")?;
        let place = self.place_of(table.get("was").and_then(Item::span));
        if was == self.source.name {
            self.note(&place, format!("was is the former name of the flow, and {was} is its present one"));
        } else if !is_flow_name(&was) {
            self.note(&place, format!("{was:?} is no flow's name: was is the former name of the file, without .toml"));
        }
        Some(was)
    }

    fn from(&mut self, table: &dyn TableLike) -> Option<StartFrom> {
        let item = table.get("from")?;
        match item.as_str() {
            Some("beginning") => return Some(StartFrom::Beginning),
            Some("now") => return Some(StartFrom::Now),
            Some(text) if text.contains('@') => {
                let why = "from may be \"beginning\" or \"now\": the sender of a mail is the step's from";
                self.note(&self.place(item), why);
            }
            _ => self.note(&self.place(item), "from may be \"beginning\" or \"now\""),
        }
        None
    }

    fn patterns(&mut self, table: &dyn TableLike, key: &str) -> Vec<Pattern> {
        let Some(item) = table.get(key) else { return Vec::new() };
        let wrong = format!("{key} is a list of events such as \"clerk/user.created\" or \"clerk/user.*\"");
        let Some(list) = item.as_array().filter(|list| !list.is_empty()) else {
            self.note(&self.place(item), wrong);
            return Vec::new();
        };
        let mut patterns = Vec::new();
        for value in list {
            let place = self.place_of(value.span());
            let text = value.as_str();
            if text.and_then(pattern).is_some() {
                // Those of `on` are read with the schedule.
                if key != "on" {
                    self.note(&place, format!("a schedule only starts runs, so it cannot be in {key}"));
                }
                continue;
            }
            match text.and_then(Pattern::parse) {
                Some(pattern) => patterns.push(pattern),
                None => self.note(&place, text.and_then(no_pattern).unwrap_or_else(|| wrong.clone())),
            }
        }
        patterns
    }

    /// Returns the flow's instances. By default a flow runs for the default instance only. Another instance must be
    /// listed explicitly, so that a trial at a development instance never reaches the accounts of the live instance.
    fn instances(&mut self, table: &dyn TableLike) -> BTreeSet<Instance> {
        let Some(item) = table.get("instances") else { return [Instance::default()].into() };
        let wrong = "instances is a list such as [\"default\", \"staging\"]: \"default\" is the one of \
                     CLERK_WEBHOOK_SIGNING_SECRET, \"staging\" that of CLERK_WEBHOOK_SIGNING_SECRET_STAGING";
        let name = |value: &Toml| value.as_str()?.parse::<Instance>().ok();
        let names = item.as_array().filter(|list| !list.is_empty()).and_then(|list| list.iter().map(name).collect());
        if names.is_none() {
            self.note(&self.place(item), wrong);
        }
        names.unwrap_or_default()
    }

    fn urgent(&mut self, table: &dyn TableLike) -> bool {
        let Some(item) = table.get("priority") else { return false };
        match item.as_str() {
            Some("urgent") => return true,
            Some("normal") => {}
            _ => self.note(&self.place(item), "priority may be \"urgent\" or \"normal\""),
        }
        false
    }

    /// Reads an expression that is evaluated when an event arrives.
    fn on_event(&mut self, table: &dyn TableLike, key: &str) -> Option<String> {
        let text = self.text(table, key)?;
        let place = self.place_of(table.get(key).and_then(Item::span));
        self.expression_on_event(&place, key, &text);
        Some(text)
    }

    fn remembered(&mut self, table: &dyn TableLike) -> Vec<String> {
        let Some(item) = table.get("remember") else { return Vec::new() };
        let names = item.as_array().map(|list| list.iter().map(|name| name.as_str().map(str::to_owned)).collect());
        let names = names.flatten().filter(|names: &Vec<String>| !names.is_empty());
        if names.is_none() {
            let what = "remember is a list of fields of the user such as [\"email\", \"totp_enabled\"]";
            self.note(&self.place(item), what);
        }
        names.unwrap_or_default()
    }

    fn retry(&mut self, table: &dyn TableLike) -> RetryPolicy {
        let default = RetryPolicy::default();
        let Some(item) = table.get("retry") else { return default };
        let place = self.place(item);
        let Some(retry) = item.as_table_like() else {
            self.note(&place, "retry is a table such as { attempts = 5, first = \"1s\", max = \"5m\" }");
            return default;
        };
        self.only(retry, "retry", &RETRY_KEYS, |_| None);
        let policy = RetryPolicy {
            attempts: self.number(retry, "attempts").map_or(default.attempts, |n| u32::try_from(n).unwrap_or(u32::MAX)),
            first: self.duration(retry, "first").unwrap_or(default.first),
            max: self.duration(retry, "max").unwrap_or(default.max),
            within: self.duration(retry, "within").unwrap_or(default.within),
        };
        self.in_order(retry, &place, &policy);
        policy
    }

    /// Checks that the first pause is neither longer than the longest pause nor longer than the time for all attempts.
    fn in_order(&mut self, retry: &dyn TableLike, place: &Place, policy: &RetryPolicy) {
        let shown = humantime::format_duration;
        if policy.first > policy.max {
            let given = if retry.contains_key("max") { "" } else { ", unless it is given" };
            let why = format!(
                "the first pause is {}, and max, the longest, is {}{given}",
                shown(policy.first),
                shown(policy.max)
            );
            self.object(place, why);
        }
        if policy.first > policy.within {
            let why = format!(
                "the first pause is {}, and within, the time for all attempts, is {}",
                shown(policy.first),
                shown(policy.within)
            );
            self.object(place, why);
        }
    }
}

/// True if a flow can have this name.
fn is_flow_name(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.chars().all(valid)
}

/// Returns a message about an invalid pattern, if the text shows the mistake.
fn no_pattern(text: &str) -> Option<String> {
    if let Some((source, kind)) = text.split_once('/') {
        if source.parse::<Source>().is_err() {
            return Some(format!("{text:?} is of no source{}", suggestion(source, Source::built_in_labels())));
        }
        return kind.contains('*').then(|| format!("{text:?}: a * stands at the end only, for all that begins so"));
    }
    let meant = events::nearest(Source::Clerk, text).unwrap_or(text);
    text.contains('.').then(|| format!("{text:?} lacks its source: did you mean \"clerk/{meant}\"?"))
}
