//! `/events`: the newest events, with filters in the address.

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use usher_engine::RunState;
use usher_service::clock;

use super::{Shell, answer, show};
use crate::Console;
use crate::guard::Visit;
use crate::model::{self, EventList, EventListQuery};

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    shell: Shell,
    query: EventListQuery,
    list: EventList,
    flows: Vec<String>,
    states: Vec<&'static str>,
}

impl EventsPage {
    /// Returns the address of the next page, with the same filters.
    fn next(&self) -> Option<String> {
        let next = self.list.next.as_deref()?;
        let mut parts = self.query.parts();
        parts.push(("after", next));
        Some(self.shell.link("/events", &parts))
    }

    /// Returns the address of the first page, with the same filters.
    fn newest(&self) -> String {
        self.shell.link("/events", &self.query.parts())
    }
}

pub(crate) async fn page(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(query): Query<EventListQuery>,
) -> Response {
    let page = async {
        let list = model::event_list(&console, &query, clock::now()).await?;
        let flows = console.store().flow_names().await?;
        let states = RunState::ALL.map(RunState::label).to_vec();
        Ok(show(&EventsPage { shell: Shell::new(&console, &visit, "events", "Events"), query, list, flows, states }))
    };
    answer(&console, &visit, page.await)
}
