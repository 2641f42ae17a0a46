//! A Postgres server for one test, for operations that the shared server must not suffer. Postgres refuses to run as
//! root, so root runs it as the user `postgres`, which Debian's package creates.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::free_port;

/// A server. Stopped and removed when dropped.
pub struct Postgres {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
}

/// Shutdown mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// Ends sessions and writes all data.
    Fast,
    /// Stops as in a crash: the next start has to recover.
    Immediate,
}

/// Returns the folder of the server's programs. Debian keeps them outside `PATH`, in one directory per version; the
/// newest is used.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let version = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path())).max_by_key(version)?;
    Some(newest.join("bin")).filter(|programs| programs.join("initdb").exists())
}

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

impl Postgres {
    /// Creates a cluster and starts it. Panics if Postgres is not installed.
    pub fn start() -> Self {
        let programs = programs().expect("the programs of Postgres are installed (Debian: postgresql)");
        // Not below the test's folder, whose parents may be inaccessible to the user `postgres`.
        let folder = tempfile::Builder::new().prefix("usher-postgres.").tempdir().expect("a folder");
        if is_root() {
            let given = Command::new("chown").arg("postgres:").arg(folder.path()).status().expect("chown runs");
            assert!(given.success(), "the folder is given to postgres");
        }
        let postgres = Self { programs, folder, port: free_port() };
        postgres.run("initdb", &["-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        postgres.up();
        postgres
    }

    /// URL of the `postgres` database, which always exists.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Port of the server on the loopback interface.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stops the server and starts it again on the same data.
    pub fn restart(&self, down: Down) {
        self.down(down);
        self.up();
    }

    fn up(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 \
             -c shared_preload_libraries=pg_stat_statements",
            self.port
        );
        let log = self.folder.path().join("log");
        self.run("pg_ctl", &["-l", &log.display().to_string(), "-w", "-t", "60", "start", "-o", &options]);
    }

    fn down(&self, down: Down) {
        let mode = match down {
            Down::Fast => "fast",
            Down::Immediate => "immediate",
        };
        self.run("pg_ctl", &["-m", mode, "-w", "-t", "60", "stop"]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let done = self.command(program).args(arguments).status().expect("it runs");
        let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        assert!(done.success(), "{program} {arguments:?} failed:\n{}", log());
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // No pipes: the server would keep them open while it runs.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.arg("-D").arg(self.folder.path().join("cluster")).current_dir(Path::new("/"));
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The data is discarded, and a server that is already down is no error.
        let _ = self.command("pg_ctl").args(["-m", "immediate", "-w", "-t", "20", "stop"]).status();
    }
}
