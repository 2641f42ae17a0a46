//! `usher dlq`: lists dead letters (runs that were given up) and redrives them.

use usher_dispatcher::operator::{CommandTarget, MAX_DEATHS, RedrivePlan};
use usher_engine::RunState;
use usher_proto::{Instance, Reason, Timestamp};
use usher_service::ConfigError;
use usher_service::options::Environment;
use usher_store::{RefusedRow, RunFilter};

use crate::data::StoreLocation;
use crate::dead_letter::Show;
use crate::orders::OperatorTarget;
use crate::{orders, output, runs, values};

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

/// Selection of dead letters.
#[derive(Debug, clap::Args)]
struct DeadLetterFilter {
    /// Of this flow.
    #[arg(long)]
    flow: Option<String>,
    /// Given up for this reason.
    #[arg(long)]
    reason: Option<Reason>,
    /// Of this user, or any other key; an address stands for the key of a person known only by it.
    #[arg(long, value_parser = runs::parse_key)]
    user: Option<String>,
    /// About this event.
    #[arg(long)]
    event: Option<String>,
    /// Of this instance of the sender.
    #[arg(long)]
    instance: Option<Instance>,
    /// Admitted since this time, such as 2026-01-31T12:00:00Z, or this duration ago, such as 2h.
    #[arg(long, value_parser = values::since)]
    since: Option<Timestamp>,
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

impl DeadLetterFilter {
    /// Returns true if no option limits the dead letters to a flow, an event or a person.
    fn is_of_all(&self) -> bool {
        let Self { flow, reason, user, event, instance, since: _ } = self;
        flow.is_none() && reason.is_none() && user.is_none() && event.is_none() && instance.is_none()
    }

    fn filter(self) -> RunFilter {
        let Self { flow, reason, user, event, instance, since } = self;
        RunFilter { key: user, flow, state: Some(RunState::Dead), reason, event, instance, since }
    }
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    place: StoreLocation,
    #[command(flatten)]
    which: DeadLetterFilter,
    /// Maximum number of dead letters, and of refused records.
    #[arg(long, default_value_t = 1000)]
    limit: u32,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Redrive {
    #[command(flatten)]
    desk: OperatorTarget,
    #[command(flatten)]
    which: DeadLetterFilter,
    /// All dead letters, if no other option selects any.
    #[arg(long)]
    all: bool,
    /// Only report what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Maximum rate, such as 10/s; as fast as the log accepts them if not given.
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// Skip runs that were given up this number of times or more: they would only fail again.
    #[arg(long, default_value_t = MAX_DEATHS, value_name = "TIMES")]
    max_deaths: u32,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>().ok();
    number.filter(|rate| *rate > 0.0 && rate.is_finite()).ok_or_else(|| "a rate such as 10/s".to_owned())
}

pub(crate) async fn run(arguments: DlqArguments, environment: &Environment) -> anyhow::Result<()> {
    match arguments.command {
        Command::List(List { place, which, limit, json }) => {
            let store = place.store().await?;
            let since = which.since.unwrap_or_default();
            // No flow has given these up, so among the options only the time can narrow them.
            let refused = if which.is_of_all() { store.refused(since, i64::from(limit)).await? } else { Vec::new() };
            let worked = store.worked_flows().await?;
            runs::print(&store.runs(&which.filter(), i64::from(limit)).await?, &worked, limit, json)?;
            print_refused(&refused, json)
        }
        Command::Redrive(redrive) => redrive.run(environment).await,
        Command::Show(show) => show.run().await,
    }
}

impl Redrive {
    async fn run(self, environment: &Environment) -> anyhow::Result<()> {
        let Self { desk, which, all, dry_run, rate, max_deaths } = self;
        let filter = which.filter();
        let narrowed = RunFilter { state: Some(RunState::Dead), ..RunFilter::default() } != filter;
        if !narrowed && !all {
            let why = "specify which dead letters: --flow, --reason, --user, --event, --instance, --since, or --all";
            return Err(ConfigError(why.to_owned()).into());
        }
        let dead = desk.place.store().await?.runs(&filter, i64::MAX).await?;
        let plan = RedrivePlan::new(dead.iter().map(CommandTarget::from).collect(), max_deaths);
        let (matching, left_alone) = (dead.len(), plan.too_often);
        if dry_run {
            for run in &plan.targets {
                let why = run.reason.as_deref().unwrap_or("-");
                let (event, key) = (run.reference.id(), run.subject.key());
                output::line(&format!("{}/{event}  {key}  {why}  died {} times", run.flow, run.deaths))?;
            }
            output::line(&format!("{} of {matching} dead letters would be taken up again", plan.targets.len()))?;
        } else if plan.targets.is_empty() {
            output::line(&format!("0 of {matching} dead letters are taken up again"))?;
        } else {
            let came = desk.commands(environment).await?.redrive(&plan.targets, rate, &desk.by).await?;
            let taken_up = came.count("queued");
            let not = came.came.len() - taken_up;
            output::line(&format!("{taken_up} of {matching} dead letters are taken up again"))?;
            if not > 0 {
                output::line(&format!("{not} are dead no longer, or have died again since: nothing came of it"))?;
            }
            orders::print_open(&came)?;
        }
        if left_alone > 0 {
            output::line(&format!("{left_alone} left alone: they have died {max_deaths} times (--max-deaths)"))?;
        }
        Ok(())
    }
}
