//! `/flows`: all flows.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use usher_service::clock;

use super::{Shell, answer, show};
use crate::Console;
use crate::guard::Visit;
use crate::model::{self, OverviewAnswer};

#[derive(Template)]
#[template(path = "flows.html")]
struct FlowsPage {
    shell: Shell,
    overview: OverviewAnswer,
}

pub(crate) async fn page(State(console): State<Console>, Extension(visit): Extension<Visit>) -> Response {
    let page = async {
        let overview = model::overview(&console, clock::now()).await?;
        Ok(show(&FlowsPage { shell: Shell::new(&console, &visit, "flows", "Flows"), overview }))
    };
    answer(&console, &visit, page.await)
}
