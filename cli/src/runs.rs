//! `usher runs`: what became of events. With one user it is the timeline of what happened to them.

use usher_dispatcher::engine::RunState;
use usher_dispatcher::store::{RunFilter, RunRecord};
use usher_proto::Timestamp;
use usher_service::clock;

use crate::data::Place;
use crate::output;

/// Lists runs: what became of events, flow by flow.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Of this user, or any other key.
    #[arg(long)]
    user: Option<String>,
    /// Of this flow.
    #[arg(long)]
    flow: Option<String>,
    /// In this state: queued, running, parked, waiting, done, dead, cancelled or superseded.
    #[arg(long)]
    state: Option<RunState>,
    /// About this event.
    #[arg(long)]
    event: Option<String>,
    /// Admitted since: a time such as 2026-01-31T12:00:00Z, or so long ago, such as 2h.
    #[arg(long, value_parser = parse_since)]
    since: Option<Timestamp>,
    /// At most so many.
    #[arg(long, default_value_t = 1000)]
    limit: u32,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// A time, or how long ago.
pub(crate) fn parse_since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago =
        humantime::parse_duration(text).map_err(|_| "a time such as 2026-01-31T12:00:00Z, or such as 2h".to_owned())?;
    let millis = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    Ok(Timestamp::from_millis(clock::now().millis().saturating_sub(millis)))
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { place, user, flow, state, event, since, limit, json } = arguments;
    let filter = RunFilter { key: user, flow, state, reason: None, event, since };
    let runs = place.store().await?.runs(&filter, i64::from(limit)).await?;
    print(&runs, limit, json)
}

/// Prints runs as JSON lines or as a table.
pub(crate) fn print(runs: &[RunRecord], limit: u32, json: bool) -> anyhow::Result<()> {
    if runs.len() == limit as usize {
        eprintln!("the newest {limit}; there may be older ones: say --limit, or what to look for");
    }
    if json {
        for run in runs {
            output::line(&serde_json::to_string(run)?)?;
        }
        return Ok(());
    }
    let rows: Vec<[String; 7]> = runs.iter().map(row).collect();
    output::table(["admitted", "run", "type", "key", "state", "why", "effects"], &rows)
}

fn row(run: &RunRecord) -> [String; 7] {
    let why = [&run.reason, &run.error, &run.note].into_iter().flatten().cloned().collect::<Vec<_>>().join(": ");
    let effects: Vec<String> = run.effects.iter().map(|effect| format!("{} {}", effect.connector, effect.id)).collect();
    [
        run.admitted_at.to_string(),
        format!("{}/{}", run.flow, run.event),
        run.kind.clone(),
        run.key.clone(),
        run.state.clone(),
        if why.is_empty() { "-".into() } else { why },
        if effects.is_empty() { "-".into() } else { effects.join(", ") },
    ]
}
