//! All Prometheus metrics of the dispatcher, registered in one place.

use prometheus::core::Collector as _;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
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
        let metrics = Self {
            events: IntCounterVec::new(options("events_total", "Events read from the log."), &["flow"])?,
            repeated: IntCounterVec::new(
                options("events_repeated_total", "Events that were known already."),
                &["flow"],
            )?,
            clock_right: IntGauge::with_opts(options(
                "clock_right",
                "1 while this process's clock is right, as far as anything can tell.",
            ))?,
            refused_records: IntCounter::with_opts(options(
                "records_refused_total",
                "Records that no flow can take, each counted once.",
            ))?,
            runs: IntCounterVec::new(options("runs_total", "Runs that ended, by outcome."), &["flow", "outcome"])?,
            attempts: IntCounterVec::new(
                options("attempts_total", "Attempts, by connector and outcome."),
                &["flow", "connector", "outcome"],
            )?,
            attempt_seconds: HistogramVec::new(
                histogram("attempt_seconds", "How long an attempt took."),
                &["flow", "connector"],
            )?,
            effect_seconds: HistogramVec::new(
                histogram("effect_seconds", "From an event's arrival at ingest to its effect."),
                &["flow"],
            )?,
            in_flight: IntGaugeVec::new(options("in_flight", "Steps in flight."), &["flow"])?,
            retrying: IntGaugeVec::new(options("retrying", "Runs waiting for their next attempt."), &["flow"])?,
            lanes_blocked: IntGaugeVec::new(
                options("lanes_blocked", "Lanes whose first run waits in memory for its destination."),
                &["flow"],
            )?,
            loaded: IntGaugeVec::new(options("runs_loaded", "Runs in memory."), &["flow"])?,
            loaded_bytes: IntGaugeVec::new(
                options("loaded_bytes", "Roughly the bytes that runs and waiting events take in memory."),
                &["flow"],
            )?,
            stored: IntGaugeVec::new(
                options("runs_stored", "Runs in the store that have not ended well, by state, of all replicas."),
                &["flow", "state"],
            )?,
            runs_parked: IntCounterVec::new(
                options("runs_parked_total", "Retries that were parked in the store."),
                &["flow"],
            )?,
            unknown_outcomes: IntCounterVec::new(
                options(
                    "unknown_outcomes_total",
                    "Attempts whose predecessor may have taken effect, by what was done.",
                ),
                &["flow", "connector", "resolved"],
            )?,
            steps_skipped: IntCounterVec::new(
                options(
                    "steps_skipped_total",
                    "Steps skipped because their recipients must not be written to, by reason.",
                ),
                &["flow", "why"],
            )?,
            without_flow: IntGaugeVec::new(
                options("runs_without_flow", "Runs that have not ended of flows without a file, as at the start."),
                &["flow"],
            )?,
            breaker_open: IntGaugeVec::new(
                options("breaker_open", "1 while a destination takes no calls, or only single ones."),
                &["connector"],
            )?,
            rejoins: IntCounterVec::new(
                options(
                    "rejoins_total",
                    "Rejoins of the consumer group because the log and the store disagreed, or consumption was stuck.",
                ),
                &["flow"],
            )?,
            paused: IntGaugeVec::new(options("paused", "1 while an operator has paused the flow."), &["flow"])?,
            catching_up: IntGaugeVec::new(
                options("catching_up", "1 while no step begins because the flow catches up with the log."),
                &["flow"],
            )?,
            catching_up_events: IntGaugeVec::new(
                options("catching_up_events", "Events to read in all partitions before a step begins."),
                &["flow"],
            )?,
            lag_events: IntGaugeVec::new(
                options("lag_events", "Events in the log that are not admitted yet, of this process's partitions."),
                &["flow"],
            )?,
            lag_half_kept: IntGaugeVec::new(
                options(
                    "lag_half_retention_events",
                    "Those of lag_events that the log has kept for more than half of its retention.",
                ),
                &["flow"],
            )?,
            lag_seconds: IntGaugeVec::new(
                options("lag_seconds", "From arrival at ingest to admission, of the newest event admitted."),
                &["flow"],
            )?,
            quota_share: IntGaugeVec::new(
                options("quota_share", "This process's share of an account's quota, in calls."),
                &["account"],
            )?,
            quota_waiting: IntGaugeVec::new(
                options("quota_waiting", "Calls that wait for their permit."),
                &["account"],
            )?,
            quota_used: IntCounterVec::new(
                options("quota_used_total", "Calls that were given a permit."),
                &["account"],
            )?,
            quota_wait_seconds: HistogramVec::new(
                histogram("quota_wait_seconds", "How long a call waited for its account's quota."),
                &["account", "priority"],
            )?,
            store_seconds: Histogram::with_opts(histogram("store_seconds", "How long a write to the store took."))?,
            unstorable: IntCounterVec::new(
                options("unstorable_total", "Records that the store refused for good."),
                &["flow", "what"],
            )?,
            stalled_seconds: IntGaugeVec::new(
                options(
                    "stalled_seconds",
                    "Time for which a request of the flow to the store has been without an answer.",
                ),
                &["flow"],
            )?,
        };
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.repeated.clone()))?;
        registry.register(Box::new(metrics.clock_right.clone()))?;
        registry.register(Box::new(metrics.refused_records.clone()))?;
        registry.register(Box::new(metrics.runs.clone()))?;
        registry.register(Box::new(metrics.attempts.clone()))?;
        registry.register(Box::new(metrics.attempt_seconds.clone()))?;
        registry.register(Box::new(metrics.effect_seconds.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.retrying.clone()))?;
        for gauge in
            [&metrics.lanes_blocked, &metrics.loaded, &metrics.loaded_bytes, &metrics.stored, &metrics.breaker_open]
        {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(metrics.without_flow.clone()))?;
        for gauge in [&metrics.paused, &metrics.catching_up, &metrics.catching_up_events] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for counter in [&metrics.runs_parked, &metrics.unknown_outcomes, &metrics.steps_skipped, &metrics.rejoins] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(metrics.quota_share.clone()))?;
        registry.register(Box::new(metrics.quota_waiting.clone()))?;
        registry.register(Box::new(metrics.quota_used.clone()))?;
        registry.register(Box::new(metrics.quota_wait_seconds.clone()))?;
        registry.register(Box::new(metrics.lag_events.clone()))?;
        registry.register(Box::new(metrics.lag_half_kept.clone()))?;
        registry.register(Box::new(metrics.lag_seconds.clone()))?;
        registry.register(Box::new(metrics.store_seconds.clone()))?;
        registry.register(Box::new(metrics.unstorable.clone()))?;
        registry.register(Box::new(metrics.stalled_seconds.clone()))?;
        Ok(metrics)
    }

    /// Returns the number of runs, over all flows of this process, that wait in memory for their destinations.
    pub(crate) fn blocked_lanes(&self) -> i64 {
        let families = self.lanes_blocked.collect();
        families.iter().flat_map(|family| family.get_metric()).map(|metric| metric.get_gauge().get_value() as i64).sum()
    }
}
