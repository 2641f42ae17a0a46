//! The report: medians, spread and ratios of one run, and the raw figures.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

/// One arm in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
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
    /// Peak of the resident memory of the arm's own processes, in bytes; 0 if it has none.
    pub(crate) peak_memory: u64,
}

impl Sample {
    fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    /// Microseconds of CPU for each event, in all processes.
    fn cpu(&self) -> f64 {
        self.cpu_seconds.values().sum::<f64>() * 1e6 / self.events as f64
    }
}

/// Writes the raw figures.
///
/// # Errors
///
/// The file cannot be written.
pub(crate) fn write_json(path: &Path, samples: &[Sample]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(path, serde_json::to_vec_pretty(samples)?)?)
}

/// Median, smallest and largest of some values.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self { median: f64::midpoint(at(last / 2), at(values.len() / 2)), min: at(0), max: at(last) }
    }
}

/// Prints a table: one line for each arm, with ratios to the first one.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn print(samples: &[Sample]) {
    let mut arms: Vec<&'static str> = Vec::new();
    for sample in samples {
        if !arms.contains(&sample.arm) {
            arms.push(sample.arm);
        }
    }
    println!("| arm | events/s (spread) | ratio | CPU us/event, by process | ratio | peak MB | repeated |");
    println!("|---|---|---|---|---|---|---|");
    let mut first: Option<(f64, f64)> = None;
    for arm in arms {
        let of: Vec<&Sample> = samples.iter().filter(|sample| sample.arm == arm).collect();
        let rate = Spread::of(of.iter().map(|sample| sample.rate()));
        let cpu = Spread::of(of.iter().map(|sample| sample.cpu()));
        let (first_rate, first_cpu) = *first.get_or_insert((rate.median, cpu.median));
        let names = of.first().map(|sample| sample.cpu_seconds.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        let parts: Vec<String> = names
            .iter()
            .map(|name| {
                let each =
                    of.iter().map(|s| s.cpu_seconds.get(name).copied().unwrap_or_default() * 1e6 / s.events as f64);
                format!("{name} {:.0}", Spread::of(each).median)
            })
            .collect();
        let memory = Spread::of(of.iter().map(|sample| sample.peak_memory as f64 / 1e6)).median;
        let repeated: usize = of.iter().map(|sample| sample.repeated).sum();
        println!(
            "| {arm} | {:.0} ({:.0}..{:.0}) | {:.2} | {:.0}: {} | {:.2} | {memory:.0} | {repeated} |",
            rate.median,
            rate.min,
            rate.max,
            rate.median / first_rate,
            cpu.median,
            parts.join(", "),
            cpu.median / first_cpu,
        );
    }
}
