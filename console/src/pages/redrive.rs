//! `/dead/redrive`: what a redrive would do, and its order. `/redrives` and `/redrive`: how far each is. `/redrive/stop`.

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use usher_dispatcher::operator::{DEFAULT_REDRIVE_RATE, MAX_DEATHS, MAX_REDRIVE_RATE, REDRIVE_WINDOW};
use usher_proto::Timestamp;
use usher_service::clock;
use usher_store::RedriveCame;

use super::{Shell, answer, show};
use crate::Console;
use crate::actions::{self, RedriveChoice, RedriveOrder};
use crate::guard::{Visit, form};
use crate::model::{self, DeadFilter, REDRIVE_RUNS, REDRIVES, RedriveDetail, RedriveLine};
use crate::problem::ConsoleError;

#[derive(Template)]
#[template(path = "redrive_plan.html")]
struct PlanPage {
    shell: Shell,
    filter: DeadFilter,
    choice: RedriveChoice,
    until: String,
    max_deaths: u32,
    rate: u32,
    max_rate: u32,
    window: i64,
    has_log: bool,
}

impl PlanPage {
    fn back(&self) -> String {
        let mut filter = self.filter.clone();
        filter.pick.clear();
        self.shell.link("/dead", &filter.parts())
    }

    /// Returns the scope and the number, for the button.
    fn what(&self) -> String {
        let count = self.choice.targets.len();
        let runs = if count == 1 { "run" } else { "runs" };
        match (self.filter.pick.is_empty(), self.filter.parts().is_empty()) {
            (false, _) => format!("Redrive these {count} chosen {runs}"),
            (true, false) => format!("Redrive all {count} matching {runs}"),
            (true, true) => format!("Redrive all {count} {runs}"),
        }
    }
}

pub(crate) async fn plan(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let page = async {
        let filter = DeadFilter::of(&pairs);
        if filter.pick.is_empty() && pairs.iter().any(|(name, _)| name == "chosen") {
            return Err(ConsoleError::BadRequest(
                "no dead letter is chosen: tick some, or redrive all that match".into(),
            ));
        }
        let choice = actions::plan_redrive(&console, &filter).await?;
        let shell = Shell::new(&console, &visit, "dead", "Redrive");
        Ok(show(&PlanPage {
            shell,
            filter,
            until: choice.until.to_string(),
            choice,
            max_deaths: MAX_DEATHS,
            rate: DEFAULT_REDRIVE_RATE,
            max_rate: MAX_REDRIVE_RATE,
            window: REDRIVE_WINDOW,
            has_log: console.redrives().is_some(),
        }))
    };
    answer(&console, &visit, page.await)
}

pub(crate) async fn run(State(console): State<Console>, Extension(visit): Extension<Visit>, body: Bytes) -> Response {
    let page = async {
        let bad = || ConsoleError::BadRequest("the form is incomplete".to_owned());
        let pairs: Vec<(String, String)> = form(&body).ok_or_else(bad)?;
        let number = |name: &str| -> Result<Option<usize>, ConsoleError> {
            let text = pairs.iter().find(|(known, value)| known == name && !value.trim().is_empty());
            // Typed as the page shows it, with commas, or without.
            let number = text.map(|(_, text)| text.trim().replace(',', "").parse::<usize>()).transpose();
            number.map_err(|_| ConsoleError::BadRequest(format!("{name}: a whole number is wanted")))
        };
        let rate = number("rate")?.map(|rate| u32::try_from(rate).unwrap_or(u32::MAX));
        let order = RedriveOrder { runs: number("runs")?, typed: number("typed")?, rate };
        let id = actions::redrive(&console, &visit.caller, &DeadFilter::of(&pairs), &order).await?;
        let shell = Shell::new(&console, &visit, "dead", "");
        Ok(Redirect::to(&shell.link("/redrive", &[("id", &id)])).into_response())
    };
    answer(&console, &visit, page.await)
}

#[derive(Template)]
#[template(path = "redrives.html")]
struct RedrivesPage {
    shell: Shell,
    list: Vec<RedriveDetail>,
    older: Option<String>,
    is_first: bool,
}

/// Place in the list of redrives.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RedrivesAddress {
    before: Option<Timestamp>,
}

pub(crate) async fn list(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(asked): Query<RedrivesAddress>,
) -> Response {
    let page = async {
        let before = asked.before.unwrap_or(Timestamp::from_millis(i64::MAX));
        let list = model::redrive_list(&console, before, clock::now()).await?;
        let is_full = list.len() >= usize::try_from(REDRIVES).unwrap_or(usize::MAX);
        let shell = Shell::new(&console, &visit, "dead", "Redrives");
        let last = list.last().filter(|_| is_full).map(|last| last.record.at.to_string());
        let older = last.map(|last| shell.link("/redrives", &[("before", &last)]));
        Ok(show(&RedrivesPage { shell, list, older, is_first: asked.before.is_none() }))
    };
    answer(&console, &visit, page.await)
}

/// Address of a redrive, and of its runs that are listed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RedriveAddress {
    id: String,
    came: String,
    after: Option<i64>,
}

#[derive(Template)]
#[template(path = "redrive.html")]
struct RedrivePage {
    shell: Shell,
    detail: RedriveDetail,
    came: Option<RedriveCame>,
    lines: Vec<RedriveLine>,
    older: Option<String>,
    is_first: bool,
}

impl RedrivePage {
    /// Returns the rows of the table: what came, its meaning, its number and the address of its runs.
    fn outcomes(&self) -> Vec<(&'static str, &'static str, i64, String)> {
        let words = |came| match came {
            RedriveCame::Left if self.detail.record.stopped_at.is_some() => {
                ("not tried", "the redrive was stopped before")
            }
            RedriveCame::Left => ("left", "not asked for yet"),
            RedriveCame::Asked => ("at work", "asked for; the step is in flight, is tried again, or waits its turn"),
            RedriveCame::Done => ("done", "the step that had failed is over"),
            RedriveCame::Failed => ("failed again", "given up once more: a dead letter"),
            RedriveCame::Nothing => ("skipped", "dead no longer when its turn came: somebody else has taken it up"),
            RedriveCame::Ended => ("ended otherwise", "cancelled, superseded, or stored no longer"),
        };
        let row = |came: RedriveCame| {
            let (name, meaning) = words(came);
            let link = self.shell.link("/redrive", &[("id", &self.detail.record.id), ("came", came.label())]);
            (name, meaning, self.detail.counts.of(came), link)
        };
        RedriveCame::ALL.map(row).to_vec()
    }

    fn new_since(&self) -> String {
        let filter = self.detail.new_filter();
        let mut parts = filter.parts();
        parts.push(("list", "1"));
        self.shell.link("/dead", &parts)
    }

    fn selection(&self) -> String {
        let filter = &self.detail.filter;
        let until = self.detail.record.until.to_string();
        let mut parts = filter.parts();
        parts.push(("until", &until));
        self.shell.link("/dead", &parts)
    }
}

pub(crate) async fn page(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(asked): Query<RedriveAddress>,
) -> Response {
    let page = async {
        let detail = model::redrive_detail(&console, &asked.id, clock::now()).await?;
        let came = RedriveCame::read(&asked.came);
        let after = asked.after.unwrap_or(-1);
        let lines = match came {
            Some(came) => model::redrive_lines(&console, &asked.id, came, after).await?,
            None => Vec::new(),
        };
        let shell = Shell::new(&console, &visit, "dead", format!("Redrive of {} runs", detail.record.runs));
        let is_full = lines.len() >= usize::try_from(REDRIVE_RUNS).unwrap_or(usize::MAX);
        let last = lines.last().filter(|_| is_full).map(|last| last.number.to_string());
        let older =
            last.map(|last| shell.link("/redrive", &[("id", &asked.id), ("came", &asked.came), ("after", &last)]));
        Ok(show(&RedrivePage { shell, detail, came, lines, older, is_first: asked.after.is_none() }))
    };
    answer(&console, &visit, page.await)
}

pub(crate) async fn stop(State(console): State<Console>, Extension(visit): Extension<Visit>, body: Bytes) -> Response {
    let page = async {
        let RedriveAddress { id, .. } = form(&body).unwrap_or_default();
        actions::stop_redrive(&console, &visit.caller, &id).await?;
        let shell = Shell::new(&console, &visit, "dead", "");
        Ok(Redirect::to(&shell.link("/redrive", &[("id", &id)])).into_response())
    };
    answer(&console, &visit, page.await)
}
