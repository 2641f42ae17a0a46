//! Unsubscribe links. `GET` shows a page with a button. `POST` unsubscribes; it is sent by that button, or by a mail
//! program with one click (RFC 8058).
//!
//! A `GET` changes nothing, because programs that scan mails follow every link. No cookie, login or body is required:
//! the signed token in the path contains everything. The unsubscribe event is published, and the response is 200 after
//! the log has acknowledged it.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use usher_proto::suppression::{SuppressionChange, SuppressionKind};
use usher_proto::unsubscribe::Unsubscribe;
use usher_proto::{Event, EventId, Timestamp};
use usher_service::clock;

use crate::error::RETRY_AFTER;
use crate::publish::DEADLINE;
use crate::server::{InFlightGuard, Ingest, discard};

/// Label of these requests in metrics, in the place of a source.
pub(crate) const LABEL: &str = "unsubscribe";

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnsubscribeOutcome {
    /// The page that asks for confirmation was shown.
    Shown,
    /// The unsubscribe event is in the log.
    Kept,
    /// The link was not issued here, or is incomplete.
    NoSuchLink,
    /// Too many requests are in flight.
    Busy,
    /// The log cannot store the event now.
    NotKept,
}

impl UnsubscribeOutcome {
    /// Every outcome.
    pub(crate) const ALL: [Self; 5] = [Self::Shown, Self::Kept, Self::NoSuchLink, Self::Busy, Self::NotKept];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Shown => "shown",
            Self::Kept => "kept",
            Self::NoSuchLink => "no_such_link",
            Self::Busy => "busy",
            Self::NotKept => "not_kept",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Shown | Self::Kept => StatusCode::OK,
            Self::NoSuchLink => StatusCode::NOT_FOUND,
            Self::Busy | Self::NotKept => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The page. It contains no value of the request. Without an action, its form is posted to the URL of the page.
    const fn page(self) -> &'static str {
        match self {
            Self::Shown => include_str!("unsubscribe/shown.html"),
            Self::Kept => include_str!("unsubscribe/kept.html"),
            Self::NoSuchLink => include_str!("unsubscribe/no_such_link.html"),
            Self::Busy | Self::NotKept => include_str!("unsubscribe/not_kept.html"),
        }
    }
}

pub(crate) async fn confirm_page(State(ingest): State<Arc<Ingest>>, Path(token): Path<String>) -> Response {
    let started = Instant::now();
    let came = if ingest.link(&token).is_some() { UnsubscribeOutcome::Shown } else { UnsubscribeOutcome::NoSuchLink };
    ingest.tell(came, started)
}

pub(crate) async fn unsubscribe(
    State(ingest): State<Arc<Ingest>>,
    Path(token): Path<String>,
    request: Request<Body>,
) -> Response {
    let started = Instant::now();
    let _under_way = InFlightGuard::new(&ingest.metrics.in_flight);
    // The button and a mail program both post a form; the token already contains everything needed.
    discard(request.into_body()).await;
    let came = match ingest.link(&token) {
        None => UnsubscribeOutcome::NoSuchLink,
        Some(link) => ingest.keep_click(link, &token).await,
    };
    ingest.tell(came, started)
}

impl Ingest {
    fn link(&self, token: &str) -> Option<Unsubscribe> {
        self.unsubscribe.as_ref()?.verify(token)
    }

    async fn keep_click(&self, link: Unsubscribe, token: &str) -> UnsubscribeOutcome {
        let Some(_room) = self.room.take(token.len()) else { return UnsubscribeOutcome::Busy };
        let event = event(link, token, clock::now());
        let _timer = self.metrics.publish_seconds.start_timer();
        match tokio::time::timeout(DEADLINE, self.publisher.publish(event)).await {
            Ok(Ok(())) => UnsubscribeOutcome::Kept,
            Ok(Err(_)) | Err(_) => UnsubscribeOutcome::NotKept,
        }
    }

    fn tell(&self, came: UnsubscribeOutcome, started: Instant) -> Response {
        self.metrics.requests.with_label_values(&[LABEL, came.label()]).inc();
        self.metrics.request_seconds.with_label_values(&[came.label()]).observe(started.elapsed().as_secs_f64());
        let mut headers = HeaderMap::new();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::CACHE_CONTROL, "no-store");
        // The URL of the page contains the token.
        set(header::REFERRER_POLICY, "no-referrer");
        set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; form-action 'self'; frame-ancestors 'none'");
        if came.status() == StatusCode::SERVICE_UNAVAILABLE {
            set(header::RETRY_AFTER, RETRY_AFTER);
        }
        (came.status(), headers, Html(came.page())).into_response()
    }
}

/// Creates the unsubscribe event. Repeated requests with the same token on the same day create the same event, so that
/// a flow that starts on this event starts once.
fn event(link: Unsubscribe, token: &str, now: Timestamp) -> Event {
    let day = now.seconds() / (24 * 3600);
    let digest = Sha256::digest(format!("{day}\n{token}"));
    let id = hex::encode(&digest[..12]);
    let Unsubscribe { subject, list, address } = link;
    let kind = SuppressionKind::Unsubscribed;
    let reason = "one_click".to_owned();
    let by = String::new();
    let change =
        SuppressionChange { kind, address, scope: list, reason, by, instance: subject.instance().parse().ok() };
    change.into_event(EventId::new(format!("click_{id}")), subject, now)
}

#[cfg(test)]
mod tests;
