//! The guard before every route: reads what counts of a request, asks the policy, and answers a refusal. Adds the headers
//! that confine the pages in the browser.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use usher_service::clock;

use crate::access::{AccessRefusal, AccessRole, Caller, Presented, RouteNeed, form_token, new_visit};
use crate::routes::{RouteKind, RouteMethod};
use crate::{Console, pages, problem};

/// Name of the console's cookie.
pub(crate) const COOKIE: &str = "usher_console";
/// The header that proves that a request without a bearer token comes from a program: a page of another site cannot set it
/// without asking first, and that question is never answered.
pub(crate) const PROGRAM_HEADER: &str = "x-usher-client";
/// The header in which a program with a token names whom it acts for.
const BY_HEADER: &str = "x-usher-by";
/// Largest body of a request, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Nothing but the console's own files is loaded, and no page of another site can show it in a frame. `Referrer-Policy` is not
/// `no-referrer`, with which browsers hide the origin of a form.
const CONFINED: [(header::HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; \
         frame-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// The same for the HTML of a mail, which brings its own styles and is shown in a frame of a page: no script runs, nothing is
/// loaded, no form is sent, no link leads out of the frame.
const MAIL_CONFINED: [(header::HeaderName, &str); 2] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; \
         frame-ancestors 'self'; sandbox",
    ),
    (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
];

/// A route, as the guard knows it.
#[derive(Clone)]
pub(crate) struct GuardedRoute {
    pub(crate) console: Console,
    pub(crate) method: RouteMethod,
    pub(crate) need: RouteNeed,
    pub(crate) kind: RouteKind,
}

/// A request that was let in: its caller, and the token of the forms in its answer.
#[derive(Clone)]
pub(crate) struct Visit {
    pub(crate) caller: Caller,
    pub(crate) form_token: String,
    /// True if the caller has a session that can be ended.
    pub(crate) signed_in: bool,
}

impl Visit {
    pub(crate) fn may_act(&self) -> bool {
        self.caller.role == AccessRole::Operator
    }
}

fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Returns the console's cookie; `None` if there is none, or it cannot be one.
pub(crate) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let is_ours = |(name, value): &(&str, &str)| *name == COOKIE && !value.is_empty() && value.len() < 1024;
    pairs.into_iter().find(is_ours).map(|(_, value)| value)
}

/// Returns the value of `Set-Cookie`. `Strict`: a link from elsewhere comes without it. `Secure` if the browser uses TLS.
pub(crate) fn set_cookie(console: &Console, headers: &HeaderMap, value: &str) -> Option<HeaderValue> {
    let by_tls = text(headers, header::ORIGIN).is_some_and(|origin| origin.starts_with("https://"))
        || text(headers, "x-forwarded-proto") == Some("https");
    let secure = if by_tls { "; Secure" } else { "" };
    let path = console.base();
    format!("{COOKIE}={value}; Path={path}/; HttpOnly; SameSite=Strict{secure}").parse().ok()
}

/// Returns the host by which the server was called: the header, or the authority of an absolute address.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    uri.authority().map(|authority| authority.as_str()).or_else(|| text(headers, header::HOST))
}

fn form_value(body: &[u8], name: &str) -> Option<String> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_bytes(body).ok()?;
    pairs.into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
}

/// Lets a request through to its route, or answers the refusal.
pub(crate) async fn admit(State(route): State<GuardedRoute>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    if !route.method.takes(&parts.method) {
        let why = "this address takes another method";
        return confine(problem::answer(route.kind, StatusCode::METHOD_NOT_ALLOWED, "method", why));
    }
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return confine(problem::answer(
            route.kind,
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "the body is too large",
        ));
    };
    let is_form = text(&parts.headers, header::CONTENT_TYPE)
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let given = if is_form { form_value(&body, "csrf") } else { None };
    let policy = &route.console.config().access;
    let bearer = text(&parts.headers, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let known = cookie(&parts.headers).map(str::to_owned);
    let presented = Presented {
        host: host(&parts.headers, &parts.uri),
        origin: text(&parts.headers, header::ORIGIN),
        fetch_site: text(&parts.headers, "sec-fetch-site"),
        bearer,
        by: text(&parts.headers, BY_HEADER),
        cookie: known.as_deref(),
        user: policy.user_header.as_deref().and_then(|name| text(&parts.headers, name)),
        form_token: given.as_deref(),
        is_program: parts.headers.contains_key(PROGRAM_HEADER),
        changes: route.method == RouteMethod::Post,
    };
    let caller = match policy.admit(route.need, &presented, clock::now()) {
        Ok(caller) => caller,
        Err(refusal) => return confine(refuse(&route, refusal, &parts.uri)),
    };
    let (visit, is_new) = known.clone().map_or_else(|| (new_visit(), true), |visit| (visit, false));
    let signed_in =
        policy.has_token() && presented.user.is_none() && bearer.is_none() && caller.role != AccessRole::None;
    parts.extensions.insert(Visit { caller, form_token: form_token(&visit), signed_in });
    let fresh = (is_new && route.kind == RouteKind::Page).then(|| set_cookie(&route.console, &parts.headers, &visit));
    let mut response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if let Some(Some(fresh)) = fresh
        && !response.headers().contains_key(header::SET_COOKIE)
    {
        response.headers_mut().insert(header::SET_COOKIE, fresh);
    }
    let mut response = confine(response);
    if route.kind == RouteKind::Mail {
        for (name, value) in MAIL_CONFINED {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

fn refuse(route: &GuardedRoute, refusal: AccessRefusal, uri: &Uri) -> Response {
    let (status, code) = match refusal {
        AccessRefusal::Host => (StatusCode::MISDIRECTED_REQUEST, "host"),
        AccessRefusal::NotSignedIn => (StatusCode::UNAUTHORIZED, "not_signed_in"),
        AccessRefusal::Closed => (StatusCode::FORBIDDEN, "closed"),
        AccessRefusal::Role => (StatusCode::FORBIDDEN, "role"),
        AccessRefusal::ForeignSite => (StatusCode::FORBIDDEN, "foreign_site"),
        AccessRefusal::NoProof => (StatusCode::FORBIDDEN, "no_proof"),
    };
    let offers_login = refusal == AccessRefusal::NotSignedIn && route.console.config().access.has_token();
    if offers_login && route.kind == RouteKind::Page && route.method == RouteMethod::Get {
        let base = route.console.base();
        let there = uri.path_and_query().map_or("/", |there| there.as_str());
        return Redirect::to(&format!("{base}/login?next={}", utf8_percent_encode(there, NON_ALPHANUMERIC)))
            .into_response();
    }
    match route.kind {
        RouteKind::Page => pages::refusal(&route.console, status, &refusal.to_string()),
        RouteKind::Api | RouteKind::Mail | RouteKind::Asset => {
            problem::answer(route.kind, status, code, &refusal.to_string())
        }
    }
}

/// Adds the headers that confine an answer. Nothing is stored by caches, unless the route says so.
pub(crate) fn confine(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in CONFINED {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The body of a form, without its token.
pub(crate) fn form<T: serde::de::DeserializeOwned>(body: &Bytes) -> Option<T> {
    serde_urlencoded::from_bytes(body).ok()
}
