//! The report: medians, spread and ratios of one run, and the raw figures.

mod spread;
mod targets;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use self::spread::Spread;
pub(crate) use self::targets::{Bound, TargetRow, Values, print_targets};

/// Latencies of one arm in one round, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct LatencySummary {
    /// Median.
    pub(crate) p50_ms: f64,
    /// The 99th percentile.
    pub(crate) p99_ms: f64,
    /// The largest one.
    pub(crate) max_ms: f64,
}

impl LatencySummary {
    /// Returns the percentiles of some latencies, given in microseconds. `None` if there are none.
    pub(crate) fn of(mut micros: Vec<u32>) -> Option<Self> {
        micros.sort_unstable();
        let last = micros.len().checked_sub(1)?;
        let at = |share: f64| micros.get((last as f64 * share) as usize).map_or(f64::NAN, |&it| f64::from(it) / 1e3);
        Some(Self { p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) })
    }
}

/// One arm in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// The work: arms of the same case are compared.
    pub(crate) case: String,
    /// The arm's name.
    pub(crate) arm: &'static str,
    /// The round, from 1.
    pub(crate) round: usize,
    /// Number of events processed.
    pub(crate) events: usize,
    /// Number of requests that repeated an effect.
    pub(crate) repeated: usize,
    /// Time from the start of reading to the last effect, in seconds; of a limit, from the first event to the last.
    pub(crate) seconds: f64,
    /// CPU seconds by process.
    pub(crate) cpu_seconds: BTreeMap<String, f64>,
    /// CPU seconds of processes that serve the arm and are not counted as its own.
    pub(crate) beside_seconds: BTreeMap<String, f64>,
    /// Peak of the resident memory of the arm's own processes, in bytes; 0 if it has none.
    pub(crate) peak_memory: u64,
    /// Latencies, if the arm has any.
    pub(crate) latency: Option<LatencySummary>,
}

impl Sample {
    /// Events a second.
    pub(crate) fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    /// Microseconds of CPU for each event, in all of the arm's own processes.
    pub(crate) fn cpu(&self) -> f64 {
        self.cpu_seconds.values().sum::<f64>() * 1e6 / self.events as f64
    }

    /// Microseconds of CPU for each event in one group of processes.
    pub(crate) fn cpu_of(&self, processes: &str) -> f64 {
        let own = self.cpu_seconds.get(processes).or_else(|| self.beside_seconds.get(processes));
        own.copied().unwrap_or(f64::NAN) * 1e6 / self.events as f64
    }

    /// Peak of the resident memory, in bytes.
    pub(crate) fn memory(&self) -> f64 {
        self.peak_memory as f64
    }

    /// The 99th percentile of the latencies, in milliseconds.
    pub(crate) fn p99(&self) -> f64 {
        self.latency.map_or(f64::NAN, |latency| latency.p99_ms)
    }
}

/// The raw figures of a suite.
#[derive(Serialize)]
struct Figures<'a> {
    samples: &'a [Sample],
    targets: &'a [TargetRow],
}

/// Writes the raw figures.
///
/// # Errors
///
/// The file cannot be written.
pub(crate) fn write_json(path: &Path, samples: &[Sample], targets: &[TargetRow]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(path, serde_json::to_vec_pretty(&Figures { samples, targets })?)?)
}

/// Returns different values in the order of their first occurrence.
fn distinct<'a, T: PartialEq + Copy>(values: impl Iterator<Item = T> + 'a) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

/// Prints a table for each case: one line for each arm, with ratios to the first one.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn print(samples: &[Sample]) {
    for case in distinct(samples.iter().map(|sample| sample.case.as_str())) {
        let of: Vec<&Sample> = samples.iter().filter(|sample| sample.case == case).collect();
        println!("\n{case}\n");
        println!(
            "| arm | events/s (spread) | ratio | CPU us/event, by process | ratio | beside it | p50, p99 ms | peak MB | \
             repeated |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        let mut first = None;
        for arm in distinct(of.iter().map(|sample| sample.arm)) {
            let of: Vec<&Sample> = of.iter().copied().filter(|sample| sample.arm == arm).collect();
            println!("{}", line(arm, &of, &mut first));
        }
    }
}

/// The rate and the CPU time to which others are compared.
struct Reference {
    rate: f64,
    cpu: f64,
}

fn line(arm: &str, of: &[&Sample], first: &mut Option<Reference>) -> String {
    let over = |value: &dyn Fn(&Sample) -> f64| Spread::of(of.iter().map(|sample| value(sample)));
    let rate = over(&Sample::rate);
    let cpu = over(&Sample::cpu);
    let reference = first.get_or_insert(Reference { rate: rate.median, cpu: cpu.median });
    let parts = |of_sample: fn(&Sample) -> &BTreeMap<String, f64>| {
        let names = of.first().map(|sample| of_sample(sample).keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        let part = |name: &String| format!("{name} {:.0}", over(&|sample| sample.cpu_of(name)).median);
        names.iter().map(part).collect::<Vec<_>>().join(", ")
    };
    let latency = of.iter().any(|sample| sample.latency.is_some()).then(|| {
        let p50 = over(&|sample| sample.latency.map_or(f64::NAN, |latency| latency.p50_ms)).median;
        format!("{p50:.1}, {:.1}", over(&Sample::p99).median)
    });
    format!(
        "| {arm} | {:.0} ({:.0}..{:.0}) | {:.2} | {:.1}: {} | {:.2} | {} | {} | {:.0} | {} |",
        rate.median,
        rate.min,
        rate.max,
        rate.median / reference.rate,
        cpu.median,
        parts(|sample| &sample.cpu_seconds),
        cpu.median / reference.cpu,
        parts(|sample| &sample.beside_seconds),
        latency.unwrap_or_default(),
        over(&|sample| sample.memory() / 1e6).median,
        of.iter().map(|sample| sample.repeated).sum::<usize>(),
    )
}
