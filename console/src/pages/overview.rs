//! `/`: what needs somebody, then the flows in figures.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use usher_service::clock;

use super::{Shell, answer, show};
use crate::Console;
use crate::guard::Visit;
use crate::model::{self, OpenMatter, OverviewAnswer};

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    overview: OverviewAnswer,
    headline: String,
}

pub(crate) async fn page(State(console): State<Console>, Extension(visit): Extension<Visit>) -> Response {
    let page = async {
        let overview = model::overview(&console, clock::now()).await?;
        let headline = match overview.needs.len() {
            0 => "Nothing needs you".to_owned(),
            1 => "One thing needs you".to_owned(),
            many => format!("{many} things need you"),
        };
        Ok(show(&OverviewPage { shell: Shell::new(&console, &visit, "overview", "Overview"), overview, headline }))
    };
    answer(&console, &visit, page.await)
}
