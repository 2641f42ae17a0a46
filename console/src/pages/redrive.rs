//! `/dead/redrive`: what a redrive would do, and the redrive itself.

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use usher_dispatcher::operator::MAX_DEATHS;

use super::dead::DeadAddress;
use super::{Shell, answer, show};
use crate::Console;
use crate::actions::{self, RedriveChoice};
use crate::guard::{Visit, form};
use crate::problem::ConsoleError;

#[derive(Template)]
#[template(path = "redrive.html")]
struct RedrivePage {
    shell: Shell,
    address: DeadAddress,
    choice: RedriveChoice,
    until: String,
    max_deaths: u32,
    has_log: bool,
}

pub(crate) async fn plan(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(address): Query<DeadAddress>,
) -> Response {
    let page = async {
        let choice = actions::plan_redrive(&console, &address.read()?).await?;
        let shell = Shell::new(&console, &visit, "dead", "Redrive");
        let until = choice.until.to_string();
        let has_log = console.commands().is_some();
        Ok(show(&RedrivePage { shell, address, choice, until, max_deaths: MAX_DEATHS, has_log }))
    };
    answer(&console, &visit, page.await)
}

/// The confirmed number of runs, as the form sends it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfirmedCount {
    runs: Option<usize>,
}

pub(crate) async fn run(State(console): State<Console>, Extension(visit): Extension<Visit>, body: Bytes) -> Response {
    let page = async {
        let bad = || ConsoleError::BadRequest("the form is incomplete".to_owned());
        let address: DeadAddress = form(&body).ok_or_else(bad)?;
        let ConfirmedCount { runs } = form(&body).unwrap_or_default();
        let expected = runs.ok_or_else(bad)?;
        let came = actions::redrive(&console, &visit.caller, &address.read()?, Some(expected)).await?;
        let shell = Shell::new(&console, &visit, "dead", "");
        let [taken_up, nothing, open] = [came.taken_up, came.nothing, came.open].map(|count| count.to_string());
        let counts = [("taken_up", taken_up.as_str()), ("nothing", &nothing), ("open", &open)];
        let parts: Vec<(&str, &str)> = address.parts().into_iter().chain(counts).collect();
        Ok(Redirect::to(&shell.link("/dead", &parts)).into_response())
    };
    answer(&console, &visit, page.await)
}
