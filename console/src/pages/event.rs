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
use crate::model::{self, EventDetail};
use crate::problem::ConsoleError;

#[derive(Template)]
#[template(path = "event.html")]
struct EventPage {
    shell: Shell,
    detail: EventDetail,
    body: Option<String>,
    is_shown: bool,
    said: &'static str,
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
        "cancel-open" | "rerun-open" => "Asked for, and not carried out yet: does a process work on the flow?",
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
    let detail = model::event_detail(console, &asked.reference, shown_to, clock::now()).await?;
    let shell = Shell::new(console, visit, "events", detail.event.event.kind.clone());
    let body = detail.body.as_ref().map(model::pretty);
    let is_shown = shown_to.is_some();
    Ok(show_page(&EventPage { shell, detail, body, is_shown, said: sentence(&asked.said) }))
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
