//! Tests of destinations that are down, or receive more runs than they take.

use usher_proto::Assignment;

use super::*;

#[test]
fn a_failure_counts_only_once_others_have_been_served_after_it() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    for pause in [2, 4] {
        bench.fail("a-1", Cause::Unavailable);
        assert_eq!(begun(&bench.after_seconds(pause)), ["a-1"]);
    }
    assert_eq!(bench.at_work["a-1"].0.tries.counted, 0, "nobody else has been served");
    let change = written(&bench.fail("a-1", Cause::Unavailable));
    let ChangeKind::Park { tries, .. } = change.kind else { panic!("{change:?}") };
    bench.wrote(change, Changed::Written);
    bench.admit(vec![run("b", 2)]);
    bench.finish("b-2");
    let head = tried(run("a", 1), tries);
    bench.give(Input::Due { heads: vec![head], behind: Vec::new(), next: None, retried: false });
    assert_eq!(bench.at_work["a-1"].0.tries.counted, 1);
}

#[test]
fn one_of_several_destinations_does_not_take_all_the_room() {
    let mut bench = Bench::owning(FlowLimits { in_flight: 8, destinations: 2, ..limits() });
    let heads: Vec<Run> = (0..10).map(|n| run_for(&format!("k{n}"), n, Some("slow"))).collect();
    assert_eq!(begun(&bench.admit(heads)).len(), 6);
    assert_eq!((bench.numbers().in_flight, bench.numbers().held), (6, 4));
    assert_eq!(begun(&bench.admit(vec![run_for("x", 20, Some("other"))])), ["x-20"]);
    assert_eq!(begun(&bench.finish("k3-3")), ["k6-6"], "in the order in which they came");
}

#[test]
fn a_destination_that_is_down_holds_its_heads_and_spends_nothing() {
    let mut bench = Bench::owning(limits());
    bench.admit((0..8).map(|n| run(&format!("k{n}"), n)).collect());
    (0..8).for_each(|n| drop(bench.fail(&format!("k{n}-{n}"), Cause::Unavailable)));
    assert!(!bench.destinations.is_closed("d", false, bench.now));
    bench.admit(vec![run("x", 20)]);
    assert_eq!(begun(&bench.admit(vec![run_for("y", 21, Some("e"))])), ["y-21"], "another is not held up");
    let mut tried = 0;
    for _ in 0..600 {
        for event in begun(&bench.after_seconds(1)) {
            tried += 1;
            assert_eq!(bench.at_work[&event].0.tries.counted, 0);
            bench.fail(&event, Cause::Unavailable);
        }
    }
    assert!((10..60).contains(&tried), "{tried} attempts in ten minutes");
    let mut served = 0;
    for _ in 0..60 {
        let mut steps = bench.after_seconds(1);
        loop {
            let events = begun(&steps);
            if events.is_empty() {
                break;
            }
            steps = Vec::new();
            for event in events {
                served += 1;
                assert_eq!(bench.at_work[&event].0.tries.counted, 0, "{event}");
                steps.extend(bench.finish(&event));
            }
        }
    }
    assert_eq!(served, 9);
}

#[test]
fn heads_beyond_what_is_kept_are_left_to_the_store_and_found_again() {
    let mut bench = Bench::owning(limits());
    bench.break_destination("d");
    let heads = |from: i64, to: i64| (from..to).map(|n| run(&format!("k{n}"), n)).collect::<Vec<Run>>();
    bench.admit(heads(0, 300));
    assert_eq!((bench.numbers().held, bench.numbers().loaded), (256, 256));
    // The destination is back: the breaker opens up, and when few heads are left the store is queried
    // from the beginning.
    let mut served = 0;
    let mut asked = Vec::new();
    let mut steps = bench.after_seconds(2);
    while asked.is_empty() {
        asked = found_after(&steps);
        let events = begun(&steps);
        assert!(!events.is_empty() || !asked.is_empty());
        steps = Vec::new();
        for event in events {
            served += 1;
            steps.extend(bench.finish(&event));
        }
    }
    assert_eq!(asked, [None]);
    assert!(served >= 256 - 64, "{served}");
    bench.found(P, heads(256, 300), true);
    let mut left: Vec<String> = bench.at_work.keys().cloned().collect();
    while let Some(event) = left.pop() {
        served += 1;
        left.extend(begun(&bench.finish(&event)));
    }
    assert_eq!(served, 300);
    assert_eq!(bench.numbers(), Counts::default());
}

#[test]
fn a_search_leaves_out_who_takes_no_calls_and_goes_on_after_each_page() {
    let mut bench = Bench::new(FlowLimits { in_flight: 1000, ..limits() });
    bench.break_destination("d");
    bench.given(1, &[P]);
    let owned = vec![owned_from_the_start(&P)];
    let steps = bench.give(Input::Acquired { assignment: Assignment(1), owned });
    let steps = bench.looked(&steps, &[]);
    let without = vec!["d".to_owned()];
    assert!(
        steps.contains(&Step::Store(StoreRequest::Read(StoreRead::Find {
            partition: P,
            epoch: EPOCH,
            after: None,
            without
        }))),
        "{steps:?}"
    );
    let heads = (0..256).map(|n| run_for(&format!("k{n}"), n, Some("e"))).collect();
    assert_eq!(found_after(&bench.found(P, heads, false)), [Some(255)]);
    assert_eq!(found_after(&bench.found(P, Vec::new(), true)), []);
    // Two seconds later the destination may be called again, so its heads are searched for.
    assert_eq!(found_after(&bench.after_seconds(2)), [None]);
}

#[test]
fn of_a_lane_whose_destination_is_down_only_the_head_stays_in_memory() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run_for("a", 1, Some("e"))]);
    bench.behind("a");
    bench.finish("a-1");
    bench.break_destination("d");
    bench.loaded("a", (2..10).map(|n| run("a", n)).collect(), false);
    assert_eq!((bench.numbers().held, bench.numbers().loaded), (1, 1));
    // The other runs are read again when the destination is back.
    assert_eq!(begun(&bench.after_seconds(2)), ["a-2"]);
    assert!(has_load(&bench.finish("a-2")));
}

#[test]
fn a_slow_quota_fills_no_memory_and_holds_up_nobody_else() {
    let mut bench = Bench::owning(FlowLimits { destinations: 2, ..limits() });
    bench.destinations.make_room("d", 2);
    let mut asked = begun(&bench.admit((0..1_000).map(|n| run(&format!("k{n}"), n)).collect()));
    assert_eq!((asked.len(), bench.engine.numbers().held), (2, 256), "the others are left to the store");
    assert_eq!(begun(&bench.admit(vec![run_for("x", 2_000, Some("e"))])), ["x-2000"]);
    // The heads left to the store are searched for when few of those in memory are left, and not before.
    let mut looked = 0;
    while looked == 0 && !asked.is_empty() {
        let steps = bench.finish(&asked.remove(0));
        asked.extend(begun(&steps));
        looked = steps.iter().filter(|step| matches!(step, Step::Store(StoreRequest::Read(StoreRead::Find { without, .. })) if without.is_empty())).count();
    }
    assert_eq!((looked, bench.engine.numbers().held), (1, 63));
}
