//! The pages. Each shows an answer of [`crate::model`] by a template of its own, in the frame that [`Shell`] fills.

pub(crate) mod dead;
pub(crate) mod event;
pub(crate) mod events;
pub(crate) mod flow;
pub(crate) mod flows;
pub(crate) mod lab;
pub(crate) mod login;
pub(crate) mod overview;
pub(crate) mod person;
pub(crate) mod redrive;
pub(crate) mod run;
pub(crate) mod search;
pub(crate) mod sparks;

use askama::Template;
use axum::http::{StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::Console;
use crate::access::AccessRole;
use crate::guard::{self, Visit};
use crate::problem::{self, ConsoleError};
use crate::routes::RouteKind;

/// Characters that are escaped in the value of a query.
const IN_QUERY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'&')
    .add(b'+')
    .add(b'%')
    .add(b'=')
    .add(b'?')
    .add(b'\'');

/// The frame of every page.
pub(crate) struct Shell {
    /// Path below which the console is served.
    pub(crate) base: String,
    /// Name of the environment.
    pub(crate) name: String,
    pub(crate) who: String,
    pub(crate) role: &'static str,
    /// True if there are buttons.
    pub(crate) may_act: bool,
    /// The token of forms.
    pub(crate) csrf: String,
    pub(crate) signed_in: bool,
    pub(crate) title: String,
    /// The page of the navigation.
    pub(crate) page: &'static str,
    /// True if the lab runs in this process.
    pub(crate) has_lab: bool,
}

impl Shell {
    pub(crate) fn new(console: &Console, visit: &Visit, page: &'static str, title: impl Into<String>) -> Self {
        Self {
            base: console.base().to_owned(),
            name: console.config().name.clone(),
            who: visit.caller.name.clone(),
            role: visit.caller.role.label(),
            may_act: visit.may_act(),
            csrf: visit.form_token.clone(),
            signed_in: visit.signed_in,
            title: title.into(),
            page,
            has_lab: console.lab().is_some(),
        }
    }

    /// Returns the frame of a page for nobody in particular.
    fn of_nobody(console: &Console, title: &str) -> Self {
        Self {
            base: console.base().to_owned(),
            name: console.config().name.clone(),
            who: String::new(),
            role: AccessRole::None.label(),
            may_act: false,
            csrf: String::new(),
            signed_in: false,
            title: title.to_owned(),
            page: "",
            has_lab: false,
        }
    }

    /// Returns true if the navigation stands at this page.
    pub(crate) fn is(&self, page: &str) -> bool {
        self.page == page
    }

    /// Returns the address of a page with these parameters. Empty ones are left out.
    pub(crate) fn link(&self, path: &str, parameters: &[(&str, &str)]) -> String {
        let pairs = parameters.iter().filter(|(_, value)| !value.is_empty());
        let pairs = pairs.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, IN_QUERY)));
        let query = pairs.collect::<Vec<_>>().join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{path}{mark}{query}", self.base)
    }

    pub(crate) fn event(&self, reference: &str) -> String {
        self.link("/event", &[("ref", reference)])
    }

    pub(crate) fn person(&self, id: &str) -> String {
        self.link("/person", &[("id", id)])
    }

    pub(crate) fn flow(&self, name: &str) -> String {
        self.link("/flow", &[("name", name)])
    }

    /// Returns the address of the list of a flow's events in a state; of dead ones, that of the dead letters.
    pub(crate) fn runs(&self, flow: &str, state: &str) -> String {
        if state == "dead" {
            return self.link("/dead", &[("flow", flow), ("list", "1")]);
        }
        self.link("/events", &[("flow", flow), ("state", state)])
    }

    /// Returns the colour of a state, which stands beside its word.
    pub(crate) fn tone(&self, state: &str) -> &'static str {
        match state {
            "done" | "working" | "closed" => "good",
            "dead" | "open" | "reject" => "bad",
            "running" | "parked" | "paused" | "now" | "half open" | "stopping" => "wait",
            _ => "idle",
        }
    }
}

/// Renders a page.
pub(crate) fn show(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "console cannot render a page");
            (StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be shown\n").into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    shell: Shell,
    message: String,
}

/// Returns the page of a failure.
pub(crate) fn failed(console: &Console, visit: &Visit, error: &ConsoleError) -> Response {
    let (status, _) = error.status();
    let shell = Shell::new(console, visit, "", status.canonical_reason().unwrap_or_default());
    (status, show(&ProblemPage { shell, message: error.to_string() })).into_response()
}

/// Returns the page of a refusal.
pub(crate) fn refusal(console: &Console, status: StatusCode, message: &str) -> Response {
    let shell = Shell::of_nobody(console, status.canonical_reason().unwrap_or_default());
    (status, show(&ProblemPage { shell, message: message.to_owned() })).into_response()
}

/// Returns the page for an address that leads nowhere. It tells nothing that needs a role.
pub(crate) async fn not_found(axum::extract::State(console): axum::extract::State<Console>, uri: Uri) -> Response {
    let message = format!("There is no page {}: the console begins at {}/", uri.path(), console.base());
    guard::confine(refusal(&console, StatusCode::NOT_FOUND, &message))
}

/// Shows the HTML of a mail in a frame, or the sentence of its failure.
pub(crate) fn answer_mail(html: Result<String, ConsoleError>) -> Response {
    match html {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            let (status, code) = error.status();
            problem::answer(RouteKind::Mail, status, code, &error.to_string())
        }
    }
}

/// Shows a page, or the page of its failure.
pub(crate) fn answer(console: &Console, visit: &Visit, page: Result<Response, ConsoleError>) -> Response {
    page.unwrap_or_else(|error| failed(console, visit, &error))
}
