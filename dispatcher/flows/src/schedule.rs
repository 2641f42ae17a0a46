//! Schedules: the times at which a flow starts by itself, and the users for whom it does. A schedule is evaluated in a time
//! zone of the IANA database that is compiled in, so that all replicas agree whatever their machines hold.
//!
//! Around a change of the clocks, croner's rules hold. A fixed time that does not exist fires at the first moment after the
//! gap, and one that occurs twice fires the first time only. A pattern with a step or a star in its seconds, minutes or hours
//! follows elapsed time instead.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp as Instant, Zoned};
use usher_engine::firing::{Calendar, FiringPolicy, MissedPolicy};
use usher_proto::{Subject, Timestamp};

mod event;

pub use event::firing_event;

use super::{Context, Flow, Unrenderable, evaluate};

/// Default of the number of users for whom a firing starts runs in a second.
const PACE: SubjectPace = SubjectPace { subjects: 100, per: Duration::from_secs(1) };

/// The schedule of a flow.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The patterns, as they are written.
    crons: Vec<CronText>,
    zone: TimeZone,
    /// An expression on `user` that selects the users, each of whom gets a run; `None` if there is one run for the flow
    /// itself.
    pub subjects: Option<String>,
    /// The number of runs that a firing starts in a time.
    pub pace: SubjectPace,
    /// The treatment of missed times.
    pub missed: MissedPolicy,
}

/// A cron pattern that has been parsed.
#[derive(Debug, Clone)]
struct CronText {
    text: String,
    cron: Cron,
}

/// A number of subjects in a time, such as `100/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectPace {
    subjects: u32,
    per: Duration,
}

impl Default for SubjectPace {
    fn default() -> Self {
        PACE
    }
}

impl SubjectPace {
    /// Returns the number of subjects in a second.
    pub fn rate(self) -> f64 {
        f64::from(self.subjects) / self.per.as_secs_f64()
    }

    /// Returns the time that so many subjects take.
    pub fn time_of(self, subjects: usize) -> Duration {
        Duration::from_secs_f64(subjects as f64 / self.rate())
    }
}

/// The text is not a number of subjects in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pace is a number of users in a time, such as \"100/s\" or \"30/min\", up to 10000")]
pub struct InvalidPace;

impl FromStr for SubjectPace {
    type Err = InvalidPace;

    fn from_str(text: &str) -> Result<Self, InvalidPace> {
        let (subjects, unit) = text.split_once('/').ok_or(InvalidPace)?;
        let subjects = subjects.trim().parse().ok().filter(|subjects| (1..=10_000).contains(subjects));
        let per = match unit.trim() {
            "s" | "sec" | "second" => 1,
            "min" | "minute" => 60,
            "h" | "hour" => 3600,
            _ => return Err(InvalidPace),
        };
        Ok(Self { subjects: subjects.ok_or(InvalidPace)?, per: Duration::from_secs(per) })
    }
}

/// Reads the pattern of an entry of `on`, which follows `schedule/`.
///
/// # Errors
///
/// The text is no pattern, or no time matches it. The error says what is wrong.
pub(super) fn read_cron(text: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let fields = text.split_whitespace().count();
    if !text.starts_with('@') && !(5..=6).contains(&fields) {
        return Err(format!(
            "it has {fields} fields; there are five (minute, hour, day of the month, month, day of the week), or six with the \
             second first"
        ));
    }
    let cron = parser.parse(text).map_err(|error| reason(&error))?;
    // Far from any change of the clocks and of the calendar: the 29th of February comes within eight years.
    match cron.find_next_occurrence(&zoned(Timestamp::from_seconds(0), &TimeZone::UTC), true) {
        Ok(_) => Ok(cron),
        Err(_) => Err("no day is such a one".to_owned()),
    }
}

/// Returns the message of an error of the parser, without its kind.
fn reason(error: &croner::errors::CronError) -> String {
    use croner::errors::CronError;
    match error {
        CronError::InvalidPattern(what) | CronError::IllegalCharacters(what) | CronError::ComponentError(what) => {
            what.trim_end_matches('.').to_owned()
        }
        CronError::EmptyPattern => "it is empty".to_owned(),
        CronError::InvalidDate | CronError::InvalidTime | CronError::TimeSearchLimitExceeded => {
            "no day is such a one".to_owned()
        }
    }
}

/// Reads the name of a time zone, such as `Europe/Berlin`.
pub(super) fn read_zone(name: &str) -> Option<TimeZone> {
    jiff::tz::db().get(name).ok()
}

/// Returns the names of all time zones.
pub(super) fn zones() -> Vec<String> {
    jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect()
}

fn zoned(at: Timestamp, zone: &TimeZone) -> Zoned {
    Instant::from_second(at.seconds()).unwrap_or_default().to_zoned(zone.clone())
}

impl Schedule {
    /// Creates the schedule of these patterns, each with its text.
    pub(super) fn new(crons: Vec<(String, Cron)>, zone: TimeZone) -> Self {
        let crons = crons.into_iter().map(|(text, cron)| CronText { text, cron }).collect();
        Self { crons, zone, subjects: None, pace: PACE, missed: MissedPolicy::default() }
    }

    /// Returns the name of the time zone.
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// Returns a text that differs from that of every schedule with other times.
    pub fn plan(&self) -> String {
        self.to_string()
    }

    /// Returns the pattern by which the schedule fires at this time, as it is written; the first of them if there are several.
    pub fn pattern_at(&self, at: Timestamp) -> &str {
        let fires = |it: &&CronText| occurrence(&it.cron, &self.zone, at, Way::Back) == Some(at);
        self.crons.iter().find(fires).or(self.crons.first()).map_or("", |it| it.text.as_str())
    }

    /// Returns a time as the schedule's time zone has it, such as `2026-11-30T09:00:00+01:00[Europe/Berlin]`.
    pub fn local(&self, at: Timestamp) -> String {
        zoned(at, &self.zone).to_string()
    }

    /// Returns the next times after this one, at most so many.
    pub fn following(&self, after: Timestamp, times: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next(after), |at| self.next(*at)).take(times).collect()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.crons.iter().map(|it| it.text.as_str()).collect();
        write!(f, "{} in {}", texts.join(", "), self.zone())
    }
}

/// The direction of a search, and whether the beginning counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// After the beginning.
    On,
    /// Before the beginning, or at it.
    Back,
}

fn occurrence(cron: &Cron, zone: &TimeZone, from: Timestamp, way: Way) -> Option<Timestamp> {
    let from = zoned(from, zone);
    let found = match way {
        Way::On => cron.find_next_occurrence(&from, false),
        Way::Back => cron.find_previous_occurrence(&from, true),
    };
    found.ok().map(|found| Timestamp::from_seconds(found.timestamp().as_second()))
}

impl Calendar for Schedule {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.crons.iter().filter_map(|it| occurrence(&it.cron, &self.zone, after, Way::On)).min()
    }

    fn latest(&self, until: Timestamp) -> Option<Timestamp> {
        self.crons.iter().filter_map(|it| occurrence(&it.cron, &self.zone, until, Way::Back)).max()
    }
}

impl Flow {
    /// Returns the rules for late firings of the flow's schedule.
    pub fn firing_policy(&self) -> FiringPolicy {
        let missed = self.schedule.as_ref().map(|schedule| schedule.missed).unwrap_or_default();
        FiringPolicy { missed, expires_after: self.expires_after }
    }

    /// Returns true if the schedule's `subjects` selects the user with this snapshot. True also for a flow without
    /// `subjects`.
    ///
    /// # Errors
    ///
    /// The expression cannot be evaluated for this user.
    pub fn selects(&self, snapshot: &str) -> Result<bool, Unrenderable> {
        let subject = Subject { snapshot: Some(snapshot.to_owned()), deleted: false, revision: 0 };
        self.is_selected(&Context::of_user(&subject))
    }

    /// Returns true if `subjects` selects the user of this context. True also for a flow without `subjects`.
    pub(super) fn is_selected(&self, context: &Context) -> Result<bool, Unrenderable> {
        match self.schedule.as_ref().and_then(|schedule| schedule.subjects.as_deref()) {
            None => Ok(true),
            Some(subjects) => Ok(evaluate(subjects, context)?.is_some_and(|value| value.is_true())),
        }
    }
}

#[cfg(test)]
mod tests;
