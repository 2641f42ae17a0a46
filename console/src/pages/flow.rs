//! `/flow`: one flow with its file, its versions, its pause and the mails that it would send. `/flow/mail` is the HTML of one.

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use usher_service::clock;

use super::{Shell, answer, answer_mail, show};
use crate::Console;
use crate::actions::{self, FlowAction};
use crate::guard::{Visit, form};
use crate::model::{self, FlowDetail, FlowMail, FlowMails};
use crate::problem::ConsoleError;

#[derive(Template)]
#[template(path = "flow.html")]
struct FlowPage {
    shell: Shell,
    detail: FlowDetail,
    samples: Vec<String>,
    sample: String,
    mails: Vec<FlowMail>,
}

impl FlowPage {
    fn mail(&self, mail: &FlowMail) -> String {
        let FlowDetail { line, version, .. } = &self.detail;
        let parts =
            [("name", line.flow.as_str()), ("version", version), ("sample", &self.sample), ("step", &mail.step)];
        self.shell.link("/flow/mail", &parts)
    }
}

/// Address of a flow, the version whose file is shown, and the mail.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FlowAddress {
    name: String,
    version: String,
    /// The sample event, in words.
    sample: String,
    step: String,
}

pub(crate) async fn page(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(asked): Query<FlowAddress>,
) -> Response {
    let page = async {
        if asked.name.is_empty() {
            let shell = Shell::new(&console, &visit, "flows", "");
            return Ok(Redirect::to(&shell.link("/flows", &[])).into_response());
        }
        let detail = model::flow_detail(&console, &asked.name, &asked.version, clock::now()).await?;
        let FlowMails { samples, sample, mails } =
            model::flow_mails(&console, &asked.name, &detail.version, &asked.sample).await?;
        let shell = Shell::new(&console, &visit, "flows", detail.line.flow.clone());
        Ok(show(&FlowPage { shell, detail, samples, sample, mails }))
    };
    answer(&console, &visit, page.await)
}

pub(crate) async fn mail(State(console): State<Console>, Query(asked): Query<FlowAddress>) -> Response {
    let page = async {
        let mails = model::flow_mails(&console, &asked.name, &asked.version, &asked.sample).await?.mails;
        let html = mails.into_iter().find(|mail| mail.step == asked.step).and_then(|mail| mail.html);
        html.ok_or_else(|| ConsoleError::NotFound("there is no such mail".to_owned()))
    };
    answer_mail(page.await)
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
