//! The alert rules, judged by Prometheus' own tools: their syntax, and when each fires and when not.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use usher_tests::needs;

use super::files::{alert_rules, yaml};
use super::root;

const RULES: &str = "deploy/prometheus/alerts.yml";
const RULE_TESTS: &str = "deploy/prometheus/alerts_test.yml";

/// Runs a program. Returns true if it agreed, and what it printed.
fn judge(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).current_dir(root()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[needs(prometheus)]
#[test]
fn the_configuration_is_valid() {
    for (program, arguments) in [
        ("promtool", ["check", "config", "deploy/prometheus/prometheus.yml"].as_slice()),
        ("promtool", &["check", "rules", RULES]),
        ("amtool", &["check-config", "deploy/alertmanager/alertmanager.yml"]),
    ] {
        let (is_valid, output) = judge(program, arguments);
        assert!(is_valid, "{program} {arguments:?}: {output}");
    }
}

#[needs(prometheus)]
#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    let (agrees, output) = judge("promtool", &["test", "rules", RULE_TESTS]);
    assert!(agrees, "{output}");
}

/// A rule that fires at another time must not pass.
#[needs(prometheus)]
#[test]
fn wrong_rules_are_noticed() {
    let rules = std::fs::read_to_string(root().join(RULES)).unwrap();
    for (alert, right, wrong) in [
        ("UsherFlowLagging", "usher_dispatcher_lag_seconds) > 300", "usher_dispatcher_lag_seconds) > 3000"),
        ("UsherBreakerOpen", "usher_dispatcher_breaker_open) > 0", "usher_dispatcher_breaker_open) >= 0"),
        ("UsherDiskFilling", "usher_disk_free_bytes) < 5e8", "usher_disk_free_bytes) < 5e9"),
        ("UsherDiskFilling", "4 * 3600)) < 0", "4 * 60)) < 0"),
        ("UsherFlowPaused", "        for: 4h\n", "        for: 1m\n"),
        ("UsherFrontierStuck", "        keep_firing_for: 5m\n", "        keep_firing_for: 0s\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        assert!(rules.contains(right), "{right}");
        let mut tests = yaml(RULE_TESTS);
        let of_alert = |test: &serde_json::Value| test["name"].as_str().unwrap().starts_with(alert);
        tests["tests"].as_array_mut().unwrap().retain(of_alert);
        // JSON is YAML.
        let path = folder.path().join("alerts_test.yml");
        std::fs::write(&path, tests.to_string()).unwrap();
        for (text, expected) in [(rules.clone(), true), (rules.replace(right, wrong), false)] {
            std::fs::write(folder.path().join("alerts.yml"), text).unwrap();
            let (agrees, output) = judge("promtool", &["test", "rules", &path.display().to_string()]);
            assert_eq!(agrees, expected, "{alert} with {wrong}: {output}");
        }
    }
}

#[test]
fn each_alert_is_tested_in_both_states() {
    let tests = yaml(RULE_TESTS);
    let mut seen = BTreeSet::new();
    for test in tests["tests"].as_array().unwrap() {
        for expected in test["promql_expr_test"].as_array().into_iter().flatten() {
            let expression = expected["expr"].as_str().unwrap();
            let name = expression.split("alertname=\"").nth(1).unwrap().split('"').next().unwrap();
            let fires = expected["exp_samples"][0]["value"].as_f64().unwrap() > 0.0;
            seen.insert((name.to_owned(), fires));
        }
    }
    let wanted: BTreeSet<(String, bool)> =
        alert_rules().into_iter().flat_map(|rule| [(rule.alert.clone(), true), (rule.alert, false)]).collect();
    assert_eq!(seen, wanted);
    assert!(Path::new(RULE_TESTS).parent() == Path::new(RULES).parent(), "the tests name the rules beside them");
}
