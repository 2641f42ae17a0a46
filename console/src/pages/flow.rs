//! `/flow`: one flow with its file, its versions and its pause.

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use usher_service::clock;

use super::{Shell, answer, show};
use crate::Console;
use crate::actions::{self, FlowAction};
use crate::guard::{Visit, form};
use crate::model::{self, FlowDetail};

#[derive(Template)]
#[template(path = "flow.html")]
struct FlowPage {
    shell: Shell,
    detail: FlowDetail,
}

/// Address of a flow, and the version whose file is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FlowAddress {
    name: String,
    version: String,
}

pub(crate) async fn page(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(asked): Query<FlowAddress>,
) -> Response {
    let page = async {
        let detail = model::flow_detail(&console, &asked.name, &asked.version, clock::now()).await?;
        Ok(show(&FlowPage { shell: Shell::new(&console, &visit, "flows", detail.line.flow.clone()), detail }))
    };
    answer(&console, &visit, page.await)
}

fn back(console: &Console, visit: &Visit, flow: &str) -> Response {
    Redirect::to(&Shell::new(console, visit, "flows", "").flow(flow)).into_response()
}

pub(crate) async fn pause(State(console): State<Console>, Extension(visit): Extension<Visit>, body: Bytes) -> Response {
    let asked: FlowAction = form(&body).unwrap_or_default();
    let paused = actions::pause(&console, &visit.caller, &asked).await;
    answer(&console, &visit, paused.map(|_| back(&console, &visit, &asked.flow)))
}

pub(crate) async fn resume(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    body: Bytes,
) -> Response {
    let asked: FlowAction = form(&body).unwrap_or_default();
    let resumed = actions::resume(&console, &visit.caller, &asked).await;
    answer(&console, &visit, resumed.map(|()| back(&console, &visit, &asked.flow)))
}
