//! The overview: first what needs somebody, then the flows in figures.

use serde::Serialize;
use usher_dispatcher::operator::{AccountStatus, FlowLag, FlowStatus, NeedKind, Status, duration};
use usher_engine::RunState;
use usher_proto::Timestamp;
use usher_store::{BoundedCount, RecentRuns};

use super::standing;
use super::{AccountLine, CauseGroup, DeadLetters, DeadSelection, Moment, OverviewFigures};
use crate::Console;
use crate::problem::ConsoleError;

/// Largest number of causes on the overview; the page of dead letters has all.
const CAUSES: usize = 5;

/// Something that needs somebody.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum OpenMatter {
    /// A process holds back from a destination that does not serve.
    Trouble {
        account: String,
        since: Moment,
        /// The time of the next call that tries it, as last told.
        next_probe: Moment,
        processes: i64,
    },
    /// Runs were given up for one cause.
    DeadLetters(CauseGroup),
    /// A flow has not admitted what is in the log for a while.
    Late {
        flow: String,
        /// Number of these events.
        events: i64,
        /// Age of the oldest of them, in seconds.
        seconds: u64,
    },
    /// An operator has paused a flow.
    Paused {
        flow: String,
        who: String,
        since: Moment,
        why: Option<String>,
        /// Number of runs that have not ended.
        open: BoundedCount,
    },
    /// A flow has runs that have not ended, and no process works on it.
    NoProcess { flow: String, open: BoundedCount, oldest: Option<Moment> },
}

impl OpenMatter {
    /// Returns a number of seconds in words. A template passes it by reference.
    pub(crate) fn told(seconds: &u64) -> String {
        duration(*seconds)
    }
}

/// One flow of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FlowLine {
    pub(crate) flow: String,
    /// working, paused or no process.
    pub(crate) standing: &'static str,
    pub(crate) queued: BoundedCount,
    pub(crate) running: BoundedCount,
    pub(crate) parked: BoundedCount,
    pub(crate) waiting: BoundedCount,
    pub(crate) dead: BoundedCount,
    /// Events in the log that are not admitted yet; `None` if the log was not asked or does not answer.
    pub(crate) lag_events: Option<i64>,
    /// Time since the receipt of the oldest of these events, in seconds.
    pub(crate) lag_seconds: Option<u64>,
    /// Receipt of the event of the oldest run that has not ended.
    pub(crate) oldest: Option<Moment>,
    /// Receipt of the event of the newest run that has ended.
    pub(crate) newest_ended: Option<Moment>,
    /// The next time of the flow's schedule; `None` if it has none.
    pub(crate) next_firing: Option<Moment>,
    /// Runs whose events were received in the last hour, by minute.
    pub(crate) recent: RecentRuns,
}

impl FlowLine {
    /// Returns its lag; `None` if it is not known.
    pub(crate) fn lag(&self) -> Option<FlowLag> {
        Some(FlowLag { events: self.lag_events?, seconds: self.lag_seconds? })
    }

    /// Returns the counts with their states, in the order of the columns.
    pub(crate) fn cells(&self) -> [(&'static str, BoundedCount); 5] {
        [
            (RunState::Queued.label(), self.queued),
            (RunState::Running.label(), self.running),
            (RunState::Parked.label(), self.parked),
            (RunState::Waiting.label(), self.waiting),
            (RunState::Dead.label(), self.dead),
        ]
    }
}

/// The overview.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OverviewAnswer {
    pub(crate) as_of: Moment,
    pub(crate) needs: Vec<OpenMatter>,
    pub(crate) flows: Vec<FlowLine>,
    pub(crate) accounts: Vec<AccountLine>,
    pub(crate) figures: OverviewFigures,
}

/// Returns the overview. What needs somebody is decided by the state of everything; here each matter gets its details, and dead
/// letters are told by their causes.
pub(crate) async fn overview(console: &Console, now: Timestamp) -> Result<OverviewAnswer, ConsoleError> {
    let status = console.status(now).await?;
    let letters = DeadLetters::read(console, &DeadSelection::default(), now).await?;
    let mut recent = standing::recent_runs(console, &status, now).await?;
    let figures = standing::all(&recent, &status, letters.rows.iter().map(|row| row.ended_at), letters.more, now);
    let shown = letters.causes().into_iter().take(CAUSES).collect();
    let line = |flow: &FlowStatus| line(flow, recent.remove(&flow.flow).unwrap_or_default(), now);
    Ok(OverviewAnswer {
        as_of: Moment::new(now, now),
        needs: matters(&status, shown, now),
        flows: status.flows.iter().map(line).collect(),
        accounts: standing::accounts(&status, now),
        figures,
    })
}

fn matters(status: &Status, causes: Vec<CauseGroup>, now: Timestamp) -> Vec<OpenMatter> {
    let mut causes = Some(causes);
    let mut matters = Vec::new();
    for need in &status.needs {
        let flow = || status.flows.iter().find(|flow| flow.flow == need.name);
        match need.kind {
            NeedKind::Trouble => {
                let account = status.accounts.iter().find(|account| account.account == need.name);
                matters.extend(account.and_then(|account| trouble(account, now)));
            }
            NeedKind::NoProcess => matters.extend(flow().map(|flow| OpenMatter::NoProcess {
                flow: flow.flow.clone(),
                open: flow.open(),
                oldest: flow.oldest.map(|at| Moment::new(at, now)),
            })),
            NeedKind::Late => matters.extend(flow().and_then(|flow| {
                let (events, seconds) = (flow.lag_events?, flow.lag_seconds?);
                Some(OpenMatter::Late { flow: flow.flow.clone(), events, seconds })
            })),
            // Those of all flows at once, by their causes.
            NeedKind::Dead => {
                let causes = causes.take().unwrap_or_default();
                matters.extend(causes.into_iter().map(OpenMatter::DeadLetters));
            }
            NeedKind::Paused => matters.extend(flow().and_then(|flow| {
                let pause = flow.paused.as_ref()?;
                Some(OpenMatter::Paused {
                    flow: flow.flow.clone(),
                    who: pause.who.clone(),
                    since: Moment::new(pause.at, now),
                    why: pause.why.clone(),
                    open: flow.open(),
                })
            })),
        }
    }
    matters
}

fn trouble(account: &AccountStatus, now: Timestamp) -> Option<OpenMatter> {
    Some(OpenMatter::Trouble {
        account: account.account.clone(),
        since: Moment::new(account.trouble_since?, now),
        next_probe: Moment::new(account.next_probe?, now),
        processes: account.held_by,
    })
}

fn line(flow: &FlowStatus, recent: RecentRuns, now: Timestamp) -> FlowLine {
    let moment = |at| Moment::new(at, now);
    FlowLine {
        standing: flow.standing(),
        queued: flow.queued,
        running: flow.running,
        parked: flow.parked,
        waiting: flow.waiting,
        dead: flow.dead,
        lag_events: flow.lag_events,
        lag_seconds: flow.lag_seconds,
        oldest: flow.oldest.map(moment),
        newest_ended: flow.newest_ended.map(moment),
        next_firing: flow.next_firing.map(moment),
        recent,
        flow: flow.flow.clone(),
    }
}
