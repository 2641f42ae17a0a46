//! Servers that are measured beside Usher and run as processes of their own, so that their CPU time and memory are theirs:
//! modes of this program, and programs of others.

pub(crate) mod hello;
pub(crate) mod naive;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::floor::{self, FloorArguments};

/// Time for a process to say that it is ready.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A mode in which this program is measured itself.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PartMode {
    /// A server that reads each body and acknowledges it.
    Hello,
    /// An ingest as it is usually written.
    Naive(naive::NaiveArguments),
    /// A dispatcher that does as little as possible.
    Floor(FloorArguments),
}

impl PartMode {
    /// Runs the mode until the process is killed.
    ///
    /// # Errors
    ///
    /// It cannot start.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Hello => hello::run(),
            Self::Naive(arguments) => naive::run(arguments),
            Self::Floor(arguments) => floor::run(arguments),
        }
    }
}

/// A running process. Killed when dropped.
pub(crate) struct PeerProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pid: u32,
}

impl PeerProcess {
    /// Starts this program in a mode.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(crate) fn of_bench(arguments: &[&str]) -> anyhow::Result<Self> {
        // The program that runs, even if its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg("part").args(arguments);
        Self::start(command)
    }

    /// Starts a program.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let pid = child.id().context("it has ended")?;
        Ok(Self { child, lines, pid })
    }

    /// Id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for a line that begins with a text, and returns the rest of the line.
    ///
    /// # Errors
    ///
    /// The process ends before, or does not write such a line in time.
    pub(crate) async fn says(&mut self, text: &str) -> anyhow::Result<String> {
        let line = async {
            while let Some(line) = self.lines.next_line().await? {
                if let Some(rest) = line.strip_prefix(text) {
                    return Ok(rest.to_owned());
                }
            }
            anyhow::bail!("it has ended without {text:?}")
        };
        tokio::time::timeout(STARTS_WITHIN, line).await.with_context(|| format!("no {text:?}"))?
    }

    /// Waits until it listens, and returns the address.
    ///
    /// # Errors
    ///
    /// It ends before.
    pub(crate) async fn address(&mut self) -> anyhow::Result<SocketAddr> {
        Ok(self.says(LISTENING).await?.parse()?)
    }

    /// Kills the process and waits until it is gone.
    ///
    /// # Errors
    ///
    /// It cannot be killed.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// Beginning of the line with which a server says where it listens.
const LISTENING: &str = "listening on ";

/// Serves on a free port, whose address it prints.
async fn serve(routes: axum::Router) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?);
    Ok(axum::serve(listener, routes).await?)
}

#[expect(clippy::print_stdout, reason = "the process that measures reads it")]
fn announce(address: SocketAddr) {
    println!("{LISTENING}{address}");
}
