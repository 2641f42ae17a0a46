//! The three pages that every service serves: liveness, readiness and metrics.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{IntGaugeVec, Registry, TextEncoder};
use tokio::sync::watch;

use crate::Scrapes;
use crate::metric::{LabelSpec, LabelValues, MetricSpec, ReplicaAggregation};

const VERSION: LabelSpec = LabelSpec { name: "version", values: LabelValues::Configured("the version of the program") };

crate::metrics! {
    /// The metrics that every program has.
    pub const METRICS;

    struct ProgramMetrics {
        build_info: IntGaugeVec = MetricSpec::gauge("usher_build_info", "1, with the version of the program.")
            .by(&[VERSION])
            .over_replicas(ReplicaAggregation::Max),
    }
}

/// The unmet needs of a service, by name. The service is ready when there are none.
#[derive(Clone)]
pub struct Readiness {
    missing: Arc<watch::Sender<BTreeSet<Cow<'static, str>>>>,
    /// Other parts of the same process, whose unmet needs are listed too.
    others: Vec<Readiness>,
}

impl Readiness {
    /// Creates a state that is not ready until each of `needs` has been [`met`](Readiness::met).
    pub fn needing(needs: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            missing: Arc::new(watch::Sender::new(needs.into_iter().map(Cow::Borrowed).collect())),
            others: Vec::new(),
        }
    }

    /// Combines the unmet needs of this part and of `other`, for one page about several parts of a process.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.others.push(other.clone());
        self
    }

    /// Marks `need` as met.
    pub fn met(&self, need: impl Into<Cow<'static, str>>) {
        let need = need.into();
        self.missing.send_if_modified(|missing| missing.remove(&need));
    }

    /// Marks `need` as missing (again).
    pub fn lost(&self, need: impl Into<Cow<'static, str>>) {
        let need = need.into();
        self.missing.send_if_modified(|missing| missing.insert(need));
    }

    /// Marks `need` as met or missing.
    pub fn set(&self, need: impl Into<Cow<'static, str>>, met: bool) {
        if met { self.met(need) } else { self.lost(need) }
    }

    /// Waits until none of its own needs is missing. Needs of other parts are not waited for.
    pub async fn ready(&self) {
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = self.missing.subscribe().wait_for(BTreeSet::is_empty).await;
    }

    fn list(&self) -> BTreeSet<Cow<'static, str>> {
        let mut missing = self.missing.borrow().clone();
        missing.extend(self.others.iter().flat_map(Self::list));
        missing
    }
}

/// Serves `GET /healthz`, `/readyz` and `/metrics`. The pages show internal state, so use an address that only
/// operators can reach. Each read of the metrics is announced to `scrapes` first. Adds the program's version to the metrics.
///
/// # Errors
///
/// The registry already has a metric of that name.
pub fn router(readiness: Readiness, registry: Registry, scrapes: Scrapes) -> Result<Router, prometheus::Error> {
    let program = ProgramMetrics::register(&registry)?;
    program.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    Ok(Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(metrics).with_state((registry, scrapes))))
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let missing = readiness.list();
    if missing.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("missing: {}\n", Vec::from_iter(missing).join(", "))).into_response()
    }
}

async fn metrics(State((registry, scrapes)): State<(Registry, Scrapes)>) -> Response {
    scrapes.announce().await;
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let readiness = Readiness::needing(["store", "log"]);
        let page = readyz(State(readiness.clone())).await;
        assert_eq!(page.status(), StatusCode::SERVICE_UNAVAILABLE);
        let text = axum::body::to_bytes(page.into_body(), 1000).await.expect("a body");
        assert_eq!(text, "missing: log, store\n");

        let both = readiness.clone().and(&Readiness::needing(["log", "door"]));
        let text = axum::body::to_bytes(readyz(State(both)).await.into_body(), 1000).await.expect("a body");
        assert_eq!(text, "missing: door, log, store\n", "of both parts, once each");

        readiness.met("store");
        readiness.met("log");
        readiness.ready().await;
        assert_eq!(readyz(State(readiness)).await.status(), StatusCode::OK);
    }
}
