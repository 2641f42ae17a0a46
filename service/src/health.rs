//! The three pages every service has: alive, able to work, and its metrics.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use tokio::sync::watch;

/// What a service still lacks to do its work, by name. It is ready when nothing is missing.
#[derive(Clone)]
pub struct Readiness {
    missing: Arc<watch::Sender<BTreeSet<Cow<'static, str>>>>,
}

impl Readiness {
    /// Not ready until each of `needs` has been [`met`](Readiness::met).
    pub fn needing(needs: impl IntoIterator<Item = &'static str>) -> Self {
        Self { missing: Arc::new(watch::Sender::new(needs.into_iter().map(Cow::Borrowed).collect())) }
    }

    /// `need` is there now.
    pub fn met(&self, need: impl Into<Cow<'static, str>>) {
        let need = need.into();
        self.missing.send_if_modified(|missing| missing.remove(&need));
    }

    /// `need` is missing (again).
    pub fn lost(&self, need: impl Into<Cow<'static, str>>) {
        let need = need.into();
        self.missing.send_if_modified(|missing| missing.insert(need));
    }

    /// Sets `need` as met or missing.
    pub fn set(&self, need: impl Into<Cow<'static, str>>, met: bool) {
        if met { self.met(need) } else { self.lost(need) }
    }

    /// Waits until nothing is missing.
    pub async fn ready(&self) {
        // The sender lives as long as `self`, so the wait cannot end otherwise.
        let _ = self.missing.subscribe().wait_for(BTreeSet::is_empty).await;
    }

    fn list(&self) -> Vec<Cow<'static, str>> {
        self.missing.borrow().iter().cloned().collect()
    }
}

/// `GET /healthz`, `/readyz` and `/metrics`.
pub fn router(readiness: Readiness, registry: Registry) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(metrics).with_state(registry))
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let missing = readiness.list();
    if missing.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("missing: {}\n", missing.join(", "))).into_response()
    }
}

async fn metrics(State(registry): State<Registry>) -> Response {
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

        readiness.met("store");
        readiness.met("log");
        readiness.ready().await;
        assert_eq!(readyz(State(readiness)).await.status(), StatusCode::OK);
    }
}
