//! All Prometheus metrics of the dispatcher: their catalogue, and how each is registered from it.

mod labels;
mod series;

use labels::{ACCOUNT, ATTEMPT, CONNECTOR, FIRING, FLOW, KIND, OUTCOME, PRIORITY, REASON, RESOLUTION, SKIPPED, STATE};
pub(crate) use labels::{MADE, SKIPPED_FIRING, is_counted};
use prometheus::core::Collector as _;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use usher_service::metric::MetricSpec;
use usher_service::metric::ReplicaAggregation::{Max, Min};

/// Histogram buckets in seconds, from a hundredth of a second to an hour.
const SECONDS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 600.0, 3600.0];
/// Histogram buckets in seconds of requests to the store.
const STORE_SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

usher_service::metrics! {
    /// The metrics of the dispatcher.
    pub const METRICS;

    /// The metrics of one dispatcher. Labels are names of flows, connectors and accounts, and words from enums. They never
    /// contain data of events.
    #[derive(Clone)]
    pub(crate) struct DispatcherMetrics {
        events: IntCounterVec =
            MetricSpec::counter("usher_dispatcher_events_total", "Events read from the log.").by(&[FLOW]),
        repeated: IntCounterVec =
            MetricSpec::counter("usher_dispatcher_events_repeated_total", "Events that the store already contained.")
                .by(&[FLOW]),
        refused_records: IntCounter = MetricSpec::counter(
            "usher_dispatcher_records_refused_total",
            "Records of the log that no flow can process, each counted once.",
        ),
        lag_events: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_lag_events",
            "Events in the log that are not admitted yet, in the partitions of this process.",
        )
        .by(&[FLOW]),
        lag_seconds: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_lag_seconds",
            "Age of the oldest event of any partition that is not admitted yet, since ingest received it; 0 if there is none.",
        )
        .by(&[FLOW])
        .over_replicas(Max),
        frontier_age: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_frontier_age_seconds",
            "Time for which the frontier of a partition has not moved although events wait, of the partition that has waited \
             longest; 0 if none waits.",
        )
        .by(&[FLOW])
        .over_replicas(Max),
        lag_half_kept: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_lag_half_retention_events",
            "The part of the lag that is older than half of the log's retention and will be deleted soon.",
        )
        .by(&[FLOW]),
        runs: IntCounterVec =
            MetricSpec::counter("usher_dispatcher_runs_total", "Runs that ended, by the state they ended in.")
                .by(&[FLOW, OUTCOME]),
        dead_letters: IntCounterVec =
            MetricSpec::counter("usher_dispatcher_dead_letters_total", "Runs that were given up, by reason.")
                .by(&[FLOW, REASON]),
        last_success: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_last_success_timestamp_seconds",
            "Time at which a run of the flow last ended as done; 0 if none has since the process started.",
        )
        .by(&[FLOW])
        .over_replicas(Max),
        attempts: IntCounterVec = MetricSpec::counter(
            "usher_dispatcher_attempts_total",
            "Attempts, by connector and outcome: done, overtaken, the cause of a retry, or the reason of a rejection.",
        )
        .by(&[FLOW, CONNECTOR, ATTEMPT]),
        attempt_seconds: HistogramVec =
            MetricSpec::histogram("usher_dispatcher_attempt_seconds", "Duration of an attempt.", &SECONDS)
                .by(&[FLOW, CONNECTOR]),
        effect_seconds: HistogramVec = MetricSpec::histogram(
            "usher_dispatcher_effect_seconds",
            "Time from the receipt of an event at ingest to an effect of it.",
            &SECONDS,
        )
        .by(&[FLOW]),
        in_flight: IntGaugeVec =
            MetricSpec::gauge("usher_dispatcher_steps_in_flight", "Steps in flight.").by(&[FLOW]),
        retrying: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_runs_retrying",
            "Runs in memory that wait for their next attempt.",
        )
        .by(&[FLOW]),
        lanes_blocked: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_lanes_blocked",
            "Lanes whose first run waits in memory until its destination accepts calls.",
        )
        .by(&[FLOW]),
        loaded: IntGaugeVec = MetricSpec::gauge("usher_dispatcher_runs_loaded", "Runs in memory.").by(&[FLOW]),
        loaded_bytes: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_loaded_bytes",
            "Approximate memory of the loaded runs and of the events that wait for admission.",
        )
        .by(&[FLOW]),
        stored: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_runs_stored",
            "Runs in the store that have not ended well, by state.",
        )
        .by(&[FLOW, STATE])
        .over_replicas(Max),
        oldest: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_runs_oldest_age_seconds",
            "Age of the oldest run in this state: since its event was received, of dead ones since they were given up; 0 if \
             there is none.",
        )
        .by(&[FLOW, STATE])
        .over_replicas(Max),
        without_flow: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_runs_without_flow",
            "Unfinished runs of a flow that has no file; absent if every flow has one.",
        )
        .by(&[FLOW])
        .over_replicas(Max),
        runs_parked: IntCounterVec =
            MetricSpec::counter("usher_dispatcher_runs_parked_total", "Retries that were parked in the store.")
                .by(&[FLOW]),
        unknown_outcomes: IntCounterVec = MetricSpec::counter(
            "usher_dispatcher_unknown_outcomes_total",
            "Attempts after an attempt with an unknown outcome, by how that was resolved.",
        )
        .by(&[FLOW, CONNECTOR, RESOLUTION]),
        steps_skipped: IntCounterVec = MetricSpec::counter(
            "usher_dispatcher_steps_skipped_total",
            "Steps skipped because Usher may not write to their recipients, by reason.",
        )
        .by(&[FLOW, SKIPPED]),
        firings: IntCounterVec = MetricSpec::counter(
            "usher_dispatcher_firings_total",
            "Times of the flow's schedule, by what became of them: made, or skipped because they were missed.",
        )
        .by(&[FLOW, FIRING]),
        firing_lateness: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_firing_lateness_seconds",
            "Time from the time for which the flow last fired to the beginning of that firing; 0 if none has since the process \
             started.",
        )
        .by(&[FLOW])
        .over_replicas(Max),
        paused: IntGaugeVec = MetricSpec::gauge("usher_dispatcher_paused", "1 while an operator has paused the flow.")
            .by(&[FLOW])
            .over_replicas(Max),
        catching_up: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_catching_up",
            "1 while no step of the flow begins because it catches up with the log.",
        )
        .by(&[FLOW])
        .over_replicas(Max),
        catching_up_events: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_catching_up_events",
            "Events of all partitions that must be known before a step begins.",
        )
        .by(&[FLOW])
        .over_replicas(Max),
        rejoins: IntCounterVec = MetricSpec::counter(
            "usher_dispatcher_rejoins_total",
            "Rejoins of the consumer group because the log and the store disagreed, or consumption was stuck.",
        )
        .by(&[FLOW]),
        stalled_seconds: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_stalled_seconds",
            "Time for which a request of the flow to the store has been without an answer; 0 if none is pending.",
        )
        .by(&[FLOW])
        .over_replicas(Max),
        breaker_open: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_breaker_open",
            "1 while the breaker of a destination is open or half-open.",
        )
        .by(&[ACCOUNT])
        .over_replicas(Max),
        quota_share: IntGaugeVec = MetricSpec::gauge(
            "usher_dispatcher_quota_share",
            "This process's share of an account's quota: calls per window, or concurrent calls; 0 if neither is limited.",
        )
        .by(&[ACCOUNT]),
        quota_waiting: IntGaugeVec =
            MetricSpec::gauge("usher_dispatcher_quota_waiting", "Calls that wait for a permit of their account.")
                .by(&[ACCOUNT]),
        quota_used: IntCounterVec = MetricSpec::counter(
            "usher_dispatcher_quota_used_total",
            "Calls that were given a permit of their account.",
        )
        .by(&[ACCOUNT]),
        quota_wait_seconds: HistogramVec = MetricSpec::histogram(
            "usher_dispatcher_quota_wait_seconds",
            "Time that a call waited for its permit.",
            &SECONDS,
        )
        .by(&[ACCOUNT, PRIORITY]),
        store_seconds: Histogram = MetricSpec::histogram(
            "usher_dispatcher_store_seconds",
            "Duration of one request to the store, also of one that failed.",
            &STORE_SECONDS,
        ),
        unstorable: IntCounterVec = MetricSpec::counter(
            "usher_dispatcher_unstorable_total",
            "Records that the store refused permanently and that were given up, by kind of record.",
        )
        .by(&[FLOW, KIND]),
        clock_right: IntGauge = MetricSpec::gauge(
            "usher_dispatcher_clock_right",
            "1 while this process's clock is right, as far as can be determined.",
        )
        .over_replicas(Min),
    }
}

impl DispatcherMetrics {
    /// Returns the number of runs, over all flows of this process, that wait in memory for their destinations.
    pub(crate) fn blocked_lanes(&self) -> i64 {
        let families = self.lanes_blocked.collect();
        families.iter().flat_map(|family| family.get_metric()).map(|metric| metric.get_gauge().get_value() as i64).sum()
    }
}
