//! The console behind a reverse proxy, at the root and below a path: every link, asset and redirect leads somewhere, and an action
//! comes through.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use reqwest::Client;
use tokio::net::TcpListener;
use usher_lab::Fault;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::test_env::{Options, SOON, TestEnv};

/// A proxy that passes paths on unchanged, says how it was called, and has pages of its own outside of the console's path.
#[derive(Clone)]
struct ReverseProxy {
    client: Client,
    console: String,
    base: &'static str,
}

impl ReverseProxy {
    async fn start(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(pass).with_state(self);
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }
}

async fn pass(State(proxy): State<ReverseProxy>, request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    if !path.starts_with(proxy.base) {
        return (axum::http::StatusCode::IM_A_TEAPOT, "another site of this host").into_response();
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    // The host is the one by which the proxy was called, as proxies are told to keep it.
    let sent = proxy
        .client
        .request(parts.method, format!("{}{path}", proxy.console))
        .headers(parts.headers)
        .header("x-forwarded-proto", "https")
        .body(body)
        .send()
        .await
        .unwrap();
    let mut response = Response::builder().status(sent.status());
    for (name, value) in sent.headers() {
        response = response.header(name, value);
    }
    // As it comes: a stream of news does not end.
    let parts = futures::stream::unfold(sent, |mut sent| async move {
        let part = sent.chunk().await.transpose()?;
        Some((part, sent))
    });
    response.body(Body::from_stream(parts)).unwrap()
}

/// Returns the addresses that a page names in attributes.
fn addresses(html: &str) -> Vec<String> {
    let attributes = [" href=\"", " src=\"", " action=\"", " data-live=\""];
    let of = |attribute: &&str| {
        html.split(*attribute).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect::<Vec<_>>()
    };
    attributes.iter().flat_map(of).map(|address| address.replace("&#38;", "&").replace("&amp;", "&")).collect()
}

/// Returns an address without the times in it, with which the same page would be another one each time.
fn timeless(address: &str) -> String {
    let is_time = |part: &&str| !["until=", "since="].iter().any(|name| part.starts_with(name));
    match address.split_once('?') {
        None => address.to_owned(),
        Some((path, query)) => format!("{path}?{}", query.split('&').filter(is_time).collect::<Vec<_>>().join("&")),
    }
}

/// Follows every link from the start. Returns the addresses that were read.
async fn crawl(client: &Client, host: &str, base: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next = VecDeque::from([format!("{base}/"), format!("{base}/search?q=mail"), format!("{base}/login")]);
    while let Some(address) = next.pop_front() {
        let address = address.split('#').next().unwrap().to_owned();
        if address.is_empty() || !seen.insert(timeless(&address)) {
            continue;
        }
        assert!(address.starts_with(&format!("{base}/")) && !address.starts_with("//"), "{address} leaves {base}/");
        let answer = client.get(format!("{host}{address}")).header("x-user", "ann").send().await.unwrap();
        let status = answer.status();
        // An address of a form may take nothing else.
        assert!(status.is_success() || status.is_redirection() || status.as_u16() == 405, "{address}: {status}");
        if let Some(location) = answer.headers().get("location") {
            next.push_back(location.to_str().unwrap().to_owned());
        }
        let kind =
            answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
        // The links of a mail lead anywhere, and a stream does not end.
        if kind.starts_with("text/html") && !address.contains("/flow/mail") {
            next.extend(addresses(&answer.text().await.unwrap()));
        }
        assert!(seen.len() < 1_000, "it ends");
    }
    seen
}

const MAIL: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
needs = "user.email"
subject = "Hello"
text = "hello"
html = "<p>hello</p>"
"#;

async fn behind_a_proxy(base: &'static str) {
    let settings = vec![
        ("USHER_CONSOLE_BASE_PATH", base.to_owned()),
        ("USHER_CONSOLE_USER_HEADER", "X-User".to_owned()),
        ("USHER_CONSOLE_OPERATORS", "ann".to_owned()),
    ];
    let options = Options { flows: vec![("mail", MAIL)], settings, ..Options::default() };
    let env = TestEnv::with(Backend::Embedded, options).await;
    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    let users: Vec<User> = (0..3).map(|_| User::new()).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    env.all_ended(users.len(), SOON).await;

    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let proxy = ReverseProxy { client: client.clone(), console: format!("http://{}", env.admin()), base };
    let host = format!("http://{}", proxy.start().await);
    let seen = crawl(&client, &host, base).await;
    for path in [
        "/assets/style.css",
        "/assets/console.js",
        "/live",
        "/events",
        "/event?",
        "/event/show",
        "/person?",
        "/dead",
        "/dead/redrive",
        "/redrives",
        "/flows",
        "/flow?",
        "/flow/mail",
        "/flow/pause",
    ] {
        assert!(seen.iter().any(|address| address.starts_with(&format!("{base}{path}"))), "{path}: {seen:#?}");
    }

    // An action by the form of a page, as a browser sends it. TLS ends at the proxy.
    let page = client.get(format!("{host}{base}/flow?name=mail")).header("x-user", "ann").send().await.unwrap();
    let cookie = page.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("; Secure") && cookie.contains(&format!("Path={base}/;")), "{cookie}");
    let html = page.text().await.unwrap();
    let csrf = html.split_once("name=\"csrf\" value=\"").unwrap().1.split('"').next().unwrap();
    let origin = host.replace("http://", "https://");
    let paused = client
        .post(format!("{host}{base}/flow/pause"))
        .header("x-user", "ann")
        .header("cookie", cookie.split(';').next().unwrap())
        .header("origin", origin)
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("csrf={csrf}&flow=mail&why=new+text"))
        .send()
        .await
        .unwrap();
    assert_eq!(paused.status(), 303, "{}", paused.text().await.unwrap());
    let location = paused.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(location, format!("{base}/flow?name=mail"));
    let page = client.get(format!("{host}{location}")).header("x-user", "ann").send().await.unwrap();
    assert!(page.text().await.unwrap().contains("Paused by ann"));
    env.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_root_of_a_host_every_link_leads_somewhere() {
    behind_a_proxy("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_a_path_every_link_leads_somewhere() {
    behind_a_proxy("/x/y").await;
}
