//! Checks the keys of a scheduled flow: the patterns in `on`, and what belongs to them.

use toml_edit::{Item, TableLike, Value as Toml};
use usher_engine::firing::MissedPolicy;

use super::super::problem::suggestion;
use super::super::schedule::{Schedule, read_cron, read_zone, zones};
use super::Checker;

/// Beginning of an entry of `on` that is a schedule.
const PREFIX: &str = "schedule/";
/// Keys that only a scheduled flow has.
pub(super) const SCHEDULE_KEYS: [&str; 4] = ["time_zone", "subjects", "pace", "if_missed"];

/// Returns the pattern of an entry of `on` that is a schedule.
pub(super) fn pattern(text: &str) -> Option<&str> {
    text.strip_prefix(PREFIX)
}

impl Checker<'_> {
    /// Reads the flow's schedule; `None` if `on` has none.
    pub(super) fn schedule(&mut self, table: &toml_edit::Table) -> Option<Schedule> {
        let entries: Vec<&Toml> = table.get("on").and_then(Item::as_array).into_iter().flatten().collect();
        let pattern_of = |entry: &&Toml| entry.as_str().and_then(pattern).map(|text| (text.to_owned(), entry.span()));
        let patterns: Vec<_> = entries.iter().filter_map(pattern_of).collect();
        if patterns.is_empty() {
            for key in SCHEDULE_KEYS.into_iter().filter(|key| table.contains_key(key)) {
                let place = self.place_of_key(table, key);
                self.note(&place, format!("{key} belongs to a schedule, such as on = [\"schedule/0 9 * * 1\"]"));
            }
            return None;
        }
        if let Some(event) = entries.iter().find(|entry| pattern_of(entry).is_none()) {
            let why = "a flow starts on schedules or on events: give each a flow of its own";
            self.note(&self.place_of(event.span()), why);
        }
        let mut crons = Vec::new();
        for (text, span) in patterns {
            match read_cron(&text) {
                Ok(cron) => crons.push((text, cron)),
                Err(why) => {
                    let place = self.place_of(span);
                    self.note(&place, format!("{text:?} is no schedule: {why}. \"0 9 * * 1\" is Monday at nine"));
                }
            }
        }
        let mut schedule = Schedule::new(crons, self.zone(table));
        schedule.subjects = self.subjects(table);
        if let Some(pace) = self.text(table, "pace") {
            let place = self.place_of_key(table, "pace");
            match pace.parse() {
                Ok(_) if schedule.subjects.is_none() => {
                    self.note(&place, "pace is how fast subjects get their runs, and there are no subjects");
                }
                Ok(pace) => schedule.pace = pace,
                Err(error) => self.note(&place, error.to_string()),
            }
        }
        if let Some(item) = table.get("if_missed") {
            match item.as_str() {
                Some("once") => schedule.missed = MissedPolicy::Once,
                Some("skip") => schedule.missed = MissedPolicy::Skip,
                _ => self.note(&self.place(item), "if_missed may be \"once\" or \"skip\""),
            }
        }
        Some(schedule)
    }

    fn zone(&mut self, table: &dyn TableLike) -> jiff::tz::TimeZone {
        let Some(name) = self.text(table, "time_zone") else { return jiff::tz::TimeZone::UTC };
        read_zone(&name).unwrap_or_else(|| {
            let place = self.place_of_key(table, "time_zone");
            let known = zones();
            let hint = suggestion(&name, known.iter().map(String::as_str));
            self.note(&place, format!("there is no time zone {name:?}{hint}; one is named like \"Europe/Berlin\""));
            jiff::tz::TimeZone::UTC
        })
    }

    fn subjects(&mut self, table: &dyn TableLike) -> Option<String> {
        let text = self.text(table, "subjects")?;
        let place = self.place_of_key(table, "subjects");
        self.expression_on(
            &place,
            &text,
            "user",
            "subjects",
            "it selects users, and sees only user, such as user.email",
        );
        Some(text)
    }
}
