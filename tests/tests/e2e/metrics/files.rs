//! Reads the dashboards and the alert rules.

use std::collections::BTreeMap;

use serde_json::Value;

use super::root;

/// An expression, and the place where it stands.
pub(super) struct PlacedQuery {
    pub(super) place: String,
    pub(super) expression: String,
}

/// An alert rule.
pub(super) struct AlertRule {
    pub(super) alert: String,
    pub(super) expr: String,
    pub(super) keep_firing_for: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

impl AlertRule {
    fn read(rule: &Value) -> Self {
        let text = |name: &str| rule[name].as_str().map(str::to_owned);
        let texts = |name: &str| {
            let entries = rule[name].as_object().into_iter().flatten();
            entries.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
        };
        Self {
            alert: text("alert").unwrap(),
            expr: text("expr").unwrap(),
            keep_firing_for: text("keep_firing_for"),
            labels: texts("labels"),
            annotations: texts("annotations"),
        }
    }
}

/// Reads a YAML file of the repository.
pub(super) fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

/// Returns the alert rules.
pub(super) fn alert_rules() -> Vec<AlertRule> {
    let rules = yaml("deploy/prometheus/alerts.yml");
    let groups = rules["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).map(AlertRule::read).collect()
}

/// Returns the dashboards with the names of their files.
pub(super) fn dashboards() -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(root().join("deploy/grafana/dashboards")).unwrap();
    let mut found: Vec<(String, Value)> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.file_name().unwrap().display().to_string(), serde_json::from_str(&text).unwrap())
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Returns the queries of all panels.
pub(super) fn dashboard_queries() -> Vec<PlacedQuery> {
    let mut queries = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let place = format!("{file}, {title:?}, {}", target["refId"].as_str().unwrap());
                queries.push(PlacedQuery { place, expression: target["expr"].as_str().unwrap().to_owned() });
            }
        }
    }
    queries
}

/// Returns the expressions of all alerts.
pub(super) fn alert_queries() -> Vec<PlacedQuery> {
    let query = |rule: AlertRule| PlacedQuery { place: rule.alert, expression: rule.expr };
    alert_rules().into_iter().map(query).collect()
}
