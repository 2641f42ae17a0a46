//! All metrics of `ingest`, registered in one place.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

/// Histogram buckets in seconds, from a tenth of a millisecond to the deadline of a request.
const SECONDS: [f64; 14] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];
/// Histogram buckets in bytes, up to the largest body.
const BYTES: [f64; 7] = [256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];

/// The metrics of one `ingest`.
pub(crate) struct IngestMetrics {
    /// Answered requests, by source and outcome (`kept` or the code of a refusal).
    pub(crate) requests: IntCounterVec,
    /// Refused requests, by source and cause. The cause is more specific than the outcome.
    pub(crate) refused: IntCounterVec,
    /// Seconds from the request's headers to its response, by outcome.
    pub(crate) request_seconds: HistogramVec,
    /// Seconds for verifying the signature and computing the key.
    pub(crate) verify_seconds: Histogram,
    /// Seconds until the log acknowledged the record or refused it.
    pub(crate) publish_seconds: Histogram,
    /// Size of the verified bodies, in bytes.
    pub(crate) body_bytes: Histogram,
    /// Requests in flight.
    pub(crate) in_flight: IntGauge,
}

impl IngestMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = |name: &str, help: &str| Opts::new(format!("usher_ingest_{name}"), help.to_owned());
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            HistogramOpts::from(options(name, help)).buckets(buckets.to_vec())
        };
        let metrics = Self {
            requests: IntCounterVec::new(
                options("requests_total", "Requests answered, by source and outcome."),
                &["source", "outcome"],
            )?,
            refused: IntCounterVec::new(
                options("refused_total", "Requests refused, by source and cause."),
                &["source", "cause"],
            )?,
            request_seconds: HistogramVec::new(
                histogram("request_seconds", "From a request's head to its answer.", &SECONDS),
                &["outcome"],
            )?,
            verify_seconds: Histogram::with_opts(histogram("verify_seconds", "Checking and keying a body.", &SECONDS))?,
            publish_seconds: Histogram::with_opts(histogram("publish_seconds", "Until the log answered.", &SECONDS))?,
            body_bytes: Histogram::with_opts(histogram("body_bytes", "Size of verified bodies.", &BYTES))?,
            in_flight: IntGauge::with_opts(options("requests_in_flight", "Requests under way."))?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.request_seconds.clone()))?;
        registry.register(Box::new(metrics.verify_seconds.clone()))?;
        registry.register(Box::new(metrics.publish_seconds.clone()))?;
        registry.register(Box::new(metrics.body_bytes.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        Ok(metrics)
    }
}
