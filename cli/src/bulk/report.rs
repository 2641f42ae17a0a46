//! The words about an action on many runs.

use anyhow::bail;
use serde_json::json;
use usher_dispatcher::operator::{BulkAction, BulkOutcome, BulkPlan, LeftAlone};
use usher_store::BoundedCount;

use crate::output;

/// The words of an action.
struct Words {
    runs: &'static str,
    /// Completes "would be ..." and "are ...".
    done: &'static str,
    /// The reason for which a command did nothing.
    nothing: &'static str,
}

fn words(action: BulkAction) -> Words {
    match action {
        BulkAction::Cancel => Words {
            runs: "runs",
            done: "cancelled",
            nothing: "have ended meanwhile, or end when the attempt that is under way has been answered",
        },
        BulkAction::Wake => Words { runs: "runs", done: "woken", nothing: "go on already: nothing came of it" },
        BulkAction::Rerun => {
            Words { runs: "runs", done: "run again", nothing: "are run again already: nothing came of it" }
        }
        BulkAction::Redrive { .. } => Words {
            runs: "dead letters",
            done: "taken up again",
            nothing: "are dead no longer, or have died again since: nothing came of it",
        },
    }
}

/// Returns a number with groups of digits.
fn number(count: usize) -> String {
    BoundedCount { count: count as u64, more: false }.to_string()
}

/// Returns the number of selected runs, as far as they were counted.
fn matching(plan: &BulkPlan) -> String {
    match plan.matching {
        BoundedCount { count, more: true } => format!("over {}", BoundedCount { count, more: false }),
        BoundedCount { count, more: false } => count.to_string(),
    }
}

/// Returns what is about to be done.
pub(super) fn intention(plan: &BulkPlan) -> String {
    let Words { runs, done, .. } = words(plan.action);
    let repeated = match plan.action {
        BulkAction::Rerun => ", and their effects repeated",
        BulkAction::Cancel | BulkAction::Wake | BulkAction::Redrive { .. } => "",
    };
    format!("{} of {} {runs} would be {done}{repeated}", number(plan.targets.len()), matching(plan))
}

fn describe(why: LeftAlone, action: BulkAction) -> String {
    match (why, action) {
        (LeftAlone::DiedTooOften, BulkAction::Redrive { max_deaths }) => {
            format!("they have died {max_deaths} times (--max-deaths)")
        }
        (LeftAlone::DiedTooOften, BulkAction::Cancel | BulkAction::Wake | BulkAction::Rerun) => {
            "they have died too often".to_owned()
        }
        (LeftAlone::Ended, _) => "they have ended already".to_owned(),
        (LeftAlone::NotEnded, _) => "they have not ended yet".to_owned(),
        (LeftAlone::NotDead, _) => "they are not dead".to_owned(),
        (LeftAlone::NotWaiting, _) => "they do not wait".to_owned(),
    }
}

/// Prints what is left alone, and that there may be more than was selected.
fn print_rest(plan: &BulkPlan) -> anyhow::Result<()> {
    for (why, count) in &plan.left_alone {
        output::line(&format!("{} left alone: {}", number(*count), describe(*why, plan.action)))?;
    }
    if plan.matching.more {
        let first = BoundedCount { more: false, ..plan.matching };
        output::line(&format!("the first {first} were looked at: give the command again for the others"))?;
    }
    Ok(())
}

/// Returns the numbers of a plan as JSON.
fn numbers(plan: &BulkPlan) -> serde_json::Value {
    json!({
        "as_of": plan.as_of,
        "matching": plan.matching.count,
        "more": plan.matching.more,
        "selected": plan.targets.len(),
        "left_alone": plan.left_alone,
    })
}

/// Prints what would be done.
pub(super) fn dry_run(plan: &BulkPlan, json: bool) -> anyhow::Result<()> {
    for run in &plan.targets {
        if json {
            output::json(&json!({
                "flow": run.flow, "event": run.reference.id(), "key": run.subject.key(), "state": run.state,
                "reason": run.reason, "deaths": run.deaths,
            }))?;
            continue;
        }
        let (event, key) = (run.reference.id(), run.subject.key());
        let why = match plan.action {
            BulkAction::Redrive { .. } => {
                format!("{}  died {} times", run.reason.as_deref().unwrap_or("-"), run.deaths)
            }
            BulkAction::Cancel | BulkAction::Wake | BulkAction::Rerun => run.state.clone(),
        };
        output::line(&format!("{}/{event}  {key}  {why}", run.flow))?;
    }
    if json {
        return output::json(&numbers(plan));
    }
    let Words { runs, done, .. } = words(plan.action);
    output::line(&format!("{} of {} {runs} would be {done}", plan.targets.len(), matching(plan)))?;
    print_rest(plan)
}

/// Prints that there is nothing to do.
pub(super) fn nothing(plan: &BulkPlan, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&numbers(plan));
    }
    let Words { runs, done, .. } = words(plan.action);
    output::line(&format!("0 of {} {runs} are {done}", matching(plan)))?;
    print_rest(plan)
}

/// Prints what was done. Fails if the action was stopped before its end.
pub(super) fn outcome(plan: &BulkPlan, outcome: &BulkOutcome, json: bool) -> anyhow::Result<()> {
    let BulkOutcome { commanded, not_in_log, left, failure, results } = outcome;
    let done = results.count(plan.action.succeeded());
    let nothing = results.came.len() - done;
    let words = words(plan.action);
    if json {
        let mut numbers = numbers(plan);
        numbers["commanded"] = json!(commanded);
        numbers["done"] = json!(done);
        numbers["nothing"] = json!(nothing);
        numbers["open"] = json!(results.open.values().sum::<usize>());
        numbers["not_in_log"] = json!(not_in_log);
        numbers["left"] = json!(left);
        output::json(&numbers)?;
    } else {
        output::line(&format!("{done} of {} {} are {}", matching(plan), words.runs, words.done))?;
        if nothing > 0 {
            output::line(&format!("{nothing} {}", words.nothing))?;
        }
        if *not_in_log > 0 {
            output::line(&format!("{not_in_log} cannot be run again: the log does not hold their events any more"))?;
        }
        crate::orders::print_open(results)?;
        print_rest(plan)?;
    }
    if *left == 0 && failure.is_none() {
        return Ok(());
    }
    let why = failure.as_ref().map_or_else(|| "interrupted".to_owned(), ToString::to_string);
    let all = plan.targets.len();
    let again = match plan.action {
        // They have ended again by the time of a repetition, and would be taken once more.
        BulkAction::Rerun => "the others are untouched",
        BulkAction::Cancel | BulkAction::Wake | BulkAction::Redrive { .. } => "the same command goes on with them",
    };
    bail!("{why}: {} of {} were commanded, {} are left; {again}", number(all - left), number(all), number(*left));
}
