//! All built-in flows at once, beside one of them: the destinations are the lab's doubles, in this process.

use std::time::Instant;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usher_flows::FlowSource;
use usher_lab::{Lab, LabHandle};
use usher_tests::database::OwnDatabase;
use usher_tests::program::Program;
use usher_tests::unique;

use super::usher::runs_done;
use super::{DispatchRound, STARTS_WITHIN};
use crate::meter::{Meter, Processes, peak_memory};
use crate::programs;
use crate::report::Sample;

/// Arm with one flow, which welcomes new users.
pub(super) const ONE: &str = "one built-in flow: email";
/// Arm with all of them.
pub(super) const ALL: &str = "all eight built-in flows";

/// Flows that do something for a new user, and the effects of each.
const FOR_NEW_USERS: [(&str, usize); 6] =
    [("email", 1), ("trial", 2), ("db-sync", 1), ("newsletter", 1), ("search", 1), ("notify", 1)];
/// The flow of [`ONE`].
const EMAIL: &str = "email";

/// Entries that the lab keeps for each event: it forgets customers, too, if it keeps fewer than there are.
const KEPT_PER_EVENT: usize = 8;

/// Returns a flow's text with the option to read from the beginning.
fn from_beginning(toml: &str) -> String {
    let is_from = |line: &&str| !line.trim_start().starts_with("from ");
    let lines: Vec<&str> = toml.lines().filter(is_from).collect();
    format!("from = \"beginning\"\n{}\n", lines.join("\n"))
}

/// Runs one arm once, with a database of its own and under new names of flows.
pub(super) async fn run(round: &DispatchRound<'_>, arm: &'static str, prefix: &str) -> anyhow::Result<Sample> {
    let stop = CancellationToken::new();
    let keep = KEPT_PER_EVENT * round.scenario.events;
    let lab = Lab::start_with(TcpListener::bind("127.0.0.1:0").await?, None, keep, stop.clone())?;
    let database = OwnDatabase::make(&round.services.postgres).await;
    let sample = with_lab(round, arm, prefix, &lab, &database.url()).await;
    stop.cancel();
    database.remove().await;
    sample
}

async fn with_lab(
    round: &DispatchRound<'_>,
    arm: &'static str,
    prefix: &str,
    lab: &LabHandle,
    store: &str,
) -> anyhow::Result<Sample> {
    let DispatchRound { services, scenario, .. } = *round;
    let folder = TempDir::new()?;
    let sources: Vec<FlowSource> =
        usher_flows::builtin().into_iter().filter(|source| arm == ALL || source.name == EMAIL).collect();
    // A group of its own for each run: the names of flows are those of groups.
    let suffix = unique("x");
    let flows: Vec<(String, String)> =
        sources.iter().map(|source| (format!("{}-{suffix}", source.name), from_beginning(&source.toml))).collect();
    let texts: Vec<(&str, &str)> = flows.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let into = programs::write_flows(folder.path(), &texts)?;
    let templates = std::path::Path::new(&into).join("templates");
    std::fs::create_dir_all(&templates)?;
    for (name, text) in sources.iter().flat_map(|source| &source.templates) {
        std::fs::write(templates.join(name), text)?;
    }
    let mut settings = programs::settings(&into);
    let more = [
        ("USHER_LOG", format!("kafka://{}", services.kafka)),
        ("USHER_STORE", store.to_owned()),
        ("USHER_TOPIC_PREFIX", prefix.to_owned()),
        ("USHER_FLOW", texts.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",")),
        ("USHER_FROM", "Acme <hello@acme.test>".to_owned()),
        ("RESEND_API_KEY", "re_lab".to_owned()),
        ("RESEND_BASE_URL", lab.base_url("resend")?),
        ("STRIPE_SECRET_KEY", "sk_test_lab".to_owned()),
        ("STRIPE_PRICE_ID", "price_lab".to_owned()),
        ("STRIPE_BASE_URL", lab.base_url("stripe")?),
    ];
    programs::add(&mut settings, more);
    let mut of_lab = usher_lab::settings(&lab.url());
    // Without the key, the flow `trial` has the same effects as when the earlier figures were measured.
    of_lab.retain(|(name, _)| *name != "CLERK_SECRET_KEY");
    settings.retain(|(name, _)| of_lab.iter().all(|(other, _)| other != name));
    settings.extend(of_lab.into_iter().map(|(name, value)| (name.to_owned(), value)));

    let working: Vec<usize> =
        FOR_NEW_USERS.iter().filter(|(name, _)| arm == ALL || *name == EMAIL).map(|(_, effects)| *effects).collect();
    let runs = scenario.events * working.len();
    let effects = scenario.events * working.iter().sum::<usize>();
    let mut program = Program::start("dispatcher", &[], &settings, folder.path());
    let admin = program.says("\"admin\":\"").await;
    let pid = program.pid().context("it has ended")?;
    let processes = vec![("dispatcher", Processes::One(pid)), ("Postgres", services.postmaster.clone())];
    let meter = Meter::start(processes)?;
    let _ = program.says("partitions assigned").await;
    let begun = Instant::now();
    let all_done = async {
        while runs_done(&admin).await? < runs as f64 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        anyhow::Ok(begun.elapsed().as_secs_f64())
    };
    let deadline = STARTS_WITHIN + scenario.deadline() * 6;
    let seconds = tokio::time::timeout(deadline, all_done).await.with_context(|| program.output())??;
    let cpu_seconds = meter.read()?;
    let sample = Sample {
        events: effects,
        peak_memory: peak_memory(pid)?,
        ..scenario.sample(arm, round.round, seconds, cpu_seconds)
    };
    program.kill().await;
    check(lab, effects - if arm == ALL { scenario.events } else { 0 })?;
    Ok(sample)
}

/// Checks that the lab has as many effects as there should be: all but the rows of `db-sync`.
fn check(lab: &LabHandle, wanted: usize) -> anyhow::Result<()> {
    let found: u64 = lab.lab().counts().values().map(|counts| counts.effects).sum();
    anyhow::ensure!(usize::try_from(found)? == wanted, "{found} of {wanted} effects at the lab");
    Ok(())
}
