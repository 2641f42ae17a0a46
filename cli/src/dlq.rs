//! `usher dlq`: lists dead letters (runs that were given up) and redrives them.

use usher_dispatcher::operator::{BulkAction, MAX_DEATHS};
use usher_engine::RunState;
use usher_service::options::Environment;
use usher_store::{RefusedRow, RunFilter, SqlStore};

use crate::bulk::{self, BulkArguments, Selection};
use crate::data::StoreLocation;
use crate::dead_letter::Show;
use crate::orders::OperatorTarget;
use crate::output;
use crate::runs::RunList;

/// Lists and redrives dead letters: runs that were given up.
#[derive(Debug, clap::Args)]
pub(crate) struct DlqArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists dead letters, and the records of the log that no flow could accept.
    List(List),
    /// Shows one dead letter: reason, attempts, commands, and on request the content.
    Show(Show),
    /// Runs dead letters again: each joins the tail of its user's lane, in their original order.
    Redrive(Redrive),
}

/// Prints the records that no flow could accept, below the dead letters.
fn print_refused(refused: &[RefusedRow], json: bool) -> anyhow::Result<()> {
    if json {
        return refused.iter().try_for_each(output::json);
    }
    if refused.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let row = |row: &RefusedRow| {
        let record = format!("{}/{}", row.partition, row.offset);
        let why = format!("{}: {}", row.reason, row.error);
        [row.at.to_string(), record, row.event.clone(), row.key.clone(), why]
    };
    let rows: Vec<[String; 5]> = refused.iter().map(row).collect();
    output::table(["refused", "record", "event", "key", "why"], &rows)
}

/// Returns true if only times limit the dead letters.
fn is_limited_by_time_alone(which: &Selection) -> bool {
    Selection { since: None, until: None, ..which.clone() }.is_of_all()
}

async fn dead(which: Selection, store: &SqlStore) -> anyhow::Result<RunFilter> {
    Ok(RunFilter { states: vec![RunState::Dead], ..which.filter(store).await? })
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    place: StoreLocation,
    #[command(flatten)]
    which: Selection,
    /// Maximum number of dead letters, and of refused records.
    #[arg(long, default_value_t = 1000)]
    limit: u32,
    /// Print every cell whole, even if the lines are wider than the terminal.
    #[arg(long)]
    wide: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Redrive {
    #[command(flatten)]
    desk: OperatorTarget,
    #[command(flatten)]
    which: Selection,
    #[command(flatten)]
    how: BulkArguments,
    /// Skip runs that were given up this number of times or more: they would only fail again.
    #[arg(long, default_value_t = MAX_DEATHS, value_name = "TIMES")]
    max_deaths: u32,
}

pub(crate) async fn run(arguments: DlqArguments, environment: &Environment) -> anyhow::Result<()> {
    match arguments.command {
        Command::List(List { place, which, limit, wide, json }) => {
            let store = place.store().await?;
            // No flow has given these up, so among the options only the time can narrow them.
            let refused = match is_limited_by_time_alone(&which) {
                true => store.refused(which.since.unwrap_or_default(), i64::from(limit)).await?,
                false => Vec::new(),
            };
            let filter = dead(which, &store).await?;
            RunList { limit, wide, json }.print(&store, &store.runs(&filter, i64::from(limit)).await?).await?;
            print_refused(&refused, json)
        }
        Command::Redrive(Redrive { desk, which, how, max_deaths }) => {
            bulk::refuse_all_unless_asked(which.is_of_all(), how.all, "dead letters")?;
            let filter = dead(which, &desk.place.store().await?).await?;
            bulk::run(&desk, BulkAction::Redrive { max_deaths }, &filter, &how, environment).await
        }
        Command::Show(show) => show.run().await,
    }
}
