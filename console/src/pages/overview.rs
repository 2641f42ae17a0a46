//! `/`: what needs somebody, then the flows and accounts in figures.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use usher_dispatcher::operator::{FlowLag, duration};
use usher_service::clock;

use super::sparks::spark;
use super::{Shell, answer, show};
use crate::Console;
use crate::guard::Visit;
use crate::model::{self, AccountLine, FlowLine, OpenMatter, OverviewAnswer};

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    overview: OverviewAnswer,
    headline: String,
}

impl OverviewPage {
    /// Returns the address of the runs of the last hour, of a flow or of all.
    fn recent(&self, flow: &str) -> String {
        recent(&self.shell, &self.overview, flow)
    }

    /// Returns the address of the runs that wait for an account.
    fn waiting(&self, account: &AccountLine) -> String {
        self.shell.link("/events", &[("account", &account.status.account)])
    }

    fn lag(&self, lag: &FlowLag) -> String {
        lag_words(lag)
    }

    fn spark(&self, parts: &[u64]) -> String {
        spark(parts)
    }

    /// Returns the use of an account's quotas in words.
    fn used(&self, account: &AccountLine) -> String {
        let used: Vec<String> =
            account.status.quotas.iter().map(|used| format!("{} in {}", used.used, used.span)).collect();
        used.join(", ")
    }
}

/// Returns the address of the runs of the last hour, of a flow or, if it is empty, of all.
pub(super) fn recent(shell: &Shell, overview: &OverviewAnswer, flow: &str) -> String {
    shell.link("/events", &[("flow", flow), ("since", &overview.figures.since.to_string())])
}

/// Returns a lag in words: first in time, which is what people wait for.
pub(super) fn lag_words(lag: &FlowLag) -> String {
    match lag.events {
        0 => "0 s".to_owned(),
        events => format!("{}, {events} events", duration(lag.seconds)),
    }
}

/// Returns the lag of a flow in words; a dash if it is not known.
pub(super) fn flow_lag(line: &FlowLine) -> String {
    line.lag().as_ref().map_or_else(|| "–".to_owned(), lag_words)
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
