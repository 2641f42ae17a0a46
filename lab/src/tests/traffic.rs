//! Traffic posted to a receiver that checks its signatures.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usher_proto::signature::{Signed, SigningSecret, verify};
use usher_service::clock;

use crate::traffic::{Generator, Reply, SendError, SentCount, Template, TrafficPlan, TrafficSecret, send};

#[derive(Default)]
struct Seen {
    now: AtomicUsize,
    most: AtomicUsize,
}

fn secret() -> SigningSecret {
    SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret")
}

/// Answers 204 to requests whose signature verifies, 401 to the rest.
async fn receive(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    seen.most.fetch_max(seen.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    tokio::task::yield_now().await;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let signed = Signed { id: text("svix-id"), timestamp: text("svix-timestamp"), signatures: text("svix-signature") };
    let verified =
        verify(&[secret()], signed, &body, clock::now()).is_ok() && text("content-type") == "application/json";
    seen.now.fetch_sub(1, Ordering::SeqCst);
    if verified { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED }
}

async fn receiver() -> (String, Arc<Seen>, CancellationToken) {
    usher_service::telemetry::install_tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/webhooks/clerk", listener.local_addr().expect("an address"));
    let seen = Arc::new(Seen::default());
    let stop = CancellationToken::new();
    let router = Router::new().route("/webhooks/clerk", post(receive)).with_state(seen.clone());
    tokio::spawn(usher_service::http::serve(listener, router, stop.clone()));
    (url, seen, stop)
}

fn order(url: &str, count: u64) -> TrafficPlan {
    TrafficPlan {
        to: url.parse().expect("a URL"),
        count,
        per_second: None,
        max_concurrent: NonZeroUsize::new(8).expect("more than none"),
    }
}

fn generator() -> Generator {
    Generator::new(Template::sample("user.created").expect("a sample"), NonZeroU64::new(10), 1)
}

#[tokio::test]
async fn every_event_arrives_signed_and_is_accounted_for() {
    let (url, seen, stop) = receiver().await;
    let report = send(&order(&url, 50), &TrafficSecret::Svix(secret()), &generator(), &stop, &SentCount::default())
        .await
        .expect("a report");
    assert_eq!(report.replies().into_iter().collect::<Vec<_>>(), [(Reply::Status(204), 50)]);
    assert_eq!(report.accepted(), 50);
    assert!(report.sent.iter().map(|sent| sent.number).eq(0..50));
    assert!(report.sent.iter().all(|sent| sent.user.as_ref().is_some_and(|user| user.starts_with("user_"))));
    assert!(report.latency().is_some_and(|latency| latency.p50 <= latency.max));
    assert!((1..=8).contains(&seen.most.load(Ordering::SeqCst)));
    stop.cancel();
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_reported() {
    let (url, _, stop) = receiver().await;
    let other = TrafficSecret::Svix(SigningSecret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").expect("a secret"));
    let report = send(&order(&url, 3), &other, &generator(), &stop, &SentCount::default()).await.expect("a report");
    assert_eq!(report.replies().into_iter().collect::<Vec<_>>(), [(Reply::Status(401), 3)]);
    stop.cancel();
}

#[tokio::test]
async fn a_rate_is_kept() {
    let (url, _, stop) = receiver().await;
    let slow = TrafficPlan { per_second: Some(100.0), ..order(&url, 21) };
    let report = send(&slow, &TrafficSecret::Svix(secret()), &generator(), &stop, &SentCount::default())
        .await
        .expect("a report");
    assert!(report.elapsed >= Duration::from_millis(200), "{:?}", report.elapsed);
    assert_eq!(report.accepted(), 21);
    stop.cancel();
}

#[tokio::test]
async fn a_stop_ends_a_long_sending_with_what_was_sent() {
    let (url, _, receiving) = receiver().await;
    let stop = CancellationToken::new();
    let forever = TrafficPlan { per_second: Some(1.0), ..order(&url, 1_000_000) };
    let stopping = async {
        tokio::task::yield_now().await;
        stop.cancel();
    };
    let secret = TrafficSecret::Svix(secret());
    let generator = generator();
    let count = SentCount::default();
    let (report, ()) = tokio::join!(send(&forever, &secret, &generator, &stop, &count), stopping);
    let sent = report.expect("a report").sent.len();
    assert!(sent <= 1);
    assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), sent as u64, "the count tells of each");
    receiving.cancel();
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let (url, _, stop) = receiver().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = nobody.local_addr().expect("an address").port();
    drop(nobody);
    let mut order = order(&url, 2);
    order.to.set_port(Some(port)).expect("a port");
    let report = send(&order, &TrafficSecret::Svix(secret()), &generator(), &stop, &SentCount::default())
        .await
        .expect("a report");
    assert_eq!(report.replies().into_iter().collect::<Vec<_>>(), [(Reply::Unreachable, 2)]);
    stop.cancel();
}

#[tokio::test]
async fn a_rate_of_zero_is_refused() {
    let (url, _, stop) = receiver().await;
    let never = TrafficPlan { per_second: Some(0.0), ..order(&url, 2) };
    let sent = send(&never, &TrafficSecret::Svix(secret()), &generator(), &stop, &SentCount::default()).await;
    assert!(matches!(sent, Err(SendError::Rate(rate)) if rate == 0.0));
    stop.cancel();
}
