//! Tests that nothing begins on outdated state: after an assignment and after a resume the log is read to
//! its end first.

use usher_proto::{Assignment, Offset};

use super::*;

const OTHER: Partition = Partition(1);
const PAUSED: Input = Input::Paused(Some(NOW));
const RESUMED: Input = Input::Paused(None);

/// Returns an engine that has just been assigned partition 0 of two, with the steps that it requests.
fn assigned() -> (Bench, Vec<Step>) {
    let mut bench = Bench::new(FlowLimits { partitions: 2, ..limits() });
    bench.given(1, &[P]);
    let owned = vec![owned_from_the_start(&P)];
    let steps = bench.give(Input::Acquired { assignment: Assignment(1), owned });
    (bench, steps)
}

fn frontiers(of: &[(Partition, Option<i64>)]) -> Input {
    Input::Frontiers(Some(of.iter().map(|(partition, offset)| (*partition, offset.map(Offset))).collect()))
}

fn asks_frontiers(steps: &[Step]) -> bool {
    steps.contains(&Step::AskFrontiers)
}

#[test]
fn nothing_is_begun_until_the_log_has_been_read_to_the_end_seen_at_the_assignment() {
    let (mut bench, steps) = assigned();
    assert_eq!(found_after(&steps), [], "no heads are searched for while none may begin");
    assert_eq!(bench.looked(&steps, &[(P, 100)]), []);
    assert_eq!(bench.engine.catching_up().map(|unread| (unread.partitions, unread.events)), Some((vec![P], 100)));
    let read = |frontier, heads| Input::Admitted {
        partition: P,
        epoch: EPOCH,
        frontier,
        admission: Some(Admission { heads, ..Admission::default() }),
        retried: false,
    };
    assert_eq!(begun(&bench.give(read(Offset(99), vec![run("a", 1)]))), NONE);
    assert_eq!(bench.numbers().loaded, 0, "what may not begin is left to the store");
    let steps = bench.give(read(Offset(100), vec![run("b", 99)]));
    assert!(!bench.engine.is_catching_up());
    assert_eq!(found_after(&steps), [None]);
    assert_eq!(begun(&bench.found(P, vec![run("a", 1), run("b", 99)], true)), ["a-1", "b-99"]);
    assert_eq!(begun(&bench.admit(vec![run("c", 101)])), ["c-101"], "what comes later does not move the end seen");
}

#[test]
fn partitions_of_others_count_and_are_asked_for_now_and_then() {
    let (mut bench, steps) = assigned();
    let steps = bench.looked(&steps, &[(P, 0), (OTHER, 7)]);
    assert!(asks_frontiers(&steps), "{steps:?}");
    assert!(!asks_frontiers(&bench.after_seconds(1)), "one question at a time");
    let steps = bench.give(frontiers(&[(P, Some(0)), (OTHER, Some(6))]));
    assert!(asks_frontiers(&steps) && found_after(&steps).is_empty(), "{steps:?}");
    assert!(!asks_frontiers(&bench.give(Input::Frontiers(None))));
    assert!(!asks_frontiers(&bench.after(Duration::from_millis(249))));
    assert!(asks_frontiers(&bench.after(Duration::from_millis(1))), "a store that does not answer is asked again");
    assert_eq!(found_after(&bench.give(frontiers(&[(P, Some(0)), (OTHER, Some(7))]))), [None]);
    assert!(!asks_frontiers(&bench.after_seconds(60)), "and never once it has caught up");
}

#[test]
fn a_partition_that_nobody_has_begun_to_read_counts_unless_it_is_beyond_the_layout() {
    let (mut bench, steps) = assigned();
    bench.looked(&steps, &[(OTHER, 7), (Partition(2), 7)]);
    assert_eq!(found_after(&bench.give(frontiers(&[(P, Some(0))]))), []);
    assert_eq!(bench.engine.catching_up().map(|unread| unread.partitions), Some(vec![OTHER]));
    bench.after_seconds(1);
    assert_eq!(found_after(&bench.give(frontiers(&[(OTHER, None)]))), [], "somebody owns it and has not begun");
    bench.after_seconds(1);
    assert_eq!(found_after(&bench.give(frontiers(&[(OTHER, Some(7))]))), [None]);
}

#[test]
fn a_log_that_cannot_be_asked_is_asked_again_and_nothing_is_begun_meanwhile() {
    let (mut bench, steps) = assigned();
    let look = look(&steps).unwrap();
    assert_eq!(bench.give(Input::Looked { look, seen: None }), []);
    let steps = bench.after(Duration::from_millis(500));
    assert_eq!(found_after(&bench.looked(&steps, &[])), [None]);
}

#[test]
fn each_further_assignment_holds_everything_again() {
    let mut bench = Bench::owning(limits());
    bench.given(2, &[OTHER]);
    assert_eq!(begun(&bench.admit(vec![run("a", 1)])), NONE);
    let owned = vec![Ownership { frontier: Some(Offset(3)), ..owned_from_the_start(&OTHER) }];
    let steps = bench.give(Input::Acquired { assignment: Assignment(2), owned });
    bench.looked(&steps, &[(P, 100), (OTHER, 4)]);
    assert_eq!(bench.engine.catching_up().map(|unread| unread.partitions), Some(vec![OTHER]));
    let admission = Some(Admission::default());
    let steps =
        bench.give(Input::Admitted { partition: OTHER, epoch: EPOCH, frontier: Offset(4), admission, retried: false });
    assert_eq!(found_after(&steps), [Some(0), None], "from before what was left to the store");
}

#[test]
fn an_answer_from_before_the_last_assignment_does_not_count() {
    let (mut bench, steps) = assigned();
    bench.given(2, &[OTHER]);
    assert_eq!(bench.looked(&steps, &[]), []);
    let owned = vec![owned_from_the_start(&OTHER)];
    let steps = bench.give(Input::Acquired { assignment: Assignment(2), owned });
    bench.looked(&steps, &[(P, 5)]);
    assert!(bench.engine.is_catching_up());
}

#[test]
fn a_partition_that_goes_away_meanwhile_is_waited_for_where_it_has_gone() {
    let mut bench = Bench::owning(FlowLimits { partitions: 2, ..limits() });
    bench.given(2, &[OTHER]);
    let owned = vec![owned_from_the_start(&OTHER)];
    let steps = bench.give(Input::Acquired { assignment: Assignment(2), owned });
    assert!(!asks_frontiers(&bench.looked(&steps, &[(OTHER, 4)])), "it is ours");
    let steps = bench.give(Input::Revoked { partitions: vec![OTHER], lost: true });
    assert!(asks_frontiers(&steps));
    assert_eq!(found_after(&bench.give(frontiers(&[(OTHER, Some(4))]))), []);
    assert_eq!(begun(&bench.admit(vec![run("a", 1)])), ["a-1"]);
}

#[test]
fn what_is_taken_before_it_was_ours_does_not_hold_the_rest_for_ever() {
    let mut bench = Bench::owning(limits());
    bench.given(2, &[OTHER]);
    let steps = bench.give(Input::Revoked { partitions: vec![OTHER], lost: true });
    bench.looked(&steps, &[]);
    assert_eq!(begun(&bench.admit(vec![run("a", 1)])), ["a-1"]);
}

#[test]
fn who_is_fenced_meanwhile_catches_up_with_the_next_assignment() {
    let (mut bench, steps) = assigned();
    bench.looked(&steps, &[(P, 5)]);
    assert!(is_rejoin(&bench.give(Input::Fenced { partition: P, epoch: EPOCH })));
    assert!(!bench.engine.is_catching_up(), "there is nothing that could begin");
    assert_eq!(bench.after_seconds(1), []);
    bench.given(2, &[P]);
    let owned = vec![owned_from_the_start(&P)];
    let steps = bench.give(Input::Acquired { assignment: Assignment(2), owned });
    assert_eq!(bench.looked(&steps, &[(P, 5)]), []);
    assert!(bench.engine.is_catching_up());
}

#[test]
fn whatever_would_begin_is_held_wherever_it_comes_from() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("resting", 1), run("more", 2)]);
    bench.behind("more");
    bench.fail("resting-1", Cause::Timeout);
    let admission = Some(Admission::default());
    let steps =
        bench.give(Input::Admitted { partition: P, epoch: EPOCH, frontier: Offset(100), admission, retried: true });
    assert_eq!(found_after(&steps), [None], "the store is being asked for heads");
    bench.given(2, &[OTHER]);
    // Heads of every source: new, woken or redriven, found in the store, due or parked, next of their lane, rested.
    let woken = Admission { heads: vec![run("new", 3)], woken: vec![run("woken", 4)], ..Admission::default() };
    let mut steps = bench.admitted(woken);
    steps.extend(bench.found(P, vec![run("stored", 5)], true));
    steps.extend(bench.give(Input::Due { heads: vec![run("due", 6)], behind: Vec::new(), next: None, retried: false }));
    steps.extend(bench.finish("more-2"));
    assert!(has_load(&steps));
    steps.extend(bench.loaded("more", vec![run("more", 7)], false));
    steps.extend(bench.after_seconds(30));
    assert_eq!(begun(&steps), NONE);
    assert!(
        !steps
            .iter()
            .any(|step| matches!(step, Step::Store(StoreRequest::Write(StoreWrite::Due(_))) | Step::DeadLetter { .. })),
        "{steps:?}"
    );

    let owned = vec![owned_from_the_start(&OTHER)];
    let steps = bench.give(Input::Acquired { assignment: Assignment(2), owned });
    let steps = bench.looked(&steps, &[]);
    assert_eq!(begun(&steps).len(), 2, "those in memory at once: {steps:?}");
    assert_eq!(found_after(&steps), [Some(2), None], "the others from the first of them on");
}

#[test]
fn a_paused_flow_begins_nothing_and_reads_on_and_catches_up_when_it_is_resumed() {
    let mut bench = Bench::owning(FlowLimits { in_flight: 1, ..limits() });
    bench.admit(vec![run("a", 1), run("b", 2)]);
    assert!(!bench.give(PAUSED).contains(&Step::Log(LogCommand::Pause(P))));
    assert_eq!(begun(&bench.finish("a-1")), NONE, "what was under way is finished");
    assert_eq!(begun(&bench.admit(vec![run("c", 3)])), NONE, "what comes is admitted, and not begun");
    assert_eq!(bench.after_seconds(60), []);
    let steps = bench.give(RESUMED);
    assert_eq!(begun(&steps), NONE);
    assert_eq!(begun(&bench.looked(&steps, &[(P, 101)])), NONE, "something in the log is unread");
    let admission = Some(Admission::default());
    let steps =
        bench.give(Input::Admitted { partition: P, epoch: EPOCH, frontier: Offset(101), admission, retried: false });
    assert_eq!(begun(&steps), ["b-2"]);
    assert_eq!(found_after(&steps), [Some(2)]);
    assert_eq!(bench.give(RESUMED), [], "it is no resume where nothing was paused");
}

#[test]
fn a_pause_is_confirmed_at_once_and_again_when_nothing_is_under_way() {
    let confirmed = |steps: &[Step]| -> Vec<usize> {
        let under_way = |step: &Step| match step {
            Step::Store(StoreRequest::Write(StoreWrite::ConfirmPause { under_way, .. })) => Some(*under_way),
            _ => None,
        };
        steps.iter().filter_map(under_way).collect()
    };
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1), run("b", 2)]);
    assert_eq!(confirmed(&bench.give(PAUSED)), [2]);
    assert!(confirmed(&bench.finish("a-1")).is_empty());
    assert_eq!(confirmed(&bench.finish("b-2")), [0]);
    assert!(confirmed(&bench.give(PAUSED)).is_empty());
    assert_eq!(confirmed(&bench.give(Input::Paused(Some(NOW.plus(Duration::from_secs(1)))))), [0], "another pause");
}

#[test]
fn nothing_is_begun_before_it_is_known_that_the_flow_is_not_paused() {
    let (mut bench, steps) = assigned();
    let look = look(&steps).unwrap();
    let seen = Some(CatchUpTarget { paused: Some(NOW), ends: Vec::new() });
    let steps = bench.give(Input::Looked { look, seen });
    assert!(
        steps.contains(&Step::Store(StoreRequest::Write(StoreWrite::ConfirmPause { since: NOW, under_way: 0 }))),
        "{steps:?}"
    );
    assert!(!bench.engine.is_catching_up() && bench.engine.is_paused());
    assert_eq!(begun(&bench.admit(vec![run("a", 1)])), NONE);
}

#[test]
fn a_look_that_was_taken_before_a_pause_does_not_end_it() {
    let (mut bench, steps) = assigned();
    let look = look(&steps).unwrap();
    let steps = bench.give(PAUSED);
    assert!(
        steps.contains(&Step::Store(StoreRequest::Write(StoreWrite::ConfirmPause { since: NOW, under_way: 0 }))),
        "{steps:?}"
    );
    bench.give(Input::Looked { look, seen: Some(CatchUpTarget { paused: None, ends: Vec::new() }) });
    assert!(bench.engine.is_paused());
    assert_eq!(begun(&bench.admit(vec![run("a", 1)])), NONE);
}

#[test]
fn full_memory_does_not_keep_a_flow_from_catching_up() {
    let mut bench = Bench::owning(limits());
    let heads = |from: i64, to: i64| (from..to).map(|n| run(&format!("k{n}"), n)).collect::<Vec<Run>>();
    bench.admit(heads(0, 4_000));
    bench.given(2, &[OTHER]);
    for round in 1..5 {
        let read = Input::Read {
            assignment: Assignment(1),
            partition: P,
            next: Offset(100 * round),
            arrivals: Vec::new(),
            refused: Vec::new(),
        };
        assert!(
            bench.give(read).iter().any(|step| matches!(step, Step::Store(StoreRequest::Write(StoreWrite::Admit(_))))),
            "{round}"
        );
        assert!(
            !bench.admit(heads(4_000 * round, 4_000 * round + 256)).contains(&Step::Log(LogCommand::Pause(P))),
            "{round}"
        );
    }
    assert_eq!(bench.numbers().loaded, MAX_RUNS);
}
