//! Tests of which attempts are repeated, at what time, and until when.

use super::*;

#[test]
fn a_retry_holds_its_lane_and_no_other() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    bench.behind("a");
    assert_eq!(bench.fail("a-1", Cause::Timeout), []);
    assert_eq!(begun(&bench.admit(vec![run("c", 4)])), ["c-4"], "others go on");
    assert_eq!(begun(&bench.after(Duration::from_millis(1_999))), NONE);
    assert_eq!(begun(&bench.after(Duration::from_millis(1))), ["a-1"], "the same run, not the next");
}

#[test]
fn a_retry_that_is_far_off_is_parked_and_its_lane_is_out_of_memory_until_it_is_due() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    bench.behind("a");
    let outcome = Outcome::Retry { cause: Cause::Unavailable, after: Some(Duration::from_secs(6)) };
    let steps = bench.attempted("a-1", outcome);
    let change = written(&steps);
    let ChangeKind::Park { until, tries, request } = &change.kind else { panic!("{change:?}") };
    assert_eq!(*until, NOW.plus(Duration::from_secs(6)));
    assert_eq!((tries.attempts, tries.unanswered, request.as_deref()), (1, 0, Some(&b"exact"[..])));
    assert_eq!((bench.numbers().in_flight, bench.numbers().writing), (0, 1), "until it is written");
    let parked = Run { begun: true, tries: *tries, request: request.clone(), ..run("a", 1) };
    let steps = bench.wrote(change, Changed::Written);
    assert!(!has_load(&steps), "the lane waits for it");
    assert_eq!(bench.numbers(), Counts::default());
    bench.now = bench.now.plus(Duration::from_secs(6));
    let steps = bench.give(Input::Due { heads: vec![parked], behind: Vec::new(), next: None, retried: false });
    assert_eq!(begun(&steps), ["a-1"]);
}

#[test]
fn an_unknown_outcome_repeats_the_exact_request_under_the_same_key_and_a_known_failure_does_not() {
    let again = |cause| {
        let mut bench = Bench::owning(limits());
        bench.admit(vec![run("a", 1)]);
        bench.fail("a-1", cause);
        bench.after_seconds(2);
        let (run, ..) = bench.at_work.remove("a-1").expect("the attempt is repeated");
        (run.request, run.tries.generation, run.tries.attempts)
    };
    assert_eq!(again(Cause::Timeout), (Some(b"exact".to_vec()), 0, 2));
    assert_eq!(again(Cause::Unreachable), (None, 1, 2));
    assert_eq!(again(Cause::Throttled), (None, 1, 2));
}

#[test]
fn an_open_outcome_stays_open_whatever_the_next_attempt_comes_to() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    bench.fail("a-1", Cause::Timeout);
    bench.after_seconds(2);
    bench.fail("a-1", Cause::Unreachable);
    bench.after_seconds(4);
    let (run, ..) = &bench.at_work["a-1"];
    assert_eq!((run.request.as_deref(), run.tries.generation), (Some(&b"exact"[..]), 0));
}

#[test]
fn spent_retries_and_rejections_are_buried_and_the_lane_goes_on() {
    let mut bench = Bench::owning(limits());
    let spent = AttemptState { attempts: 5, counted: 2, first_at: Some(NOW), ..AttemptState::default() };
    bench.admit(vec![tried(run("a", 1), spent)]);
    bench.behind("a");
    let steps = bench.fail("a-1", Cause::Conflict);
    let change = written(&steps);
    let ChangeKind::Park { tries, .. } = change.kind else { panic!("{change:?}") };
    bench.wrote(change, Changed::Written);
    let head = tried(run("a", 1), tries);
    let steps = bench.give(Input::Due { heads: vec![head], behind: Vec::new(), next: None, retried: false });
    let (reason, steps) = bench.dead_letter(&steps);
    assert_eq!(reason, Reason::RetriesSpent);
    assert!(has_load(&steps));
    bench.loaded("a", vec![run("a", 2)], false);
    let steps = bench.attempted("a-2", Outcome::reject(Reason::InvalidRequest, "422"));
    assert_eq!(bench.dead_letter(&steps).0, Reason::InvalidRequest);
    assert_eq!(bench.numbers(), Counts::default());
}

#[test]
fn what_has_expired_or_cannot_be_read_is_not_attempted() {
    let mut bench = Bench::owning(limits());
    let verdict = Some((Reason::Malformed, "no".to_owned()));
    let steps = bench.admit(vec![Run { verdict, ..run("a", 1) }]);
    assert_eq!((begun(&steps).len(), bench.dead_letter(&steps).0), (0, Reason::Malformed));
    bench.now = NOW.plus(Duration::from_secs(1_801));
    let steps = bench.admit(vec![run("b", 2)]);
    assert_eq!((begun(&steps).len(), bench.dead_letter(&steps).0), (0, Reason::Expired));
}

#[test]
fn an_attempt_of_somebody_else_is_waited_out() {
    let mut bench = Bench::owning(limits());
    let until = NOW.plus(Duration::from_secs(35));
    let tries = AttemptState { attempts: 1, unanswered: 1, claimed_until: Some(until), ..AttemptState::default() };
    assert_eq!(begun(&bench.found(P, vec![tried(run("a", 1), tries), run("b", 2)], true)), ["b-2"]);
    assert_eq!(begun(&bench.after(Duration::from_millis(34_999))), NONE);
    assert_eq!(begun(&bench.after(Duration::from_millis(1))), ["a-1"]);
}

#[test]
fn a_run_that_goes_on_ending_its_worker_is_given_up() {
    let mut bench = Bench::owning(limits());
    let tries = AttemptState { attempts: 4, unanswered: 4, ..AttemptState::default() };
    let steps = bench.found(P, vec![tried(run("a", 1), tries)], true);
    assert_eq!((begun(&steps).len(), bench.dead_letter(&steps).0), (0, Reason::WorkerCrashed));
}

#[test]
fn those_that_may_have_ended_workers_are_tried_later_and_one_at_a_time() {
    let mut bench = Bench::owning(limits());
    let suspect = |key, position| {
        tried(
            run(key, position),
            AttemptState { attempts: 2, unanswered: 2, first_at: Some(NOW), ..AttemptState::default() },
        )
    };
    let heads = vec![suspect("a", 1), suspect("b", 2), run("c", 3)];
    assert_eq!(begun(&bench.found(P, heads, true)), ["c-3"]);
    assert_eq!(begun(&bench.after(Duration::from_millis(9_999))), NONE);
    assert_eq!(begun(&bench.after(Duration::from_millis(1))), ["a-1"]);
    // The outcome is written even if the run would otherwise rest in memory, because the next process needs it.
    let steps = bench.fail("a-1", Cause::Unavailable);
    let change = written(&steps);
    let ChangeKind::Park { tries, .. } = change.kind else { panic!("{change:?}") };
    assert_eq!(tries.unanswered, 0);
    assert_eq!(begun(&steps), ["b-2"]);
}

#[test]
fn an_effect_that_cannot_be_recorded_leaves_the_run_in_doubt() {
    for next in [NextStep::End, NextStep::Step(None)] {
        let mut bench = Bench::owning(limits());
        bench.admit(vec![run("a", 1)]);
        let change = written(&bench.attempted_before("a-1", done(), next));
        let steps = bench.wrote(change, Changed::Refused);
        let buried = steps.iter().find_map(|step| match step {
            Step::DeadLetter { run, epoch, reason, error } => {
                Some(dead_letter_change(run, *epoch, *reason, error.clone()).kind)
            }
            _ => None,
        });
        assert!(matches!(buried, Some(ChangeKind::End { state: RunState::Dead, in_doubt: true, .. })), "{buried:?}");
    }
}
