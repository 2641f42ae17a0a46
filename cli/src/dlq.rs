//! `usher dlq`: runs that were given up on.

use anyhow::bail;
use usher_dispatcher::engine::RunState;
use usher_dispatcher::store::RunFilter;
use usher_proto::{Reason, Timestamp};

use crate::data::Place;
use crate::{output, runs};

/// Looks into the dead letters: runs that were given up on.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists them.
    List(List),
    /// Shows one whole, with the event's body.
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    place: Place,
    /// Of this flow.
    #[arg(long)]
    flow: Option<String>,
    /// Given up for this reason.
    #[arg(long)]
    reason: Option<Reason>,
    /// Of this user, or any other key.
    #[arg(long)]
    user: Option<String>,
    /// Admitted since: a time such as 2026-01-31T12:00:00Z, or so long ago, such as 2h.
    #[arg(long, value_parser = runs::parse_since)]
    since: Option<Timestamp>,
    /// At most so many.
    #[arg(long, default_value_t = 1000)]
    limit: u32,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    place: Place,
    /// The event's id.
    event: String,
    /// The flow, where more than one gave it up.
    #[arg(long)]
    flow: Option<String>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::List(List { place, flow, reason, user, since, limit, json }) => {
            let filter = RunFilter { key: user, flow, state: Some(RunState::Dead), reason, event: None, since };
            runs::print(&place.store()?.runs(&filter, i64::from(limit)).await?, limit, json)
        }
        Command::Show(Show { place, event, flow }) => {
            let store = place.store()?;
            let state = Some(RunState::Dead);
            let filter = RunFilter { event: Some(event.clone()), flow, state, ..RunFilter::default() };
            let dead = store.runs(&filter, 100).await?;
            if dead.is_empty() {
                bail!("no flow has given up on {event}");
            }
            for run in dead {
                let body = store.body(&run.flow, &run.event).await?;
                let mut shown = serde_json::to_value(&run)?;
                shown["body"] = body.unwrap_or_default();
                output::line(&serde_json::to_string_pretty(&shown)?)?;
            }
            Ok(())
        }
    }
}
