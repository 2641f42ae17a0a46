//! The targets of the whole way.

use super::pair::PairKind;
use super::phases::{HALF, HOT, SINGLE, STEADY};
use crate::report::{Bound, Sample, TargetRow, Values};

/// Returns the rows of these samples.
pub(super) fn rows(samples: &[Sample]) -> Vec<TargetRow> {
    let mut rows = Vec::new();
    let mut row = |measure: String, target: f64, values: Vec<f64>| {
        rows.push(TargetRow { measure, target: Bound::AtMost(target), values, command: "just bench way".to_owned() });
    };
    for (kind, p50, p99) in [(PairKind::Services, 6.0, 20.0), (PairKind::Files, 4.0, 12.0)] {
        let arm = kind.name();
        let single = Values::of(samples, SINGLE);
        let median = |sample: &Sample| sample.latency.map_or(f64::NAN, |latency| latency.p50_ms);
        row(format!("one event, idle, p50 in ms: {arm}"), p50, single.each(arm, median));
        row(format!("one event, idle, p99 in ms: {arm}"), p99, single.each(arm, Sample::p99));
    }
    let arm = PairKind::Services.name();
    let cpu = |sample: &Sample| sample.cpu_of("dispatcher") + sample.cpu_of("Postgres");
    let steady = Values::of(samples, STEADY).each(arm, cpu);
    row(format!("60 events/s, three flows, us of CPU a run: {arm}"), 2_500.0, steady);
    for kind in PairKind::ALL {
        let arm = kind.name();
        let uniform = Values::of(samples, HALF).each(arm, Sample::p99);
        let hot = Values::of(samples, HOT).each(arm, Sample::p99);
        let ratio = hot.iter().zip(&uniform).map(|(hot, uniform)| hot / uniform).collect();
        row(format!("one user with 30 %: p99 of the others / uniform: {arm}"), 1.3, ratio);
    }
    rows
}
