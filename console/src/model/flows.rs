//! One flow: its file, its versions with the runs on them, its pause.

use serde::Serialize;
use usher_flows::FlowSource;
use usher_proto::Timestamp;
use usher_store::{FlowStore as _, FlowVersion};

use super::overview::{FlowLine, overview};
use super::{Moment, RunStep};
use crate::Console;
use crate::model::runs::{StepName, read_steps};
use crate::problem::ConsoleError;

/// A pause as it is shown.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PauseDetail {
    pub(crate) who: String,
    pub(crate) since: Moment,
    pub(crate) why: Option<String>,
    /// Confirmations of the replicas, in words.
    pub(crate) confirmed: String,
}

/// One flow.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FlowDetail {
    pub(crate) line: FlowLine,
    pub(crate) versions: Vec<FlowVersion>,
    /// The version whose file is shown: the one that is asked for, else the one with most open runs.
    pub(crate) version: String,
    /// Path of the file, where Usher read it.
    pub(crate) file: String,
    /// Text of the file.
    pub(crate) text: String,
    pub(crate) steps: Vec<RunStep>,
    pub(crate) pause: Option<PauseDetail>,
}

/// Returns a flow, with the file of one of its versions.
pub(crate) async fn flow_detail(
    console: &Console,
    name: &str,
    version: &str,
    now: Timestamp,
) -> Result<FlowDetail, ConsoleError> {
    let none = || ConsoleError::NotFound(format!("no flow {name} has run here"));
    let line = overview(console, now).await?.flows.into_iter().find(|line| line.flow == name).ok_or_else(none)?;
    let store = console.store();
    let versions = store.flow_versions(name).await?;
    let asked = versions.iter().find(|known| known.version == version);
    let shown = asked.or(versions.first()).ok_or_else(none)?.version.clone();
    let stored = store.flow(name, &shown).await?.unwrap_or_default();
    let source = serde_json::from_str::<FlowSource>(&stored).ok();
    let step = |StepName { name, action }| RunStep {
        name,
        action,
        state: "later",
        effect: None,
        at: None,
        attempts: Vec::new(),
    };
    let pause = match store.pause_records().await?.remove(name) {
        None => None,
        Some(pause) => {
            let replicas = store.pausing(name).await?;
            let confirmed = usher_dispatcher::operator::describe_pause(&replicas);
            Some(PauseDetail { who: pause.who, since: Moment::new(pause.at, now), why: pause.why, confirmed })
        }
    };
    Ok(FlowDetail {
        line,
        versions,
        version: shown,
        file: source.as_ref().map(|source| source.file.clone()).unwrap_or_default(),
        text: source.map(|source| source.toml).unwrap_or_default(),
        steps: read_steps(&stored).into_iter().map(step).collect(),
        pause,
    })
}
