//! All Prometheus metrics of the dispatcher, registered in one place.

use prometheus::core::Collector as _;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    register_histogram_vec_with_registry, register_histogram_with_registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry, register_int_gauge_vec_with_registry, register_int_gauge_with_registry,
};

/// Histogram buckets in seconds, from a hundredth of a second to an hour.
const SECONDS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 600.0, 3600.0];

/// The metrics of one dispatcher. Labels are names of flows, connectors and accounts, and words from enums. They never
/// contain data of events.
#[derive(Clone)]
pub(crate) struct DispatcherMetrics {
    /// Events read from the log.
    pub(crate) events: IntCounterVec,
    /// Events that the store already contained.
    pub(crate) repeated: IntCounterVec,
    /// 1 while this process's clock is right, as far as can be determined.
    pub(crate) clock_right: IntGauge,
    /// Records that no flow can process, each counted once.
    pub(crate) refused_records: IntCounter,
    /// Runs that ended, by outcome, which is a terminal state.
    pub(crate) runs: IntCounterVec,
    /// Attempts, by connector and outcome: `done`, `overtaken`, a cause or a reason.
    pub(crate) attempts: IntCounterVec,
    /// Duration of an attempt, in seconds.
    pub(crate) attempt_seconds: HistogramVec,
    /// Time from an event's arrival at ingest to its effect, in seconds.
    pub(crate) effect_seconds: HistogramVec,
    /// Steps in flight.
    pub(crate) in_flight: IntGaugeVec,
    /// Runs waiting for their next attempt.
    pub(crate) retrying: IntGaugeVec,
    /// Runs that wait in memory until their destination accepts calls.
    pub(crate) lanes_blocked: IntGaugeVec,
    /// Runs in memory.
    pub(crate) loaded: IntGaugeVec,
    /// Approximate memory used by the loaded runs and by the events that wait for admission, in bytes.
    pub(crate) loaded_bytes: IntGaugeVec,
    /// Runs in the store that have not ended successfully, by state. Every replica counts the runs of all replicas.
    pub(crate) stored: IntGaugeVec,
    /// Retries that were parked in the store.
    pub(crate) runs_parked: IntCounterVec,
    /// Attempts made after an attempt with an unknown outcome, by how the doubt was resolved.
    pub(crate) unknown_outcomes: IntCounterVec,
    /// Steps skipped because their recipients must not be written to, by reason.
    pub(crate) steps_skipped: IntCounterVec,
    /// Unfinished runs of flows that have no file, by flow. Counted at the start only.
    pub(crate) without_flow: IntGaugeVec,
    /// 1 while a destination's breaker is open or half-open.
    pub(crate) breaker_open: IntGaugeVec,
    /// Rejoins of the consumer group because the log and the store disagreed, or because consumption was stuck.
    pub(crate) rejoins: IntCounterVec,
    /// 1 while an operator has paused the flow.
    pub(crate) paused: IntGaugeVec,
    /// 1 while the flow starts no runs because it has not caught up with the log.
    pub(crate) catching_up: IntGaugeVec,
    /// Events in the log that the flow must still admit before it starts runs, in all partitions.
    pub(crate) catching_up_events: IntGaugeVec,
    /// Events in the log that are not admitted yet, in the partitions assigned to this process.
    pub(crate) lag_events: IntGaugeVec,
    /// The part of `lag_events` that is older than half of the log's retention and will therefore be deleted soon.
    pub(crate) lag_half_kept: IntGaugeVec,
    /// Time between arrival at ingest and admission of the newest event admitted, in seconds.
    pub(crate) lag_seconds: IntGaugeVec,
    /// This process's share of an account's quota: calls per rate-limit window, or concurrent calls.
    pub(crate) quota_share: IntGaugeVec,
    /// Calls that wait for a permit of their account.
    pub(crate) quota_waiting: IntGaugeVec,
    /// Calls that were given a permit of their account.
    pub(crate) quota_used: IntCounterVec,
    /// Time that a call waited for its permit, in seconds.
    pub(crate) quota_wait_seconds: HistogramVec,
    /// Duration of one write to the store, in seconds.
    pub(crate) store_seconds: Histogram,
    /// Records that the store refused permanently and that were given up, by kind of record.
    pub(crate) unstorable: IntCounterVec,
    /// Seconds for which a pending request of the flow to the store has been without an answer; 0 if none is pending.
    pub(crate) stalled_seconds: IntGaugeVec,
}

impl DispatcherMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = |name: &str, help: &str| Opts::new(format!("usher_dispatcher_{name}"), help.to_owned());
        let histogram = |name: &str, help: &str| HistogramOpts::from(options(name, help)).buckets(SECONDS.to_vec());
        Ok(Self {
            events: register_int_counter_vec_with_registry!(
                options("events_total", "Events read from the log."),
                &["flow"],
                registry
            )?,
            repeated: register_int_counter_vec_with_registry!(
                options("events_repeated_total", "Events that were known already."),
                &["flow"],
                registry
            )?,
            clock_right: register_int_gauge_with_registry!(
                options("clock_right", "1 while this process's clock is right, as far as anything can tell."),
                registry
            )?,
            refused_records: register_int_counter_with_registry!(
                options("records_refused_total", "Records that no flow can take, each counted once."),
                registry
            )?,
            runs: register_int_counter_vec_with_registry!(
                options("runs_total", "Runs that ended, by outcome."),
                &["flow", "outcome"],
                registry
            )?,
            attempts: register_int_counter_vec_with_registry!(
                options("attempts_total", "Attempts, by connector and outcome."),
                &["flow", "connector", "outcome"],
                registry
            )?,
            attempt_seconds: register_histogram_vec_with_registry!(
                histogram("attempt_seconds", "How long an attempt took."),
                &["flow", "connector"],
                registry
            )?,
            effect_seconds: register_histogram_vec_with_registry!(
                histogram("effect_seconds", "From an event's arrival at ingest to its effect."),
                &["flow"],
                registry
            )?,
            in_flight: register_int_gauge_vec_with_registry!(
                options("in_flight", "Steps in flight."),
                &["flow"],
                registry
            )?,
            retrying: register_int_gauge_vec_with_registry!(
                options("retrying", "Runs waiting for their next attempt."),
                &["flow"],
                registry
            )?,
            lanes_blocked: register_int_gauge_vec_with_registry!(
                options("lanes_blocked", "Lanes whose first run waits in memory for its destination."),
                &["flow"],
                registry
            )?,
            loaded: register_int_gauge_vec_with_registry!(
                options("runs_loaded", "Runs in memory."),
                &["flow"],
                registry
            )?,
            loaded_bytes: register_int_gauge_vec_with_registry!(
                options("loaded_bytes", "Roughly the bytes that runs and waiting events take in memory."),
                &["flow"],
                registry
            )?,
            stored: register_int_gauge_vec_with_registry!(
                options("runs_stored", "Runs in the store that have not ended well, by state, of all replicas."),
                &["flow", "state"],
                registry
            )?,
            runs_parked: register_int_counter_vec_with_registry!(
                options("runs_parked_total", "Retries that were parked in the store."),
                &["flow"],
                registry
            )?,
            unknown_outcomes: register_int_counter_vec_with_registry!(
                options(
                    "unknown_outcomes_total",
                    "Attempts whose predecessor may have taken effect, by what was done.",
                ),
                &["flow", "connector", "resolved"],
                registry
            )?,
            steps_skipped: register_int_counter_vec_with_registry!(
                options(
                    "steps_skipped_total",
                    "Steps skipped because their recipients must not be written to, by reason.",
                ),
                &["flow", "why"],
                registry
            )?,
            without_flow: register_int_gauge_vec_with_registry!(
                options("runs_without_flow", "Runs that have not ended of flows without a file, as at the start."),
                &["flow"],
                registry
            )?,
            breaker_open: register_int_gauge_vec_with_registry!(
                options("breaker_open", "1 while a destination takes no calls, or only single ones."),
                &["connector"],
                registry
            )?,
            rejoins: register_int_counter_vec_with_registry!(
                options(
                    "rejoins_total",
                    "Rejoins of the consumer group because the log and the store disagreed, or consumption was stuck.",
                ),
                &["flow"],
                registry
            )?,
            paused: register_int_gauge_vec_with_registry!(
                options("paused", "1 while an operator has paused the flow."),
                &["flow"],
                registry
            )?,
            catching_up: register_int_gauge_vec_with_registry!(
                options("catching_up", "1 while no step begins because the flow catches up with the log."),
                &["flow"],
                registry
            )?,
            catching_up_events: register_int_gauge_vec_with_registry!(
                options("catching_up_events", "Events to read in all partitions before a step begins."),
                &["flow"],
                registry
            )?,
            lag_events: register_int_gauge_vec_with_registry!(
                options("lag_events", "Events in the log that are not admitted yet, of this process's partitions."),
                &["flow"],
                registry
            )?,
            lag_half_kept: register_int_gauge_vec_with_registry!(
                options(
                    "lag_half_retention_events",
                    "Those of lag_events that the log has kept for more than half of its retention.",
                ),
                &["flow"],
                registry
            )?,
            lag_seconds: register_int_gauge_vec_with_registry!(
                options("lag_seconds", "From arrival at ingest to admission, of the newest event admitted."),
                &["flow"],
                registry
            )?,
            quota_share: register_int_gauge_vec_with_registry!(
                options("quota_share", "This process's share of an account's quota, in calls."),
                &["account"],
                registry
            )?,
            quota_waiting: register_int_gauge_vec_with_registry!(
                options("quota_waiting", "Calls that wait for their permit."),
                &["account"],
                registry
            )?,
            quota_used: register_int_counter_vec_with_registry!(
                options("quota_used_total", "Calls that were given a permit."),
                &["account"],
                registry
            )?,
            quota_wait_seconds: register_histogram_vec_with_registry!(
                histogram("quota_wait_seconds", "How long a call waited for its account's quota."),
                &["account", "priority"],
                registry
            )?,
            store_seconds: register_histogram_with_registry!(
                histogram("store_seconds", "How long a write to the store took."),
                registry
            )?,
            unstorable: register_int_counter_vec_with_registry!(
                options("unstorable_total", "Records that the store refused for good."),
                &["flow", "what"],
                registry
            )?,
            stalled_seconds: register_int_gauge_vec_with_registry!(
                options(
                    "stalled_seconds",
                    "Time for which a request of the flow to the store has been without an answer.",
                ),
                &["flow"],
                registry
            )?,
        })
    }

    /// Returns the number of runs, over all flows of this process, that wait in memory for their destinations.
    pub(crate) fn blocked_lanes(&self) -> i64 {
        let families = self.lanes_blocked.collect();
        families.iter().flat_map(|family| family.get_metric()).map(|metric| metric.get_gauge().get_value() as i64).sum()
    }
}
