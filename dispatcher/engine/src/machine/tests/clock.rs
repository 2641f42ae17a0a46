//! Tests of the limits on the engine while its clock is wrong or unproven.

use super::*;
use crate::clock::ClockState;

#[test]
fn nothing_is_begun_while_the_clock_is_wrong() {
    let mut bench = Bench::new(limits());
    bench.own(1, &[P]);
    bench.give(Input::Clock(ClockState::Wrong));
    let admission = Admission { heads: vec![run("a", 1)], ..Admission::default() };
    assert_eq!(begun(&bench.admitted(admission)), Vec::<String>::new());
    // The run returns as any run that waits in the store does.
    let steps = bench.give(Input::Clock(ClockState::Right));
    let steps = if found_after(&steps).is_empty() { bench.after_seconds(1) } else { steps };
    let all = if begun(&steps).is_empty() { bench.found(P, vec![run("a", 1)], true) } else { steps };
    assert_eq!(begun(&all), ["a-1"]);
}

#[test]
fn nothing_ends_by_time_while_nothing_proves_the_clock() {
    let mut bench = Bench::new(limits());
    bench.own(1, &[P]);
    // The answer to a request made before the clock became unproven.
    bench.give(Input::Due { heads: Vec::new(), behind: Vec::new(), next: None, retried: false });
    bench.give(Input::Clock(ClockState::Unproven));
    let expired = Run { expires_at: Some(NOW.minus(Duration::from_secs(1))), ..run("a", 1) };
    let admission = Admission { heads: vec![expired, run("b", 2)], ..Admission::default() };
    let steps = bench.admitted(admission);
    assert_eq!(begun(&steps), ["b-2"], "what is fresh goes on");
    assert!(!steps.iter().any(|step| matches!(step, Step::DeadLetter { .. })), "{steps:?}");
    let later = bench.after_seconds(600);
    assert!(
        !later
            .iter()
            .any(|step| matches!(step, Step::Store(StoreRequest::Write(StoreWrite::Due(_))) | Step::DeadLetter { .. })),
        "{later:?}"
    );
    let mut told = bench.give(Input::Clock(ClockState::Right));
    told.extend(bench.after_seconds(5));
    told.extend(bench.after_seconds(5));
    assert!(
        told.iter().any(|step| matches!(step, Step::Store(StoreRequest::Write(StoreWrite::Due(_))))),
        "waits end again: {told:?}"
    );
    assert!(told.iter().any(|step| matches!(step, Step::DeadLetter { .. })), "and it expires: {told:?}");
}
