//! `usher status`: what needs somebody, then flows and accounts.

use std::process::ExitCode;
use std::time::Duration;

use usher_dispatcher::operator::{FlowStatus, Status, duration, status};
use usher_service::clock;
use usher_service::options::Environment;

use crate::orders::OperatorTarget;
use crate::output;

/// Interval of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Shows what needs somebody, then each flow and each account. The exit code is 1 if something needs somebody.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    target: OperatorTarget,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Print the state again every two seconds, until it is interrupted.
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn run(arguments: StatusArguments, environment: &Environment) -> anyhow::Result<ExitCode> {
    let StatusArguments { target, json, watch } = arguments;
    let store = target.place.store().await?;
    let log = target.log(environment).await?;
    let topic = target.layout.topics.events();
    loop {
        let now = status(&store, Some((&*log, &topic)), clock::now()).await?;
        if json {
            output::json(&now)?
        } else {
            print(&now)?
        };
        if !watch {
            return Ok(if now.needs.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(WATCH_EVERY).await;
        if !json {
            output::line("")?;
        }
    }
}

fn print(status: &Status) -> anyhow::Result<()> {
    if status.needs.is_empty() {
        output::line(&format!("Nothing needs you, as of {}.", status.at))?;
    }
    for need in &status.needs {
        output::line(&format!("! {}", need.text))?;
        output::line(&format!("    {}", need.command))?;
    }
    output::line("")?;
    let flows: Vec<[String; 8]> = status.flows.iter().map(flow_row).collect();
    output::table(["flow", "state", "lag", "queued", "running", "parked", "waiting", "dead"], &flows)?;
    let scheduled = status.flows.iter().filter_map(|flow| Some([flow.flow.clone(), flow.next_firing?.to_string()]));
    let scheduled: Vec<[String; 2]> = scheduled.collect();
    if !scheduled.is_empty() {
        output::line("")?;
        output::table(["flow", "fires next"], &scheduled)?;
    }
    if status.accounts.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let row = |account: &usher_dispatcher::operator::AccountStatus| {
        let serves = match account.trouble_since {
            None => "serves".to_owned(),
            Some(_) if account.next_probe.is_none() => "serves again, one call at a time".to_owned(),
            Some(since) => format!("in trouble for {}", duration(status.at.since(since).as_secs())),
        };
        let used: Vec<String> = account.quotas.iter().map(|used| format!("{} this {}", used.used, used.span)).collect();
        let wanting =
            if account.wanting > 0 { format!("{} of {}", account.wanting, account.processes) } else { "-".into() };
        [account.account.clone(), serves, if used.is_empty() { "-".into() } else { used.join(", ") }, wanting]
    };
    let accounts: Vec<[String; 4]> = status.accounts.iter().map(row).collect();
    output::table(["account", "state", "calls handed out", "processes that want calls"], &accounts)
}

fn flow_row(flow: &FlowStatus) -> [String; 8] {
    let lag = match (flow.lag_events, flow.lag_seconds) {
        (Some(0), _) => "0 s".to_owned(),
        (Some(events), Some(seconds)) => format!("{}, {events} events", duration(seconds)),
        _ => "-".to_owned(),
    };
    let count = |count: usher_store::BoundedCount| if count.count == 0 { "-".to_owned() } else { count.to_string() };
    [
        flow.flow.clone(),
        flow.standing().to_owned(),
        lag,
        count(flow.queued),
        count(flow.running),
        count(flow.parked),
        count(flow.waiting),
        count(flow.dead),
    ]
}
