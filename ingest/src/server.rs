//! Handling of a request, from its headers to its response.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Limited};
use prometheus::{IntGauge, Registry};
use tracing::{Instrument as _, Span};
use usher_eventlog::{Log, MAX_BODY};
use usher_proto::unsubscribe::UnsubscribeSecrets;
use usher_proto::{Event, Instance, Source};
use usher_service::{clock, http, trace};

use crate::config::IngestConfig;
use crate::error::Refusal;
use crate::metrics::{IngestMetrics, KEPT, UNKNOWN_SOURCE};
use crate::publish::{DEADLINE, Publisher};
use crate::refusals::{RefusalCause, Refusals};
use crate::room::Room;
use crate::sources::{Sender, Senders};
use crate::unsubscribe;

/// The needs that must be met before `ingest` is ready.
pub const NEEDS: [&str; 1] = ["log"];

/// Time for a body to arrive.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// Bytes of a refused body that are read and discarded, and the time for it.
const MAX_DISCARDED: usize = 2 * MAX_BODY;
const DISCARD_DEADLINE: Duration = Duration::from_secs(1);

/// State shared by all requests.
pub(crate) struct Ingest {
    senders: Senders,
    pub(crate) unsubscribe: Option<UnsubscribeSecrets>,
    pub(crate) publisher: Publisher,
    pub(crate) metrics: IngestMetrics,
    pub(crate) room: Room,
    refusals: Refusals,
}

/// Returns the routes for webhooks and for unsubscribe links.
///
/// # Errors
///
/// A metric is already registered with `registry`.
pub fn router(config: &IngestConfig, log: Arc<dyn Log>, registry: &Registry) -> Result<Router, prometheus::Error> {
    let ingest = Arc::new(Ingest::new(config, log, registry)?);
    Ok(Router::new()
        .route("/webhooks/{source}", post(default_instance).get(default_get))
        .route("/webhooks/{source}/{instance}", post(named_instance).get(named_get))
        .route(
            &format!("{}/{{token}}", usher_proto::unsubscribe::PATH),
            get(unsubscribe::confirm_page).post(unsubscribe::unsubscribe),
        )
        .fallback(|| async { Refusal::NoSuchPath })
        .with_state(ingest))
}

/// Longest challenge that is answered, in bytes.
const MAX_CHALLENGE: usize = 256;

/// The query of a GET request at the address of webhooks.
#[derive(serde::Deserialize)]
struct Challenge {
    challenge: Option<String>,
}

async fn default_get(
    State(ingest): State<Arc<Ingest>>,
    Path(source): Path<String>,
    query: Result<Query<Challenge>, QueryRejection>,
) -> Response {
    ingest.challenged(&source, Instance::DEFAULT, query)
}

async fn named_get(
    State(ingest): State<Arc<Ingest>>,
    Path((source, instance)): Path<(String, String)>,
    query: Result<Query<Challenge>, QueryRejection>,
) -> Response {
    ingest.challenged(&source, &instance, query)
}

/// Answers somebody who opens the address of webhooks in a browser.
fn posted_only() -> Response {
    let text = "This is where webhooks are posted, each signed by its sender. There is nothing to see.\n";
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")], text).into_response()
}

async fn default_instance(
    State(ingest): State<Arc<Ingest>>,
    Path(source): Path<String>,
    request: Request<Body>,
) -> Response {
    ingest.answer(&source, Instance::DEFAULT, request).await
}

async fn named_instance(
    State(ingest): State<Arc<Ingest>>,
    Path((source, instance)): Path<(String, String)>,
    request: Request<Body>,
) -> Response {
    ingest.answer(&source, &instance, request).await
}

impl Ingest {
    pub(crate) fn new(
        config: &IngestConfig,
        log: Arc<dyn Log>,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let refusals = Refusals::default();
        let senders = Senders::new(config);
        let metrics = IngestMetrics::register(registry)?;
        metrics.create_series(&senders.sources());
        let published = metrics.published.clone();
        Ok(Self {
            senders,
            unsubscribe: config.unsubscribe.clone(),
            publisher: Publisher::new(log, config.layout.events(), refusals.clone(), published),
            metrics,
            room: Room::new(),
            refusals,
        })
    }

    async fn answer(&self, source: &str, instance: &str, request: Request<Body>) -> Response {
        let started = Instant::now();
        let _under_way = InFlightGuard::new(&self.metrics.in_flight);
        let sender = self.senders.find(source);
        let signed_at = sender.and_then(|sender| sender.signed_at(request.headers()));
        let ahead = signed_at.map(|seconds| seconds.saturating_sub(clock::wall().seconds()));
        let result = match sender {
            None => {
                discard(request.into_body()).await;
                Err(Refusal::NoSuchSource)
            }
            Some(sender) => self.keep(sender, instance, request).await,
        };
        let outcome = result.as_ref().map_or_else(Refusal::code, |()| KEPT);
        // The client chooses the path, so only the names of configured senders become labels.
        let source = sender.map(Sender::source);
        let label = source.as_ref().map_or(UNKNOWN_SOURCE, Source::label);
        self.metrics.requests.with_label_values(&[label, outcome]).inc();
        self.metrics.request_seconds.with_label_values(&[outcome]).observe(started.elapsed().as_secs_f64());
        if let Err(refusal) = &result {
            self.metrics.refused.with_label_values(&[label, RefusalCause::of(refusal).label]).inc();
            // A record that the log does not store is reported with the log's error, where the error is known.
            if *refusal != Refusal::NotKept {
                self.refusals.note(source, refusal, ahead, None);
            }
        }
        match result {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err(refusal) => refusal.into_response(),
        }
    }

    /// Answers the challenge of a sender that asks for one, with exactly its characters, as a text that no browser takes
    /// for a page. Anybody can ask, so only short and plain challenges are answered.
    fn challenged(&self, source: &str, instance: &str, query: Result<Query<Challenge>, QueryRejection>) -> Response {
        let is_asked_for = self.senders.find(source).is_some_and(|sender| sender.answers_challenges(instance));
        let challenge = query.ok().and_then(|Query(query)| query.challenge);
        let is_plain =
            |text: &String| (1..=MAX_CHALLENGE).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        match challenge.filter(is_plain) {
            Some(challenge) if is_asked_for => {
                let headers = [(header::CONTENT_TYPE, "text/plain"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
                (headers, challenge).into_response()
            }
            Some(_) | None => posted_only(),
        }
    }

    /// Verifies a request and publishes its event. Checks run cheapest first: headers, declared length, body,
    /// signature, JSON; then room is taken and the event is published.
    async fn keep(&self, sender: &dyn Sender, instance: &str, request: Request<Body>) -> Result<(), Refusal> {
        let (head, body) = request.into_parts();
        let largest = self.publisher.largest_body();
        if let Err(refusal) = check_head(sender, instance, &head.headers, largest) {
            discard(body).await;
            return Err(refusal);
        }
        let within_deadline = tokio::time::timeout(DEADLINE, async {
            let reading = tokio::time::timeout(READ_DEADLINE, read(body, largest)).await;
            let body = reading.unwrap_or(Err(Refusal::BodyIncomplete))?;
            let mut event = {
                let _timer = self.metrics.verify_seconds.start_timer();
                sender.accept(instance, &head.headers, body, clock::wall())?
            };
            #[expect(clippy::cast_precision_loss, reason = "a size below 2^53")]
            self.metrics.body_bytes.observe(event.body.len() as f64);
            let _room = self.room.take(event.body.len()).ok_or(Refusal::Busy)?;
            let _timer = self.metrics.publish_seconds.start_timer();
            let span = span(&event);
            trace::continue_from(&span, event.trace_parent());
            if let Some(position) = trace::position(&span) {
                event.set_trace_parent(position);
            }
            self.publisher.publish(event).instrument(span).await.map_err(|error| Refusal::of(&error, largest))
        });
        within_deadline.await.unwrap_or(Err(Refusal::NotKept))
    }
}

/// Returns the span of a verified webhook. There is none before the signature is verified: anybody could choose the id in
/// it. Its level is error, because a filter such as `warn` would take a lower span away from the lines that need it.
fn span(event: &Event) -> Span {
    tracing::error_span!("webhook", source = event.source.label(), id = %event.id)
}

/// Counts a request in the gauge until it is dropped, because a request whose client disconnects ends
/// without a response.
pub(crate) struct InFlightGuard<'a>(&'a IntGauge);

impl<'a> InFlightGuard<'a> {
    pub(crate) fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn check_head(sender: &dyn Sender, instance: &str, headers: &HeaderMap, largest: usize) -> Result<(), Refusal> {
    sender.check_head(instance, headers, clock::wall())?;
    match declared_length(headers) {
        Some(length) if length > largest => Err(Refusal::TooLarge(largest)),
        Some(_) | None => Ok(()),
    }
}

/// Reads and discards a refused body, within limits on size and time. If the connection were closed while the sender is
/// still writing, the sender would get a connection error instead of the response with the reason.
pub(crate) async fn discard(mut body: Body) {
    let mut left = MAX_DISCARDED;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // A slower sender is disconnected.
    let _ = tokio::time::timeout(DISCARD_DEADLINE, reading).await;
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Copies a body into one buffer. If the frames were kept as received, each small frame would keep the whole buffer
/// alive in which it arrived.
async fn read(body: Body, largest: usize) -> Result<Bytes, Refusal> {
    let mut body = Limited::new(body, largest);
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match http::is_too_large(error.as_ref()) {
            true => Refusal::TooLarge(largest),
            false => Refusal::BodyIncomplete,
        })?;
        whole.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests;
