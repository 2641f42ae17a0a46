//! A peer: Confluent's Parallel Consumer in KEY mode. It keeps order by key and retries in memory; it keeps nothing of what
//! it has done but offsets, so that what was in flight when it was killed is done again.

use std::process::Stdio;
use std::time::Instant;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use usher_tests::unique;

use super::{STARTS_WITHIN, Scenario, TEXT, sample};
use crate::meter::{Meter, Processes, peak_memory};
use crate::peers;
use crate::report::Sample;
use crate::services::BenchServices;
use crate::sink::Sink;

/// The arms: their names, and the calls in flight.
pub(super) const ARMS: [(&str, usize); 2] =
    [("Parallel Consumer, KEY, 100 at once", 100), ("Parallel Consumer, KEY, 1000 at once", 1_000)];

/// The program in Java, with the jars that it needs.
pub(super) struct ParallelConsumer {
    classpath: String,
}

impl ParallelConsumer {
    /// Fetches the jars if they are missing, and compiles the program.
    ///
    /// # Errors
    ///
    /// Maven or the compiler fails.
    pub(super) async fn build() -> anyhow::Result<Self> {
        let sources = peers::folder("parallel-consumer");
        let folder = peers::target().join("parallel-consumer");
        let libs = folder.join("libs");
        if !libs.is_dir() {
            let mut maven = Command::new("mvn");
            maven.args(["-B", "-q", "-ntp", "-f"]).arg(sources.join("pom.xml"));
            maven.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
            // Moved when it is whole, because half of the jars would pass for all of them.
            let part = folder.join("libs.part");
            maven.arg(format!("-DoutputDirectory={}", part.display()));
            peers::succeed(&mut maven).await?;
            std::fs::rename(part, &libs)?;
        }
        let classpath = format!("{}:{}/*", folder.display(), libs.display());
        let mut compiler = Command::new("javac");
        compiler.arg("-cp").arg(&classpath).arg("-d").arg(&folder).arg(sources.join("src/main/java/PostEach.java"));
        peers::succeed(&mut compiler).await?;
        Ok(Self { classpath })
    }

    /// Runs it once over a topic, as a group of its own.
    pub(super) async fn run(
        &self,
        services: &BenchServices,
        topic: &str,
        scenario: &Scenario,
        sink: &Sink,
        round: usize,
        (arm, at_once): (&'static str, usize),
    ) -> anyhow::Result<Sample> {
        sink.reset();
        let mut child = Command::new("java")
            .args(["-cp", &self.classpath, "PostEach", &services.kafka, topic, &unique("peer"), &sink.url()])
            .args([&at_once.to_string(), TEXT])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().context("it has ended")?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let assigned = async {
            while let Some(line) = lines.next_line().await? {
                if line == "partitions assigned" {
                    return Ok(());
                }
            }
            anyhow::bail!("it has ended")
        };
        tokio::time::timeout(STARTS_WITHIN, assigned).await??;
        // As for the others, what the start costs does not count.
        let meter = Meter::start(vec![("peer", Processes::One(pid))])?;
        let begun = Instant::now();
        sink.reached(scenario.events, scenario.deadline()).await?;
        let sample = sample(arm, round, scenario, sink, begun, &meter, peak_memory(pid)?)?;
        child.kill().await?;
        Ok(sample)
    }
}
