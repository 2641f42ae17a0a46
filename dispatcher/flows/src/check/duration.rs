//! Durations in flow files: their form, their bounds, and units that are easily mistaken.

use std::time::Duration;

use toml_edit::TableLike;

use super::super::LONGEST_WAIT;
use super::Checker;

/// Least duration of a wait. The end of a wait is exact to a second, so a shorter one would mean nothing.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// The units of months and years. Their lengths are averages, which nobody means by them.
const UNEVEN: [&str; 8] = ["M", "month", "months", "y", "yr", "yrs", "year", "years"];

impl Checker<'_> {
    /// Reads a duration of at most 366 days. Months and years are refused: a month has no length, and `M` is mostly
    /// a misspelt `m`.
    pub(super) fn duration(&mut self, table: &dyn TableLike, key: &str) -> Option<Duration> {
        let item = table.get(key)?;
        let example = format!("{key} is a time such as \"30s\", \"10m\", \"12h\" or \"3d\"");
        let Some((text, duration)) = item.as_str().and_then(|text| Some((text, humantime::parse_duration(text).ok()?)))
        else {
            self.note(&self.place(item), example);
            return None;
        };
        let place = self.place(item);
        if let Some(unit) = units(text).find(|unit| UNEVEN.contains(unit)) {
            self.object(&place, format!("{key} = \"{text}\" would be {}: {}", in_days(duration), meant(text, unit)));
        } else if duration > LONGEST_WAIT {
            let hint = shorter(text).map(|meant| format!("; did you mean \"{meant}\"?")).unwrap_or_default();
            self.object(
                &place,
                format!("{key} is a year at most, 366 days, and \"{text}\" is {}{hint}", in_days(duration)),
            );
        }
        Some(duration)
    }

    /// Reads the duration of a wait: from a second to 366 days.
    pub(super) fn wait(&mut self, table: &dyn TableLike, key: &str) -> Option<Duration> {
        let duration = self.duration(table, key)?;
        if let Some(item) = table.get(key).filter(|_| duration < SHORTEST_WAIT) {
            self.object(&self.place(item), format!("{key} is a second at least: \"1s\""));
        }
        Some(duration)
    }
}

/// Returns the units of a duration's text.
fn units(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphabetic()).filter(|unit| !unit.is_empty())
}

fn in_days(duration: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    let tenths = duration.as_secs().saturating_mul(10) / DAY;
    match (tenths / 10, tenths % 10) {
        (1, 0) => "1 day".to_owned(),
        (whole, 0) => format!("{whole} days"),
        (whole, tenth) => format!("{whole}.{tenth} days"),
    }
}

/// Returns what the author of an uneven unit probably meant.
fn meant(text: &str, unit: &str) -> String {
    if unit == "M" {
        return format!("m is a minute, \"{}\", and a month is \"30d\"", text.replace('M', "m"));
    }
    if unit.starts_with('m') { "a month is \"30d\"".to_owned() } else { "a year is \"365d\"".to_owned() }
}

/// Returns the text with the next smaller unit, if that is probably what was meant: hours in place of days, and so on.
fn shorter(text: &str) -> Option<String> {
    let (number, unit) = text.trim().split_at_checked(text.trim().find(|c: char| !c.is_ascii_digit())?)?;
    let smaller = match unit.trim() {
        "w" | "week" | "weeks" => "d",
        "d" | "day" | "days" => "h",
        "h" | "hr" | "hour" | "hours" => "m",
        _ => return None,
    };
    let text = format!("{number}{smaller}");
    humantime::parse_duration(&text).ok().filter(|meant| *meant <= LONGEST_WAIT)?;
    Some(text)
}
