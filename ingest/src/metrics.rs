//! All metrics of `ingest`: their catalogue, and how each is registered from it.

use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGauge};
use usher_proto::Source;
use usher_service::metric::{LabelSpec, LabelValues, MetricSpec, create_series};

use crate::error::Refusal;
use crate::refusals::RefusalCause;
use crate::unsubscribe::{self, UnsubscribeOutcome};

/// Histogram buckets in seconds, from a tenth of a millisecond to the deadline of a request.
const SECONDS: [f64; 14] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];
/// Histogram buckets in bytes, up to the largest body.
const BYTES: [f64; 7] = [256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];

/// Outcome of a webhook whose event is in the log.
pub(crate) const KEPT: &str = "kept";
/// Stands for a source in requests to a path that names none which is configured.
pub(crate) const UNKNOWN_SOURCE: &str = "unknown";

const SOURCE: LabelSpec = LabelSpec { name: "source", values: LabelValues::Configured(SOURCES) };
/// Senders have the names of their configuration. What a request names reaches no label unless it is configured.
const SOURCES: &str = "`clerk`, the other sources whose secrets are configured, `unsubscribe` for its links, and `unknown` for any other path";
const OUTCOME: LabelSpec = LabelSpec { name: "outcome", values: LabelValues::Words(outcomes) };
const CAUSE: LabelSpec = LabelSpec { name: "cause", values: LabelValues::Words(causes) };

usher_service::metrics! {
    /// The metrics of `ingest`.
    pub const METRICS;

    /// The metrics of one `ingest`.
    pub(crate) struct IngestMetrics {
        requests: IntCounterVec = MetricSpec::counter(
            "usher_ingest_requests_total",
            "Requests answered, by source and outcome: kept, or the code of the refusal.",
        )
        .by(&[SOURCE, OUTCOME]),
        refused: IntCounterVec = MetricSpec::counter(
            "usher_ingest_refused_total",
            "Webhooks refused, by source and cause, which is more specific than the outcome.",
        )
        .by(&[SOURCE, CAUSE]),
        published: IntCounterVec = MetricSpec::counter(
            "usher_ingest_published_total",
            "Events that the log has acknowledged, also if their sender did not wait for the answer.",
        )
        .by(&[SOURCE]),
        request_seconds: HistogramVec = MetricSpec::histogram(
            "usher_ingest_request_seconds",
            "Time from the headers of a request to its answer.",
            &SECONDS,
        )
        .by(&[OUTCOME]),
        verify_seconds: Histogram = MetricSpec::histogram(
            "usher_ingest_verify_seconds",
            "Time to verify a signature and to compute the key.",
            &SECONDS,
        ),
        publish_seconds: Histogram = MetricSpec::histogram(
            "usher_ingest_publish_seconds",
            "Time until the log acknowledged a record or refused it.",
            &SECONDS,
        ),
        body_bytes: Histogram =
            MetricSpec::histogram("usher_ingest_body_bytes", "Size of a verified body.", &BYTES),
        in_flight: IntGauge = MetricSpec::gauge("usher_ingest_requests_in_flight", "Requests in flight."),
    }
}

impl IngestMetrics {
    /// Creates the series of these sources, and of what is no source.
    pub(crate) fn create_series(&self, sources: &[Source]) {
        let sources: Vec<&str> = sources.iter().map(Source::label).collect();
        let sources = sources.as_slice();
        let with_unknown: Vec<&str> = sources.iter().copied().chain([UNKNOWN_SOURCE]).collect();
        create_series(&self.requests, &[sources, &[KEPT]]);
        create_series(&self.requests, &[&with_unknown, &codes()]);
        create_series(&self.requests, &[&[unsubscribe::LABEL], &unsubscribe_outcomes()]);
        create_series(&self.refused, &[&with_unknown, &causes()]);
        create_series(&self.published, &[sources]);
        create_series(&self.request_seconds, &[&outcomes()]);
    }
}

fn codes() -> Vec<&'static str> {
    let mut codes: Vec<&str> = Refusal::every().iter().map(Refusal::code).collect();
    codes.dedup();
    codes
}

fn unsubscribe_outcomes() -> Vec<&'static str> {
    UnsubscribeOutcome::ALL.into_iter().map(UnsubscribeOutcome::label).collect()
}

fn outcomes() -> Vec<&'static str> {
    let mut outcomes: Vec<&str> = [KEPT].into_iter().chain(codes()).collect();
    outcomes
        .extend(unsubscribe_outcomes().into_iter().filter(|outcome| !codes().contains(outcome) && *outcome != KEPT));
    outcomes
}

fn causes() -> Vec<&'static str> {
    let mut causes: Vec<&str> = Refusal::every().iter().map(|refusal| RefusalCause::of(refusal).label).collect();
    causes.sort_unstable();
    causes.dedup();
    causes
}
