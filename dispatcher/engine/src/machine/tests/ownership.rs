//! Tests of taking partitions over, handing them back, and pausing and resuming their reading.

use usher_proto::{Assignment, Epoch, Offset};

use super::*;
use crate::start::CannotStart;

#[test]
fn what_comes_back_about_a_partition_that_was_taken_away_is_ignored() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    bench.give(Input::Revoked { partitions: vec![P], lost: true });
    assert_eq!(bench.attempted("a-1", done()), []);
    assert_eq!(bench.admit(vec![run("b", 2)]), []);
    assert_eq!(bench.numbers(), Counts::default());
}

#[test]
fn an_answer_that_was_lost_is_looked_for() {
    let mut bench = Bench::owning(limits());
    let admission = Some(Admission::default());
    let steps =
        bench.give(Input::Admitted { partition: P, epoch: EPOCH, frontier: Offset(1), admission, retried: true });
    assert_eq!(found_after(&steps), [None]);
    // The same once more, while the store is being queried.
    bench.give(Input::Due { heads: Vec::new(), behind: Vec::new(), next: None, retried: true });
    assert_eq!(found_after(&bench.found(P, Vec::new(), true)), [None]);
    assert_eq!(found_after(&bench.found(P, Vec::new(), true)), []);
}

#[test]
fn what_is_taken_is_drained_and_handed_back_when_nothing_of_it_is_under_way() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1), run("b", 2), run("c", 3)]);
    bench.behind("a");
    assert_eq!(bench.give(Input::Revoked { partitions: vec![P], lost: false }), []);
    assert!(!has_load(&bench.finish("a-1")), "nothing new is begun");
    let steps = bench.fail("b-2", Cause::Timeout);
    let change = written(&steps);
    assert!(matches!(change.kind, ChangeKind::Park { .. }), "what is known is written down: {change:?}");
    assert!(!bench.wrote(change, Changed::Written).contains(&Step::Log(LogCommand::Release)));
    assert!(bench.finish("c-3").contains(&Step::Log(LogCommand::Release)));
    assert!(bench.engine.is_standby());
}

#[test]
fn what_is_taken_is_handed_back_in_time_whatever_is_under_way() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    bench.give(Input::Revoked { partitions: vec![P], lost: false });
    assert!(!bench.after(Duration::from_millis(3_999)).contains(&Step::Log(LogCommand::Release)));
    assert!(bench.after(Duration::from_millis(1)).contains(&Step::Log(LogCommand::Release)));
    assert_eq!(bench.attempted("a-1", done()), [], "it is too late");
}

#[test]
fn what_advances_in_a_partition_that_is_taken_is_counted_out_once() {
    let mut bench = Bench::owning(limits());
    bench.own(2, &[Partition(1)]);
    let other = Run { partition: Partition(1), ..run_for("b", 1, Some("e")) };
    bench.admit(vec![run("a", 1)]);
    bench.found(Partition(1), vec![other], true);
    assert_eq!(bench.numbers().in_flight, 2);
    bench.give(Input::Revoked { partitions: vec![P], lost: false });
    let steps = bench.attempted_before("a-1", done(), NextStep::Step(Some("e".into())));
    let steps = bench.wrote(written(&steps), Changed::Written);
    assert!(steps.contains(&Step::Log(LogCommand::Release)));
    assert_eq!(bench.numbers().in_flight, 1, "the other is still under way");
}

#[test]
fn nothing_is_begun_once_the_process_stops_and_what_is_under_way_is_finished() {
    let mut bench = Bench::owning(FlowLimits { in_flight: 2, ..limits() });
    bench.admit(vec![run("a", 1), run("b", 2), run("c", 3)]);
    assert_eq!(bench.give(Input::Stop), []);
    assert!(!bench.engine.is_idle());
    assert_eq!(begun(&bench.admit(vec![run("d", 4)])), NONE);
    let steps = bench.fail("a-1", Cause::Timeout);
    let change = written(&steps);
    assert!(matches!(change.kind, ChangeKind::Park { .. }));
    bench.wrote(change, Changed::Written);
    assert_eq!(begun(&bench.report("b-2", StepReport::Stopped)), NONE);
    assert!(bench.engine.is_idle());
}

#[test]
fn whoever_learns_that_a_partition_is_somebody_elses_joins_again() {
    let admission: fn(&mut Bench) -> Vec<Step> = |bench| {
        bench.give(Input::Admitted { partition: P, epoch: EPOCH, frontier: Offset(1), admission: None, retried: false })
    };
    let claim: fn(&mut Bench) -> Vec<Step> = |bench| {
        bench.admit(vec![run("a", 1)]);
        bench.report("a-1", StepReport::Fenced)
    };
    let write: fn(&mut Bench) -> Vec<Step> = |bench| {
        bench.admit(vec![run("a", 1)]);
        let change = written(&bench.attempted("a-1", done()));
        bench.wrote(change, Changed::Fenced)
    };
    let question: fn(&mut Bench) -> Vec<Step> = |bench| bench.give(Input::Fenced { partition: P, epoch: EPOCH });
    for notice in [admission, claim, write, question] {
        let mut bench = Bench::owning(limits());
        assert!(is_rejoin(&notice(&mut bench)));
        assert!(bench.engine.is_standby());
        assert_eq!(bench.numbers(), Counts::default());
    }
    let mut bench = Bench::owning(limits());
    assert!(!is_rejoin(&bench.give(Input::Fenced { partition: P, epoch: Epoch(EPOCH.0 - 1) })), "of an earlier time");
}

#[test]
fn a_partition_that_is_taken_and_given_again_is_ours_under_the_later_assignment() {
    let mut bench = Bench::new(limits());
    bench.given(1, &[P]);
    bench.give(Input::Revoked { partitions: vec![P], lost: true });
    bench.given(2, &[P]);
    let owned = |epoch| vec![Ownership { epoch, ..owned_from_the_start(&P) }];
    assert_eq!(bench.give(Input::Acquired { assignment: Assignment(1), owned: owned(Epoch(1)) }), []);
    let steps = bench.give(Input::Acquired { assignment: Assignment(2), owned: owned(Epoch(2)) });
    assert!(
        steps.contains(&Step::Log(LogCommand::Start { assignment: Assignment(2), offsets: vec![(P, Offset(0))] })),
        "{steps:?}"
    );
}

#[test]
fn where_a_partition_begins_is_stored_before_it_is_read() {
    let mut bench = Bench::new(limits());
    let given = AssignedPartition { partition: P, committed: None, low: Offset(3), end: Offset(9) };
    bench.give(Input::Assigned { assignment: Assignment(1), partitions: vec![given] });
    let owned = vec![Ownership { frontier: None, ..owned_from_the_start(&P) }];
    let steps = bench.give(Input::Acquired { assignment: Assignment(1), owned });
    assert!(steps.contains(&Step::Log(LogCommand::Start { assignment: Assignment(1), offsets: vec![(P, Offset(3))] })));
    let first = steps.iter().find_map(|step| match step {
        Step::Store(StoreRequest::Write(StoreWrite::Admit(batch))) => Some((batch.frontier, batch.arrivals.len())),
        _ => None,
    });
    assert_eq!(first, Some((Offset(3), 0)));
    assert!(!bench.engine.has_begun());
    // No wait ends before the existing records have been read: one of them might cancel it.
    let steps = bench.looked(&steps, &[(P, 9)]);
    assert!(!steps.iter().any(|step| matches!(step, Step::Store(StoreRequest::Write(StoreWrite::Due(_))))));
    assert!(bench.admit(Vec::new()).contains(&Step::Store(StoreRequest::Write(StoreWrite::Due(vec![(P, EPOCH)])))));
    assert!(bench.engine.has_begun());
}

#[test]
fn a_partition_that_has_events_and_delivers_none_is_noticed() {
    let mut bench = Bench::owning(limits());
    assert!(!is_rejoin(&bench.give(Input::Ends(vec![(P, Offset(5))]))));
    bench.now = NOW.plus(Duration::from_secs(60));
    assert!(!is_rejoin(&bench.give(Input::Ends(vec![(P, Offset(5))]))));
    bench.now = NOW.plus(Duration::from_secs(61));
    assert!(is_rejoin(&bench.give(Input::Ends(vec![(P, Offset(5))]))));

    let mut quiet = Bench::owning(limits());
    for second in 0..10 {
        quiet.now = NOW.plus(Duration::from_secs(second * 50));
        assert!(!is_rejoin(&quiet.give(Input::Ends(vec![(P, Offset(0))]))), "there is nothing to read");
    }
}

#[test]
fn what_finds_no_room_in_memory_is_left_to_the_store_and_found_there_from_its_place_on() {
    let mut bench = Bench::owning(FlowLimits { in_flight: 5_000, ..limits() });
    let heads = |from: usize, to: usize| (from..to).map(|n| run(&format!("k{n}"), n as i64)).collect::<Vec<Run>>();
    let more = MAX_RUNS + 100;
    assert!(bench.admit(heads(0, more)).contains(&Step::Log(LogCommand::Pause(P))), "more is read when there is room");
    assert_eq!(bench.numbers().loaded, MAX_RUNS);
    let mut found = None;
    for n in 0..MAX_RUNS {
        let steps = bench.finish(&format!("k{n}-{n}"));
        if let Some(after) = found_after(&steps).first() {
            found = Some(*after);
            break;
        }
    }
    assert_eq!(found, Some(Some(MAX_RUNS as i64 - 1)), "from the first that found no room");
    assert_eq!(bench.numbers().loaded, MAX_RUNS - FOUND_AT_ONCE, "as soon as there is room for a page");
    assert_eq!(begun(&bench.found(P, heads(MAX_RUNS, more), true)).len(), 100);
}

#[test]
fn reading_pauses_while_too_much_waits_for_admission_and_goes_on_when_half_of_it_is_admitted() {
    let mut bench = Bench::owning(FlowLimits { in_flight: 2_048, ..limits() });
    let read = |from: i64, to: i64| Input::Read {
        refused: Vec::new(),
        assignment: Assignment(1),
        partition: P,
        next: Offset(to),
        arrivals: (from..to).map(|n| arrival(&run(&format!("k{n}"), n))).collect(),
    };
    assert!(
        bench
            .give(read(0, 256))
            .iter()
            .any(|step| matches!(step, Step::Store(StoreRequest::Write(StoreWrite::Admit(_)))))
    );
    for batch in 1..5 {
        assert!(!bench.give(read(batch * 256, batch * 256 + 256)).contains(&Step::Log(LogCommand::Pause(P))));
    }
    assert!(
        bench.give(read(1_280, 1_281)).contains(&Step::Log(LogCommand::Pause(P))),
        "the one that is being admitted does not count"
    );
    let resumed = (0..5).find(|_| bench.admit(Vec::new()).contains(&Step::Log(LogCommand::Resume(P))));
    assert_eq!(resumed, Some(2));
}

#[test]
fn a_search_of_many_partitions_at_once_does_not_go_beyond_the_bound() {
    let mut bench = Bench::new(limits());
    let partitions: Vec<Partition> = (0..50).map(Partition).collect();
    bench.given(1, &partitions);
    let owned = partitions.iter().map(owned_from_the_start).collect();
    let steps = bench.give(Input::Acquired { assignment: Assignment(1), owned });
    let steps = bench.looked(&steps, &[]);
    assert_eq!(found_after(&steps).len(), MAX_RUNS / FOUND_AT_ONCE);
    assert_eq!(found_after(&bench.found(P, Vec::new(), true)).len(), 1, "the next one's turn");
}

/// Gives the engine a partition whose end was 5 at its assignment, and whose frontier in the store is 9 by now. Returns the
/// number of the read of the ends that follows.
fn owning_what_has_gone_further(bench: &mut Bench) -> u64 {
    let given = AssignedPartition { partition: P, committed: Some(Offset(9)), low: Offset(0), end: Offset(5) };
    bench.give(Input::Assigned { assignment: Assignment(1), partitions: vec![given] });
    let owned = vec![Ownership { frontier: Some(Offset(9)), ..owned_from_the_start(&P) }];
    let steps = bench.give(Input::Acquired { assignment: Assignment(1), owned });
    assert!(!steps.iter().any(|step| matches!(step, Step::Fail(..) | Step::Log(_))), "{steps:?}");
    look(&steps).unwrap_or_else(|| panic!("the ends are read again: {steps:?}"))
}

fn ends(end: i64) -> CatchUpTarget {
    CatchUpTarget { paused: None, ends: vec![Seen { partition: P, low: Offset(0), end: Offset(end) }] }
}

#[test]
fn what_the_former_owner_has_read_since_the_assignment_is_not_beyond_the_end() {
    let mut bench = Bench::new(limits());
    let look = owning_what_has_gone_further(&mut bench);
    let steps = bench.give(Input::Looked { look, seen: Some(ends(12)) });
    let start = LogCommand::Start { assignment: Assignment(1), offsets: vec![(P, Offset(9))] };
    assert!(steps.contains(&Step::Log(start)), "{steps:?}");
    let steps = bench.looked(&steps, &[(P, 12)]);
    assert!(bench.engine.is_catching_up(), "what was added since is read first: {steps:?}");
}

#[test]
fn a_log_that_ends_before_its_store_is_reported_once_its_end_has_been_read_after_the_store() {
    let mut bench = Bench::new(limits());
    let look = owning_what_has_gone_further(&mut bench);
    let steps = bench.give(Input::Looked { look, seen: Some(ends(8)) });
    let problem = CannotStart::Ahead { at: Offset(9), end: Offset(8) };
    assert!(steps.contains(&Step::Fail(P, problem)), "{steps:?}");
}

#[test]
fn ends_that_cannot_be_read_again_are_read_with_the_next_assignment() {
    let mut bench = Bench::new(limits());
    let look = owning_what_has_gone_further(&mut bench);
    assert!(is_rejoin(&bench.give(Input::Looked { look, seen: None })));
    let mut bench = Bench::new(limits());
    let look = owning_what_has_gone_further(&mut bench);
    bench.give(Input::Revoked { partitions: vec![P], lost: true });
    let steps = bench.give(Input::Looked { look, seen: Some(ends(8)) });
    assert_eq!(steps, [], "it is another replica's");
}
