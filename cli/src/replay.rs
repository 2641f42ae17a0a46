//! `usher replay`: gives events of a time in the log to one flow that has not had them.

use anyhow::bail;
use serde_json::json;
use usher_dispatcher::operator::{BulkOptions, LogSpan, NotReplayed, ReplayOutcome, ReplayPlan};
use usher_proto::Timestamp;
use usher_service::options::Environment;
use usher_service::{ConfigError, clock, shutdown};

use crate::bulk::{self, BulkSize};
use crate::orders::OperatorTarget;
use crate::{data, output, values};

/// Gives events of a time in the log to one flow: each on which the flow starts and that it has not had begins a run.
///
/// An event that the flow has had is left out, and so is one whose user or object was deleted, or has cancelled the flow's runs
/// by a later event. No other flow is concerned. New runs follow those that their users have queued already.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArguments {
    #[command(flatten)]
    desk: OperatorTarget,
    /// The flow.
    flow: String,
    /// Events since this time, such as 2026-01-31T12:00:00Z, this day, such as 2026-01-31, or this duration ago, such as
    /// 2h.
    #[arg(long, value_parser = values::since)]
    since: Timestamp,
    /// Events before this time, which is given as with --since; default: now.
    #[arg(long, value_parser = values::since)]
    until: Option<Timestamp>,
    /// Only report what would be done, and what is left out and why.
    #[arg(long)]
    dry_run: bool,
    /// Maximum rate, such as 10/s; as fast as the log accepts them if not given.
    #[arg(long, value_parser = values::rate)]
    rate: Option<f64>,
    /// Do not ask. Without a terminal, more than 100 events are replayed only with this option.
    #[arg(long)]
    yes: bool,
    /// Print JSON: with --dry-run one object for each event, and at last one with the numbers.
    #[arg(long)]
    json: bool,
}

/// Number of parts in which the progress of reading is shown.
const PARTS: f64 = 1000.0;

pub(crate) async fn run(arguments: ReplayArguments, environment: &Environment) -> anyhow::Result<()> {
    let ReplayArguments { desk, flow, since, until, dry_run, rate, yes, json } = arguments;
    let store = desk.place.store().await?;
    data::known_flow(&store, &flow).await?;
    let span = LogSpan { since, until: until.unwrap_or_else(clock::now) };
    if span.until <= span.since {
        return Err(ConfigError::new("--until", format!("{} is not after {since}", span.until)).into());
    }
    let commands = desk.commands(environment).await?;
    let bar = bulk::progress_bar(PARTS as u64);
    bar.set_message(" parts of the log read");
    let plan = commands.plan_replay(&flow, span, &|share| bar.set_position((share * PARTS) as u64)).await;
    bar.finish_and_clear();
    let plan = plan?;
    if dry_run {
        print_targets(&plan, json)?;
        return print_plan(&plan, json, "would be given");
    }
    if plan.targets.is_empty() {
        return print_plan(&plan, json, "are given");
    }
    let question = format!("{} of {} events would be given to {flow}", plan.targets.len(), plan.matching);
    if !bulk::confirmed(&question, BulkSize(plan.targets.len()), yes)? {
        bail!("nothing is done");
    }
    let options = BulkOptions { rate, by: desk.by.clone(), stop: shutdown::on_signal()? };
    let bar = bulk::progress_bar(plan.targets.len() as u64);
    let outcome = commands.replay(&plan, &options, &|progress| bulk::show(&bar, progress)).await;
    bar.finish_and_clear();
    report(&plan, &outcome?, json)
}

fn print_targets(plan: &ReplayPlan, json: bool) -> anyhow::Result<()> {
    for target in &plan.targets {
        let (event, key) = (target.reference.id(), target.subject.key());
        if json {
            let received = target.received_at;
            output::json(&json!({"event": event, "key": key, "type": target.kind, "received_at": received}))?;
        } else {
            output::line(&format!("{}  {event}  {key}  {}", target.received_at, target.kind))?;
        }
    }
    Ok(())
}

fn numbers(plan: &ReplayPlan) -> serde_json::Value {
    json!({
        "flow": plan.flow,
        "since": plan.span.since,
        "until": plan.span.until,
        "matching": plan.matching.count,
        "more": plan.matching.more,
        "selected": plan.targets.len(),
        "left_out": plan.left_out,
    })
}

fn print_left_out(plan: &ReplayPlan) -> anyhow::Result<()> {
    for (why, count) in &plan.left_out {
        let why = match why {
            NotReplayed::Had => "the flow has had them",
            NotReplayed::CancelledSince => "a later event of the same user or object cancels runs of the flow",
            NotReplayed::TooOld => {
                "they were received before the time that the flow remembers (USHER_RUN_RETENTION), so it may have had them"
            }
        };
        output::line(&format!("{count} left out: {why}"))?;
    }
    if plan.matching.more {
        output::line("there are more events than one replay takes: give the command again for the others")?;
    }
    Ok(())
}

fn print_plan(plan: &ReplayPlan, json: bool, done: &str) -> anyhow::Result<()> {
    if json {
        return output::json(&numbers(plan));
    }
    output::line(&format!("{} of {} events {done} to {}", plan.targets.len(), plan.matching, plan.flow))?;
    print_left_out(plan)
}

fn report(plan: &ReplayPlan, outcome: &ReplayOutcome, json: bool) -> anyhow::Result<()> {
    let ReplayOutcome { given, admitted, impossible, left, failure, is_worked } = outcome;
    let flow = &plan.flow;
    let open = given - admitted;
    if json {
        let mut numbers = numbers(plan);
        numbers["given"] = json!(given);
        numbers["admitted"] = json!(admitted);
        numbers["open"] = json!(open);
        numbers["impossible"] = json!(impossible);
        numbers["left"] = json!(left);
        output::json(&numbers)?;
    } else {
        output::line(&format!(
            "{given} of {} events are given to {flow}, which has admitted {admitted}",
            plan.matching
        ))?;
        if *impossible > 0 {
            output::line(&format!(
                "{impossible} cannot be given: the log does not hold them any more, or they are too large for a command"
            ))?;
        }
        if open > 0 {
            let why = match is_worked {
                true => {
                    "not admitted yet, or the flow's present version does not start on them: look again with `usher runs`"
                }
                false => "no process works on the flow",
            };
            output::line(&format!("{open} given; {why}"))?;
        }
        print_left_out(plan)?;
    }
    if *left == 0 && failure.is_none() {
        return Ok(());
    }
    let why = failure.as_ref().map_or_else(|| "interrupted".to_owned(), ToString::to_string);
    bail!("{why}: {given} of {} were given, {left} are left; the same command goes on with them", plan.targets.len());
}
