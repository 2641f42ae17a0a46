//! The runs of the events that were seen, until they have ended.

use std::collections::BTreeMap;

use usher_dispatcher::operator::RunCircumstances;
use usher_engine::RunState;
use usher_proto::{EventRef, Offset, Timestamp};
use usher_service::clock;
use usher_store::{FlowPosition, RunMark, RunRecord, SqlStore, StoreError};

use super::lines::ListenLine;

/// Largest number of events that are watched.
const WATCHED: usize = 10_000;
/// Number of events whose runs one look reads, the longest not looked at first.
const LOOKED_AT: usize = 1_000;

/// An event whose runs have not all ended.
struct Watched {
    partition: i32,
    offset: i64,
    /// The command that has taken up a run of it, with the flow.
    again: Option<(String, &'static str)>,
    /// The runs as they were shown last, by flow.
    shown: BTreeMap<String, RunMark>,
    /// True if a run was seen.
    has_runs: bool,
}

/// The events that are watched.
#[derive(Default)]
pub(super) struct Outcomes {
    events: BTreeMap<EventRef, Watched>,
    /// The events in the order in which they came.
    order: Vec<EventRef>,
    /// The place in the order at which the next look begins.
    next: usize,
    forgotten: usize,
}

impl Outcomes {
    /// Watches the runs of an event.
    pub(super) fn expect(&mut self, event: EventRef, line: &ListenLine) {
        let (partition, offset, again) = match line {
            ListenLine::Event { partition, offset, .. } => (*partition, *offset, None),
            ListenLine::Command { partition, offset, command, flow, .. } => {
                (*partition, *offset, Some((flow.clone(), *command)))
            }
            _ => return,
        };
        if let Some(watched) = self.events.get_mut(&event) {
            // The same event once more, or a command about it.
            (watched.partition, watched.offset) = (partition, offset);
            watched.again = again.or(watched.again.take());
            return;
        }
        self.order.push(event.clone());
        let watched = Watched { partition, offset, again, shown: BTreeMap::new(), has_runs: false };
        self.events.insert(event, watched);
        if self.order.len() > WATCHED {
            let oldest = self.order.remove(0);
            self.events.remove(&oldest);
            self.next = self.next.saturating_sub(1);
            self.forgotten += 1;
        }
    }

    /// Returns the number of events that are watched.
    pub(super) fn expected(&self) -> usize {
        self.events.len()
    }

    /// Returns the lines about the runs that have changed, of one flow if it is given.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub(super) async fn look(&mut self, store: &SqlStore, flow: Option<&str>) -> Result<Vec<ListenLine>, StoreError> {
        let mut lines = Vec::new();
        if self.forgotten > 0 {
            lines.push(ListenLine::Forgotten { at: clock::now(), events: std::mem::take(&mut self.forgotten) });
        }
        if self.order.is_empty() {
            return Ok(lines);
        }
        if self.next >= self.order.len() {
            self.next = 0;
        }
        let end = (self.next + LOOKED_AT).min(self.order.len());
        let events = self.order[self.next..end].to_vec();
        // The positions first: a run that is not found below them will not come.
        let positions = store.positions().await?;
        let runs = store.runs_of(&events).await?;
        let now = clock::now();
        let mut circumstances = RunCircumstances::read(store, now).await?;
        circumstances.read_steps(store, &runs).await?;
        let mut open: BTreeMap<EventRef, usize> = BTreeMap::new();
        for run in &runs {
            let Some(watched) = self.events.get_mut(&run.reference) else { continue };
            watched.has_runs = true;
            *open.entry(run.reference.clone()).or_default() += usize::from(run.ended_at.is_none());
            if flow.is_none_or(|flow| flow == run.flow) {
                lines.extend(watched.changed(run, &circumstances, now));
            }
        }
        for event in &events {
            let Some(watched) = self.events.get(event) else { continue };
            let is_over = open.get(event).copied().unwrap_or_default() == 0 && is_admitted(watched, &positions);
            if is_over {
                if !watched.has_runs && flow.is_none() {
                    lines.push(ListenLine::NoRun { at: now, event: event.clone() });
                }
                self.events.remove(event);
            }
        }
        self.order.retain(|event| self.events.contains_key(event));
        self.next = if end - self.next < LOOKED_AT { 0 } else { end.min(self.order.len()) };
        Ok(lines)
    }
}

/// Returns true if every flow on which a process works has admitted the event.
fn is_admitted(watched: &Watched, positions: &[FlowPosition]) -> bool {
    let of_partition = positions.iter().filter(|position| position.owned && position.partition == watched.partition);
    let frontiers: Vec<Option<Offset>> = of_partition.map(|position| position.frontier).collect();
    !frontiers.is_empty() && frontiers.iter().all(|frontier| frontier.is_some_and(|at| at.0 > watched.offset))
}

impl Watched {
    /// Returns the line of a run that has changed; `None` for one that has only begun.
    fn changed(&mut self, run: &RunRecord, circumstances: &RunCircumstances, now: Timestamp) -> Option<ListenLine> {
        let mark = RunMark::from(run);
        let before = self.shown.insert(run.flow.clone(), mark.clone());
        let is_quiet =
            run.state == RunState::Queued.label() || run.state == RunState::Running.label() && run.attempts < 2;
        if before.as_ref() == Some(&mark) || is_quiet {
            return None;
        }
        let again = self.again.as_ref().filter(|(flow, _)| *flow == run.flow).map(|(_, command)| *command);
        Some(ListenLine::Run {
            at: run.ended_at.unwrap_or(now),
            flow: run.flow.clone(),
            event: run.event.clone(),
            user: run.user.clone(),
            kind: run.kind.clone(),
            state: run.state.clone(),
            why: circumstances.why(run),
            effects: run.effects.iter().map(|effect| format!("{} {}", effect.connector, effect.id)).collect(),
            again,
        })
    }
}
