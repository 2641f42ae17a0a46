//! Actions on many runs: `usher cancel`, `usher wake`, `usher rerun` and `usher dlq redrive` with filters.

mod confirm;
mod report;

use std::time::Duration;

use anyhow::bail;
pub(crate) use confirm::{BulkSize, confirmed};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use usher_dispatcher::operator::{BulkAction, BulkOptions, BulkPlan, BulkProgress};
use usher_proto::{Instance, Reason, Timestamp};
use usher_service::options::Environment;
use usher_service::{ConfigError, clock, shutdown};
use usher_store::{RunFilter, SqlStore};

use crate::orders::OperatorTarget;
use crate::{data, values};

/// Selection of runs, without their states.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Selection {
    /// Of this flow.
    #[arg(long)]
    pub(crate) flow: Option<String>,
    /// Given up for this reason.
    #[arg(long)]
    pub(crate) reason: Option<Reason>,
    /// Of this user, by id or primary address, or of any other key.
    #[arg(long, value_name = "ID|ADDRESS")]
    pub(crate) user: Option<String>,
    /// About this event.
    #[arg(long)]
    pub(crate) event: Option<String>,
    /// Of this instance of the sender.
    #[arg(long)]
    pub(crate) instance: Option<Instance>,
    /// Admitted since this time, such as 2026-01-31T12:00:00Z, this day, such as 2026-01-31, or this duration ago,
    /// such as 2h.
    #[arg(long, value_parser = values::since)]
    pub(crate) since: Option<Timestamp>,
    /// Admitted before this time, which is given as with --since.
    #[arg(long, value_parser = values::since)]
    pub(crate) until: Option<Timestamp>,
}

impl Selection {
    /// Returns true if no option limits the selection.
    pub(crate) fn is_of_all(&self) -> bool {
        let Self { flow, reason, user, event, instance, since, until } = self;
        let ids = [flow, user, event].iter().all(|option| option.is_none());
        ids && reason.is_none() && instance.is_none() && since.is_none() && until.is_none()
    }

    /// Returns the filter, with the subjects that the user's id or address stands for.
    ///
    /// # Errors
    ///
    /// There is no such user or flow, or the store does not answer.
    pub(crate) async fn filter(self, store: &SqlStore) -> anyhow::Result<RunFilter> {
        let Self { flow, reason, user, event, instance, since, until } = self;
        if let Some(flow) = &flow {
            data::known_flow(store, flow).await?;
        }
        let subjects = data::subjects(store, user.as_deref()).await?;
        Ok(RunFilter { key: None, subjects, flow, states: Vec::new(), reason, event, instance, since, until })
    }
}

/// The way in which an action on many runs is carried out.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BulkArguments {
    /// All of them, if no other option selects any.
    #[arg(long)]
    pub(crate) all: bool,
    /// Only report what would be done, and what is left alone and why.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Maximum rate, such as 10/s; as fast as the log accepts them if not given.
    #[arg(long, value_parser = values::rate)]
    pub(crate) rate: Option<f64>,
    /// Do not ask. Without a terminal, more than 100 runs are taken only with this option.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print JSON: with --dry-run one object for each run, and at last one with the numbers.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Refuses a selection without limits, unless it is asked for.
///
/// # Errors
///
/// Nothing limits the selection, and `--all` is not given.
pub(crate) fn refuse_all_unless_asked(is_of_all: bool, all: bool, what: &str) -> anyhow::Result<()> {
    if is_of_all && !all {
        let why =
            format!("specify which {what}: --flow, --reason, --user, --event, --instance, --since, --until, or --all");
        return Err(ConfigError(why).into());
    }
    Ok(())
}

/// Plans the action, asks if that is needed, carries it out and reports.
pub(crate) async fn run(
    target: &OperatorTarget,
    action: BulkAction,
    filter: &RunFilter,
    how: &BulkArguments,
    environment: &Environment,
) -> anyhow::Result<()> {
    let store = target.place.store().await?;
    let plan = BulkPlan::select(&store, action, filter, clock::now()).await?;
    if how.dry_run {
        return report::dry_run(&plan, how.json);
    }
    if plan.targets.is_empty() {
        return report::nothing(&plan, how.json);
    }
    let commands = target.commands(environment).await?;
    if !confirmed(&report::intention(&plan), BulkSize(plan.targets.len()), how.yes)? {
        bail!("nothing is done");
    }
    let stop = shutdown::on_signal()?;
    let options = BulkOptions { rate: how.rate, by: target.by.clone(), stop };
    let bar = progress_bar(plan.targets.len() as u64);
    let outcome = commands.carry_out(&plan, &options, &|progress| show(&bar, progress)).await;
    bar.finish_and_clear();
    report::outcome(&plan, &outcome?, how.json)
}

/// Interval at which a bar is drawn again, so that its estimate goes on without news.
const DRAWN_EVERY: Duration = Duration::from_millis(250);

/// Returns a progress bar on standard error; one that shows nothing if that is no terminal.
pub(crate) fn progress_bar(of: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(of), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len}{msg}, {eta} left") {
        bar.set_style(style);
    }
    if !bar.is_hidden() {
        bar.enable_steady_tick(DRAWN_EVERY);
    }
    bar
}

/// Shows the progress of an action.
pub(crate) fn show(bar: &ProgressBar, progress: BulkProgress) {
    bar.set_position(progress.commanded as u64);
    if progress.executed > 0 {
        bar.set_message(format!(", {} carried out", progress.executed));
    }
}
