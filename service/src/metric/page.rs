//! The page about all metrics, made from their descriptions.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{LabelValues, MetricKind, MetricSpec};

const INTRODUCTION: &str = "# Metrics

This page is made from the catalogue in the code: a test fails if it differs, and
`USHER_WRITE_DOCS=1 cargo test --test e2e -- metrics::page` writes it again. All programs serve their metrics at `/metrics` of
the admin address; `usher up` serves those of ingest and dispatcher together.

- Counters begin at 0 with their process. All series of a flow, an account and a source exist from the start.
- *Replicas* is the aggregation that gives the value of several replicas. `sum`: each replica reports its own part. `max`: each
  reports the same, such as a count of the store's rows, or the highest value is the one that matters. `min`: the lowest is.
- A histogram has the series `_bucket`, `_sum` and `_count`.
- Runs in the store and the lag in seconds are determined when the metrics are read, the counts at most every five seconds and
  for at most a twentieth of the time. A process whose metrics nobody reads spends nothing on them.
- No label holds a user, an event, an address or a host.
";

/// Returns the page in Markdown. `parts` are the catalogues with their headings.
pub fn metrics_page(parts: &[(&str, &[MetricSpec])]) -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut labels: BTreeMap<&str, BTreeMap<String, Vec<&str>>> = BTreeMap::new();
    for (heading, catalogue) in parts {
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## {heading}\n\n| metric | kind | unit | labels | replicas | meaning |\n|---|---|---|---|---|---|\n"
        );
        for spec in *catalogue {
            let kind = match spec.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram(_) => "histogram",
            };
            let names: Vec<String> = spec.labels.iter().map(|label| format!("`{}`", label.name)).collect();
            let (name, unit, help) = (spec.name, spec.unit(), spec.help);
            let operator = spec.over_replicas.operator();
            let _ = writeln!(page, "| `{name}` | {kind} | {unit} | {} | {operator} | {help} |", names.join(", "));
            for label in spec.labels {
                let values = match label.values {
                    LabelValues::Configured(what) => what.to_owned(),
                    LabelValues::Words(words) => {
                        words().iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
                    }
                };
                labels.entry(label.name).or_default().entry(values).or_default().push(name);
            }
        }
    }
    page.push_str("\n## Values of labels\n\n| label | of | values |\n|---|---|---|\n");
    for (label, sets) in labels {
        let is_only = sets.len() == 1;
        for (values, of) in sets {
            let of = if is_only {
                "all".to_owned()
            } else {
                of.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            };
            let _ = writeln!(page, "| `{label}` | {of} | {values} |");
        }
    }
    page
}
