//! The targets, and how far a run is from each: a value for each round, because arms of one round ran side by side.

use std::fmt;

use serde::Serialize;

use super::{Sample, Spread};

/// Limit of a measure.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// The value is at least this.
    AtLeast(f64),
    /// The value is at most this.
    AtMost(f64),
}

impl Bound {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
            Self::AtMost(limit) => write!(f, "at most {limit}"),
        }
    }
}

/// One measure with its target.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TargetRow {
    /// Measure, with its unit.
    pub(crate) measure: String,
    /// Limit.
    pub(crate) target: Bound,
    /// Value of each round.
    pub(crate) values: Vec<f64>,
    /// Command that measures it.
    pub(crate) command: String,
}

/// The samples of one case, from which values are computed round by round.
pub(crate) struct Values<'a> {
    samples: &'a [Sample],
    case: &'a str,
}

impl<'a> Values<'a> {
    /// Selects the samples of a case.
    pub(crate) fn of(samples: &'a [Sample], case: &'a str) -> Self {
        Self { samples, case }
    }

    /// Returns a value of an arm for each round in which it ran.
    pub(crate) fn each(&self, arm: &str, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.rounds(&[arm], |of| of.first().map_or(f64::NAN, |sample| value(sample)))
    }

    /// Returns a ratio of two arms, `of` by `to`, for each round in which both ran.
    pub(crate) fn ratio(&self, of: &str, to: &str, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.rounds(&[of, to], |arms| match arms {
            [of, to] => value(of) / value(to),
            _ => f64::NAN,
        })
    }

    /// Returns a value of several arms for each round in which all of them ran.
    pub(crate) fn rounds(&self, arms: &[&str], value: impl Fn(&[&Sample]) -> f64) -> Vec<f64> {
        let last = self.samples.iter().map(|sample| sample.round).max().unwrap_or_default();
        let sample = |round: usize, arm: &str| {
            self.samples.iter().find(|it| it.round == round && it.arm == arm && it.case == self.case)
        };
        let of_round = |round| arms.iter().map(|arm| sample(round, arm)).collect::<Option<Vec<_>>>();
        (1..=last).filter_map(of_round).map(|arms| value(&arms)).collect()
    }
}

/// Prints the rows that have values.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn print_targets(rows: &[TargetRow]) {
    println!("\n| measure | seen (spread) | target | met | command |\n|---|---|---|---|---|");
    for row in rows.iter().filter(|row| !row.values.is_empty()) {
        let seen = Spread::of(row.values.iter().copied());
        let met = if row.target.is_met(seen.median) { "yes" } else { "no" };
        let digits = if seen.median.abs() < 100.0 { 2 } else { 0 };
        println!(
            "| {} | {:.digits$} ({:.digits$}..{:.digits$}) | {} | {met} | `{}` |",
            row.measure, seen.median, seen.min, seen.max, row.target, row.command
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sample(arm: &'static str, round: usize, events: usize) -> Sample {
        Sample {
            case: "case".to_owned(),
            arm,
            round,
            events,
            repeated: 0,
            seconds: 1.0,
            cpu_seconds: BTreeMap::new(),
            beside_seconds: BTreeMap::new(),
            peak_memory: 0,
            latency: None,
        }
    }

    #[test]
    fn ratios_are_those_of_rounds_in_which_both_arms_ran() {
        let samples = [sample("one", 1, 30), sample("other", 1, 10), sample("one", 2, 50)];
        assert_eq!(Values::of(&samples, "case").ratio("one", "other", Sample::rate), [3.0]);
        assert!(Values::of(&samples, "another case").ratio("one", "other", Sample::rate).is_empty());
    }

    #[test]
    fn bounds_hold_on_their_side() {
        assert!(Bound::AtLeast(1.0).is_met(1.0) && !Bound::AtLeast(1.0).is_met(0.9));
        assert!(Bound::AtMost(1.0).is_met(1.0) && !Bound::AtMost(1.0).is_met(1.1));
        assert!(!Bound::AtLeast(1.0).is_met(f64::NAN) && !Bound::AtMost(1.0).is_met(f64::NAN));
    }
}
