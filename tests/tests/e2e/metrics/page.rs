//! The catalogue keeps Prometheus' rules for names, and `docs/metrics.md` is what the catalogue makes.

use std::collections::BTreeSet;

use usher_service::metric::{LabelValues, MetricKind, ReplicaAggregation, metrics_page};

use super::{all_metrics, catalogues, root};

#[test]
fn the_page_is_what_the_catalogue_makes() {
    let path = root().join("docs/metrics.md");
    let page = metrics_page(&catalogues());
    if std::env::var_os("USHER_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/metrics.md is not what the catalogue makes: USHER_WRITE_DOCS=1 cargo test --test e2e -- metrics::page"
    );
}

#[test]
fn names_and_labels_keep_the_rules() {
    let mut names = BTreeSet::new();
    for spec in all_metrics() {
        let name = spec.name;
        assert!(names.insert(name), "{name} is described twice");
        let programs = ["usher_ingest_", "usher_dispatcher_", "usher_log_", "usher_disk_", "usher_build_info"];
        assert!(programs.iter().any(|program| name.starts_with(program)), "{name} does not begin with its program");
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(is_word), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            spec.kind == MetricKind::Counter,
            "{name}: counters end in _total, others do not"
        );
        for unit in ["_ms", "_millis", "_minutes", "_kb", "_percent", "_count", "_sum", "_bucket"] {
            assert!(
                !name.trim_end_matches("_total").ends_with(unit),
                "{name} ends in {unit}, which is no base unit or reserved"
            );
        }
        if spec.kind == MetricKind::Counter || matches!(spec.kind, MetricKind::Histogram(_)) {
            assert_eq!(spec.over_replicas, ReplicaAggregation::Sum, "{name}: every replica counts its own work");
        }
        assert!(
            spec.help.ends_with('.') && spec.help.starts_with(|c: char| c.is_uppercase() || c.is_numeric()),
            "{name}"
        );
        for label in spec.labels {
            let personal =
                ["user", "email", "address", "event", "host", "key", "subject", "ip", "id", "le", "instance", "job"];
            assert!(!personal.contains(&label.name), "{name} has the label {}", label.name);
            if let LabelValues::Words(words) = label.values {
                let distinct: BTreeSet<&str> = words().into_iter().collect();
                assert_eq!(distinct.len(), words().len(), "{name}: values of {} occur twice", label.name);
            }
        }
    }
    assert!(names.len() > 40, "{}", names.len());
}
