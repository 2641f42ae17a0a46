//! Tests of runs that begin with their admission.

use usher_proto::AddressDigest;
use usher_proto::suppression::{ALL_LISTS, SuppressionChange, SuppressionKind};

use super::*;
use crate::arrival::{Batch, FirstClaim};
use crate::breaker::Health;

const NOBODY: [i64; 0] = [];

fn read(bench: &mut Bench, arrivals: Vec<Arrival>) -> Vec<Step> {
    let next = arrivals.last().map(|arrival| arrival.offset.next()).expect("some");
    bench.give(Input::Read { assignment: Assignment(1), partition: P, next, arrivals, refused: Vec::new() })
}

/// Returns the batch whose admission the steps request.
fn batch_of(steps: &[Step]) -> &Batch {
    let batch = |step| match step {
        &Step::Store(StoreRequest::Write(StoreWrite::Admit(ref batch))) => Some(batch),
        _ => None,
    };
    steps.iter().find_map(batch).unwrap_or_else(|| panic!("a batch is admitted: {steps:?}"))
}

/// Returns the positions of the runs that may begin with the admission that the steps request.
fn begins(steps: &[Step]) -> Vec<i64> {
    batch_of(steps).begins.iter().map(|offset| offset.0).collect()
}

fn starting(keys: &[&str]) -> Vec<Arrival> {
    keys.iter().zip(1..).map(|(key, position)| arrival(&run(key, position))).collect()
}

fn claimed(key: &str, position: i64) -> Run {
    let claim = FirstClaim { request: b"exact".to_vec(), at: NOW, until: None, since_boot: Duration::from_secs(9) };
    claim.begin(run(key, position))
}

#[test]
fn the_first_of_each_key_may_begin_where_there_are_slots() {
    let mut bench = Bench::owning(limits());
    assert_eq!(begins(&read(&mut bench, starting(&["a", "b", "a"]))), [1, 2]);
    let mut bench = Bench::owning(FlowLimits { in_flight: 2, ..limits() });
    bench.admit(vec![run("x", 0)]);
    assert_eq!(begins(&read(&mut bench, starting(&["a", "b", "x"]))), [1], "one slot is taken");
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 0)]);
    assert_eq!(begins(&read(&mut bench, starting(&["a", "b"]))), [2], "the other precedes it");
}

#[test]
fn who_may_be_ended_or_may_not_be_called_does_not_begin_with_its_admission() {
    let of = |arrivals: Vec<Arrival>| begins(&read(&mut Bench::owning(limits()), arrivals));
    let mut ended = starting(&["a", "b", "a"]);
    (ended[2].starts, ended[2].cancels) = (false, true);
    assert_eq!(of(ended), [2]);
    let mut dead = starting(&["a", "b"]);
    dead[0].verdict = Some((Reason::Malformed, String::new()));
    assert_eq!(of(dead), [2]);
    let mut late = starting(&["a", "b"]);
    late[0].expires_at = Some(NOW.minus(Duration::from_secs(1)));
    assert_eq!(of(late), [2]);
    let mut told = starting(&["a", "b"]);
    told[1].suppression = Some(SuppressionChange {
        kind: SuppressionKind::Suppressed,
        address: AddressDigest::of("a@b.test"),
        scope: ALL_LISTS.into(),
        reason: "test".into(),
        by: String::new(),
        instance: None,
    });
    assert_eq!(of(told), NOBODY, "it may be about anyone");

    let mut bench = Bench::owning(limits());
    bench.destinations.make_room("d", 5);
    assert_eq!(begins(&read(&mut bench, starting(&["a"]))), NOBODY, "it may have to wait for its quota");
    let mut bench = Bench::owning(limits());
    bench.break_destination("d");
    assert_eq!(begins(&read(&mut bench, starting(&["a"]))), NOBODY);
    let mut bench = Bench::owning(limits());
    bench.give(Input::Paused(Some(NOW)));
    assert_eq!(begins(&read(&mut bench, starting(&["a"]))), NOBODY);
}

#[test]
fn a_run_that_is_admitted_with_its_claim_is_called_at_once_and_tried_again_like_any_other() {
    let mut bench = Bench::owning(limits());
    read(&mut bench, starting(&["a"]));
    assert_eq!(begun(&bench.admit(vec![claimed("a", 1)])), ["a-1"]);
    let (run, ..) = &bench.at_work["a-1"];
    assert_eq!((run.tries.attempts, run.request.as_deref()), (1, Some(&b"exact"[..])));
    assert_eq!(run.claimed, Some(Duration::from_secs(9)));
    assert_eq!(bench.numbers().in_flight, 1);

    bench.fail("a-1", Cause::Unreachable);
    assert_eq!(begun(&bench.after_seconds(10)), ["a-1"]);
    let (run, ..) = &bench.at_work["a-1"];
    assert_eq!((run.tries.attempts, run.tries.generation, &run.request, run.claimed), (2, 1, &None, None));
    bench.finish("a-1");
    assert_eq!(bench.numbers().loaded, 0);
}

#[test]
fn a_claim_is_given_back_if_its_run_cannot_begin() {
    let pause = |bench: &mut Bench| drop(bench.give(Input::Paused(Some(NOW))));
    let pause_and_resume = |bench: &mut Bench| {
        bench.give(Input::Paused(Some(NOW)));
        let steps = bench.give(Input::Paused(None));
        bench.looked(&steps, &[]);
        assert!(!bench.engine.is_catching_up(), "what it is made from is older than that all the same");
    };
    let breaks = |bench: &mut Bench| bench.break_destination("d");
    let stops = |bench: &mut Bench| drop(bench.give(Input::Stop));
    let happens: [&dyn Fn(&mut Bench); 4] = [&pause, &pause_and_resume, &breaks, &stops];
    for happens in happens {
        let mut bench = Bench::owning(limits());
        assert_eq!(begins(&read(&mut bench, starting(&["a"]))), [1]);
        happens(&mut bench);
        let steps = bench.admit(vec![claimed("a", 1)]);
        assert_eq!(begun(&steps), NONE);
        let change = written(&steps);
        let untried = ChangeKind::Park { until: NOW, tries: AttemptState::default(), request: None };
        assert_eq!(change.kind, untried);
        assert!(!bench.engine.lanes.is_busy(Partition(1)) && bench.engine.lanes.is_busy(P), "it is to be written");
        assert_eq!(begun(&bench.found(P, vec![claimed("a", 1)], true)), NONE, "as it was found before");
        bench.wrote(change, Changed::Written);
        assert_eq!(bench.numbers(), Counts { in_flight: 0, ..Counts::default() });
    }
}

#[test]
fn what_became_of_a_claim_that_is_given_back_is_looked_up() {
    for (changed, loads, searches) in [(Changed::Ended, true, false), (Changed::Refused, false, true)] {
        let mut bench = Bench::owning(limits());
        read(&mut bench, starting(&["a"]));
        bench.break_destination("d");
        let change = written(&bench.admit(vec![claimed("a", 1)]));
        bench.behind("a");
        (0..8).for_each(|who| {
            let now = bench.now;
            if let Some(permit) = bench.destinations.permit("d", false, now) {
                bench.destinations.answered("d", permit, Health::Serves, who, now, 1.0);
            }
        });
        let steps = bench.wrote(change, changed);
        assert_eq!((has_load(&steps), !found_after(&steps).is_empty()), (loads, searches), "{changed:?}");
    }
}

#[test]
fn as_many_more_runs_begin_as_slots_became_free_during_the_last_admission() {
    let mut bench = Bench::owning(FlowLimits { in_flight: 4, ..limits() });
    let claimed_from = |from: i64, to: i64| (from..to).map(|n| claimed(&format!("k{n}"), n)).collect::<Vec<_>>();
    let read_from = |bench: &mut Bench, from: i64, to: i64| {
        begins(&read(bench, (from..to).map(|n| arrival(&run(&format!("k{n}"), n))).collect()))
    };
    assert_eq!(read_from(&mut bench, 0, 4), [0, 1, 2, 3]);
    bench.admit(claimed_from(0, 4));
    // The next one waits for a slot, and during its admission two more become free.
    let waiting = read(&mut bench, vec![arrival(&run("k4", 4))]);
    assert!(begun(&waiting).is_empty());
    assert_eq!(begins(&bench.attempted("k0-0", done())), [4]);
    bench.attempted("k1-1", done());
    bench.attempted("k2-2", done());
    assert_eq!(begun(&bench.admit(claimed_from(4, 5))), ["k4-4"]);
    assert_eq!(bench.numbers().in_flight, 2);

    assert_eq!(read_from(&mut bench, 5, 11), [5, 6, 7, 8], "two slots are free, and two more will be");
    assert_eq!(begun(&bench.admit(claimed_from(5, 9))).len(), 4, "where the others wait is not decided here");
    assert_eq!(bench.numbers().in_flight, 6);
    // None became free meanwhile, so the next ones wait for their own.
    assert_eq!(begins(&bench.after(Duration::from_millis(50))), NOBODY);
    assert_eq!(begun(&bench.admit(vec![run("k9", 9)])), NONE, "a run without a claim needs a slot of its own");
}

#[test]
fn the_events_of_a_busy_key_keep_no_others_back() {
    let mut bench = Bench::owning(FlowLimits { in_flight: 4, ..limits() });
    read(&mut bench, vec![arrival(&run("busy", 0))]);
    bench.admit(vec![claimed("busy", 0)]);
    // Three slots are free. The busy key needs none of them, and the others have two events each.
    let keys = ["busy", "busy", "busy", "busy", "busy", "a", "a", "busy", "b", "c", "b", "d"];
    let waiting = keys.iter().zip(1..).map(|(key, position)| arrival(&run(key, position))).collect();
    let steps = read(&mut bench, waiting);
    assert_eq!(begins(&steps), [6, 9, 10]);
    let admitted = |steps: &[Step]| batch_of(steps).arrivals.iter().map(|arrival| arrival.offset.0).collect::<Vec<_>>();
    assert_eq!(admitted(&steps), (1..12).collect::<Vec<_>>(), "all but the event of the fourth key");
    bench.admit(vec![claimed("a", 6), claimed("b", 9), claimed("c", 10)]);

    // Not without bound, because the admission of many events takes long.
    let waiting = (20..60).map(|position| arrival(&run("busy", position))).collect();
    read(&mut bench, waiting);
    let steps = bench.after(Duration::from_millis(50));
    assert_eq!(admitted(&steps), (12..13).chain(20..35).collect::<Vec<_>>(), "four for each slot");
}
