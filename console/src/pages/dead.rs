//! `/dead`: dead letters grouped by cause, or one by one.

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use usher_service::clock;
use usher_store::{BoundedCount, DeadLetterCursor, DeadLetterRow};

use super::{Shell, answer, show};
use crate::Console;
use crate::guard::Visit;
use crate::mask::Masking;
use crate::model::{AGES, CauseGroup, DeadFilter, DeadLetterPage, DeadLetters, Moment, pick_id};
use crate::problem::ConsoleError;

/// Number of dead letters of a page.
const PAGE: usize = 100;

/// Filters and place in the address.
struct DeadAddress {
    filter: DeadFilter,
    /// True if they are to be listed one by one.
    list: bool,
    after: Option<DeadLetterCursor>,
}

impl DeadAddress {
    fn of(pairs: &[(String, String)]) -> Result<Self, ConsoleError> {
        let value = |name: &str| pairs.iter().find(|(known, value)| known == name && !value.is_empty());
        let after = value("after").map(|(_, text)| text.parse::<DeadLetterCursor>()).transpose();
        let after = after.map_err(|error| ConsoleError::BadRequest(format!("after: {error}")))?;
        Ok(Self { filter: DeadFilter::of(pairs), list: value("list").is_some() || after.is_some(), after })
    }
}

/// One dead letter of the list.
struct DeadLine {
    pick: String,
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

impl DeadLine {
    fn new(row: &DeadLetterRow, now: usher_proto::Timestamp) -> Self {
        Self {
            pick: pick_id(row),
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
        }
    }
}

#[derive(Template)]
#[template(path = "dead.html")]
struct DeadPage {
    shell: Shell,
    filter: DeadFilter,
    count: BoundedCount,
    causes: Vec<CauseGroup>,
    wants_list: bool,
    is_first: bool,
    lines: Vec<DeadLine>,
    next: Option<String>,
    flows: Vec<String>,
    until: String,
    retention: String,
}

impl DeadPage {
    fn link(&self, path: &str, cause: &str, more: &[(&str, &str)]) -> String {
        let mut parts = self.filter.parts();
        if !cause.is_empty() {
            parts.retain(|(name, _)| *name != "cause");
            parts.push(("cause", cause));
        }
        parts.extend(more);
        self.shell.link(path, &parts)
    }

    fn redrive(&self, cause: &str) -> String {
        self.link("/dead/redrive", cause, &[("until", &self.until)])
    }

    fn list(&self, cause: &str) -> String {
        self.link("/dead", cause, &[("until", &self.filter.until), ("list", "1")])
    }

    fn older(&self) -> Option<String> {
        let next = self.next.as_deref()?;
        Some(self.link("/dead", "", &[("until", &self.until), ("list", "1"), ("after", next)]))
    }

    fn ages(&self) -> Vec<(&'static str, &'static str)> {
        AGES.iter().map(|(age, words, _)| (*age, *words)).collect()
    }
}

pub(crate) async fn page(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let page = async {
        let DeadAddress { filter, list, after } = DeadAddress::of(&pairs)?;
        let now = clock::now();
        let selection = filter.read(&console, now).await?;
        let letters = DeadLetters::read(&console, &selection, now).await?;
        let is_first = after.is_none();
        let listed = match list {
            true => DeadLetters::page(&console, &selection, after, PAGE, now).await?,
            false => DeadLetterPage { rows: Vec::new(), next: None },
        };
        Ok(show(&DeadPage {
            shell: Shell::new(&console, &visit, "dead", "Dead letters"),
            count: letters.count(),
            causes: letters.causes(),
            wants_list: list,
            is_first,
            lines: listed.rows.iter().map(|row| DeadLine::new(row, now)).collect(),
            next: listed.next.map(|next| next.to_string()),
            flows: console.store().flow_names().await?,
            until: letters.until.to_string(),
            retention: console.config().retention.clone(),
            filter,
        }))
    };
    answer(&console, &visit, page.await)
}
