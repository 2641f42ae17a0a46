//! The overview: first what needs somebody, then the flows in figures.

use serde::Serialize;
use usher_dispatcher::operator::FlowLag;
use usher_engine::RunState;
use usher_proto::Timestamp;
use usher_store::{BoundedCount, FlowCounts, RecentRuns};

use super::standing::{self, FlowFigures};
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
    /// Receipt of the event of the oldest run that has not ended.
    pub(crate) oldest: Option<Moment>,
    /// Receipt of the event of the newest run that has ended.
    pub(crate) newest_ended: Option<Moment>,
    /// Events in the log that are not admitted yet; `None` if it is not known.
    pub(crate) lag: Option<FlowLag>,
    /// Runs whose events were received in the last hour, by minute.
    pub(crate) recent: RecentRuns,
}

impl FlowLine {
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

/// Returns the overview.
pub(crate) async fn overview(console: &Console, now: Timestamp) -> Result<OverviewAnswer, ConsoleError> {
    let letters = DeadLetters::read(console, &DeadSelection::default(), now).await?;
    let counts = console.store().flow_counts().await?;
    let mut figures = FlowFigures::read(console, &counts, now).await?;
    let accounts = standing::accounts(console, &counts, now).await?;
    let all = figures.all(letters.rows.iter().map(|row| row.ended_at), letters.more, now);
    let moment = |at| Moment::new(at, now);
    let mut needs: Vec<OpenMatter> = Vec::new();
    for trouble in console.store().troubles(now).await? {
        // Without a next call that tries it, calls are let through one by one: it serves as far as anybody knows.
        if let Some(next_probe) = trouble.next_probe {
            needs.push(OpenMatter::Trouble {
                account: trouble.account,
                since: moment(trouble.since),
                next_probe: moment(next_probe),
                processes: trouble.processes,
            });
        }
    }
    for flow in &counts {
        let open = flow.all_open();
        if let Some(pause) = &flow.paused {
            needs.push(OpenMatter::Paused {
                flow: flow.flow.clone(),
                who: pause.who.clone(),
                since: moment(pause.at),
                why: pause.why.clone(),
                open,
            });
        } else if !flow.worked && open.count > 0 {
            needs.push(OpenMatter::NoProcess { flow: flow.flow.clone(), open, oldest: flow.oldest.map(moment) });
        }
    }
    needs.extend(letters.causes().into_iter().take(CAUSES).map(OpenMatter::DeadLetters));
    let line = |flow: FlowCounts| FlowLine {
        standing: match (&flow.paused, flow.worked) {
            (Some(_), _) => "paused",
            (None, true) => "working",
            (None, false) => "no process",
        },
        queued: flow.of(RunState::Queued),
        running: flow.of(RunState::Running),
        parked: flow.of(RunState::Parked),
        waiting: flow.of(RunState::Waiting),
        dead: BoundedCount {
            count: letters.rows.iter().filter(|row| row.flow == flow.flow).count() as u64,
            more: letters.more,
        },
        oldest: flow.oldest.map(moment),
        newest_ended: flow.newest_ended.map(moment),
        lag: figures.lags.as_ref().map(|lags| lags.get(&flow.flow).copied().unwrap_or_default()),
        recent: figures.recent.remove(&flow.flow).unwrap_or_default(),
        flow: flow.flow,
    };
    let flows = counts.into_iter().map(line).collect();
    Ok(OverviewAnswer { as_of: moment(now), needs, flows, accounts, figures: all })
}
