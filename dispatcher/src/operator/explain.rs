//! The state of a run in words: of one that has ended, why it ended so; of another, how far it is and the one thing that it
//! waits for. The command line and the console use the same words.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use usher_engine::RunState;
use usher_flows::{Action, Flow, FlowSource, FlowStep};
use usher_proto::{EventRef, Timestamp};
use usher_store::{
    AccountShares, AttemptRecord, CANCELLED, FlowStore as _, PauseRecord, QuotaUse, RunRecord, SqlStore, StoreError,
    StoryCause, TroubleRecord,
};

use super::status::duration;

/// The facts that hold for many runs at a time.
#[derive(Debug, Clone, Default)]
pub struct RunCircumstances {
    /// The time at which they held.
    pub at: Timestamp,
    /// The paused flows.
    pub paused: BTreeMap<String, PauseRecord>,
    /// The flows on which a process works, as far as the store knows.
    pub worked: Vec<String>,
    /// The destinations that some process holds back from.
    pub troubles: Vec<TroubleRecord>,
    /// The accounts whose calls are shared by quota.
    pub shares: Vec<AccountShares>,
    /// The calls of each account that were handed out in the present month, day or hour.
    pub quotas: Vec<QuotaUse>,
    /// The steps of the versions of flows that were asked for with [`Self::read_steps`].
    steps: BTreeMap<FlowVersionName, Vec<FlowStep>>,
}

/// A version of a flow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct FlowVersionName {
    flow: String,
    version: String,
}

impl FlowVersionName {
    fn of(run: &RunRecord) -> Self {
        Self { flow: run.flow.clone(), version: run.version.clone() }
    }
}

impl RunCircumstances {
    /// Reads the facts from the store.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn read(store: &SqlStore, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self {
            at: now,
            paused: store.pause_records().await?,
            worked: store.worked_flows().await?,
            troubles: store.troubles(now).await?,
            shares: store.account_shares(now).await?,
            quotas: store.quota_uses(now).await?,
            steps: BTreeMap::new(),
        })
    }

    /// Reads the steps of these runs, whose names and conditions are then told. A version that this Usher cannot read has none.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn read_steps(&mut self, store: &SqlStore, runs: &[RunRecord]) -> Result<(), StoreError> {
        for run in runs {
            if let Entry::Vacant(entry) = self.steps.entry(FlowVersionName::of(run)) {
                let source = store.flow(&run.flow, &run.version).await?;
                let source = source.and_then(|source| serde_json::from_str::<FlowSource>(&source).ok());
                let flow = source.and_then(|source| Flow::read(source).ok());
                entry.insert(flow.map(|flow| flow.steps).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn step(&self, run: &RunRecord, index: i64) -> Option<&FlowStep> {
        self.steps.get(&FlowVersionName::of(run))?.get(usize::try_from(index).ok()?)
    }

    /// Returns why the run is in its state: of one that has ended, why it ended so; of another, how far it is and the one thing
    /// that it waits for. Empty if there is nothing to tell beyond its effects.
    pub fn why(&self, run: &RunRecord) -> String {
        if run.ended_at.is_some() {
            return self.ending(run);
        }
        [self.progress(run), self.blocker(run)]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Returns why a run that has ended ended so; empty if its effects tell.
    pub fn ending(&self, run: &RunRecord) -> String {
        let parts: Vec<&str> = [&run.reason, &run.error].into_iter().flatten().map(String::as_str).collect();
        let last = run.story.last();
        let text = if run.state == RunState::Cancelled.label() {
            cancelled(run)
        } else if run.state == RunState::Superseded.label() {
            superseded(run)
        } else if !parts.is_empty() {
            parts.join(": ")
        } else {
            match (last.filter(|last| last.attempt == 0), &run.note) {
                (Some(last), _) if run.effects.is_empty() => self.passed_over(run, last),
                (_, Some(note)) => note.clone(),
                (_, None) => String::new(),
            }
        };
        match &run.note {
            Some(note) if note == IN_DOUBT => format!("{text}; its last attempt may have had its effect"),
            _ => text,
        }
    }

    /// Returns why a step was passed over.
    fn passed_over(&self, run: &RunRecord, entry: &AttemptRecord) -> String {
        let step = &entry.name;
        match entry.outcome.as_str() {
            "condition" => match self.step(run, entry.step).and_then(|step| step.when.as_ref()) {
                Some(when) => format!("step {step}: its `when` does not hold: {when}"),
                None => format!("step {step}: its `when` does not hold"),
            },
            "in_place" => format!("step {step}: what it would write is there already"),
            "not_configured" => format!("step {step}: it is optional, and its destination is not configured"),
            "deleted" => format!("step {step}: its user or object is deleted"),
            outcome => format!("step {step}: {outcome}"),
        }
    }

    /// Returns how far an open run is: its step, the attempts and the last answer; empty before its first attempt.
    pub fn progress(&self, run: &RunRecord) -> String {
        let mut parts = Vec::new();
        let of_step = |entry: &&AttemptRecord| entry.step == run.step && entry.pass == run.pass && entry.attempt > 0;
        let last = run.story.iter().rev().find(of_step);
        if run.step > 0 || run.attempts > 0 {
            let known = self.step(run, run.step).map(|step| &step.name);
            let name = known.or(last.map(|last| &last.name)).map(|name| format!(" {name}")).unwrap_or_default();
            // Counted from 1 for people.
            parts.push(format!("step {}{name}", run.step + 1));
        }
        match run.attempts {
            0 => {}
            1 => parts.push("1 attempt".to_owned()),
            attempts => parts.push(format!("{attempts} attempts")),
        }
        if let Some(last) = last {
            let answer = answer(last);
            let outcome = if answer.is_empty() { last.outcome.clone() } else { format!("{} {answer}", last.outcome) };
            parts.push(format!("{outcome} at {}", last.at));
        }
        parts.join(", ")
    }

    /// Returns the one thing that keeps an open run from going on.
    pub fn blocker(&self, run: &RunRecord) -> String {
        if run.state == RunState::Waiting.label()
            && let Some(due) = run.due_at
        {
            let waits = self.waits_for(run, due);
            return match self.standstill(run) {
                Some(why) => format!("{waits}; {why}"),
                None => waits,
            };
        }
        if let Some(why) = self.standstill(run) {
            return why;
        }
        let next = run.due_at.or_else(|| run.story.last().and_then(|last| last.next_at)).filter(|at| *at > self.at);
        let Some(destination) = &run.destination else {
            return match next {
                Some(next) => format!("goes on at {}", self.moment(next)),
                None if run.state == RunState::Queued.label() => not_begun(),
                None => "is at work".to_owned(),
            };
        };
        if let Some(held) = self.held(destination) {
            return held;
        }
        match next {
            Some(next) if run.attempts > 0 => format!("calls {destination} again at {}", self.moment(next)),
            Some(next) => format!("calls {destination} at {}", self.moment(next)),
            None => match self.short(destination) {
                Some(short) => short,
                None if run.state == RunState::Queued.label() && run.attempts == 0 => not_begun(),
                None => format!("waits for {destination}"),
            },
        }
    }

    /// Returns why no run of the flow goes on; `None` if they do.
    fn standstill(&self, run: &RunRecord) -> Option<String> {
        if let Some(pause) = self.paused.get(&run.flow) {
            let why = pause.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            return Some(format!("the flow is paused by {} since {}{why}", pause.who, pause.at));
        }
        (!self.worked.contains(&run.flow)).then(|| format!("no process works on {}", run.flow))
    }

    fn waits_for(&self, run: &RunRecord, due: Timestamp) -> String {
        let until = self.moment(due);
        if !run.awaits_news {
            return format!("waits until {until}");
        }
        let needs = self.step(run, run.step).and_then(|step| match &step.action {
            Action::Call(call) => call.needs.as_ref(),
            Action::Wait(_) => None,
        });
        let value = needs.map_or("news of its user or object", |needs| needs.value.as_str());
        format!("waits for {value}, until {until}")
    }

    /// Returns the words about a destination whose breaker is open.
    fn held(&self, destination: &str) -> Option<String> {
        let trouble = self.troubles.iter().find(|trouble| trouble.account == destination)?;
        let next = trouble.next_probe?;
        let for_time = duration(self.at.since(trouble.since).as_secs());
        Some(format!("held: {destination} has not served for {for_time}, the next try is at {}", self.moment(next)))
    }

    /// Returns the words about a quota that its processes wait for.
    fn short(&self, destination: &str) -> Option<String> {
        self.shares.iter().find(|shares| shares.account == destination && shares.wanting > 0)?;
        let of_account = self.quotas.iter().filter(|used| used.account == destination);
        let used: Vec<String> =
            of_account.map(|used| format!("{} calls this {} until {}", used.used, used.span, used.ends_at)).collect();
        let used = if used.is_empty() { String::new() } else { format!(" (handed out: {})", used.join(", ")) };
        Some(format!("waits for the quota of {destination}{used}"))
    }

    /// Returns a time, and how far away it is.
    fn moment(&self, at: Timestamp) -> String {
        match (at.since(self.at).as_secs(), self.at.since(at).as_secs()) {
            (0, 0) => at.to_string(),
            (0, ago) => format!("{at} ({} ago)", duration(ago)),
            (ahead, _) => format!("{at} (in {})", duration(ahead)),
        }
    }
}

/// Note of a run whose last attempt may have had its effect.
const IN_DOUBT: &str = "in_doubt";

fn not_begun() -> String {
    "has not begun: an earlier run of the same key, or a free place, comes first".to_owned()
}

fn cancelled(run: &RunRecord) -> String {
    let entry = run.story.iter().rev().find(|entry| entry.outcome == CANCELLED);
    match entry.and_then(|entry| entry.by.as_ref()) {
        Some(StoryCause::Operator { operator }) => {
            let at = entry.map(|entry| format!(" at {}", entry.at)).unwrap_or_default();
            format!("cancelled by {operator}{at}")
        }
        Some(StoryCause::Event { event, kind }) => format!("cancelled by {kind} {}", event_id(event)),
        None => "cancelled".to_owned(),
    }
}

fn superseded(run: &RunRecord) -> String {
    let overtaken = run.story.last().is_some_and(|last| last.outcome == "overtaken");
    let newest = run.newest_state.as_deref().map(event_id);
    match (overtaken, newest) {
        (true, Some(event)) => format!("a later state was written first; the newest is that of {event}"),
        (true, None) => "a later state was written first".to_owned(),
        (false, Some(event)) => format!("its user or object is deleted, by {event}"),
        (false, None) => "its user or object is deleted".to_owned(),
    }
}

/// Returns the sender's id of an event, which suffices for people.
fn event_id(reference: &str) -> String {
    reference.parse::<EventRef>().map_or_else(|_| reference.to_owned(), |event| event.id().to_owned())
}

/// Returns the status and the error's name of a destination's answer; empty if it gave none.
pub fn answer(attempt: &AttemptRecord) -> String {
    let status = attempt.status.map(|status| status.to_string());
    [status.as_ref(), attempt.error.as_ref()].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
