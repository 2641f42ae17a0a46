//! `/dead`: dead letters grouped by cause, or one by one.

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use usher_proto::Timestamp;
use usher_service::clock;
use usher_store::BoundedCount;

use super::{Shell, answer, show};
use crate::Console;
use crate::guard::Visit;
use crate::mask::Masking;
use crate::model::{CauseGroup, DeadLetters, DeadSelection, Moment};
use crate::problem::ConsoleError;

/// Number of dead letters of a page.
const PAGE: usize = 100;

/// Filters and place in the address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DeadAddress {
    pub(crate) flow: String,
    pub(crate) reason: String,
    pub(crate) cause: String,
    pub(crate) until: String,
    /// Not empty if they are to be listed one by one.
    list: String,
    /// Number of dead letters before the page.
    skip: usize,
    taken_up: Option<usize>,
    nothing: Option<usize>,
    open: Option<usize>,
}

impl DeadAddress {
    /// Reads the filters. An empty one restricts nothing.
    pub(crate) fn read(&self) -> Result<DeadSelection, ConsoleError> {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let until = given(&self.until).map(|text| text.parse::<Timestamp>());
        let until = until.transpose().map_err(|error| ConsoleError::BadRequest(format!("until: {error}")))?;
        Ok(DeadSelection { flow: given(&self.flow), reason: given(&self.reason), cause: given(&self.cause), until })
    }

    /// Returns the filters as they stand in an address.
    pub(crate) fn parts(&self) -> [(&'static str, &str); 3] {
        [("flow", &self.flow), ("reason", &self.reason), ("cause", &self.cause)]
    }
}

/// One dead letter of the list.
struct DeadLine {
    at: Moment,
    flow: String,
    step: i64,
    reference: String,
    kind: String,
    subject: String,
    key: String,
    reason: String,
    error: String,
    deaths: i64,
}

#[derive(Template)]
#[template(path = "dead.html")]
struct DeadPage {
    shell: Shell,
    address: DeadAddress,
    count: BoundedCount,
    causes: Vec<CauseGroup>,
    lines: Vec<DeadLine>,
    flows: Vec<String>,
    until: String,
    more: bool,
}

impl DeadPage {
    fn redrive(&self, cause: &str) -> String {
        let [flow, reason, own] = self.address.parts();
        let cause = if cause.is_empty() { own } else { ("cause", cause) };
        self.shell.link("/dead/redrive", &[flow, reason, cause, ("until", &self.until)])
    }

    fn list(&self, cause: &str) -> String {
        let [flow, reason, own] = self.address.parts();
        let cause = if cause.is_empty() { own } else { ("cause", cause) };
        self.shell.link("/dead", &[flow, reason, cause, ("list", "1")])
    }

    fn next(&self) -> String {
        let [flow, reason, cause] = self.address.parts();
        let skip = (self.address.skip + PAGE).to_string();
        self.shell.link("/dead", &[flow, reason, cause, ("list", "1"), ("until", &self.until), ("skip", &skip)])
    }

    /// Returns what came of the redrive before, in a sentence.
    fn said(&self) -> String {
        let Some(taken_up) = self.address.taken_up else { return String::new() };
        let mut said = format!("{taken_up} runs are queued again.");
        if let Some(nothing) = self.address.nothing.filter(|count| *count > 0) {
            said.push_str(&format!(" {nothing} were dead no longer."));
        }
        if let Some(open) = self.address.open.filter(|count| *count > 0) {
            said.push_str(&format!(" {open} are asked for and not taken up yet: does a process work on the flow?"));
        }
        said
    }
}

pub(crate) async fn page(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(address): Query<DeadAddress>,
) -> Response {
    let page = async {
        let now = clock::now();
        let letters = DeadLetters::read(&console, &address.read()?, now).await?;
        let wants_list = !address.list.is_empty();
        let rows = letters.rows.iter().skip(address.skip).take(if wants_list { PAGE } else { 0 });
        let line = |row: &usher_store::DeadLetterRow| DeadLine {
            at: Moment::new(row.ended_at, now),
            flow: row.flow.clone(),
            step: row.step + 1,
            reference: row.reference.as_str().to_owned(),
            kind: row.kind.clone(),
            subject: row.subject.as_str().to_owned(),
            key: Masking::Masked.sentence(row.subject.key()),
            reason: row.reason.clone(),
            error: Masking::Masked.sentence(&row.error),
            deaths: row.deaths,
        };
        Ok(show(&DeadPage {
            shell: Shell::new(&console, &visit, "dead", "Dead letters"),
            count: letters.count(),
            causes: letters.causes(),
            lines: rows.map(line).collect(),
            flows: console.store().flow_names().await?,
            until: letters.until.to_string(),
            more: wants_list && letters.rows.len() > address.skip + PAGE,
            address,
        }))
    };
    answer(&console, &visit, page.await)
}
