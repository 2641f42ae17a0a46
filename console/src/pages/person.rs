//! `/person`: one person as a timeline. `/person/show` shows the last known state unmasked, which is recorded.

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
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
}

/// Address of a person.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PersonAddress {
    id: String,
}

async fn person(console: &Console, visit: &Visit, id: &str, masking: Masking) -> Result<Response, ConsoleError> {
    let now = clock::now();
    let detail = model::person_detail(console, id, masking, now).await?;
    let shell = Shell::new(console, visit, "people", detail.key.clone());
    let snapshot = detail.snapshot.as_ref().map(model::pretty);
    let is_shown = masking == Masking::Shown;
    Ok(show_page(&PersonPage { shell, detail, snapshot, is_shown, now: model::Moment::new(now, now) }))
}

pub(crate) async fn page(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(asked): Query<PersonAddress>,
) -> Response {
    answer(&console, &visit, person(&console, &visit, &asked.id, Masking::Masked).await)
}

pub(crate) async fn show(State(console): State<Console>, Extension(visit): Extension<Visit>, body: Bytes) -> Response {
    let page = async {
        let PersonAddress { id } = form(&body).unwrap_or_default();
        // First found, so that nothing is recorded of somebody who is not there; then recorded, then shown.
        person(&console, &visit, &id, Masking::Masked).await?;
        actions::record_shown(&console, &visit.caller, &id).await?;
        person(&console, &visit, &id, Masking::Shown).await
    };
    answer(&console, &visit, page.await)
}
