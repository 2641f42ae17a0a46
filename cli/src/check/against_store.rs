//! `usher check --against-store`: how many runs are on which version of each flow, and which of them would be stranded.

use std::collections::{BTreeMap, BTreeSet};

use usher_flows::{Flow, FlowSource};
use usher_store::{FlowStore as _, SqlStore, StandingRuns};

use crate::output;

/// The open runs of one version of a flow, by the index of their step.
type BySteps = BTreeMap<usize, i64>;

/// Prints where the open runs stand. Returns a problem for each group of runs that would not go on with these flows. `is_all` is
/// true if the flows are all that the processes have.
pub(super) async fn report(store: &SqlStore, flows: &[Flow], is_all: bool) -> anyhow::Result<Vec<String>> {
    let mut by_flow: BTreeMap<String, BTreeMap<String, BySteps>> = BTreeMap::new();
    for StandingRuns { flow, version, step, runs } in store.standing_runs().await? {
        *by_flow.entry(flow).or_default().entry(version).or_default().entry(step).or_default() += runs;
    }
    let connectors: BTreeSet<&str> = flows.iter().flat_map(Flow::connectors).collect();
    let mut problems = Vec::new();
    if by_flow.is_empty() {
        output::line("no run is open in the store")?;
    }
    for (name, versions) in &by_flow {
        let file = flows.iter().find(|flow| flow.name == *name || flow.was.as_ref() == Some(name));
        if file.is_none() && !is_all {
            continue;
        }
        for (version, steps) in versions {
            let stored = stored(store, name, version).await?;
            let standing = Standing { name, version, steps, stored: stored.as_ref().ok() };
            output::line(&standing.describe(file))?;
            problems.extend(match (file, &stored) {
                (None, stored) => Some(standing.without_file(flows, stored.as_ref().ok())),
                (Some(_), Err(why)) => Some(standing.unreadable(why)),
                (Some(_), Ok(flow)) => standing.without_connector(flow, &connectors).filter(|_| is_all),
            });
        }
    }
    Ok(problems)
}

/// Reads a version of a flow as the dispatcher does.
async fn stored(store: &SqlStore, name: &str, version: &str) -> anyhow::Result<Result<Flow, String>> {
    let Some(source) = store.flow(name, version).await? else { return Ok(Err("the store does not hold it".into())) };
    let Ok(source) = serde_json::from_str::<FlowSource>(&source) else {
        return Ok(Err("another version of Usher has written it".into()));
    };
    let first = |problems: Vec<usher_flows::Problem>| problems.first().map(ToString::to_string).unwrap_or_default();
    Ok(Flow::read(source).map_err(first))
}

/// The open runs of a version of a flow.
struct Standing<'a> {
    name: &'a str,
    version: &'a str,
    steps: &'a BySteps,
    /// The version itself, if it can be read.
    stored: Option<&'a Flow>,
}

impl Standing<'_> {
    fn runs(&self) -> String {
        match self.steps.values().sum() {
            1_i64 => "1 run".to_owned(),
            count => format!("{count} runs"),
        }
    }

    fn step(&self, index: usize) -> String {
        let named = self.stored.and_then(|flow| flow.steps.get(index)).map(|step| step.name.clone());
        named.unwrap_or_else(|| format!("step {}", index + 1))
    }

    /// Returns the version and its runs by their steps. A step that the flow's file does not have any more is marked: its runs go
    /// on with their version.
    fn describe(&self, file: Option<&Flow>) -> String {
        let is_gone = |name: &str| file.is_some_and(|flow| flow.steps.iter().all(|step| step.name != name));
        let at = |(index, runs): (&usize, &i64)| {
            let name = self.step(*index);
            let gone = if is_gone(&name) { " (no step of the file)" } else { "" };
            format!("{runs} at {name}{gone}")
        };
        let at: Vec<String> = self.steps.iter().map(at).collect();
        let which = match file {
            Some(flow) if flow.version == self.version => ", the file's",
            Some(_) | None => "",
        };
        format!("{}, version {}{which}: {}, {}", self.name, self.version, self.runs(), at.join(", "))
    }

    fn without_file(&self, flows: &[Flow], stored: Option<&Flow>) -> String {
        let at: BTreeSet<String> = self.steps.keys().map(|index| self.step(*index)).collect();
        let has_all = |flow: &&Flow| at.iter().all(|name| flow.steps.iter().any(|step| step.name == *name));
        let hint = match flows.iter().find(has_all).filter(|_| stored.is_some()) {
            Some(flow) => {
                format!("; {0} has the steps at which they stand: usher move --flow {1} --to {0}", flow.name, self.name)
            }
            None => String::new(),
        };
        format!(
            "flow {} has no good file: {} of version {} would be left until it is back under that name{hint}",
            self.name,
            self.runs(),
            self.version
        )
    }

    fn unreadable(&self, why: &str) -> String {
        format!(
            "flow {}: {} of version {} would be given up as flow_changed, because that version cannot be read: {why}",
            self.name,
            self.runs(),
            self.version
        )
    }

    /// Returns the problem of runs whose remaining steps use a connector that no flow uses any more, and that is therefore not open.
    fn without_connector(&self, flow: &Flow, open: &BTreeSet<&str>) -> Option<String> {
        let first = *self.steps.keys().next()?;
        let uses = (first..flow.steps.len()).find_map(|step| flow.connector(step).filter(|name| !open.contains(name)));
        let connector = uses?;
        Some(format!(
            "flow {}: {} of version {} would be given up as configuration, because they use {connector}, which no flow file \
             uses any more",
            self.name,
            self.runs(),
            self.version
        ))
    }
}
