//! The result of a chaos test as a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::checker::{Expected, Violation, ViolationKind, check};
use crate::ledger::{Ledger, Mark};

/// Maximum number of violations shown.
const SHOWN: usize = 20;

/// Course of a chaos test.
#[derive(Debug, Clone, Default)]
pub struct Course {
    /// Name of the backend or test.
    pub title: String,
    /// Seed of the random choices.
    pub seed: u64,
    /// Duration of the test.
    pub took: Duration,
    /// Number of faults injected, by kind.
    pub blows: BTreeMap<&'static str, usize>,
    /// Slowest recovery, by kind of fault.
    pub slowest: BTreeMap<&'static str, Duration>,
    /// Last output lines of programs that exited by themselves.
    pub ended_by_itself: Vec<String>,
    /// Reason why the test was aborted. `None` if it completed.
    pub gave_up: Option<String>,
}

/// A complete report.
#[derive(Debug, Clone)]
pub struct ChaosReport {
    course: Course,
    ledger: Ledger,
    violations: Vec<Violation>,
}

impl ChaosReport {
    /// Checks the ledger and creates the report.
    pub fn new(course: Course, ledger: Ledger, expected: &[Expected], may_die: &[&str]) -> Self {
        let violations = check(expected, &ledger, may_die);
        Self { course, ledger, violations }
    }

    /// Returns true if nothing is wrong and the load had effects.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
            && self.course.ended_by_itself.is_empty()
            && self.course.gave_up.is_none()
            && !self.ledger.effects.is_empty()
    }

    /// Returns the number of violations of a kind.
    pub fn count(&self, kind: ViolationKind) -> usize {
        self.violations.iter().filter(|violation| violation.kind == kind).count()
    }

    /// Returns the largest number of admitted and unfinished runs of one user in one flow.
    fn longest_lane(&self) -> usize {
        let mut lanes: BTreeMap<(&str, &str), Vec<(i64, i32)>> = BTreeMap::new();
        for run in &self.ledger.runs {
            let lane = lanes.entry((&run.flow, &run.key)).or_default();
            lane.push((run.admitted_at, 1));
            lane.extend(run.ended_at.map(|end| (end, -1)));
        }
        let longest = |lane: &mut Vec<(i64, i32)>| {
            lane.sort_unstable();
            let mut now = 0;
            lane.iter().map(|(_, change)| (now += change, now).1).max().unwrap_or(0)
        };
        usize::try_from(lanes.values_mut().map(longest).max().unwrap_or(0)).unwrap_or(0)
    }
}

/// Lists how often each item occurs, as in `a 3, b 1`.
fn counts<T: fmt::Display + Ord>(items: impl Iterator<Item = T>) -> String {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    list(counts.iter().map(|(item, count)| format!("{item} {count}")))
}

fn list(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

fn answer(mark: &Mark) -> String {
    mark.status.map_or_else(|| "no answer".into(), |status| status.to_string())
}

impl fmt::Display for ChaosReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { course, ledger, violations } = self;
        let sent = &ledger.sent;
        let runs = &ledger.runs;
        let users: BTreeSet<_> = sent.iter().map(|sent| &sent.key).collect();
        let posts: u64 = sent.iter().map(|sent| sent.posts).sum();
        let kept = sent.iter().filter(|sent| sent.acknowledged).count();
        let slowest = course.slowest.iter().map(|(blow, time)| format!("{blow} {:.1} s", time.as_secs_f64()));
        let dead = runs.iter().filter(|run| run.state == "dead");
        let dead = counts(dead.map(|run| format!("{} {}", run.flow, run.reason.as_deref().unwrap_or("no reason"))));
        let new = ledger.effects.iter().filter(|mark| !mark.replayed);
        let ends: BTreeMap<_, _> = runs.iter().map(|run| ((&run.flow, &run.event), run.ended_at)).collect();
        let late =
            |mark: &&Mark| ends.get(&(&mark.flow, &mark.event)).is_some_and(|end| end.is_some_and(|end| mark.at > end));
        let late = ledger.attempts.iter().filter(late).count();
        let replayed = ledger.effects.iter().filter(|mark| mark.replayed).count();

        let mut line = |name: &str, text: String| writeln!(f, "  {name:<18}{text}");
        line("chaos", format!("{}, seed {}, {} s", course.title, course.seed, course.took.as_secs()))?;
        line("faults", list(course.blows.iter().map(|(blow, count)| format!("{blow} {count}"))))?;
        line("slowest recovery", list(slowest))?;
        line("sent", format!("{} events of {} users in {posts} posts: {kept} acknowledged", sent.len(), users.len()))?;
        line("runs", format!("{}: {}", runs.len(), counts(runs.iter().map(|run| &run.state))))?;
        line("longest lane", format!("{} runs", self.longest_lane()))?;
        line("attempts", format!("{}: {}", ledger.attempts.len(), counts(ledger.attempts.iter().map(answer))))?;
        line("late attempts", format!("{late} by a replica that did not know that the run had ended"))?;
        line("effects", format!("{}, and {replayed} replayed", counts(new.map(|mark| &mark.step))))?;
        line("rows", ledger.rows.len().to_string())?;
        line("dead", dead)?;
        for kind in ViolationKind::ALL {
            line(kind.label(), self.count(kind).to_string())?;
        }
        line("ended by itself", course.ended_by_itself.len().to_string())?;
        if let Some(why) = &course.gave_up {
            line("gave up", why.clone())?;
        }
        line("verdict", if self.passed() { "PASS".into() } else { "FAIL".into() })?;
        for violation in violations.iter().take(SHOWN) {
            writeln!(f, "    {violation}")?;
        }
        for words in course.ended_by_itself.iter().take(SHOWN) {
            writeln!(f, "    ended by itself: {words}")?;
        }
        Ok(())
    }
}
