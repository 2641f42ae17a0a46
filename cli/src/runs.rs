//! `usher runs`: lists the runs of events. With `--user`, it is the timeline of that user.

use usher_dispatcher::operator::RunCircumstances;
use usher_engine::RunState;
use usher_proto::{Instance, Timestamp};
use usher_service::clock;
use usher_store::{RunFilter, RunRecord, SqlStore};

use crate::data::{self, StoreLocation};
use crate::table::{self, Column};
use crate::{follow, output, values};

/// Lists runs, the results of events, flow by flow.
#[derive(Debug, clap::Args)]
pub(crate) struct RunsArguments {
    #[command(flatten)]
    place: StoreLocation,
    /// Of this user, by id or primary address, or of any other key.
    #[arg(long, value_name = "ID|ADDRESS")]
    user: Option<String>,
    /// Of this flow.
    #[arg(long)]
    flow: Option<String>,
    /// In these states, separated by commas: queued, running, parked, waiting, done, dead, cancelled or superseded.
    #[arg(long, value_delimiter = ',', value_name = "STATE[,STATE]")]
    state: Vec<RunState>,
    /// About this event.
    #[arg(long)]
    event: Option<String>,
    /// Of this instance of the sender.
    #[arg(long)]
    instance: Option<Instance>,
    /// Admitted since this time, such as 2026-01-31T12:00:00Z, this day, such as 2026-01-31, or this duration ago,
    /// such as 2h.
    #[arg(long, value_parser = values::since)]
    since: Option<Timestamp>,
    /// Admitted before this time, which is given as with --since.
    #[arg(long, value_parser = values::since)]
    until: Option<Timestamp>,
    /// Maximum number of runs.
    #[arg(long, default_value_t = 1000, value_parser = values::limit)]
    limit: u32,
    /// After the list, print each new or changed run, until it is interrupted. Looks every second, at the newest 1,000 runs
    /// of each flow and at those that were seen before.
    #[arg(long)]
    follow: bool,
    /// Print every cell whole, even if the lines are wider than the terminal.
    #[arg(long)]
    wide: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: RunsArguments) -> anyhow::Result<()> {
    let RunsArguments { place, user, flow, state, event, instance, since, until, limit, follow, wide, json } =
        arguments;
    let store = place.store().await?;
    let subjects = data::subjects(&store, user.as_deref()).await?;
    let filter = RunFilter { key: None, subjects, flow, states: state, reason: None, event, instance, since, until };
    if let Some(flow) = &filter.flow {
        data::known_flow(&store, flow).await?;
    }
    for paused in store.paused_flows().await? {
        if filter.flow.as_ref().is_none_or(|flow| *flow == paused) {
            output::hint(&format!("flow {paused} is paused: its runs are kept, and none is begun"));
        }
    }
    let shown = RunList { limit, wide, json };
    // Before the list, so that no change falls between the two.
    let following = if follow { Some(follow::Following::begin(&store, &filter).await?) } else { None };
    shown.print(&store, &store.runs(&filter, i64::from(limit)).await?).await?;
    match following {
        Some(following) => following.run(&store, &filter, json).await,
        None => Ok(()),
    }
}

/// The form in which runs are printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunList {
    /// Number of runs that were asked for.
    pub(crate) limit: u32,
    /// True if lines may be wider than the terminal.
    pub(crate) wide: bool,
    /// True for JSON lines instead of a table.
    pub(crate) json: bool,
}

const COLUMNS: [Column; 7] = [
    Column { head: "admitted", least: Some(19), rank: 4 },
    Column { head: "run", least: None, rank: 0 },
    Column { head: "type", least: Some(12), rank: 5 },
    Column { head: "key", least: None, rank: 3 },
    Column { head: "state", least: None, rank: 1 },
    Column { head: "why", least: Some(24), rank: 2 },
    Column { head: "effects", least: Some(12), rank: 6 },
];

impl RunList {
    /// Prints runs as JSON lines or as a table.
    pub(crate) async fn print(self, store: &SqlStore, runs: &[RunRecord]) -> anyhow::Result<()> {
        if runs.len() == self.limit as usize {
            let limit = self.limit;
            output::hint(&format!("the newest {limit}; there may be older ones: say --limit, or what to look for"));
        }
        if self.json {
            return runs.iter().try_for_each(output::json);
        }
        let mut circumstances = RunCircumstances::read(store, clock::now()).await?;
        circumstances.read_steps(store, runs).await?;
        let rows: Vec<[String; 7]> = runs.iter().map(|run| row(run, &circumstances)).collect();
        table::print(COLUMNS, &rows, table::width(self.wide))
    }
}

/// Returns the name of a run as commands take it: the event's id alone suffices for the default instance of Clerk.
pub(crate) fn name(run: &RunRecord) -> String {
    let plain = run.source == "clerk" && run.instance == Instance::DEFAULT;
    let event = if plain { run.event.clone() } else { run.reference.to_string() };
    format!("{}/{event}", run.flow)
}

/// Returns the effects of a run, each with the destination's id; `-` for none.
pub(crate) fn effects(run: &RunRecord) -> String {
    let effects: Vec<String> = run.effects.iter().map(|effect| format!("{} {}", effect.connector, effect.id)).collect();
    dash(effects.join(", "))
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn row(run: &RunRecord, circumstances: &RunCircumstances) -> [String; 7] {
    [
        run.admitted_at.to_string(),
        name(run),
        run.kind.clone(),
        run.key.clone(),
        run.state.clone(),
        dash(circumstances.why(run)),
        effects(run),
    ]
}
