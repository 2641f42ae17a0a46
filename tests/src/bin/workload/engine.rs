//! The engine's part of a batch: admission, the start of each run, its report, and the end as written. The runs begin with their
//! admission, as they do in a dispatcher that keeps up.

use std::time::Duration;

use usher_engine::arrival::{Admission, Arrival, FirstClaim, Ownership};
use usher_engine::breaker::Permit;
use usher_engine::start::StartFrom;
use usher_engine::{
    AttemptSeen, CatchUpTarget, ChangeKind, Changed, Destinations, Effect, Engine, FlowLimits, Input, NextStep,
    Outcome, RetryPolicy, Run, Step, StepReport, StoreRequest, StoreWrite,
};
use usher_proto::{AssignedPartition, Assignment, Epoch, Offset, Partition, Timestamp};

use crate::Work;
use crate::samples::{self, NOW};

/// Events of a batch.
pub(crate) const BATCH: usize = 32;
const P: Partition = Partition(0);
const EPOCH: Epoch = Epoch(7);
const ASSIGNMENT: Assignment = Assignment(1);
const DESTINATION: &str = "http";
const VERSION: &str = "1";

/// A batch as it is read, and its runs as the store answers with them.
struct Prepared {
    arrivals: Vec<Arrival>,
    runs: Vec<Run>,
    next: Offset,
}

impl Prepared {
    fn new(number: usize) -> Self {
        let numbers = number * BATCH..(number + 1) * BATCH;
        let offset = |number: usize| Offset(i64::try_from(number).expect("a small number"));
        let arrivals = numbers.clone().map(|number| Arrival::starting(offset(number), samples::event(number)));
        let claim =
            || FirstClaim { request: vec![b'x'; 400], at: NOW, until: None, since_boot: Duration::from_secs(9) };
        let run = |number| claim().begin(samples::run(samples::event(number), number, VERSION, DESTINATION));
        Self { arrivals: arrivals.collect(), runs: numbers.clone().map(run).collect(), next: offset(numbers.end) }
    }
}

/// An engine that owns a partition and has caught up.
struct Driven {
    engine: Engine,
    destinations: Destinations,
}

impl Driven {
    fn new() -> Self {
        let retry = RetryPolicy {
            attempts: 3,
            first: Duration::from_secs(2),
            max: Duration::from_secs(60),
            within: Duration::from_secs(3600),
        };
        let limits = FlowLimits {
            urgent: false,
            in_flight: 4 * BATCH,
            destinations: 1,
            retry,
            from: Some(StartFrom::Beginning),
            partitions: 1,
            stall: Duration::from_secs(60),
            far_behind: 1024,
        };
        let engine = Engine::new(limits, VERSION, Some(DESTINATION.to_owned()));
        let mut driven = Self { engine, destinations: Destinations::default() };
        let zero = Offset(0);
        let partitions = vec![AssignedPartition { partition: P, committed: Some(zero), low: zero, end: zero }];
        driven.give(Input::Assigned { assignment: ASSIGNMENT, partitions });
        let owned = Ownership {
            partition: P,
            epoch: EPOCH,
            frontier: Some(zero),
            told: None,
            operator_offset: None,
            late: false,
        };
        let steps = driven.give(Input::Acquired { assignment: ASSIGNMENT, owned: vec![owned] });
        let look = |step: &Step| if let Step::Look(number) = step { Some(*number) } else { None };
        let look = steps.iter().find_map(look).expect("the log is looked at");
        driven.give(Input::Looked { look, seen: Some(CatchUpTarget { paused: None, ends: Vec::new() }) });
        driven.give(Input::Found { partition: P, epoch: EPOCH, heads: Vec::new(), all: true });
        driven
    }

    fn give(&mut self, input: Input) -> Vec<Step> {
        self.engine.handle(input, NOW, 0.5, &mut self.destinations)
    }

    /// Lets a batch pass through the engine.
    fn pass(&mut self, Prepared { arrivals, runs, next }: Prepared) {
        let refused = Vec::new();
        let steps = self.give(Input::Read { assignment: ASSIGNMENT, partition: P, next, arrivals, refused });
        let admit = steps.into_iter().find_map(|step| match step {
            Step::Store(StoreRequest::Write(StoreWrite::Admit(batch))) => Some(batch),
            _ => None,
        });
        let batch = admit.expect("the batch is admitted");
        assert_eq!(batch.begins.len(), BATCH, "all begin with their admission");
        let admission = Some(Admission { heads: runs, ..Admission::default() });
        let (epoch, frontier) = (batch.epoch, batch.frontier);
        let steps = self.give(Input::Admitted { partition: P, epoch, frontier, admission, retried: false });
        let mut begun = 0;
        for step in steps {
            if let Step::Execute { run, permit, .. } = step {
                begun += 1;
                self.finish(&run, permit);
            }
        }
        assert_eq!(begun, BATCH, "all begin");
    }

    /// Reports that a run is done, and that its end is written.
    fn finish(&mut self, run: &Run, permit: Option<Permit>) {
        let outcome = Outcome::Done(Effect::new("1", serde_json::Value::Null));
        let seen = Some(AttemptSeen { at: Timestamp::from_seconds(1), took: Duration::from_millis(5), answer: None });
        let report = StepReport::Attempted { outcome, request: None, step: "post".into(), next: NextStep::End, seen };
        let steps = self.give(Input::Reported {
            key: run.event.subject.clone(),
            event: run.event.reference(),
            partition: P,
            epoch: EPOCH,
            asked: run.destination.clone().zip(permit),
            report,
        });
        for step in steps {
            if let Step::Store(StoreRequest::Change(change)) = step {
                assert!(matches!(change.kind, ChangeKind::End { .. }), "{change:?}");
                self.give(Input::Written { change, changed: Changed::Written });
            }
        }
    }
}

pub(crate) fn work(times: usize) -> Work {
    let mut batches: Vec<Prepared> = (0..times).rev().map(Prepared::new).collect();
    let mut driven = Driven::new();
    Box::new(move || {
        driven.pass(batches.pop().expect("one for each time"));
        assert_eq!(driven.engine.numbers().loaded, 0, "everything is done");
    })
}
