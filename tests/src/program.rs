//! The real programs as processes: started, observed, and killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::{eventually, private};

/// Maximum time for a program to start. Debug builds on a busy machine start slowly.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Returns the folder of the built programs. Builds them once per test run, so that no stale program is tested.
pub fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // This is `target/<profile>/deps/<test>` or `target/<profile>/<program>`; the programs are built with its profile.
        let this = std::env::current_exe().expect("this is a file");
        let folder = this.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
        let programs = folder.expect("target/<profile>").to_owned();
        let release = programs.ends_with("release").then_some("--release");
        // A test of the exporter needs programs that have it.
        let features = cfg!(feature = "otlp").then_some("--features=otlp");
        let built = std::process::Command::new(cargo)
            .args(["build", "--workspace", "--bins", "--quiet"])
            .args(release)
            .args(features)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the programs are built");
        programs
    })
}

/// A running program. Killed when dropped, and its output is then searched for personal data and secrets.
pub struct Program {
    name: String,
    child: Child,
    /// File with the output of both streams.
    output: PathBuf,
    /// Values that it may not put out.
    secrets: Vec<String>,
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // The file is gone if its folder was removed first.
        if let Ok(text) = std::fs::read_to_string(&self.output) {
            private::assert_kept(&self.name, &text, &self.secrets);
        }
    }
}

impl Program {
    /// Starts a program with exactly this environment. Its output goes to a file in `folder`.
    pub fn start(name: &str, arguments: &[&str], environment: &[(String, String)], folder: &Path) -> Self {
        let output = folder.join(format!("{}.log", crate::unique(name)));
        let file = File::create(&output).expect("a file for the output");
        let streams = [file.try_clone().expect("a second handle").into(), file.into()];
        Self::writing_to(streams, output, name, arguments, environment)
    }

    /// Starts a program with these streams as standard output and standard error. `output` is the file that
    /// is read back.
    pub fn writing_to(
        [out, err]: [Stdio; 2],
        output: PathBuf,
        name: &str,
        arguments: &[&str],
        environment: &[(String, String)],
    ) -> Self {
        let child = Command::new(programs().join(name))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, output, secrets: private::secrets(environment) }
    }

    /// Panics if a page that the program served repeats personal data or its secrets.
    pub fn assert_keeps_private(&self, page: &str, text: &str) {
        private::assert_kept(&format!("{page} of {}", self.name), text, &self.secrets);
    }

    /// Returns the output so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).expect("the output")
    }

    /// Waits for a line that contains `before` and returns the text after it up to white space, a quote or a slash.
    pub async fn says(&mut self, before: &str) -> String {
        let name = self.name.clone();
        let output = self.output.clone();
        let child = &mut self.child;
        eventually(&format!("{name} says {before:?}"), START_DEADLINE, || {
            let text = std::fs::read_to_string(&output).expect("the output");
            let ended = child.try_wait().expect("its state");
            assert!(ended.is_none(), "{name} ended with {ended:?}:\n{text}");
            let word = text.split_once(before).and_then(|(_, rest)| {
                let end = rest.find(['"', '/', '\n', ' '])?;
                Some(rest[..end].to_owned())
            });
            async move { word }
        })
        .await
    }

    /// Kills the process with SIGKILL (`kill -9`) and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal("INT");
    }

    /// Sends SIGSTOP: the process is suspended until it is resumed or killed.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// Sends SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Process id. `None` after the process has exited.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Returns the peak resident memory so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Returns the present resident memory, in bytes.
    pub fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> u64 {
        let pid = self.pid().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux tells");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("its memory");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("kilobytes");
        kilobytes * 1024
    }

    /// Returns the time that its living threads have run on a processor.
    pub fn processor_time(&self) -> Duration {
        let pid = self.pid().expect("it runs");
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("Linux tells");
        let of = |task: std::fs::DirEntry| -> Option<u64> {
            // A thread may have ended since.
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        Duration::from_nanos(tasks.flatten().filter_map(of).sum())
    }

    /// Returns the exit status, or `None` while the process runs.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its state")
    }

    fn signal(&self, signal: &str) {
        let Some(pid) = self.child.id() else { return };
        let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
        assert!(sent.expect("kill runs").success(), "{} can be signalled", self.name);
    }

    /// Waits for the process to exit. Panics after `deadline`.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let ended = self.ended_within(deadline).await;
        ended.unwrap_or_else(|| panic!("{} has not ended:\n{}", self.name, self.output()))
    }

    /// Waits for the process to exit. Returns `None` if it still runs after `deadline`.
    pub async fn ended_within(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let waited = tokio::time::timeout(deadline, self.child.wait()).await.ok()?;
        Some(waited.expect("its state"))
    }

    /// Panics if the process has exited.
    pub fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("its state");
        assert!(ended.is_none(), "{} ended with {ended:?}:\n{}", self.name, self.output());
    }
}
