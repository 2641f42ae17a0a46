//! A limit: HTTP alone. Reads each body and acknowledges it.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;

/// Serves on one thread, which is the cheapest way.
pub(super) fn run() -> anyhow::Result<()> {
    let acknowledge = async |_body: Bytes| StatusCode::NO_CONTENT;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(super::serve(Router::new().route("/", post(acknowledge))))
}
