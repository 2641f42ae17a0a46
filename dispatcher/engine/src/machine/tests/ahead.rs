//! Tests of reading ahead: a backlog is known before the runs in it are admitted.

use usher_proto::Snapshot;

use super::*;
use crate::AheadPage;
use crate::arrival::{Batch, Command, CommandKind};

/// Returns an engine that owns partition 0, in which so many records are unread, with the steps that it requests.
fn behind(records: i64) -> (Bench, Vec<Step>) {
    let mut bench = Bench::new(limits());
    bench.given(1, &[P]);
    let steps = bench.give(Input::Acquired { assignment: Assignment(1), owned: vec![owned_from_the_start(&P)] });
    let steps = bench.looked(&steps, &[(P, records)]);
    (bench, steps)
}

fn pages(steps: &[Step]) -> Vec<(i64, i64)> {
    let page = |step: &Step| match step {
        Step::ReadAhead(ranges) => Some(ranges.iter().map(|range| (range.from.0, range.end.0)).collect::<Vec<_>>()),
        _ => None,
    };
    steps.iter().filter_map(page).flatten().collect()
}

fn told(steps: &[Step]) -> Vec<&Batch> {
    let batch = |step| match step {
        &Step::Store(StoreRequest::Write(StoreWrite::Tell(ref batch))) => Some(batch),
        _ => None,
    };
    steps.iter().filter_map(batch).collect()
}

fn page(from: i64, next: i64, arrivals: Vec<Arrival>) -> Input {
    let (from, next) = (Offset(from), Offset(next));
    Input::Ahead(Some(AheadPage { partition: P, epoch: EPOCH, from, next, arrivals }))
}

fn taken(below: i64) -> Input {
    let admission = Some(Admission::default());
    Input::Told { partition: P, epoch: EPOCH, below: Offset(below), admission, retried: false }
}

fn news(key: &str, offset: i64) -> Arrival {
    let snapshot = Snapshot { updated_at: offset, occurred_at: offset, data: Some(String::new()) };
    Arrival { snapshot: Some(snapshot), ..arrival(&run(key, offset)) }
}

#[test]
fn what_is_far_behind_is_read_ahead_and_begins_when_its_news_are_told() {
    let (mut bench, steps) = behind(2_000);
    assert!(steps.contains(&Step::Log(LogCommand::Pause(P))), "nothing is read in order meanwhile: {steps:?}");
    assert_eq!(pages(&steps), [(0, 2_000)]);
    let steps = bench.give(page(0, 1_500, vec![news("a", 3), arrival(&run("b", 4))]));
    assert_eq!(pages(&steps), [(1_500, 2_000)], "while the store takes the first page");
    let batch = told(&steps)[0];
    assert_eq!((batch.frontier, batch.arrivals.len()), (Offset(1_500), 1), "one of them has news");
    assert!(!batch.arrivals[0].starts, "nothing is begun by it");
    let steps = bench.give(page(1_500, 2_000, Vec::new()));
    assert_eq!((told(&steps).len(), pages(&steps)), (1, Vec::new()));
    assert!(!bench.give(taken(1_500)).contains(&Step::Log(LogCommand::Resume(P))));
    assert!(bench.engine.is_catching_up());
    assert!(bench.give(taken(2_000)).contains(&Step::Log(LogCommand::Resume(P))), "now it is read in order");
    assert_eq!(begun(&bench.admit(vec![run("a", 3)])), ["a-3"], "long before the end is admitted");
}

#[test]
fn a_few_records_are_not_read_twice() {
    let (_, steps) = behind(limits().far_behind);
    assert_eq!(pages(&steps), []);
    assert!(!steps.contains(&Step::Log(LogCommand::Pause(P))));
}

#[test]
fn a_page_that_cannot_be_read_is_asked_for_again_and_an_old_one_is_dropped() {
    let (mut bench, _) = behind(2_000);
    assert_eq!(pages(&bench.give(Input::Ahead(None))), [(0, 2_000)]);
    let steps = bench.give(page(7, 2_000, Vec::new()));
    assert_eq!((told(&steps).len(), pages(&steps)), (0, vec![(0, 2_000)]), "it begins elsewhere");
    let of_another =
        AheadPage { partition: P, epoch: Epoch(1), from: Offset(0), next: Offset(9), arrivals: Vec::new() };
    assert_eq!(told(&bench.give(Input::Ahead(Some(of_another)))).len(), 0, "it is of an earlier ownership");
}

#[test]
fn a_run_waits_for_the_record_that_may_end_it_and_no_other_does() {
    let cancels = Arrival { cancels: true, starts: false, ..arrival(&run("a", 1_999)) };
    let order = CommandKind::Cancel;
    let command = Command { run: run("b", 4).event.reference(), by: String::new(), at: NOW, order };
    let commands = Arrival { command: Some(command), starts: false, ..arrival(&run("other", 1_998)) };
    let (mut bench, _) = behind(2_000);
    bench.give(page(0, 2_000, vec![commands, cancels]));
    bench.give(taken(2_000));
    let heads = vec![run("a", 3), run("b", 4), run("c", 5)];
    assert_eq!(begun(&bench.admit(heads)), ["c-5"]);
    let cancelled = vec![(subject("a"), run("a", 3).event.reference())];
    bench.give(Input::Admitted {
        partition: P,
        epoch: EPOCH,
        frontier: Offset(2_000),
        admission: Some(Admission { cancelled, ..Admission::default() }),
        retried: false,
    });
    assert_eq!(begun(&bench.after_seconds(2)), ["b-4"], "its command has not ended it");
}

#[test]
fn news_that_are_told_are_not_admitted_a_second_time() {
    let (mut bench, _) = behind(2_000);
    bench.give(page(0, 2_000, vec![news("a", 3)]));
    bench.give(taken(2_000));
    let read = Input::Read {
        assignment: Assignment(1),
        partition: P,
        next: Offset(2_001),
        arrivals: vec![news("a", 3), news("b", 2_000)],
        refused: Vec::new(),
    };
    let steps = bench.give(read);
    let batch = steps.iter().find_map(|step| match step {
        Step::Store(StoreRequest::Write(StoreWrite::Admit(batch))) => Some(batch),
        _ => None,
    });
    let with_news: Vec<bool> = batch.unwrap().arrivals.iter().map(|arrival| arrival.snapshot.is_some()).collect();
    assert_eq!(with_news, [false, true], "only what came after the end that was read ahead");
}

#[test]
fn what_an_earlier_owner_has_told_is_read_again_only_for_what_it_ends() {
    for (version, tells) in [("1", 0), ("0", 1)] {
        let mut bench = Bench::new(limits());
        bench.given(1, &[P]);
        let told_before = Some((Offset(2_000), version.to_owned()));
        let owned = vec![Ownership { told: told_before, ..owned_from_the_start(&P) }];
        let steps = bench.give(Input::Acquired { assignment: Assignment(1), owned });
        assert_eq!(pages(&bench.looked(&steps, &[(P, 2_000)])), [(0, 2_000)]);
        let steps = bench.give(page(0, 2_000, vec![news("a", 3)]));
        assert_eq!(told(&steps).len(), tells, "told by version {version}");
        assert_eq!(bench.engine.is_catching_up(), tells == 1);
    }
}

#[test]
fn a_flow_that_falls_behind_while_it_works_reads_ahead_too() {
    let mut bench = Bench::owning(limits());
    assert_eq!(pages(&bench.give(Input::Ends(vec![(P, Offset(1_024))]))), []);
    assert_eq!(pages(&bench.give(Input::Ends(vec![(P, Offset(3_000))]))), [(0, 3_000)]);
}

#[test]
fn what_the_store_says_of_an_own_partition_does_not_end_catching_up() {
    let mut bench = Bench::new(FlowLimits { partitions: 2, ..limits() });
    bench.given(1, &[P]);
    let told = Some((Offset(2_000), "1".to_owned()));
    let owned = vec![Ownership { told, ..owned_from_the_start(&P) }];
    let steps = bench.give(Input::Acquired { assignment: Assignment(1), owned });
    bench.looked(&steps, &[(P, 2_000), (Partition(1), 1)]);
    let known = [(P, Some(Offset(2_000))), (Partition(1), Some(Offset(1)))];
    bench.give(Input::Frontiers(Some(known.into())));
    assert!(bench.engine.is_catching_up(), "what ends its runs is not noted yet");
    bench.give(page(0, 2_000, Vec::new()));
    assert!(!bench.engine.is_catching_up());
}

#[test]
fn a_run_that_follows_another_in_memory_need_not_be_read_back() {
    let mut bench = Bench::owning(limits());
    let admission =
        Admission { heads: vec![run("a", 1)], followers: vec![run("a", 2), run("b", 3)], ..Admission::default() };
    assert_eq!(begun(&bench.admitted(admission)), ["a-1"]);
    let steps = bench.finish("a-1");
    assert_eq!((begun(&steps), has_load(&steps)), (vec!["a-2".to_owned()], false));
    assert_eq!(bench.numbers().loaded, 1, "the one whose head is not in memory is left to the store");
}

#[test]
fn a_run_is_read_back_if_the_store_may_have_others_before_it() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    let admission = Some(Admission { followers: vec![run("a", 3)], ..Admission::default() });
    // The run at 2 was admitted with the answer that was lost.
    bench.give(Input::Admitted { partition: P, epoch: EPOCH, frontier: Offset(4), admission, retried: true });
    assert!(has_load(&bench.finish("a-1")));
    assert_eq!(begun(&bench.loaded("a", vec![run("a", 2), run("a", 3)], false)), ["a-2"]);
}
