//! Tests of steps that are skipped because their recipient must not receive mail.

use super::*;
use crate::SkipReason;

fn held(held: SkipReason, next: NextStep) -> StepReport {
    StepReport::HeldBack { step: "s".into(), held, next }
}

#[test]
fn a_run_that_leaves_its_last_step_undone_is_done_and_says_why() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1), run("b", 2)]);
    for (event, why) in [("a-1", SkipReason::Suppressed), ("b-2", SkipReason::HeldBack)] {
        let ChangeKind::End { state, effect, note, .. } = written(&bench.report(event, held(why, NextStep::End))).kind
        else {
            panic!("it has ended")
        };
        assert_eq!((state, effect, note), (RunState::Done, None, Some(why.label())));
    }
}

#[test]
fn the_next_steps_go_on_and_see_it_and_the_end_still_says_why() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    let change = written(&bench.report("a-1", held(SkipReason::Unsubscribed, NextStep::Step(Some("d".to_owned())))));
    let ChangeKind::Advance { effect, results, .. } = &change.kind else { panic!("{change:?}") };
    assert_eq!((effect, results.get(&0)), (&None, Some(&json!({ "held_back": "unsubscribed" }))));
    assert_eq!(begun(&bench.wrote(change, Changed::Written)), ["a-1"]);
    let ChangeKind::End { state, effect, note, .. } = written(&bench.attempted("a-1", done())).kind else {
        panic!("it has ended")
    };
    assert_eq!((state, note, effect.is_some()), (RunState::Done, Some("unsubscribed"), true));
}

#[test]
fn it_says_nothing_of_the_destination() {
    let mut bench = Bench::owning(limits());
    bench.break_destination("d");
    bench.now = bench.now.plus(Duration::from_secs(60));
    assert_eq!(begun(&bench.admit(vec![run("a", 1), run("b", 2)])), ["a-1"], "one call tries whether it is back");
    bench.report("a-1", held(SkipReason::HeldBack, NextStep::End));
    assert!(!bench.destinations.is_closed("d", false, bench.now), "nobody has asked it");
    assert_eq!(bench.at_work.keys().collect::<Vec<_>>(), ["b-2"], "so the next one tries");
}
