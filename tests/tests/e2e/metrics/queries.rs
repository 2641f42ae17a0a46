//! Dashboards and alerts name only what the catalogue has, and use each metric as the catalogue says.

use std::collections::BTreeSet;

use usher_service::metric::{LabelValues, MetricKind, MetricSpec};
use usher_tests::program::programs;

use super::files::{PlacedQuery, alert_queries, alert_rules, dashboard_queries, dashboards};
use super::promql::selectors;
use super::{all_metrics, root};

/// Metrics that Prometheus makes itself, with their labels.
const FOREIGN: [(&str, &[&str]); 1] = [("up", &["job", "instance"])];

/// Returns what is wrong with an expression.
fn problems(query: &PlacedQuery) -> Vec<String> {
    let mut problems = Vec::new();
    for selector in selectors(&query.expression) {
        let name = selector.metric.as_str();
        if let Some((_, labels)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
            problems.extend(
                selector
                    .matchers
                    .iter()
                    .filter(|(label, _)| !labels.contains(&label.as_str()))
                    .map(|(label, _)| format!("{name} has no {label}")),
            );
            continue;
        }
        let Some(spec) = all_metrics().find(|spec| series(spec).contains(&name.to_owned())) else {
            problems.push(format!("there is no metric {name}"));
            continue;
        };
        for (label, values) in &selector.matchers {
            let Some(known) = spec.labels.iter().find(|known| known.name == label) else {
                problems.push(format!("{name} has no label {label}"));
                continue;
            };
            if let LabelValues::Words(words) = known.values {
                let unknown = values.iter().filter(|value| !words().contains(&value.as_str()));
                problems.extend(unknown.map(|value| format!("{label} of {name} is never {value}")));
            }
        }
        let Some((operator, kept)) = &selector.aggregation else {
            problems.push(format!("{name} is not aggregated over replicas"));
            continue;
        };
        if operator != spec.over_replicas.operator() {
            problems.push(format!("{name} is aggregated by {operator} instead of {}", spec.over_replicas.operator()));
        }
        let is_known = |label: &String| label == "le" || spec.labels.iter().any(|known| known.name == label);
        problems
            .extend(kept.iter().filter(|label| !is_known(label)).map(|label| format!("{name} has no label {label}")));
    }
    problems
}

/// Returns the names of a metric's series.
fn series(spec: &MetricSpec) -> Vec<String> {
    match spec.kind {
        MetricKind::Histogram(_) => ["bucket", "sum", "count"].map(|end| format!("{}_{end}", spec.name)).to_vec(),
        MetricKind::Counter | MetricKind::Gauge => vec![spec.name.to_owned()],
    }
}

#[test]
fn dashboards_and_alerts_use_the_metrics_as_the_catalogue_says() {
    let queries: Vec<PlacedQuery> = dashboard_queries().into_iter().chain(alert_queries()).collect();
    assert!(queries.len() > 80, "{}", queries.len());
    let found: Vec<String> = queries
        .iter()
        .flat_map(|query| problems(query).into_iter().map(|problem| format!("{}: {problem}", query.place)))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_metric_is_on_a_dashboard() {
    let shown: BTreeSet<String> = dashboard_queries()
        .iter()
        .flat_map(|query| selectors(&query.expression))
        .map(|selector| selector.metric)
        .collect();
    let missing: Vec<&str> = all_metrics()
        .filter(|spec| !series(spec).iter().any(|series| shown.contains(series)))
        .map(|spec| spec.name)
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn mistakes_are_found() {
    for (expression, problem) in [
        ("sum(usher_ingest_requests)", "there is no metric usher_ingest_requests"),
        ("sum by (user) (usher_dispatcher_lag_events)", "usher_dispatcher_lag_events has no label user"),
        ("sum(usher_dispatcher_lag_seconds)", "usher_dispatcher_lag_seconds is aggregated by sum instead of max"),
        ("usher_dispatcher_lag_events", "usher_dispatcher_lag_events is not aggregated over replicas"),
        ("sum(usher_ingest_requests_total{outcome=\"lost\"})", "outcome of usher_ingest_requests_total is never lost"),
        ("sum(usher_ingest_requests_total{flow=\"a\"})", "usher_ingest_requests_total has no label flow"),
    ] {
        let query = PlacedQuery { place: String::new(), expression: expression.to_owned() };
        assert_eq!(problems(&query), [problem]);
    }
}

#[test]
fn dashboards_can_be_loaded() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        let uid = dashboard["uid"].as_str().unwrap();
        assert_eq!(file, format!("{uid}.json"));
        assert!(uids.insert(uid.to_owned()));
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{file}: ids of panels are distinct");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}");
        }
        for variable in
            dashboard["templating"]["list"].as_array().unwrap().iter().filter(|variable| variable["type"] == "query")
        {
            let query = variable["definition"].as_str().unwrap();
            let (metric, label) =
                query.trim_start_matches("label_values(").trim_end_matches(')').split_once(", ").unwrap();
            let spec = all_metrics().find(|spec| spec.name == metric).unwrap_or_else(|| panic!("{file}: {metric}"));
            assert!(spec.labels.iter().any(|known| known.name == label), "{file}: {query}");
        }
    }
    assert_eq!(uids.len(), 5);
}

#[test]
fn every_alert_has_its_run_book() {
    let mut pages = BTreeSet::new();
    for rule in alert_rules() {
        let path = format!("docs/runbooks/{}.md", rule.alert);
        assert_eq!(rule.annotations["runbook"], path);
        let page = std::fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(page.starts_with(&format!("# {}\n", rule.alert)), "{path}");
        for part in ["## Meaning", "## Look", "## Act"] {
            assert!(page.contains(&format!("\n{part}\n")), "{path} has no {part}");
        }
        assert!(["critical", "warning"].contains(&rule.labels["severity"].as_str()), "{}", rule.alert);
        assert!(rule.keep_firing_for.is_some(), "{}: a gap in the scrapes would end it", rule.alert);
        assert!(rule.annotations.contains_key("summary") && rule.annotations.contains_key("description"));
        pages.insert(format!("{}.md", rule.alert));
    }
    let entries = std::fs::read_dir(root().join("docs/runbooks")).unwrap();
    let mut found: BTreeSet<String> = entries.map(|entry| entry.unwrap().file_name().display().to_string()).collect();
    assert!(found.remove("README.md"), "an index for people");
    assert_eq!(found, pages, "no page without its alert");
}

/// The commands of run-books, such as `usher dlq list --flow FLOW`, exist with their options.
#[test]
fn the_commands_of_run_books_exist() {
    let mut checked = BTreeSet::new();
    for rule in alert_rules() {
        let page = std::fs::read_to_string(root().join(&rule.annotations["runbook"])).unwrap();
        for command in page.split("usher ").skip(1) {
            let words: Vec<&str> = command.split(['`', '\n']).next().unwrap().split(' ').collect();
            let is_name = |word: &&&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
            let names: Vec<&str> = words.iter().take_while(is_name).copied().collect();
            if names.is_empty() {
                continue;
            }
            let output =
                std::process::Command::new(programs().join("usher")).args(&names).arg("--help").output().unwrap();
            assert!(output.status.success(), "{}: usher {}", rule.alert, words.join(" "));
            let help = String::from_utf8(output.stdout).unwrap();
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{}: usher {} has no {option}", rule.alert, names.join(" "));
            }
            checked.insert(names.join(" "));
        }
    }
    assert!(checked.len() >= 8, "{checked:?}");
}
