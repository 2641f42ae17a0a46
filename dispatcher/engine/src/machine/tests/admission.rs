//! Tests of the pace of admissions: events wait for slots, but not for long.

use super::*;

fn read(bench: &mut Bench, from: i64, to: i64) -> Vec<Step> {
    let arrivals = (from..to).map(|n| arrival(&run(&format!("k{n}"), n))).collect();
    let next = Offset(to);
    bench.give(Input::Read { assignment: Assignment(1), partition: P, next, arrivals, refused: Vec::new() })
}

/// Returns the number of events in each batch that the steps admit, with the frontier after it.
fn admitted(steps: &[Step]) -> Vec<(usize, i64)> {
    let batch = |step: &Step| match step {
        Step::Store(StoreRequest::Write(StoreWrite::Admit(batch))) => Some((batch.arrivals.len(), batch.frontier.0)),
        _ => None,
    };
    steps.iter().filter_map(batch).collect()
}

fn answered(bench: &mut Bench, frontier: i64, heads: Vec<Run>) -> Vec<Step> {
    let admission = Some(Admission { heads, ..Admission::default() });
    bench.give(Input::Admitted { partition: P, epoch: EPOCH, frontier: Offset(frontier), admission, retried: false })
}

#[test]
fn as_many_events_are_admitted_as_there_are_free_slots_and_others_when_a_part_is_free_again() {
    let mut bench = Bench::owning(FlowLimits { in_flight: 8, ..limits() });
    assert_eq!(admitted(&read(&mut bench, 0, 20)), [(8, 8)]);
    let steps = answered(&mut bench, 8, (0..8).map(|n| run(&format!("k{n}"), n)).collect());
    assert_eq!((begun(&steps).len(), admitted(&steps)), (8, Vec::new()));
    let steps = bench.attempted("k0-0", done());
    assert_eq!(admitted(&steps), [], "one slot is too few for a transaction");
    let steps = bench.attempted("k1-1", done());
    assert_eq!(admitted(&steps), [(2, 10)], "although their ends are not written yet");
}

#[test]
fn events_do_not_wait_long_for_slots_nor_for_the_end_of_a_pause() {
    let mut bench = Bench::owning(FlowLimits { in_flight: 8, ..limits() });
    read(&mut bench, 0, 20);
    answered(&mut bench, 8, (0..8).map(|n| run(&format!("k{n}"), n)).collect());
    let soon = bench.engine.next_wakeup(bench.now, &bench.destinations).expect("a time");
    assert!(soon.since(bench.now) <= Duration::from_millis(50));
    bench.now = soon;
    assert_eq!(admitted(&bench.give(Input::Wakeup)), [(8, 16)]);
    bench.give(Input::Paused(Some(NOW)));
    assert_eq!(admitted(&answered(&mut bench, 16, Vec::new())), [(4, 20)], "all that there are");
}

#[test]
fn a_slow_store_holds_steps_up() {
    let mut bench = Bench::owning(FlowLimits { in_flight: 2, ..limits() });
    bench.admit((0..8).map(|n| run(&format!("k{n}"), n)).collect());
    for written in 0..2 {
        assert_eq!(begun(&bench.attempted(&format!("k{written}-{written}"), done())).len(), 1);
    }
    assert_eq!((bench.numbers().in_flight, bench.numbers().writing), (2, 2));
    let steps = bench.attempted("k2-2", done());
    assert_eq!((begun(&steps), bench.numbers().writing), (Vec::new(), 3), "so many results are not written");
    assert!(!bench.engine.is_idle());
    let ended = written(&steps);
    assert_eq!(begun(&bench.wrote(ended, Changed::Written)).len(), 1);
}
