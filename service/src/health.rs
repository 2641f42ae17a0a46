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
    /// Parts of the same process, whose needs are listed with its own.
    others: Vec<Readiness>,
}

impl Readiness {
    /// Not ready until each of `needs` has been [`met`](Readiness::met).
    pub fn needing(needs: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            missing: Arc::new(watch::Sender::new(needs.into_iter().map(Cow::Borrowed).collect())),
            others: Vec::new(),
        }
    }

    /// For a page about several parts of one process: what this one lacks, and what `other` lacks.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.others.push(other.clone());
        self
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

    /// Waits until nothing of its own is missing.
    pub async fn ready(&self) {
        // The sender lives as long as `self`, so the wait cannot end otherwise.
        let _ = self.missing.subscribe().wait_for(BTreeSet::is_empty).await;
    }

    fn list(&self) -> BTreeSet<Cow<'static, str>> {
        let mut missing = self.missing.borrow().clone();
        missing.extend(self.others.iter().flat_map(Self::list));
        missing
    }
}

/// `GET /healthz`, `/readyz` and `/metrics`. They tell of the inside, so they belong on an address that only operators
/// reach.
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
        (StatusCode::SERVICE_UNAVAILABLE, format!("missing: {}\n", Vec::from_iter(missing).join(", "))).into_response()
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

        let both = readiness.clone().and(&Readiness::needing(["log", "door"]));
        let text = axum::body::to_bytes(readyz(State(both)).await.into_body(), 1000).await.expect("a body");
        assert_eq!(text, "missing: door, log, store\n", "of both parts, once each");

        readiness.met("store");
        readiness.met("log");
        readiness.ready().await;
        assert_eq!(readyz(State(readiness)).await.status(), StatusCode::OK);
    }
}
