//! The ingest: connections that send signed webhooks without a pause.

mod arms;
mod check;
pub(crate) mod kafka;
mod limits;
pub(crate) mod load;
pub(crate) mod requests;
mod targets;

use std::time::Duration;

use anyhow::Context as _;

use self::arms::IngestArm;
use crate::peers;
use crate::report::{Sample, TargetRow};
use crate::services::BenchServices;
use crate::suite::Rounds;

/// Options of the suite.
#[derive(Debug, clap::Args)]
pub(crate) struct IngestOptions {
    /// Connections of the load; may be given several times.
    #[arg(long, default_values_t = [64, 512])]
    connections: Vec<usize>,
    /// Time of load for each arm, in seconds.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Number of users whose events they are.
    #[arg(long, default_value_t = 5_000)]
    users: usize,
}

/// One load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IngestCase {
    connections: usize,
    time: Duration,
    users: usize,
}

impl IngestCase {
    fn name(&self) -> String {
        case_name(self.connections)
    }
}

fn case_name(connections: usize) -> String {
    format!("ingest, {connections} connections")
}

/// Runs all arms under all loads, round by round.
///
/// # Errors
///
/// A service is missing, a request is not acknowledged, or an acknowledged one is not in the log.
pub(crate) async fn measure(
    services: &BenchServices,
    options: &IngestOptions,
    rounds: &Rounds,
) -> anyhow::Result<Vec<Sample>> {
    let wanted: Vec<IngestArm> = IngestArm::ALL.into_iter().filter(|arm| rounds.wants(arm.name())).collect();
    if wanted.contains(&IngestArm::Node) {
        peers::install_node("node").await?;
    }
    let time = Duration::from_secs(if rounds.quick { 1 } else { options.seconds });
    let mut samples = Vec::new();
    for round in 1..=rounds.count {
        for connections in options.connections.iter().copied() {
            let case = IngestCase { connections, time, users: options.users };
            for arm in &wanted {
                samples.push(arm.run(services, &case, round).await.context(arm.name())?);
            }
        }
    }
    Ok(samples)
}

/// Returns the targets that these samples tell of.
pub(crate) fn targets(samples: &[Sample]) -> Vec<TargetRow> {
    targets::rows(samples)
}
