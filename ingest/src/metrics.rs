//! All metrics of `ingest`, registered in one place.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry,
    register_histogram_vec_with_registry, register_histogram_with_registry, register_int_counter_vec_with_registry,
    register_int_gauge_with_registry,
};

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
        Ok(Self {
            requests: register_int_counter_vec_with_registry!(
                options("requests_total", "Requests answered, by source and outcome."),
                &["source", "outcome"],
                registry
            )?,
            refused: register_int_counter_vec_with_registry!(
                options("refused_total", "Requests refused, by source and cause."),
                &["source", "cause"],
                registry
            )?,
            request_seconds: register_histogram_vec_with_registry!(
                histogram("request_seconds", "From a request's head to its answer.", &SECONDS),
                &["outcome"],
                registry
            )?,
            verify_seconds: register_histogram_with_registry!(
                histogram("verify_seconds", "Checking and keying a body.", &SECONDS),
                registry
            )?,
            publish_seconds: register_histogram_with_registry!(
                histogram("publish_seconds", "Until the log answered.", &SECONDS),
                registry
            )?,
            body_bytes: register_histogram_with_registry!(
                histogram("body_bytes", "Size of verified bodies.", &BYTES),
                registry
            )?,
            in_flight: register_int_gauge_with_registry!(
                options("requests_in_flight", "Requests under way."),
                registry
            )?,
        })
    }
}
