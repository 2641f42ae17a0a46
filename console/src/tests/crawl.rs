//! Every link, asset and redirect leads to a page, below any base path.

use std::collections::{BTreeSet, VecDeque};

use axum::http::StatusCode;

use super::support::{TestConsole, console_with, reference};

/// Returns the addresses that a page names in attributes.
fn addresses(html: &str) -> Vec<String> {
    let mut found = Vec::new();
    for attribute in [" href=\"", " src=\"", " action=\"", " data-live=\""] {
        for rest in html.split(attribute).skip(1) {
            let address = rest.split('"').next().expect("an end");
            found.push(address.replace("&#38;", "&").replace("&amp;", "&"));
        }
    }
    found
}

/// Removes the time of a page from an address, with which the same page would be another one each time.
fn without_time(address: &str) -> String {
    let mut address = address.to_owned();
    for name in ["until=", "since="] {
        if let Some((before, rest)) = address.split_once(name) {
            address = format!("{before}{}", rest.split_once('&').map_or("", |(_, after)| after));
        }
    }
    address
}

/// Follows every link from the start. Returns the paths that were read.
async fn crawl(console: &TestConsole, base: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next =
        VecDeque::from([format!("{base}/"), format!("{base}/search?q=trial"), format!("{base}/search?q=none")]);
    while let Some(address) = next.pop_front() {
        let address = address.split('#').next().unwrap_or_default().to_owned();
        if address.is_empty() || !seen.insert(without_time(&address)) {
            continue;
        }
        assert!(address.starts_with(&format!("{base}/")), "{address} leaves {base}");
        assert!(!address.starts_with("//") && address.matches("/x/y").count() <= 1, "{address}");
        let answer = console.get(&address).await;
        // A form's address may be one that only takes forms; nothing is found where the search says so.
        let is_form = answer.status == StatusCode::METHOD_NOT_ALLOWED;
        let is_empty_search = address.ends_with("/search?q=none") && answer.status == StatusCode::NOT_FOUND;
        assert!(
            answer.status.is_success() || answer.status.is_redirection() || is_form || is_empty_search,
            "{address}: {}",
            answer.status
        );
        if answer.status.is_redirection() {
            next.push_back(answer.location().to_owned());
        }
        // The links of a mail lead anywhere.
        if !address.starts_with(&format!("{base}/flow/mail")) {
            next.extend(addresses(&answer.text));
        }
        assert!(seen.len() < 500, "it ends");
    }
    seen
}

#[tokio::test]
async fn every_address_honours_the_base_path() {
    let mut counts = BTreeSet::new();
    for base in ["", "/x/y"] {
        let console = console_with(&[("USHER_CONSOLE_BASE_PATH", base)]).await;
        console.fill().await;
        console.store.set_paused("trial", true, "ann", None, usher_service::clock::now()).await.expect("paused");
        let seen = crawl(&console, base).await;
        for path in [
            "/assets/style.css",
            "/assets/console.js",
            "/live",
            "/events",
            "/dead",
            "/flows",
            "/flow/resume",
            "/event/show",
        ] {
            assert!(
                seen.iter().any(|address| address.starts_with(&format!("{base}{path}"))),
                "{path} is reached from {base}/"
            );
        }
        counts.insert(seen.len());

        // And a form, whose redirect stays below the base path.
        let resumed = console.post_form(&format!("{base}/flow/resume"), &[("flow", "trial")]).await;
        assert_eq!(
            (resumed.status, resumed.location()),
            (StatusCode::SEE_OTHER, format!("{base}/flow?name=trial").as_str())
        );
        let event = console.get(&format!("{base}/event?ref={}", reference("msg_open"))).await;
        let cookie = event.headers["set-cookie"].to_str().expect("text");
        assert!(cookie.contains(&format!("Path={base}/;")), "{cookie}");
    }
    assert_eq!(counts.len(), 1, "the same pages below either: {counts:?}");
    let console = console_with(&[("USHER_CONSOLE_BASE_PATH", "/x/y")]).await;
    assert_eq!(console.get("/events").await.status, StatusCode::NOT_FOUND, "nothing beside it");
    assert_eq!(console.get("/x/y").await.location(), "/x/y/");
}
