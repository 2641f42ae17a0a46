//! Tests of the order within a lane, and of concurrent lanes.

use super::*;

#[test]
fn runs_of_one_key_go_one_after_the_other_and_keys_at_the_same_time() {
    let mut bench = Bench::owning(limits());
    assert_eq!(begun(&bench.admit(vec![run("a", 1), run("b", 2)])), ["a-1", "b-2"]);
    assert_eq!(begun(&bench.behind("a")), NONE);
    assert!(has_load(&bench.finish("a-1")));
    assert_eq!(begun(&bench.loaded("a", vec![run("a", 3)], false)), ["a-3"]);
    assert_eq!(bench.numbers().in_flight, 2);
}

#[test]
fn the_next_run_begins_only_when_the_end_of_the_last_is_written() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    bench.behind("a");
    let steps = bench.attempted("a-1", done());
    assert!(!has_load(&steps) && begun(&steps).is_empty());
    assert!(has_load(&bench.wrote(written(&steps), Changed::Written)));
}

#[test]
fn a_long_lane_is_held_in_the_store_and_loaded_when_its_turn_comes() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    bench.behind("a");
    let steps = bench.finish("a-1");
    let asked = Step::Store(StoreRequest::Read(StoreRead::Load {
        key: subject("a"),
        partition: P,
        epoch: EPOCH,
        limit: WINDOW,
    }));
    assert!(steps.contains(&asked), "{steps:?}");
    assert_eq!(begun(&bench.loaded("a", vec![run("a", 2), run("a", 3)], true)), ["a-2"]);
    assert_eq!(begun(&bench.finish("a-2")), ["a-3"]);
    assert!(has_load(&bench.finish("a-3")), "there is more");
    assert_eq!(begun(&bench.loaded("a", Vec::new(), false)), NONE);
    assert_eq!(bench.numbers(), Counts::default(), "a lane that has nothing, or waits for a parked run, is not here");
}

#[test]
fn what_comes_while_a_lane_is_loaded_is_not_lost() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    bench.behind("a");
    bench.finish("a-1");
    bench.loaded("a", vec![run("a", 2)], false);
    // A run stored after the lane was read, between its two runs or behind them.
    bench.behind("a");
    assert!(has_load(&bench.finish("a-2")));
}

#[test]
fn a_woken_run_comes_before_what_has_not_begun() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 5)]);
    bench.behind("a");
    bench.finish("a-5");
    assert_eq!(begun(&bench.loaded("a", vec![run("a", 6), run("a", 7)], false)), ["a-6"]);
    // Run 2 has waited: it comes after 6, which is in flight, and before 7.
    bench.behind("a");
    assert_eq!(bench.numbers().loaded, 1, "7 is read again when its turn comes");
    assert!(has_load(&bench.finish("a-6")));
    assert_eq!(begun(&bench.loaded("a", vec![run("a", 2), run("a", 7)], false)), ["a-2"]);
    assert_eq!(begun(&bench.finish("a-2")), ["a-7"]);
}

#[test]
fn a_woken_head_of_a_lane_that_is_here_is_not_forgotten() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 5)]);
    bench.admitted(Admission { woken: vec![run("a", 2)], ..Admission::default() });
    assert_eq!(bench.numbers().in_flight, 1, "one at a time");
    assert!(has_load(&bench.finish("a-5")));
    assert_eq!(begun(&bench.loaded("a", vec![run("a", 2)], false)), ["a-2"]);
}

#[test]
fn a_run_that_has_ended_elsewhere_leaves_its_lane() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    bench.behind("a");
    assert!(has_load(&bench.report("a-1", StepReport::Ended)));
    assert_eq!(bench.numbers().in_flight, 0);
}

#[test]
fn no_more_steps_are_under_way_than_allowed() {
    let mut bench = Bench::owning(FlowLimits { in_flight: 2, ..limits() });
    assert_eq!(begun(&bench.admit((0..5).map(|n| run(&format!("k{n}"), n)).collect())).len(), 2);
    assert_eq!(begun(&bench.finish("k0-0")), ["k2-2"]);
}

#[test]
fn a_wait_releases_the_lane_and_news_that_came_meanwhile_end_it() {
    for changed in [Changed::Written, Changed::Awake] {
        let mut bench = Bench::owning(limits());
        bench.admit(vec![run("a", 1)]);
        bench.behind("a");
        let until = NOW.plus(Duration::from_secs(5));
        let steps = bench.report("a-1", StepReport::Wait { until, news_after: Some(1) });
        let steps = bench.wrote(written(&steps), changed);
        if changed == Changed::Awake {
            assert_eq!(begun(&steps), ["a-1"]);
            assert_eq!(bench.at_work["a-1"].0.wait_until, Some(until), "and it knows how long it may wait");
        } else {
            assert!(has_load(&steps));
        }
    }
}

#[test]
fn a_wait_whose_end_is_heard_of_before_its_beginning_is_not_forgotten() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    let report = StepReport::Wait { until: NOW.plus(Duration::from_secs(5)), news_after: Some(1) };
    let change = written(&bench.report("a-1", report));
    let steps = bench.admitted(Admission { woken: vec![run("a", 1)], ..Admission::default() });
    assert_eq!(begun(&steps), NONE);
    assert!(has_load(&bench.wrote(change, Changed::Written)));
    assert_eq!(begun(&bench.loaded("a", vec![run("a", 1)], false)), ["a-1"]);
}

#[test]
fn a_step_follows_a_step_with_its_tries_forgotten() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    let steps = bench.attempted_before("a-1", done(), NextStep::Step(Some("e".into())));
    let change = written(&steps);
    let ChangeKind::Advance { to: 1, effect: Some(effect), .. } = &change.kind else { panic!("{change:?}") };
    assert_eq!((effect.step, effect.connector.as_str()), (0, "d"));
    assert_eq!(begun(&bench.wrote(change, Changed::Written)), ["a-1"]);
    let (run, ..) = &bench.at_work["a-1"];
    assert_eq!((run.step, run.destination.as_deref(), run.tries.attempts), (1, Some("e"), 1));
    assert_eq!(run.results.len(), 1);
}

#[test]
fn cancelling_takes_what_has_not_begun_and_leaves_what_is_under_way() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    bench.behind("a");
    bench.finish("a-1");
    bench.loaded("a", vec![run("a", 2), run("a", 3)], false);
    let cancelled = ["a-2", "a-3"].map(|id| (subject("a"), reference(id))).to_vec();
    bench.admitted(Admission { cancelled, ..Admission::default() });
    assert_eq!((bench.numbers().loaded, bench.numbers().in_flight), (1, 1));
    // The store knows that the run in flight has ended, so only the effect of its change is written.
    let change = written(&bench.attempted("a-2", done()));
    assert_eq!(begun(&bench.wrote(change, Changed::Ended)), NONE);
    assert_eq!(bench.numbers(), Counts::default());
}

#[test]
fn cancelling_a_held_head_lets_its_lane_go_on() {
    let mut bench = Bench::owning(limits());
    bench.break_destination("d");
    bench.admit(vec![run("a", 1)]);
    bench.behind("a");
    assert_eq!(bench.numbers().held, 1);
    let cancelled = vec![(subject("a"), reference("a-1"))];
    assert!(has_load(&bench.admitted(Admission { cancelled, ..Admission::default() })));
    assert_eq!(bench.numbers().held, 0);
    assert_eq!(begun(&bench.loaded("a", vec![run_for("a", 2, Some("other"))], false)), ["a-2"]);
}
