//! The space left on the disks that hold a program's own files: an embedded log, a store in a file. A full disk refuses events,
//! so it has to be known before.

use std::path::{Path, PathBuf};

use prometheus::{IntGaugeVec, Registry};
use rustix::fs::statvfs;

use crate::Scrapes;
use crate::metric::{LabelSpec, LabelValues, MetricSpec, ReplicaAggregation};

/// The files that a program of Usher may have.
const FILES: [&str; 2] = ["log", "store"];

const FILE: LabelSpec = LabelSpec { name: "file", values: LabelValues::Words(|| FILES.to_vec()) };

crate::metrics! {
    /// The metrics of programs with files of their own.
    pub const METRICS;

    struct DiskMetrics {
        free: IntGaugeVec = MetricSpec::gauge(
            "usher_disk_free_bytes",
            "Space left for Usher on the disk of its log or store; absent if that is no file of this process.",
        )
        .by(&[FILE])
        .over_replicas(ReplicaAggregation::Min),
    }
}

/// A file of the program: `log` or `store`, and where it is or will be.
#[derive(Debug, Clone)]
pub struct OwnFile {
    /// The value of the label `file`.
    pub name: &'static str,
    /// The path of the file. Its folder exists.
    pub path: PathBuf,
}

/// Keeps the metrics of the disks up to date.
pub struct DiskWatch {
    files: Vec<OwnFile>,
    metrics: DiskMetrics,
}

impl DiskWatch {
    /// Registers the metrics and reads them for the first time.
    ///
    /// # Errors
    ///
    /// The registry already has a metric of this name.
    pub fn new(files: Vec<OwnFile>, registry: &Registry) -> Result<Self, prometheus::Error> {
        let watch = Self { files, metrics: DiskMetrics::register(registry)? };
        watch.look();
        Ok(watch)
    }

    /// Brings the metrics up to date whenever they are read. Ends when nothing can read them any more.
    pub async fn run(self, scrapes: Scrapes) {
        let mut reads = scrapes.subscribe();
        while let Some(_read) = reads.next().await {
            self.look();
        }
    }

    fn look(&self) {
        for file in &self.files {
            match free(&file.path) {
                Ok(bytes) => {
                    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                    self.metrics.free.with_label_values(&[file.name]).set(bytes);
                }
                Err(error) => {
                    // An old value would hide that the disk fills up.
                    let _ = self.metrics.free.remove_label_values(&[file.name]);
                    tracing::debug!(file = file.name, %error, "reading the space of the disk failed; retrying");
                }
            }
        }
    }
}

/// Returns the number of bytes that may still be written beside `path`.
fn free(path: &Path) -> std::io::Result<u64> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = statvfs(folder)?;
    // What is reserved for the superuser does not count.
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_cannot_be_read_has_no_value() {
        let registry = Registry::new();
        let there = OwnFile { name: "log", path: std::env::temp_dir().join("log.db") };
        let gone = OwnFile { name: "store", path: "/nowhere/at/all/store.db".into() };
        let watch = DiskWatch::new(vec![there, gone], &registry).unwrap();
        watch.look();
        let families = registry.gather();
        let series = families[0].get_metric();
        assert_eq!(series.len(), 1, "{families:?}");
        assert_eq!(series[0].get_label()[0].value(), "log");
        assert!(series[0].get_gauge().get_value() > 0.0);
    }
}
