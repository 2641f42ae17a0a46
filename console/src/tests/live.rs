//! The store is looked at for open pages alone, once for all of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::StreamExt as _;
use tower::ServiceExt as _;

use super::support::{HOST, TestConsole, console_with};

/// Opens a stream. Returns its body once it is live.
async fn open(console: &TestConsole) -> axum::body::BodyDataStream {
    let request = Request::get("/live").header("host", HOST).body(Body::empty()).expect("a request");
    let response = console.router.clone().oneshot(request).await.expect("an answer");
    let mut stream = response.into_body().into_data_stream();
    assert_eq!(next(&mut stream).await.as_deref(), Some("event: live\ndata: now\n\n"));
    stream
}

/// Returns the next message; `None` at the end.
async fn next(stream: &mut axum::body::BodyDataStream) -> Option<String> {
    let message = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("a message in time")?;
    Some(String::from_utf8(message.expect("a message").to_vec()).expect("UTF-8"))
}

#[tokio::test]
async fn the_store_is_looked_at_once_for_all_pages_and_not_at_all_for_none() {
    let console = console_with(&[]).await;
    let looked = || console.console.live().looked.load(Ordering::SeqCst);
    assert_eq!(looked(), 0, "no page is open");
    let mut pages = Vec::new();
    for _ in 0..5 {
        pages.push(open(&console).await);
    }
    assert_eq!(looked(), 1, "five pages, one look");
    console.fill().await;
    for page in &mut pages {
        assert_eq!(next(page).await.as_deref(), Some("event: changed\ndata: now\n\n"));
    }
    drop(pages);
    let at_the_end = looked();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(looked(), at_the_end, "no page is open any more");
}

#[tokio::test]
async fn a_stop_ends_the_streams() {
    let console = console_with(&[]).await;
    let mut page = open(&console).await;
    console.stop.cancel();
    assert_eq!(next(&mut page).await, None);
}
