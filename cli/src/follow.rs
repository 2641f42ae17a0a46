//! `usher runs --follow`: new and changed runs as they come, one line a change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use usher_dispatcher::operator::RunCircumstances;
use usher_proto::EventRef;
use usher_service::clock;
use usher_store::{RunFilter, RunMark, RunRecord, SqlStore};

use crate::{output, runs};

/// Interval between two looks at the store.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Number of newest runs of each flow that a look takes in, of open and of ended ones each.
const NEWEST: usize = 1_000;
/// Largest number of runs that are remembered. Those that have ended are forgotten first.
const REMEMBERED: usize = 100_000;

/// A run's flow and event.
type RunKey = (String, EventRef);

/// The runs as they were seen last.
pub(crate) struct Following {
    seen: BTreeMap<RunKey, RunMark>,
}

fn key(mark: &RunMark) -> RunKey {
    (mark.flow.clone(), mark.reference.clone())
}

fn is_open(mark: &RunMark) -> bool {
    mark.state.parse::<usher_engine::RunState>().is_ok_and(|state| !state.is_terminal())
}

async fn newest(store: &SqlStore, filter: &RunFilter) -> anyhow::Result<Vec<RunMark>> {
    let flows = match &filter.flow {
        Some(flow) => vec![flow.clone()],
        None => store.flow_names().await?,
    };
    let mut marks = Vec::new();
    for flow in flows {
        marks.extend(store.newest_marks(&flow, NEWEST).await?);
    }
    Ok(marks)
}

impl Following {
    /// Takes the present state as known.
    pub(crate) async fn begin(store: &SqlStore, filter: &RunFilter) -> anyhow::Result<Self> {
        Ok(Self { seen: newest(store, filter).await?.into_iter().map(|mark| (key(&mark), mark)).collect() })
    }

    /// Prints changes until the process is interrupted.
    pub(crate) async fn run(mut self, store: &SqlStore, filter: &RunFilter, json: bool) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let changed = self.changed(store, filter).await?;
            let mut circumstances = RunCircumstances::read(store, clock::now()).await?;
            circumstances.read_steps(store, &changed).await?;
            for run in &changed {
                if json {
                    output::json(run)?
                } else {
                    output::line(&line(run, &circumstances))?
                };
            }
        }
    }

    /// Returns the runs that the filter selects and that have changed since the last look, in the order of their admission.
    async fn changed(&mut self, store: &SqlStore, filter: &RunFilter) -> anyhow::Result<Vec<RunRecord>> {
        let marks = newest(store, filter).await?;
        let looked_at: BTreeSet<RunKey> = marks.iter().map(key).collect();
        let is_new = |mark: &&RunMark| self.seen.get(&key(mark)) != Some(*mark);
        let mut events: BTreeSet<EventRef> = marks.iter().filter(is_new).map(|mark| mark.reference.clone()).collect();
        // Runs that were open, and are no longer among the newest.
        let others = self.seen.iter().filter(|(key, mark)| is_open(mark) && !looked_at.contains(*key));
        events.extend(others.map(|(_, mark)| mark.reference.clone()));
        let events: Vec<EventRef> = events.into_iter().collect();
        let mut changed = Vec::new();
        for run in store.runs_of(&events).await? {
            let mark = RunMark::from(&run);
            if self.seen.insert(key(&mark), mark.clone()).as_ref() != Some(&mark) && filter.takes(&run) {
                changed.push(run);
            }
        }
        if self.seen.len() > REMEMBERED {
            self.seen.retain(|key, mark| is_open(mark) || looked_at.contains(key));
        }
        changed.sort_by_key(|run| (run.admitted_at, run.partition, run.offset, run.flow.clone()));
        Ok(changed)
    }
}

fn line(run: &RunRecord, circumstances: &RunCircumstances) -> String {
    let why = circumstances.why(run);
    let effects = if run.ended_at.is_some() { runs::effects(run) } else { "-".to_owned() };
    let rest: Vec<String> = [why, effects].into_iter().filter(|part| !part.is_empty() && part != "-").collect();
    let (at, name) = (circumstances.at, runs::name(run));
    format!("{at}  {name}  {}  {}  {}  {}", run.kind, run.key, run.state, rest.join("; ")).trim_end().to_owned()
}
