//! `usher runs`: lists the runs of events. With `--user`, it is the timeline of that user.

use usher_engine::RunState;
use usher_proto::unsubscribe::address_key;
use usher_proto::{AddressDigest, Instance, Timestamp};
use usher_store::{RunFilter, RunRecord};

use crate::data::{self, StoreLocation};
use crate::{output, story, values};

/// Lists runs, the results of events, flow by flow.
#[derive(Debug, clap::Args)]
pub(crate) struct RunsArguments {
    #[command(flatten)]
    place: StoreLocation,
    /// Of this user, or any other key; an address stands for the key of a person known only by it.
    #[arg(long, value_parser = parse_key)]
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
    /// Of this instance of the sender.
    #[arg(long)]
    instance: Option<Instance>,
    /// Admitted since this time, such as 2026-01-31T12:00:00Z, this day, such as 2026-01-31, or this duration ago,
    /// such as 2h.
    #[arg(long, value_parser = values::since)]
    since: Option<Timestamp>,
    /// Maximum number of runs.
    #[arg(long, default_value_t = 1000, value_parser = values::limit)]
    limit: u32,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Parses a key. An email address is never a key itself: its runs are stored under its digest.
#[expect(clippy::unnecessary_wraps, reason = "what clap asks of a parser")]
pub(crate) fn parse_key(text: &str) -> Result<String, std::convert::Infallible> {
    let key = text.contains('@').then(|| address_key(AddressDigest::of(text)).as_str().to_owned());
    Ok(key.unwrap_or_else(|| text.to_owned()))
}

pub(crate) async fn run(arguments: RunsArguments) -> anyhow::Result<()> {
    let RunsArguments { place, user, flow, state, event, instance, since, limit, json } = arguments;
    let filter = RunFilter { key: user, flow, state, reason: None, event, instance, since };
    let store = place.store().await?;
    if let Some(flow) = &filter.flow {
        data::known_flow(&store, flow).await?;
    }
    for paused in store.paused_flows().await? {
        if filter.flow.as_ref().is_none_or(|flow| *flow == paused) {
            output::hint(&format!("flow {paused} is paused: its runs are kept, and none is begun"));
        }
    }
    let runs = store.runs(&filter, i64::from(limit)).await?;
    if runs.is_empty() && filter.key.as_ref().is_some_and(|key| !key.starts_with("user_")) {
        output::hint("no runs of that key: a user is named by its id (user_...)");
    }
    print(&runs, &store.worked_flows().await?, limit, json)
}

/// Prints runs as JSON lines or as a table. `worked` holds the flows on which a process works.
pub(crate) fn print(runs: &[RunRecord], worked: &[String], limit: u32, json: bool) -> anyhow::Result<()> {
    if runs.len() == limit as usize {
        output::hint(&format!("the newest {limit}; there may be older ones: say --limit, or what to look for"));
    }
    if json {
        for run in runs {
            output::json(run)?;
        }
        return Ok(());
    }
    let rows: Vec<[String; 7]> = runs.iter().map(|run| row(run, worked)).collect();
    output::table(["admitted", "run", "type", "key", "state", "why", "effects"], &rows)
}

fn row(run: &RunRecord, worked: &[String]) -> [String; 7] {
    let why = story::why(run, worked);
    // As a command takes it: the event's id alone suffices for the default instance of Clerk.
    let plain = run.source == "clerk" && run.instance == Instance::DEFAULT;
    let event = if plain { run.event.clone() } else { run.reference.to_string() };
    let effects: Vec<String> = run.effects.iter().map(|effect| format!("{} {}", effect.connector, effect.id)).collect();
    [
        run.admitted_at.to_string(),
        format!("{}/{event}", run.flow),
        run.kind.clone(),
        run.key.clone(),
        run.state.clone(),
        if why.is_empty() { "-".into() } else { why },
        if effects.is_empty() { "-".into() } else { effects.join(", ") },
    ]
}
