//! Monitors the log while a process runs: readiness, metrics, and one log line for each change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{IntGauge, IntGaugeVec, Registry};
use usher_service::Readiness;
use usher_service::metric::ReplicaAggregation::{Max, Min};
use usher_service::metric::{LabelSpec, LabelValues, MetricSpec, create_series};

use crate::{Log, LogError, TopicProblem};

/// Minimum interval between log lines about the same lasting problem. Below the interval of checks, which is ten seconds.
const TELL_AGAIN: Duration = Duration::from_secs(9);

const PROBLEM: LabelSpec = LabelSpec { name: "problem", values: LabelValues::Words(|| TopicProblem::LABELS.to_vec()) };

usher_service::metrics! {
    /// The metrics of the log, which every process that uses it reports.
    pub const METRICS;

    struct LogMetrics {
        available: IntGauge = MetricSpec::gauge(
            "usher_log_available",
            "1 while the log accepts records; 0 also before the first check.",
        )
        .over_replicas(Min),
        problems: IntGaugeVec =
            MetricSpec::gauge("usher_log_topic_problem", "1 while the events topic has this problem.")
                .by(&[PROBLEM])
                .over_replicas(Max),
        retention: IntGauge = MetricSpec::gauge(
            "usher_log_retention_seconds",
            "Time for which the events topic keeps events; 0 if it is without limit, or not known.",
        )
        .over_replicas(Max),
    }
}

/// Keeps readiness and metrics in line with the state of the log and of one of its topics.
pub struct LogWatch {
    log: Arc<dyn Log>,
    topic: String,
    readiness: Readiness,
    metrics: LogMetrics,
    /// Readiness condition that currently fails because of the topic.
    blocked: Option<&'static str>,
    /// The last log line about an unavailable log. `None` while the log is available.
    told: Option<Told>,
}

struct Told {
    text: String,
    at: Instant,
    /// Time of the first line since the log was last available.
    since: Instant,
}

impl LogWatch {
    /// Creates a watch of `topic` and registers its metrics.
    ///
    /// # Errors
    ///
    /// The registry already has metrics of these names.
    pub fn new(
        log: Arc<dyn Log>,
        topic: String,
        readiness: Readiness,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let metrics = LogMetrics::register(registry)?;
        create_series(&metrics.problems, &[&TopicProblem::LABELS]);
        Ok(Self { log, topic, readiness, metrics, blocked: None, told: None })
    }

    /// Checks the log once and passes the result to [`tell`](Self::tell).
    ///
    /// # Errors
    ///
    /// The error of [`Log::check`]; it has been logged.
    pub async fn look(&mut self) -> Result<(), LogError> {
        let found = self.log.check().await;
        self.tell(&found);
        found
    }

    /// Updates readiness and metrics from the result of a check, and logs changes.
    pub fn tell(&mut self, found: &Result<(), LogError>) {
        let state = self.log.state(&self.topic);
        // A topic that was missing at the start has no state yet.
        let refused = match found {
            Err(LogError::Topic { problem, .. }) => Some(problem),
            Ok(()) | Err(_) => None,
        };
        for label in TopicProblem::LABELS {
            let there = state.problems.iter().chain(refused).any(|problem| problem.label() == label);
            self.metrics.problems.with_label_values(&[label]).set(i64::from(there));
        }
        self.metrics.available.set(i64::from(found.is_ok()));
        self.metrics.retention.set(state.retention.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX)));
        let blocked = refused.and_then(TopicProblem::need);
        if blocked != self.blocked {
            self.blocked.into_iter().for_each(|need| self.readiness.met(need));
            blocked.into_iter().for_each(|need| self.readiness.lost(need));
            self.blocked = blocked;
        }
        self.readiness.set("log", found.is_ok());
        match (found, &self.told) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => {
                tracing::info!("log is available");
                self.told = None;
            }
            (Err(error), told) => {
                let text = error.to_string();
                let now = Instant::now();
                let is_fresh = told.as_ref().is_some_and(|told| told.text == text && now - told.at < TELL_AGAIN);
                if !is_fresh {
                    let since = told.as_ref().map_or(now, |told| told.since);
                    let lasted_s = (now - since).as_secs();
                    match error {
                        LogError::Unavailable(_) => tracing::warn!(lasted_s, "{text}"),
                        _ => tracing::warn!(lasted_s, "log is not available: {text}"),
                    }
                    self.told = Some(Told { text, at: now, since });
                }
            }
        }
    }
}
