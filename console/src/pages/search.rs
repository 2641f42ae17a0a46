//! `/search`: one box for a person's id or address, an event's id and a flow. One hit leads to the record.

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::{Shell, answer, show};
use crate::Console;
use crate::guard::Visit;
use crate::mask::Masking;
use crate::problem::ConsoleError;

/// Longest text that is looked for, in characters.
const LONGEST: usize = 600;

/// The text that is looked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SearchAddress {
    q: String,
}

/// One hit.
struct SearchHit {
    what: &'static str,
    name: String,
    link: String,
}

#[derive(Template)]
#[template(path = "search.html")]
struct SearchPage {
    shell: Shell,
    hits: Vec<SearchHit>,
    is_empty: bool,
}

pub(crate) async fn find(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(SearchAddress { q }): Query<SearchAddress>,
) -> Response {
    let page = async {
        let text: String = q.trim().chars().take(LONGEST).collect();
        let shell = Shell::new(&console, &visit, "search", "Search");
        let mut hits = hits(&console, &shell, &text).await?;
        if hits.len() == 1
            && let Some(hit) = hits.pop()
        {
            return Ok(Redirect::to(&hit.link).into_response());
        }
        let status = if hits.is_empty() && !text.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::OK };
        Ok((status, show(&SearchPage { shell, hits, is_empty: text.is_empty() })).into_response())
    };
    answer(&console, &visit, page.await)
}

/// Returns everything that a text stands for. Each is looked for by an index; nothing is searched through.
async fn hits(console: &Console, shell: &Shell, text: &str) -> Result<Vec<SearchHit>, ConsoleError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let store = console.store();
    let mut hits = Vec::new();
    if store.flow_names().await?.iter().any(|name| name == text) {
        hits.push(SearchHit { what: "flow", name: text.to_owned(), link: shell.flow(text) });
    }
    for event in store.find_events(text).await? {
        hits.push(SearchHit { what: "event", name: event.to_string(), link: shell.event(event.as_str()) });
    }
    for subject in store.find_subjects(text).await? {
        let name = format!("{} of {}", Masking::Masked.sentence(subject.key()), subject.instance());
        hits.push(SearchHit { what: "person", name, link: shell.person(subject.as_str()) });
    }
    Ok(hits)
}
