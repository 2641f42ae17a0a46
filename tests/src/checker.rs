//! Checks the ledger of a chaos test, whatever was killed: no acknowledged event is lost, no effect happens twice, each
//! user's order is kept, and every run ends. Pure functions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::ledger::{Ledger, Mark, RunRow, SentWebhook};

/// Expected results of one flow.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Name of the flow.
    pub flow: &'static str,
    /// Types of the events that start it, without the source.
    pub on: &'static [&'static str],
    /// Steps whose effects the destinations record.
    pub steps: &'static [&'static str],
    /// True if the flow maintains the users table.
    pub keeps_rows: bool,
}

/// Kind of a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationKind {
    /// An acknowledged event without a run, an effect or a row.
    Lost,
    /// More than one effect of one event in one step.
    Twice,
    /// A later event of a user was handled before an earlier one.
    Order,
    /// A run that has not ended.
    Stuck,
    /// A dead run whose reason is not among the allowed ones.
    Dead,
}

impl ViolationKind {
    /// All kinds, in order of display.
    pub const ALL: [Self; 5] = [Self::Lost, Self::Twice, Self::Order, Self::Stuck, Self::Dead];

    /// Label of the kind in the report.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Twice => "twice",
            Self::Order => "order",
            Self::Stuck => "stuck",
            Self::Dead => "dead",
        }
    }
}

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Kind of the violation.
    pub kind: ViolationKind,
    /// Flow concerned.
    pub flow: String,
    /// Event concerned.
    pub event: String,
    /// Description in words.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<5}  {}  {}  {}", self.kind.label(), self.flow, self.event, self.what)
    }
}

/// Indexes over the ledger.
struct LedgerIndex<'a> {
    expected: &'a [Expected],
    sent: BTreeMap<&'a str, &'a SentWebhook>,
    runs: BTreeMap<(&'a str, &'a str), &'a RunRow>,
    /// Events of each key, per flow, ordered by `seq`.
    lanes: BTreeMap<(&'a str, &'a str), Vec<&'a SentWebhook>>,
    first_attempts: BTreeMap<(&'a str, &'a str), i64>,
    found: Vec<Violation>,
}

/// Returns all violations, sorted by kind. `may_die`: reasons for which a run may be dead.
pub fn check(expected: &[Expected], ledger: &Ledger, may_die: &[&str]) -> Vec<Violation> {
    let mut index = LedgerIndex::new(expected, ledger);
    index.runs_and_effects(ledger);
    index.rows(ledger);
    index.twice(ledger);
    index.order_of_effects(ledger);
    index.order_of_turns();
    index.ends(ledger, may_die);
    index.found.sort_by_key(|violation| violation.kind);
    index.found
}

impl<'a> LedgerIndex<'a> {
    fn new(expected: &'a [Expected], ledger: &'a Ledger) -> Self {
        let mut lanes: BTreeMap<_, Vec<&SentWebhook>> = BTreeMap::new();
        for sent in &ledger.sent {
            for flow in expected.iter().filter(|flow| flow.on.contains(&sent.kind.as_str())) {
                lanes.entry((flow.flow, sent.key.as_str())).or_default().push(sent);
            }
        }
        lanes.values_mut().for_each(|lane| lane.sort_by_key(|sent| sent.seq));
        let mut first_attempts = BTreeMap::new();
        for mark in &ledger.attempts {
            let first = first_attempts.entry((mark.flow.as_str(), mark.event.as_str())).or_insert(mark.at);
            *first = (*first).min(mark.at);
        }
        Self {
            expected,
            sent: ledger.sent.iter().map(|sent| (sent.event.as_str(), sent)).collect(),
            runs: ledger.runs.iter().map(|run| ((run.flow.as_str(), run.event.as_str()), run)).collect(),
            lanes,
            first_attempts,
            found: Vec::new(),
        }
    }

    fn wrong(&mut self, kind: ViolationKind, flow: &str, event: &str, what: impl Into<String>) {
        self.found.push(Violation { kind, flow: flow.into(), event: event.into(), what: what.into() });
    }

    /// Checks that each acknowledged event has a run in each flow that it starts, and that each done run has
    /// all its effects.
    fn runs_and_effects(&mut self, ledger: &'a Ledger) {
        let effects: BTreeSet<_> = ledger.effects.iter().map(place).collect();
        for expected in self.expected {
            let flow = expected.flow;
            for sent in &ledger.sent {
                if !sent.acknowledged || !expected.on.contains(&sent.kind.as_str()) {
                    continue;
                }
                let event = sent.event.as_str();
                let Some(run) = self.runs.get(&(flow, event)).copied() else {
                    self.wrong(ViolationKind::Lost, flow, event, "acknowledged, and there is no run");
                    continue;
                };
                match run.state.as_str() {
                    "done" => {
                        for step in expected.steps.iter().filter(|step| !effects.contains(&(flow, event, *step))) {
                            self.wrong(
                                ViolationKind::Lost,
                                flow,
                                event,
                                format!("done without the effect of step {step}"),
                            );
                        }
                    }
                    "superseded" if self.has_later(flow, sent) => {}
                    // Unfinished and dead runs are reported by `ends`.
                    _ if run.ended_at.is_none() || run.state == "dead" => {}
                    state => {
                        self.wrong(ViolationKind::Lost, flow, event, format!("{state}, and nothing newer was done"))
                    }
                }
            }
        }
    }

    /// Returns true if a later event of the same user is done.
    fn has_later(&self, flow: &str, than: &SentWebhook) -> bool {
        let lane = self.lanes.get(&(flow, than.key.as_str())).into_iter().flatten();
        let mut later = lane.filter(|sent| sent.seq > than.seq);
        later.any(|sent| self.runs.get(&(flow, sent.event.as_str())).is_some_and(|run| run.state == "done"))
    }

    /// Checks that each row holds the last acknowledged state of its user, or one that was sent after it.
    fn rows(&mut self, ledger: &'a Ledger) {
        let Some(flow) = self.expected.iter().find(|flow| flow.keeps_rows).map(|flow| flow.flow) else { return };
        let lanes: Vec<_> =
            self.lanes.iter().filter(|((of, _), _)| *of == flow).map(|((_, key), lane)| (*key, lane.clone())).collect();
        for (key, lane) in lanes {
            let Some(last) = lane.iter().rfind(|sent| sent.acknowledged) else { continue };
            match ledger.rows.get(key) {
                None => self.wrong(ViolationKind::Lost, flow, &last.event, "acknowledged, and the user has no row"),
                Some(seq) if *seq < last.seq => {
                    self.wrong(
                        ViolationKind::Lost,
                        flow,
                        &last.event,
                        format!("the row holds {seq}, not {}", last.seq),
                    );
                }
                Some(_) => {}
            }
        }
    }

    fn twice(&mut self, ledger: &'a Ledger) {
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for mark in ledger.effects.iter().filter(|mark| !mark.replayed) {
            *counts.entry(place(mark)).or_default() += 1;
        }
        for ((flow, event, step), count) in counts {
            if count > 1 {
                self.wrong(ViolationKind::Twice, flow, event, format!("step {step} had its effect {count} times"));
            }
        }
    }

    /// Checks that the first effects of each user come in the order of the events.
    fn order_of_effects(&mut self, ledger: &'a Ledger) {
        let mut known = BTreeSet::new();
        let mut newest: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for mark in &ledger.effects {
            let Some(sent) = self.sent.get(mark.event.as_str()).copied() else { continue };
            if !known.insert(place(mark)) {
                continue;
            }
            let newest = newest.entry((mark.flow.as_str(), sent.key.as_str())).or_default();
            if sent.seq < *newest {
                let what = format!("{}: the effect of {} came after that of {newest}", sent.key, sent.seq);
                self.wrong(ViolationKind::Order, &mark.flow, &mark.event, what);
            }
            *newest = sent.seq.max(*newest);
        }
    }

    /// Checks that no run of a lane starts before the previous one has ended, and that runs end in order.
    fn order_of_turns(&mut self) {
        let lanes = std::mem::take(&mut self.lanes);
        for ((flow, key), lane) in &lanes {
            for pair in lane.windows(2) {
                let before = pair[0];
                let after = pair[1];
                let ended = |sent: &SentWebhook| self.runs.get(&(*flow, sent.event.as_str())).map(|run| run.ended_at);
                let begun = self.first_attempts.get(&(*flow, after.event.as_str())).copied();
                // A missing run is reported as lost by `runs_and_effects`.
                let (Some(end), Some(next_end)) = (ended(before), ended(after)) else { continue };
                let what = match (end, begun, next_end) {
                    (None, Some(_), _) => "attempted though the one before has not ended",
                    (None, None, Some(_)) => "ended though the one before has not",
                    (Some(end), Some(begun), _) if begun < end => "attempted before the one before had ended",
                    (Some(end), _, Some(next)) if next < end => "ended before the one before it",
                    _ => continue,
                };
                self.wrong(ViolationKind::Order, flow, &after.event, format!("{key}, {}: {what}", after.seq));
            }
        }
        self.lanes = lanes;
    }

    fn ends(&mut self, ledger: &'a Ledger, may_die: &[&str]) {
        for run in &ledger.runs {
            let reason = run.reason.as_deref().unwrap_or("no reason");
            if run.ended_at.is_none() {
                self.wrong(ViolationKind::Stuck, &run.flow, &run.event, format!("{}: still {}", run.key, run.state));
            } else if run.state == "dead" && !may_die.contains(&reason) {
                self.wrong(ViolationKind::Dead, &run.flow, &run.event, format!("{}: {reason}", run.key));
            }
        }
    }
}

fn place(mark: &Mark) -> (&str, &str, &str) {
    (&mark.flow, &mark.event, &mark.step)
}

#[cfg(test)]
mod tests;
