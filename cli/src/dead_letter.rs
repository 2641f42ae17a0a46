//! `usher dlq show`: why a run was given up, what was attempted, and on request the content.

use anyhow::bail;
use serde_json::json;
use usher_dispatcher::operator::answer;
use usher_engine::RunState;
use usher_service::clock;
use usher_store::{AttemptRecord, RunContent, RunFilter, RunRecord, SqlStore};

use crate::data::StoreLocation;
use crate::output;

/// Shows one dead letter: the reason, the attempts, the operators' commands about it, and its content if asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    #[command(flatten)]
    place: StoreLocation,
    /// The event's id.
    event: String,
    /// The flow, if more than one gave the event up.
    #[arg(long)]
    flow: Option<String>,
    /// Also show the destination's messages, the request and the event's body, which may hold personal data. This is recorded.
    #[arg(long)]
    show_content: bool,
    /// Name of the operator, stored when content is shown.
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
    /// Print one JSON object for each flow.
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { place, event, flow, show_content, by, json } = self;
        let store = place.store().await?;
        let filter =
            RunFilter { event: Some(event.clone()), flow, states: vec![RunState::Dead], ..RunFilter::default() };
        let dead = store.runs(&filter, 100).await?;
        if dead.is_empty() {
            bail!("no flow has given up on {event}");
        }
        for (number, run) in dead.iter().enumerate() {
            let content = match show_content {
                true => Some(store.show_content(&run.flow, &run.reference, &by, clock::now()).await?),
                false => None,
            };
            if json {
                print_json(&store, run, content.as_ref()).await?;
                continue;
            }
            if number > 0 {
                output::line("")?;
            }
            print(&store, run, content.as_ref()).await?;
        }
        Ok(())
    }
}

async fn print_json(store: &SqlStore, run: &RunRecord, content: Option<&RunContent>) -> anyhow::Result<()> {
    let mut shown = serde_json::to_value(run)?;
    shown["orders"] = serde_json::to_value(store.actions(&run.flow, &run.reference).await?)?;
    if let Some(content) = content {
        shown["body"] = content.body.clone().unwrap_or_default();
        shown["request"] = json!(content.request.as_deref().map(request_text));
        shown["messages"] = serde_json::to_value(&content.messages)?;
    }
    output::pretty_json(&shown)
}

async fn print(store: &SqlStore, run: &RunRecord, content: Option<&RunContent>) -> anyhow::Result<()> {
    let why: Vec<&str> = [&run.reason, &run.error].into_iter().flatten().map(String::as_str).collect();
    let died = match run.deaths {
        1 => String::new(),
        times => format!(", {times} times"),
    };
    let step = run.story.iter().rev().find(|attempt| attempt.step == run.step).map_or("", |attempt| &attempt.name);
    let lines = [
        ("run", format!("{}/{}", run.flow, run.reference)),
        (
            "given up",
            format!("{}{died}: {}", run.ended_at.map_or_else(|| "-".to_owned(), |at| at.to_string()), why.join(": ")),
        ),
        ("step", format!("{} {step}", run.step + 1).trim_end().to_owned()),
        ("event", format!("{} of {}", run.kind, run.key)),
    ];
    for (name, value) in lines {
        output::line(&format!("{name:<10}{value}"))?;
    }
    output::line("")?;
    print_attempts(&run.story, content)?;
    let orders = store.actions(&run.flow, &run.reference).await?;
    if !orders.is_empty() {
        output::line("")?;
        let rows: Vec<[String; 4]> =
            orders.into_iter().map(|order| [order.at.to_string(), order.who, order.what, order.came]).collect();
        output::table(["commanded", "by", "command", "result"], &rows)?;
    }
    output::line("")?;
    let Some(content) = content else {
        return output::line(
            "Messages, request and body may hold personal data: --show-content shows them, and that is recorded.",
        );
    };
    output::line("request, as it was sent last")?;
    match &content.request {
        Some(request) => request_text(request).lines().try_for_each(output::line)?,
        None => output::line("none was made, or it is no longer kept")?,
    }
    output::line("")?;
    output::line("body of the event")?;
    match &content.body {
        Some(body) => output::pretty_json(body),
        None => output::line("it is no longer kept"),
    }
}

/// Prints the attempts, each with the destination's message if content is shown.
fn print_attempts(attempts: &[AttemptRecord], content: Option<&RunContent>) -> anyhow::Result<()> {
    if attempts.is_empty() {
        return output::line("no attempt is recorded");
    }
    let message = |attempt: &AttemptRecord| {
        let of = |message: &&usher_store::AttemptMessage| (message.at, message.step) == (attempt.at, attempt.step);
        content.and_then(|content| content.messages.iter().find(of)).map_or_else(String::new, |it| it.message.clone())
    };
    let row = |attempt: &AttemptRecord| {
        let number = if attempt.attempt == 0 { "-".to_owned() } else { attempt.attempt.to_string() };
        let took = if attempt.attempt == 0 { "-".to_owned() } else { format!("{} ms", attempt.ms) };
        let what = [answer(attempt), message(attempt)].join(" ");
        [attempt.at.to_string(), attempt.name.clone(), number, took, attempt.outcome.clone(), what.trim().to_owned()]
    };
    let rows: Vec<[String; 6]> = attempts.iter().map(row).collect();
    output::table(["at", "step", "attempt", "took", "outcome", "answer"], &rows)
}

/// Returns a stored request as text. JSON is printed over several lines.
fn request_text(stored: &[u8]) -> String {
    let (_, request) = usher_suppression::kept(stored);
    match serde_json::from_slice::<serde_json::Value>(request) {
        Ok(json) => serde_json::to_string_pretty(&json).unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(request).into_owned(),
    }
}
