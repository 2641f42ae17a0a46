//! The metrics, and what is made of them: the page about them, the dashboards, the alerts and their run-books.

mod alerts;
mod files;
mod lag;
mod numbers;
mod page;
mod prometheus;
mod promql;
mod queries;

use usher_service::metric::MetricSpec;

/// Returns the catalogues of all parts, with their headings.
fn catalogues() -> [(&'static str, &'static [MetricSpec]); 5] {
    [
        ("Ingest", usher_ingest::METRICS),
        ("Dispatcher", usher_dispatcher::METRICS),
        ("Log, of both", usher_eventlog::METRICS),
        ("Programs with files of their own (`usher up`)", usher_service::disk::METRICS),
        ("Every program", usher_service::health::METRICS),
    ]
}

/// Returns all metrics.
fn all_metrics() -> impl Iterator<Item = &'static MetricSpec> {
    catalogues().into_iter().flat_map(|(_, metrics)| metrics)
}

/// Returns the root of the workspace.
fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}
