//! Tests of the engine's guarantees, with inputs given by hand: no clock, no store, no network.

mod admission;
mod ahead;
mod catching_up;
mod clock;
mod destinations;
mod due;
mod first_claim;
mod held;
mod lanes;
mod ownership;
mod retries;
mod story;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use usher_proto::{
    AssignedPartition, Assignment, Epoch, Event, EventId, EventRef, Instance, Key, Offset, Partition, Reason, Source,
    SubjectId, Timestamp,
};

use super::memory::MAX_RUNS;
use super::*;
use crate::arrival::{Admission, Arrival, Ownership};
use crate::breaker::Permit;
use crate::lanes::WINDOW;
use crate::{
    AttemptSeen, AttemptState, CatchUpTarget, Cause, Change, ChangeKind, Changed, Effect, LogCommand, NextStep,
    Outcome, Run, RunState, Seen, StepReport, StoreRead, StoreRequest, StoreWrite,
};

const NOW: Timestamp = Timestamp::from_seconds(1_000);
const EPOCH: Epoch = Epoch(7);
const P: Partition = Partition(0);

fn subject(key: &str) -> SubjectId {
    SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(key))
}

fn reference(event: &str) -> EventRef {
    EventRef::new(Source::Clerk, &Instance::default(), &EventId::new(event))
}

fn run_for(key: &str, position: i64, destination: Option<&str>) -> Run {
    let event = Event {
        id: EventId::new(format!("{key}-{position}")),
        kind: "user.created".into(),
        source: Source::Clerk,
        subject: subject(key),
        occurred_at: NOW,
        received_at: NOW,
        provenance: Vec::new(),
        body: Bytes::new(),
    };
    Run {
        event,
        partition: P,
        position,
        flow_version: "1".into(),
        step: 0,
        destination: destination.map(str::to_owned),
        begun: false,
        rerun: 0,
        tries: AttemptState::default(),
        request: None,
        results: BTreeMap::new(),
        wait_until: None,
        expires_at: Some(NOW.plus(Duration::from_secs(1800))),
        before: None,
        verdict: None,
        quarantined: false,
        untold: Vec::new(),
        claimed: None,
    }
}

fn run(key: &str, position: i64) -> Run {
    run_for(key, position, Some("d"))
}

fn tried(run: Run, tries: AttemptState) -> Run {
    Run { tries, ..run }
}

fn arrival(run: &Run) -> Arrival {
    Arrival { expires_at: run.expires_at, ..Arrival::starting(Offset(run.position), run.event.clone()) }
}

fn limits() -> FlowLimits {
    let first = Duration::from_secs(2);
    let max = Duration::from_secs(60);
    FlowLimits {
        urgent: false,
        in_flight: 10,
        destinations: 1,
        retry: RetryPolicy { attempts: 3, first, max, within: Duration::from_secs(3600) },
        from: Some(StartFrom::Beginning),
        partitions: 1,
        stall: Duration::from_secs(60),
        far_behind: 1024,
    }
}

fn done() -> Outcome {
    Outcome::Done(Effect::new("1", json!({})))
}

/// Returns the events whose work the steps begin.
fn begun(steps: &[Step]) -> Vec<String> {
    let id = |step: &Step| match step {
        Step::Execute { run, .. } => Some(run.event.id.to_string()),
        _ => None,
    };
    steps.iter().filter_map(id).collect()
}

const NONE: [&str; 0] = [];

fn written(steps: &[Step]) -> Change {
    let change = |step: &Step| match step {
        Step::Store(StoreRequest::Change(change)) => Some(change.clone()),
        _ => None,
    };
    steps.iter().find_map(change).unwrap_or_else(|| panic!("something is written: {steps:?}"))
}

fn found_after(steps: &[Step]) -> Vec<Option<i64>> {
    let after = |step: &Step| match step {
        Step::Store(StoreRequest::Read(StoreRead::Find { after, .. })) => {
            Some(after.as_ref().map(|(position, _)| *position))
        }
        _ => None,
    };
    steps.iter().filter_map(after).collect()
}

/// Returns the number of the read of the log's ends that the steps request.
fn look(steps: &[Step]) -> Option<u64> {
    steps.iter().find_map(|step| match step {
        Step::Look(number) => Some(*number),
        _ => None,
    })
}

fn is_rejoin(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::Log(LogCommand::Rejoin(_))))
}

fn has_load(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::Store(StoreRequest::Read(StoreRead::Load { .. }))))
}

/// An engine that owns partition 0, with its work in flight.
struct Bench {
    engine: Engine,
    destinations: Destinations,
    now: Timestamp,
    at_work: BTreeMap<String, (Run, Epoch, Option<Permit>)>,
}

fn owned_from_the_start(partition: &Partition) -> Ownership {
    Ownership {
        partition: *partition,
        epoch: EPOCH,
        frontier: Some(Offset(0)),
        told: None,
        operator_offset: None,
        late: false,
    }
}

/// The time and the answer of every attempt in these tests.
const SEEN: AttemptSeen = AttemptSeen { at: NOW, took: Duration::from_millis(7), answer: None };

impl Bench {
    fn new(limits: FlowLimits) -> Self {
        let engine = Engine::new(limits, "1", Some("d".to_owned()));
        Self { engine, destinations: Destinations::default(), now: NOW, at_work: BTreeMap::new() }
    }

    fn owning(limits: FlowLimits) -> Self {
        let mut bench = Self::new(limits);
        bench.own(1, &[P]);
        bench
    }

    fn own(&mut self, assignment: u64, partitions: &[Partition]) -> Vec<Step> {
        self.given(assignment, partitions);
        let owned = partitions.iter().map(owned_from_the_start).collect();
        let mut steps = self.give(Input::Acquired { assignment: Assignment(assignment), owned });
        let caught_up = self.looked(&steps, &[]);
        steps.extend(caught_up);
        for partition in partitions {
            self.found(*partition, Vec::new(), true);
        }
        steps
    }

    /// Answers the read of the log's ends that the steps request: the flow is not paused, and the partitions
    /// have these ends.
    fn looked(&mut self, steps: &[Step], ends: &[(Partition, i64)]) -> Vec<Step> {
        let look = look(steps).unwrap_or_else(|| panic!("the log is looked at: {steps:?}"));
        let ends = ends
            .iter()
            .map(|(partition, end)| Seen { partition: *partition, low: Offset(0), end: Offset(*end) })
            .collect();
        self.give(Input::Looked { look, seen: Some(CatchUpTarget { paused: None, ends }) })
    }

    fn given(&mut self, assignment: u64, partitions: &[Partition]) -> Vec<Step> {
        let given = |partition: &Partition| AssignedPartition {
            partition: *partition,
            committed: Some(Offset(0)),
            low: Offset(0),
            end: Offset(0),
        };
        self.give(Input::Assigned {
            assignment: Assignment(assignment),
            partitions: partitions.iter().map(given).collect(),
        })
    }

    fn found(&mut self, partition: Partition, heads: Vec<Run>, all: bool) -> Vec<Step> {
        self.give(Input::Found { partition, epoch: EPOCH, heads, all })
    }

    fn give(&mut self, input: Input) -> Vec<Step> {
        let steps = self.engine.handle(input, self.now, 1.0, &mut self.destinations);
        for step in &steps {
            if let Step::Execute { run, epoch, permit } = step {
                self.at_work.insert(run.event.id.to_string(), ((**run).clone(), *epoch, *permit));
            }
        }
        steps
    }

    fn after(&mut self, pause: Duration) -> Vec<Step> {
        self.now = self.now.plus(pause);
        self.give(Input::Wakeup)
    }

    fn after_seconds(&mut self, seconds: u64) -> Vec<Step> {
        self.after(Duration::from_secs(seconds))
    }

    fn admitted(&mut self, admission: Admission) -> Vec<Step> {
        let frontier = 100;
        let retried = false;
        self.give(Input::Admitted {
            partition: P,
            epoch: EPOCH,
            frontier: Offset(frontier),
            admission: Some(admission),
            retried,
        })
    }

    fn admit(&mut self, heads: Vec<Run>) -> Vec<Step> {
        self.admitted(Admission { heads, ..Admission::default() })
    }

    fn behind(&mut self, key: &str) -> Vec<Step> {
        self.admitted(Admission { behind: vec![subject(key)], ..Admission::default() })
    }

    fn loaded(&mut self, key: &str, runs: Vec<Run>, more: bool) -> Vec<Step> {
        self.give(Input::Loaded { key: subject(key), partition: P, epoch: EPOCH, runs, more })
    }

    fn report(&mut self, event: &str, report: StepReport) -> Vec<Step> {
        let (run, epoch, permit) = self.at_work.remove(event).unwrap_or_else(|| panic!("{event} is at work"));
        let asked = run.destination.clone().zip(permit);
        let key = run.event.subject.clone();
        let event = run.event.reference();
        let partition = run.partition;
        self.give(Input::Reported { key, event, partition, epoch, asked, report })
    }

    fn attempted(&mut self, event: &str, outcome: Outcome) -> Vec<Step> {
        self.attempted_before(event, outcome, NextStep::End)
    }

    fn attempted_before(&mut self, event: &str, outcome: Outcome, next: NextStep) -> Vec<Step> {
        let mut steps = self.attempted_unwritten(event, outcome, next);
        let is_retry = |step: &Step| {
            matches!(step, Step::Store(StoreRequest::Change(Change { kind: ChangeKind::Retry { .. }, .. })))
        };
        // Nothing of interest happens between a failure and its record, unless a test wants it to.
        if let Some(place) = steps.iter().position(is_retry)
            && let Step::Store(StoreRequest::Change(change)) = steps.remove(place)
        {
            steps.extend(self.wrote(change, Changed::Written));
        }
        steps
    }

    /// Reports an attempt, and leaves the change that follows unanswered.
    fn attempted_unwritten(&mut self, event: &str, outcome: Outcome, next: NextStep) -> Vec<Step> {
        let request = Some(b"exact".to_vec());
        self.report(event, StepReport::Attempted { outcome, request, step: "s".into(), next, seen: Some(SEEN) })
    }

    fn fail(&mut self, event: &str, cause: Cause) -> Vec<Step> {
        self.attempted(event, Outcome::retry(cause))
    }

    fn wrote(&mut self, change: Change, changed: Changed) -> Vec<Step> {
        self.give(Input::Written { change, changed })
    }

    /// Reports that the run is done and its end written; returns the steps that follow from both.
    fn finish(&mut self, event: &str) -> Vec<Step> {
        let mut steps = self.attempted(event, done());
        let change = written(&steps);
        assert!(matches!(change.kind, ChangeKind::End { state: RunState::Done, .. }), "{change:?}");
        steps.extend(self.wrote(change, Changed::Written));
        steps
    }

    /// Writes as dead the run that the steps give up.
    fn dead_letter(&mut self, steps: &[Step]) -> (Reason, Vec<Step>) {
        let buried = |step: &Step| match step {
            Step::DeadLetter { run, epoch, reason, error } => {
                Some((*reason, dead_letter_change(run, *epoch, *reason, error.clone())))
            }
            _ => None,
        };
        let (reason, change) = steps.iter().find_map(buried).unwrap_or_else(|| panic!("given up: {steps:?}"));
        (reason, self.wrote(change, Changed::Written))
    }

    fn numbers(&self) -> Counts {
        self.engine.numbers()
    }

    /// Lets different runs fail until the destination counts as down.
    fn break_destination(&mut self, destination: &str) {
        for number in 0..8 {
            let permit = self.destinations.permit(destination, false, self.now).expect("leave");
            let down = crate::breaker::Health::Down;
            self.destinations.answered(destination, permit, down, number, self.now, 1.0);
        }
        assert!(!self.destinations.admits(destination, false, self.now));
    }
}
