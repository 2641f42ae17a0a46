//! Every route, with every kind of caller. The routes are those of the router, so none can be forgotten.

use axum::http::StatusCode;

use super::support::{OPERATOR, READER, TestConsole, console_with, console_with_tokens};
use crate::access::{RouteNeed, form_token};
use crate::routes::{self, ConsoleRoute, RouteKind, RouteMethod};

/// A kind of caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TestCaller {
    NoToken,
    WrongToken,
    Reader,
    Operator,
    /// An operator's browser, made to send the request by a page of another site.
    ForeignOrigin,
    /// An operator's browser, without the token of the form.
    NoFormToken,
    /// An operator who calls the server by another name.
    ForeignHost,
}

const ALL: [TestCaller; 7] = [
    TestCaller::NoToken,
    TestCaller::WrongToken,
    TestCaller::Reader,
    TestCaller::Operator,
    TestCaller::ForeignOrigin,
    TestCaller::NoFormToken,
    TestCaller::ForeignHost,
];

/// Sends a request to a route: pages as a browser with a session, the API as a program with a token.
async fn send(console: &TestConsole, route: &ConsoleRoute, caller: TestCaller) -> StatusCode {
    let token = match caller {
        TestCaller::NoToken => None,
        TestCaller::WrongToken => Some("wrong-token-0123456789"),
        TestCaller::Reader => Some(READER),
        TestCaller::Operator | TestCaller::ForeignOrigin | TestCaller::NoFormToken | TestCaller::ForeignHost => {
            Some(OPERATOR)
        }
    };
    let session = token.map_or_else(
        || "no-session".to_owned(),
        |token| {
            crate::access::SessionKey::of(&usher_service::Secret::new(token)).open("Ann", usher_service::clock::now())
        },
    );
    let cookie = format!("usher_console={session}");
    let bearer = format!("Bearer {}", token.unwrap_or_default());
    let by_cookie =
        route.kind != RouteKind::Api || matches!(caller, TestCaller::NoFormToken | TestCaller::ForeignOrigin);
    let mut headers = Vec::new();
    if by_cookie {
        headers.push(("cookie", cookie.as_str()));
        headers.push(("content-type", "application/x-www-form-urlencoded"));
    } else if token.is_some() {
        headers.push(("authorization", bearer.as_str()));
    }
    if caller == TestCaller::ForeignHost {
        headers.push(("host", "evil.test"));
    }
    if caller == TestCaller::ForeignOrigin {
        headers.push(("origin", "https://evil.test"));
    }
    let with_token = caller != TestCaller::NoFormToken && by_cookie;
    let body = if with_token { format!("csrf={}", form_token(&session)) } else { String::new() };
    let (method, body) = match route.method {
        RouteMethod::Get => ("GET", ""),
        RouteMethod::Post => ("POST", body.as_str()),
    };
    console.send(method, route.path, &headers, body).await.status
}

/// The refusal that the policy promises; `None` if the request reaches the route.
fn refused(route: &ConsoleRoute, caller: TestCaller) -> Option<StatusCode> {
    let changes = route.method == RouteMethod::Post;
    let no_role = match (route.kind, changes) {
        (RouteKind::Page, false) => StatusCode::SEE_OTHER, // to the login
        (RouteKind::Page, true) | (RouteKind::Api | RouteKind::Mail | RouteKind::Asset, _) => StatusCode::UNAUTHORIZED,
    };
    match (caller, route.need) {
        (TestCaller::ForeignHost, _) => Some(StatusCode::MISDIRECTED_REQUEST),
        (TestCaller::NoToken | TestCaller::WrongToken, RouteNeed::Read | RouteNeed::Operate) => Some(no_role),
        (TestCaller::Reader, RouteNeed::Operate) => Some(StatusCode::FORBIDDEN),
        (TestCaller::ForeignOrigin | TestCaller::NoFormToken, _) if changes => Some(StatusCode::FORBIDDEN),
        (
            TestCaller::NoToken
            | TestCaller::WrongToken
            | TestCaller::Reader
            | TestCaller::Operator
            | TestCaller::ForeignOrigin
            | TestCaller::NoFormToken,
            _,
        ) => None,
    }
}

#[tokio::test]
async fn every_route_lets_in_whom_it_says_and_nobody_else() {
    let console = console_with_tokens(&[]).await;
    let routes = routes::all();
    assert!(routes.len() > 30, "the routes are found: {}", routes.len());
    for route in &routes {
        for caller in ALL {
            let status = send(&console, route, caller).await;
            let what = format!("{:?} {} as {caller:?}: {status}", route.method, route.path);
            match refused(route, caller) {
                Some(refused) => assert_eq!(status, refused, "{what}"),
                None => {
                    let is_refusal =
                        [StatusCode::FORBIDDEN, StatusCode::MISDIRECTED_REQUEST, StatusCode::METHOD_NOT_ALLOWED];
                    assert!(!is_refusal.contains(&status) && !status.is_server_error(), "{what}");
                    // Only the login itself says so of a form without the right token.
                    assert!(status != StatusCode::UNAUTHORIZED || route.path == "/login", "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_changes_something_is_posted_by_an_operator() {
    for route in routes::all() {
        let changes = route.method == RouteMethod::Post;
        let is_session = matches!(route.path, "/login" | "/logout");
        // The content of a mail is personal data.
        let is_content = route.path == "/lab/mail";
        assert_eq!(
            route.need == RouteNeed::Operate,
            changes && !is_session || is_content,
            "{:?} {}",
            route.method,
            route.path
        );
        let is_public = is_session || route.path.starts_with("/assets/");
        assert_eq!(route.need == RouteNeed::Public, is_public, "{}", route.path);
    }
}

#[tokio::test]
async fn every_answer_is_confined() {
    let console = console_with(&[]).await;
    let is_read = |route: &ConsoleRoute| route.method == RouteMethod::Get && route.kind != RouteKind::Mail;
    let read = routes::all().into_iter().filter(is_read).map(|route| route.path);
    for path in read.chain(["/nothing", "/flow/pause"]) {
        let answer = console.get(path).await;
        let policy = answer.headers["content-security-policy"].to_str().expect("text");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{}: {policy}", path);
        assert!(answer.headers["cache-control"].to_str().is_ok_and(|text| text.starts_with("no-")), "{}", path);
        for inline in ["<style", " style=", " onclick=", "javascript:"] {
            assert!(!answer.text.contains(inline), "{}: {inline}", path);
        }
        assert!(!answer.text.contains("<script>"), "{}", path);
    }
}

#[tokio::test]
async fn a_mail_brings_its_styles_and_nothing_that_runs_or_leads_out() {
    let console = console_with(&[]).await;
    console.fill().await;
    let page = console.get("/flow?name=email").await.text;
    let frame = page.split_once("<iframe").expect("a frame").1.split_once('>').expect("an end").0;
    assert!(frame.contains("sandbox=\"\""), "{frame}");
    let source = frame.split_once("src=\"").expect("a source").1.split('"').next().expect("an end");
    let mail = console.get(&source.replace("&#38;", "&")).await;
    assert_eq!(mail.status, StatusCode::OK, "{}", mail.text);
    let policy = mail.headers["content-security-policy"].to_str().expect("text");
    for part in ["default-src 'none'", "sandbox", "form-action 'none'", "frame-ancestors 'self'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("script"), "{policy}");
    assert_eq!(mail.headers["x-frame-options"], "SAMEORIGIN");
}

#[tokio::test]
async fn a_login_opens_a_session_and_a_wrong_token_does_not() {
    let console = console_with_tokens(&[]).await;
    let form = |token: &'static str, name: &'static str| [("token", token), ("name", name), ("next", "/events")];
    let wrong = console.post_form("/login", &form("wrong", "Ann")).await;
    assert!(wrong.status == StatusCode::UNAUTHORIZED && wrong.text.contains("not the right one"), "{}", wrong.text);
    let nameless = console.post_form("/login", &form(OPERATOR, " ")).await;
    assert_eq!(nameless.status, StatusCode::BAD_REQUEST);

    let right = console.post_form("/login", &form(OPERATOR, "Ann")).await;
    assert_eq!((right.status, right.location()), (StatusCode::SEE_OTHER, "/events"));
    let set = right.headers["set-cookie"].to_str().expect("text").to_owned();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains(OPERATOR), "the token itself is not in it");
    let cookie = set.split(';').next().expect("a cookie");
    let page = console.send("GET", "/", &[("cookie", cookie)], "").await;
    assert!(page.status == StatusCode::OK && page.text.contains("Ann, operator"), "{}", page.text);
    assert!(page.text.contains("Sign out"));
}

#[tokio::test]
async fn a_console_that_is_open_to_others_and_has_no_token_is_closed() {
    let closed = crate::ConsoleConfig::new(
        "0.0.0.0:8081".parse().expect("an address"),
        &usher_service::options::Environment::from_vars([("USHER_CONSOLE_HOSTS", "usher.test")]),
    )
    .expect("settings");
    assert!(!closed.access.is_open());
    let presented = crate::access::Presented { host: Some("usher.test"), ..Default::default() };
    let refusal = closed.access.admit(RouteNeed::Read, &presented, usher_service::clock::now());
    assert_eq!(refusal, Err(crate::access::AccessRefusal::Closed));
}
