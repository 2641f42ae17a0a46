//! `usher move --flow OLD --to NEW`: lets runs of a flow go on in another one.

use std::collections::BTreeMap;

use anyhow::bail;
use serde_json::json;
use usher_dispatcher::operator::{BulkOptions, BulkOutcome, MovePlan, NotMoved};
use usher_flows::{Flow, FlowFiles, FlowSource};
use usher_service::options::Environment;
use usher_service::{ConfigError, shutdown};
use usher_store::{BoundedCount, FlowStore as _, SqlStore};

use crate::bulk::{self, BulkArguments, BulkSize, Selection, confirmed};
use crate::orders::OperatorTarget;
use crate::output;

/// Result of a command that did what it should.
const MOVED: &str = "moved";

/// Moves the selected runs of a flow to the flow `to`.
///
/// # Errors
///
/// The flow has no good file, the selection is wrong, or the store or the log does not answer.
pub(crate) async fn run(
    target: &OperatorTarget,
    files: &FlowFiles,
    to: &str,
    which: Selection,
    how: &BulkArguments,
    environment: &Environment,
) -> anyhow::Result<()> {
    let Some(from) = which.flow.clone() else {
        return Err(ConfigError("specify the flow whose runs are to go on elsewhere: --flow".to_owned()).into());
    };
    if from == to {
        return Err(ConfigError(format!("the runs of {from} are in {to} already")).into());
    }
    let steps = steps_of_file(files, to)?;
    let store = target.place.store().await?;
    let filter = which.filter(&store).await?;
    let plan = MovePlan::select(&store, &filter, &versions(&store, &from).await?, to, &steps).await?;
    if how.dry_run || plan.targets.is_empty() {
        return planned(&plan, &from, how);
    }
    let commands = target.commands(environment).await?;
    let intention = format!("{} of {} runs of {from} would go on in {to}", plan.targets.len(), plan.matching);
    if !confirmed(&intention, BulkSize(plan.targets.len()), how.yes)? {
        bail!("nothing is done");
    }
    let options = BulkOptions { rate: how.rate, by: target.by.clone(), stop: shutdown::on_signal()? };
    let bar = bulk::progress_bar(plan.targets.len() as u64);
    let outcome = commands.move_runs(&plan, &options, &|progress| bulk::show(&bar, progress)).await;
    bar.finish_and_clear();
    report(&plan, &from, &outcome?, how)
}

/// Returns the names of the steps of a flow, by its file.
fn steps_of_file(files: &FlowFiles, name: &str) -> Result<Vec<String>, ConfigError> {
    let sources = files.read()?;
    let known: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let Some(source) = sources.iter().find(|source| source.name == name) else {
        return Err(ConfigError(format!("there is no flow file {name}; there are {}", known.join(", "))));
    };
    let flow = Flow::check(source.clone())
        .map_err(|problems| ConfigError(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    Ok(flow.steps.into_iter().map(|step| step.name).collect())
}

/// Returns the names of the steps of each version of a flow that can be read.
async fn versions(store: &SqlStore, flow: &str) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut versions = BTreeMap::new();
    for version in store.flow_versions(flow).await? {
        let source = store.flow(flow, &version.version).await?;
        let source = source.and_then(|source| serde_json::from_str::<FlowSource>(&source).ok());
        if let Some(read) = source.and_then(|source| Flow::read(source).ok()) {
            versions.insert(version.version, read.steps.into_iter().map(|step| step.name).collect());
        }
    }
    Ok(versions)
}

fn describe(why: NotMoved, to: &str) -> String {
    match why {
        NotMoved::Ended => "they have ended".to_owned(),
        NotMoved::UnderWay => "an attempt is under way, or its outcome is not known yet".to_owned(),
        NotMoved::NoStep => format!("{to} has no step of the name of the one at which they stand"),
        NotMoved::Unreadable => "their version cannot be read, so the name of their step is not known".to_owned(),
    }
}

fn print_rest(plan: &MovePlan) -> anyhow::Result<()> {
    for (why, count) in &plan.left_alone {
        output::line(&format!("{count} left alone: {}", describe(*why, &plan.to)))?;
    }
    if plan.matching.more {
        let first = BoundedCount { more: false, ..plan.matching };
        output::line(&format!("the first {first} were looked at: give the command again for the others"))?;
    }
    Ok(())
}

fn numbers(plan: &MovePlan) -> serde_json::Value {
    json!({
        "matching": plan.matching.count, "more": plan.matching.more, "selected": plan.targets.len(),
        "left_alone": plan.left_alone,
    })
}

/// Prints what would be done.
fn planned(plan: &MovePlan, from: &str, how: &BulkArguments) -> anyhow::Result<()> {
    for target in plan.targets.iter().filter(|_| how.dry_run) {
        let (event, key) = (target.run.reference.id(), target.run.subject.key());
        match how.json {
            true => output::json(&json!({"flow": from, "event": event, "key": key, "step": target.step}))?,
            false => output::line(&format!("{from}/{event}  {key}  at {}", target.step))?,
        }
    }
    if how.json {
        return output::json(&numbers(plan));
    }
    let would = if how.dry_run { "would go on" } else { "go on" };
    output::line(&format!("{} of {} runs of {from} {would} in {}", plan.targets.len(), plan.matching, plan.to))?;
    print_rest(plan)
}

/// Prints what was done. Fails if the action was stopped before its end.
fn report(plan: &MovePlan, from: &str, outcome: &BulkOutcome, how: &BulkArguments) -> anyhow::Result<()> {
    let BulkOutcome { commanded, left, failure, results, .. } = outcome;
    let done = results.count(MOVED);
    let nothing = results.came.len() - done;
    if how.json {
        let mut numbers = numbers(plan);
        numbers["commanded"] = json!(commanded);
        numbers["done"] = json!(done);
        numbers["nothing"] = json!(nothing);
        numbers["open"] = json!(results.open.values().sum::<usize>());
        numbers["left"] = json!(left);
        output::json(&numbers)?;
    } else {
        output::line(&format!("{done} of {} runs of {from} go on in {}", plan.matching, plan.to))?;
        for (came, why) in [
            ("no_step", "the running version of the flow has no step of that name"),
            ("has_run", "the flow has a run on the same event already"),
            ("nothing", "have gone on meanwhile, or have ended"),
        ] {
            let count = results.count(came);
            if count > 0 {
                output::line(&format!("{count} stay: {why}"))?;
            }
        }
        crate::orders::print_open(results)?;
        print_rest(plan)?;
    }
    if *left == 0 && failure.is_none() {
        return Ok(());
    }
    let why = failure.as_ref().map_or_else(|| "interrupted".to_owned(), ToString::to_string);
    bail!("{why}: {commanded} were commanded, {left} are left; the same command goes on with them");
}
