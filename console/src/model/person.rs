//! A person, or any other subject, as one timeline: what comes next above, what has happened below, in words.

use serde::Serialize;
use serde_json::Value;
use usher_engine::RunState;
use usher_proto::{SubjectId, Timestamp};
use usher_store::{RunFilter, RunRecord};

use super::Moment;
use super::runs::RunAction;
use crate::Console;
use crate::mask::Masking;
use crate::problem::ConsoleError;

/// Largest number of runs that a timeline is made of: the newest.
const MOST: i64 = 200;

/// One entry of a timeline.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TimelineEntry {
    pub(crate) at: Moment,
    /// good, wait, bad or idle.
    pub(crate) tone: &'static str,
    /// The flow; `None` for the arrival of an event.
    pub(crate) flow: Option<String>,
    pub(crate) text: String,
    /// The event.
    pub(crate) reference: String,
}

/// A person or another subject.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PersonDetail {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) source: String,
    pub(crate) instance: String,
    /// The coming steps, the last first.
    pub(crate) next: Vec<TimelineEntry>,
    /// The past, newest first.
    pub(crate) past: Vec<TimelineEntry>,
    /// The time before which the next page begins; `None` if there are no older runs.
    pub(crate) older: Option<Timestamp>,
    /// The last known state.
    pub(crate) snapshot: Option<Value>,
    pub(crate) snapshot_at: Option<Moment>,
    pub(crate) deleted_at: Option<Moment>,
    /// The operators who have seen the state unmasked, newest first.
    pub(crate) shown: Vec<RunAction>,
}

/// Returns a subject with its timeline: of the runs that were admitted before a time, if one is given.
pub(crate) async fn person_detail(
    console: &Console,
    id: &str,
    before: Option<Timestamp>,
    masking: Masking,
    now: Timestamp,
) -> Result<PersonDetail, ConsoleError> {
    let unknown = || ConsoleError::NotFound("nobody of that id or address is known here".to_owned());
    let store = console.store();
    let subject: SubjectId = id.parse().map_err(|_| unknown())?;
    let state = store.subject_row(&subject).await?;
    let instance = subject.instance().parse().ok();
    let key = Some(subject.key().to_owned());
    let filter = RunFilter { key, instance, until: before, ..RunFilter::default() };
    let mut runs = store.runs(&filter, MOST).await?;
    // The oldest time is left to the next page, which else would lack the rest of its runs.
    let is_full = runs.len() == usize::try_from(MOST).unwrap_or(usize::MAX);
    let oldest = runs.first().map(|run| run.admitted_at);
    let older = oldest.filter(|oldest| is_full && runs.iter().any(|run| run.admitted_at > *oldest));
    if let Some(oldest) = older {
        runs.retain(|run| run.admitted_at > oldest);
    }
    runs.retain(|run| run.subject == subject);
    if state.is_none() && runs.is_empty() {
        return Err(unknown());
    }
    let mut timeline = Timeline { now, next: Vec::new(), past: Vec::new() };
    runs.iter().for_each(|run| timeline.add(run));
    timeline.next.sort_by_key(|entry| std::cmp::Reverse(entry.at.iso()));
    timeline.past.sort_by_key(|entry| std::cmp::Reverse(entry.at.iso()));
    timeline.past.dedup_by(|a, b| a.flow.is_none() && b.flow.is_none() && a.reference == b.reference);
    let shown = store.shown(subject.as_str(), MOST).await?;
    let moment = |at| Moment::new(at, now);
    let snapshot = state.as_ref().and_then(|state| state.snapshot.as_deref());
    let parse = |text: &str| serde_json::from_str(text).unwrap_or(Value::String(text.to_owned()));
    Ok(PersonDetail {
        id: subject.as_str().to_owned(),
        key: Masking::Masked.sentence(subject.key()),
        source: subject.source().to_owned(),
        instance: subject.instance().to_owned(),
        next: timeline.next,
        past: timeline.past,
        older: older.map(|older| Timestamp::from_millis(older.millis() + 1)),
        snapshot: snapshot.map(|text| masking.json(parse(text))),
        snapshot_at: state.as_ref().map(|state| moment(state.occurred_at)),
        deleted_at: state.as_ref().and_then(|state| state.deleted_at).map(moment),
        shown: shown.into_iter().map(|action| RunAction::new(action, now)).collect(),
    })
}

/// A timeline while it is made.
struct Timeline {
    now: Timestamp,
    next: Vec<TimelineEntry>,
    past: Vec<TimelineEntry>,
}

impl Timeline {
    fn entry(&self, at: Timestamp, tone: &'static str, run: &RunRecord, text: String) -> TimelineEntry {
        let reference = run.reference.as_str().to_owned();
        TimelineEntry { at: Moment::new(at, self.now), tone, flow: Some(run.flow.clone()), text, reference }
    }

    fn add(&mut self, run: &RunRecord) {
        let arrival = TimelineEntry {
            flow: None,
            ..self.entry(run.admitted_at, "idle", run, format!("{} was admitted", run.kind))
        };
        self.past.push(arrival);
        for effect in &run.effects {
            let text = format!("{}: {} {}", effect.step, effect.connector, Masking::Masked.sentence(&effect.id));
            self.past.push(self.entry(effect.at, "good", run, text));
        }
        match run.ended_at {
            Some(at) => self.ended(run, at),
            None => self.open(run),
        }
    }

    /// An end that its last effect does not tell already.
    fn ended(&mut self, run: &RunRecord, at: Timestamp) {
        let why = [&run.reason, &run.error, &run.note].into_iter().flatten();
        let why = why.map(|why| Masking::Masked.sentence(why)).collect::<Vec<_>>().join(": ");
        let told = run.state == RunState::Done.label() && !run.effects.is_empty() && why.is_empty();
        if !told {
            let tone = if run.state == RunState::Dead.label() { "bad" } else { "idle" };
            let text = if why.is_empty() { run.state.clone() } else { format!("{}: {why}", run.state) };
            self.past.push(self.entry(at, tone, run, text));
        }
    }

    fn open(&mut self, run: &RunRecord) {
        if let Some(failed) = run.failed_at {
            let text = format!("attempt {} failed", run.attempts);
            self.past.push(self.entry(failed, "bad", run, text));
        }
        let step = run.step + 1;
        let (text, tone) = match (run.state.as_str(), &run.destination) {
            ("waiting", _) => (format!("goes on with step {step}"), "idle"),
            (_, Some(destination)) => (format!("step {step} asks {destination}"), "wait"),
            (state, None) => (format!("step {step}, {state}"), "wait"),
        };
        self.next.push(self.entry(run.due_at.unwrap_or(self.now), tone, run, text));
    }
}
