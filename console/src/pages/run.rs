//! Commands about one run, from the page of its event.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};

use super::{Shell, answer};
use crate::Console;
use crate::actions::{self, CameOf, RunCommand};
use crate::guard::{Visit, form};

fn back(console: &Console, visit: &Visit, asked: &RunCommand, what: &str, came: CameOf) -> Response {
    let said = format!("{what}-{}", came.label());
    let shell = Shell::new(console, visit, "events", "");
    Redirect::to(&shell.link("/event", &[("ref", &asked.event), ("said", &said)])).into_response()
}

pub(crate) async fn cancel(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    body: Bytes,
) -> Response {
    let asked: RunCommand = form(&body).unwrap_or_default();
    let came = actions::cancel(&console, &visit.caller, &asked).await;
    answer(&console, &visit, came.map(|came| back(&console, &visit, &asked, "cancel", came)))
}

pub(crate) async fn wake(State(console): State<Console>, Extension(visit): Extension<Visit>, body: Bytes) -> Response {
    let asked: RunCommand = form(&body).unwrap_or_default();
    let came = actions::wake(&console, &visit.caller, &asked).await;
    answer(&console, &visit, came.map(|came| back(&console, &visit, &asked, "wake", came)))
}

pub(crate) async fn rerun(State(console): State<Console>, Extension(visit): Extension<Visit>, body: Bytes) -> Response {
    let asked: RunCommand = form(&body).unwrap_or_default();
    let came = actions::rerun(&console, &visit.caller, &asked).await;
    answer(&console, &visit, came.map(|came| back(&console, &visit, &asked, "rerun", came)))
}
