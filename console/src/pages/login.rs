//! `/login`: the form that takes a token, and the session that it opens.

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use usher_service::{Secret, clock};

use super::{Shell, show};
use crate::Console;
use crate::access::{AccessRole, SessionKey, clean_name, new_visit};
use crate::guard::{Visit, form, set_cookie};

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    shell: Shell,
    next: String,
    wrong: &'static str,
    has_token: bool,
}

/// The address to go to after the login.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LoginAddress {
    next: String,
}

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
struct LoginForm {
    name: String,
    token: String,
    next: String,
}

/// Returns a path of this console; the overview for everything else, which could lead to another site.
fn inside(console: &Console, next: &str) -> String {
    let base = console.base();
    let rest = next.strip_prefix(base).filter(|rest| rest.starts_with('/') && !rest.starts_with("//"));
    let is_plain = |rest: &&str| !rest.contains(['\\', '\r', '\n', '\t']);
    rest.filter(is_plain).map_or_else(|| format!("{base}/"), |rest| format!("{base}{rest}"))
}

fn login(console: &Console, visit: &Visit, next: &str, status: StatusCode, wrong: &'static str) -> Response {
    let shell = Shell::new(console, visit, "login", "Sign in");
    let has_token = console.config().access.has_token();
    (status, show(&LoginPage { shell, next: inside(console, next), wrong, has_token })).into_response()
}

pub(crate) async fn page(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(asked): Query<LoginAddress>,
) -> Response {
    login(&console, &visit, &asked.next, StatusCode::OK, "")
}

pub(crate) async fn enter(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let LoginForm { name, token, next } = form(&body).unwrap_or_default();
    if console.config().access.role_of(token.trim()) == AccessRole::None {
        return login(&console, &visit, &next, StatusCode::UNAUTHORIZED, "That token is not the right one.");
    }
    let Some(name) = clean_name(&name) else {
        return login(
            &console,
            &visit,
            &next,
            StatusCode::BAD_REQUEST,
            "Say your name: it is recorded with what you do.",
        );
    };
    let session = SessionKey::of(&Secret::new(token.trim())).open(&name, clock::now());
    let mut response = Redirect::to(&inside(&console, &next)).into_response();
    if let Some(cookie) = set_cookie(&console, &headers, &session) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Ends the session of this browser: its cookie is replaced by one that opens nothing.
pub(crate) async fn leave(State(console): State<Console>, headers: HeaderMap) -> Response {
    let mut response = Redirect::to(&format!("{}/login", console.base())).into_response();
    if let Some(cookie) = set_cookie(&console, &headers, &new_visit()) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use crate::tests::support::console_with;

    #[tokio::test]
    async fn the_way_after_the_login_stays_inside() {
        for (base, next, there) in [
            ("", "/events?flow=a", "/events?flow=a"),
            ("", "//evil.test", "/"),
            ("", "/\\evil.test", "/"),
            ("", "https://evil.test/", "/"),
            ("/x/y", "/x/y/dead", "/x/y/dead"),
            ("/x/y", "/x/yz", "/x/y/"),
            ("/x/y", "/x/y//evil.test", "/x/y/"),
            ("/x/y", "/other", "/x/y/"),
        ] {
            let console = console_with(&[("USHER_CONSOLE_BASE_PATH", base)]).await;
            assert_eq!(super::inside(&console.console, next), there, "{next}");
        }
    }
}
