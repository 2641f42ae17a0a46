//! `/person`: one person as a timeline. `/person/show` shows the last known state unmasked, which is recorded.

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use usher_proto::Timestamp;
use usher_service::clock;

use super::{Shell, answer, show as show_page};
use crate::Console;
use crate::actions;
use crate::guard::{Visit, form};
use crate::mask::Masking;
use crate::model::{self, PersonDetail};
use crate::problem::ConsoleError;

#[derive(Template)]
#[template(path = "person.html")]
struct PersonPage {
    shell: Shell,
    detail: PersonDetail,
    snapshot: Option<String>,
    is_shown: bool,
    now: model::Moment,
    is_first: bool,
}

impl PersonPage {
    fn older(&self) -> Option<String> {
        let before = self.detail.older?.to_string();
        Some(self.shell.link("/person", &[("id", &self.detail.id), ("before", &before)]))
    }

    fn dead_letters(&self) -> String {
        self.shell.link("/dead", &[("person", &self.detail.id), ("list", "1")])
    }
}

/// Address of a person.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PersonAddress {
    id: String,
    before: Option<Timestamp>,
}

async fn person(
    console: &Console,
    visit: &Visit,
    asked: &PersonAddress,
    masking: Masking,
) -> Result<Response, ConsoleError> {
    let now = clock::now();
    let detail = model::person_detail(console, &asked.id, asked.before, masking, now).await?;
    let shell = Shell::new(console, visit, "people", detail.key.clone());
    let snapshot = detail.snapshot.as_ref().map(model::pretty);
    let is_shown = masking == Masking::Shown;
    Ok(show_page(&PersonPage {
        shell,
        detail,
        snapshot,
        is_shown,
        now: model::Moment::new(now, now),
        is_first: asked.before.is_none(),
    }))
}

pub(crate) async fn page(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(asked): Query<PersonAddress>,
) -> Response {
    answer(&console, &visit, person(&console, &visit, &asked, Masking::Masked).await)
}

pub(crate) async fn show(State(console): State<Console>, Extension(visit): Extension<Visit>, body: Bytes) -> Response {
    let page = async {
        let asked: PersonAddress = form(&body).unwrap_or_default();
        // First found, so that nothing is recorded of somebody who is not there; then recorded, then shown.
        person(&console, &visit, &asked, Masking::Masked).await?;
        actions::record_shown(&console, &visit.caller, &asked.id).await?;
        person(&console, &visit, &asked, Masking::Shown).await
    };
    answer(&console, &visit, page.await)
}
