//! Meters of CPU time and memory, read from `/proc`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;

/// Ticks of the kernel's clock in a second. Linux has had this value on every platform for twenty years.
const TICKS: f64 = 100.0;

/// Processes whose CPU time is read together.
#[derive(Debug, Clone)]
pub(crate) enum Processes {
    /// One process, with the children that it has waited for.
    One(u32),
    /// A process and all of its living children, as Postgres has one for each connection.
    Family(u32),
}

/// Fields of `/proc/<pid>/stat` that are counted.
struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(folder: &Path) -> Option<Stat> {
    let text = std::fs::read_to_string(folder.join("stat")).ok()?;
    // The name in parentheses may contain anything, so the fields are counted from its end.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

impl Processes {
    /// Returns the seconds that their living threads have run, to the nanosecond: for processes that do little, and whose
    /// threads do not end.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub(crate) fn run_seconds(&self) -> anyhow::Result<f64> {
        let (Self::One(pid) | Self::Family(pid)) = self;
        let mut nanos = run_nanos(*pid).context("the process is gone")?;
        if let Self::Family(parent) = self {
            for entry in std::fs::read_dir("/proc")?.flatten() {
                let child = entry.file_name().to_str().and_then(|name| name.parse().ok());
                let is_child = stat(&entry.path()).is_some_and(|child| child.parent == *parent);
                nanos += child.filter(|_| is_child).and_then(run_nanos).unwrap_or_default();
            }
        }
        Ok(nanos as f64 / 1e9)
    }

    /// Returns the CPU seconds that they have used since they began.
    ///
    /// # Errors
    ///
    /// The process is gone, or `/proc` cannot be read.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let own = |pid: u32| stat(&Path::new("/proc").join(pid.to_string())).context("the process is gone");
        let ticks = match self {
            Self::One(pid) => own(*pid)?.ticks,
            Self::Family(pid) => {
                let mut ticks = own(*pid)?.ticks;
                for entry in std::fs::read_dir("/proc")?.flatten() {
                    ticks += stat(&entry.path()).filter(|child| child.parent == *pid).map_or(0, |child| child.ticks);
                }
                ticks
            }
        };
        Ok(ticks as f64 / TICKS)
    }
}

/// Returns the nanoseconds that the living threads of a process have run (the first field of `schedstat`, proc(5)).
fn run_nanos(pid: u32) -> Option<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let of = |task: std::fs::DirEntry| -> Option<u64> {
        // A thread may have ended since.
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    Some(tasks.flatten().filter_map(of).sum())
}

/// Returns the peak of the resident memory of a process, in bytes.
///
/// # Errors
///
/// The process is gone.
pub(crate) fn peak_memory(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).context("no peak of memory")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib * 1024)
}

/// CPU time of several groups of processes, by name, since the meter was started.
pub(crate) struct Meter(Vec<(&'static str, Processes, f64)>);

impl Meter {
    /// Starts to count.
    ///
    /// # Errors
    ///
    /// A process is gone.
    pub(crate) fn start(of: Vec<(&'static str, Processes)>) -> anyhow::Result<Self> {
        let begun = of.into_iter().map(|(name, processes)| {
            let before = processes.cpu_seconds()?;
            Ok((name, processes, before))
        });
        Ok(Self(begun.collect::<anyhow::Result<_>>()?))
    }

    /// Returns the CPU seconds of each group since the start.
    ///
    /// # Errors
    ///
    /// A process is gone.
    pub(crate) fn read(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        self.0
            .iter()
            .map(|(name, processes, before)| Ok(((*name).to_owned(), processes.cpu_seconds()? - before)))
            .collect()
    }
}
