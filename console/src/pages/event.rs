//! `/event`: one event, a part for each flow. `/event/show` shows its body unmasked, which is recorded.

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use usher_service::clock;

use super::{Shell, answer, show as show_page};
use crate::Console;
use crate::guard::{Visit, form};
use crate::model::{self, BarKind, EventDetail, RunDetail, RunStep, StepAttempt, Waterfall};
use crate::problem::ConsoleError;

#[derive(Template)]
#[template(path = "event.html")]
struct EventPage {
    shell: Shell,
    detail: EventDetail,
    body: Option<String>,
    is_shown: bool,
    said: &'static str,
    scale: Waterfall,
}

impl EventPage {
    /// Returns the bars of a step as a picture, and what it shows in words.
    fn bars(&self, run: &RunDetail, step: &RunStep) -> String {
        let mut svg = format!("<svg class=\"bars\" role=\"img\" aria-label=\"{}\">", describe(step));
        for bar in self.scale.bars(run, step) {
            let (x, width) = (bar.x, bar.width);
            let rect = |class: &str, fill: &str| {
                format!(
                    "<rect class=\"{class}\" x=\"{x:.2}%\" width=\"{width:.2}%\" y=\"2\" height=\"12\" rx=\"2\"{fill}/>"
                )
            };
            let line = |class: &str| {
                let end = x + width;
                format!("<line class=\"{class}\" x1=\"{x:.2}%\" x2=\"{end:.2}%\" y1=\"8\" y2=\"8\"/>")
            };
            match bar.kind {
                BarKind::Done => svg.push_str(&rect("done", "")),
                BarKind::Failed => {
                    svg.push_str(&rect("failed", ""));
                    svg.push_str(&line("through"));
                }
                BarKind::Hold => svg.push_str(&rect("hold", " fill=\"url(#hold)\"")),
                BarKind::Wait => svg.push_str(&line("wait")),
            }
        }
        if let Some(now) = self.scale.now() {
            svg.push_str(&format!("<line class=\"now\" x1=\"{now:.2}%\" x2=\"{now:.2}%\" y1=\"0\" y2=\"16\"/>"));
        }
        svg.push_str("</svg>");
        svg
    }

    /// Returns the colour of an attempt's outcome, which stands beside its word.
    fn tone(&self, attempt: &StepAttempt) -> &'static str {
        match (attempt.outcome.as_str(), attempt.number, &attempt.next_at) {
            ("done", ..) => "good",
            ("overtaken", ..) | (_, 0, _) => "idle",
            (_, _, Some(_)) => "wait",
            (_, _, None) => "bad",
        }
    }

    /// Returns the marks of the scale as a picture.
    fn axis(&self) -> String {
        let mut svg = "<svg class=\"axis\" aria-hidden=\"true\"><text x=\"0%\" y=\"12\">admitted</text>".to_owned();
        let now = self.scale.now();
        for (place, name) in self.scale.marks() {
            if now.is_none_or(|now| (now - place).abs() > 6.0) {
                svg.push_str(&format!("<text x=\"{place:.2}%\" y=\"12\" text-anchor=\"middle\">{name}</text>"));
            }
        }
        if let Some(now) = now {
            svg.push_str(&format!("<text class=\"now\" x=\"{now:.2}%\" y=\"12\" text-anchor=\"end\">now</text>"));
        }
        svg.push_str("</svg>");
        svg
    }
}

/// Returns what the bars of a step show, in words of ours and numbers.
fn describe(step: &RunStep) -> String {
    let attempts = step.attempts.iter().filter(|attempt| attempt.number > 0);
    let words: Vec<String> = attempts
        .map(|attempt| {
            let how = if attempt.outcome == "done" { "succeeded" } else { "failed" };
            format!("attempt {} {how} after {} ms", attempt.number, attempt.took_ms)
        })
        .collect();
    match (words.is_empty(), step.state) {
        (false, _) => words.join(", "),
        (true, "done") => "done".to_owned(),
        (true, "now") => "not begun".to_owned(),
        (true, _) => "no attempt".to_owned(),
    }
}

/// Address of an event, and the result of the action before.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EventAddress {
    #[serde(rename = "ref")]
    reference: String,
    said: String,
}

fn sentence(said: &str) -> &'static str {
    match said {
        "cancel-done" => "The run is cancelled.",
        "cancel-nothing" => "The run ends when the attempt in flight has been answered.",
        "wake-done" => "The run goes on.",
        "wake-nothing" => "The run goes on already.",
        "cancel-open" | "wake-open" | "rerun-open" => {
            "Asked for, and not carried out yet: does a process work on the flow?"
        }
        "rerun-done" => "The run is queued again from its first step.",
        "rerun-nothing" => "The run is run again already.",
        _ => "",
    }
}

async fn event(
    console: &Console,
    visit: &Visit,
    asked: &EventAddress,
    shown_to: Option<&str>,
) -> Result<Response, ConsoleError> {
    let now = clock::now();
    let detail = model::event_detail(console, &asked.reference, shown_to, now).await?;
    let scale = Waterfall::new(&detail.runs, now);
    let shell = Shell::new(console, visit, "events", detail.event.event.kind.clone());
    let body = detail.body.as_ref().map(model::pretty);
    let is_shown = shown_to.is_some();
    Ok(show_page(&EventPage { shell, detail, body, is_shown, said: sentence(&asked.said), scale }))
}

pub(crate) async fn page(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(asked): Query<EventAddress>,
) -> Response {
    answer(&console, &visit, event(&console, &visit, &asked, None).await)
}

pub(crate) async fn show(State(console): State<Console>, Extension(visit): Extension<Visit>, body: Bytes) -> Response {
    let page = async {
        let asked: EventAddress = form(&body).unwrap_or_default();
        event(&console, &visit, &asked, Some(&visit.caller.name)).await
    };
    answer(&console, &visit, page.await)
}
