//! The engine's claims, driven by hand: no clock, no store, no network.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use usher_proto::{Event, Source};

use super::*;
use crate::engine::Cause;
use crate::engine::lanes::WINDOW;

const NOW: Timestamp = Timestamp::from_seconds(1_000);

fn run(key: &str, position: i64) -> Run {
    let event = Event {
        id: EventId::new(format!("{key}-{position}")),
        kind: "user.created".into(),
        source: Source::Clerk,
        instance: "default".into(),
        key: Key::new(key),
        occurred_at: NOW,
        received_at: NOW,
        provenance: Vec::new(),
        body: Bytes::new(),
    };
    Run {
        event,
        partition: Partition(0),
        position,
        flow_version: "1".into(),
        step: 0,
        attempts: 0,
        generation: 0,
        request: None,
        results: BTreeMap::new(),
        wait_until: None,
        verdict: None,
    }
}

fn engine(in_flight: usize) -> Engine {
    let retry = RetryPolicy { attempts: 3, first: Duration::from_secs(10), max: Duration::from_secs(60) };
    Engine::new(Limits { in_flight, retry, expires_after: Some(Duration::from_secs(600)) })
}

/// The events whose work the steps begin.
fn begun(steps: &[Step]) -> Vec<String> {
    let id = |step: &Step| match step {
        Step::Work(run) => Some(run.event.id.to_string()),
        Step::Settle { .. } | Step::Bury { .. } | Step::Load(_) => None,
    };
    steps.iter().filter_map(id).collect()
}

fn admit(engine: &mut Engine, runs: Vec<Run>) -> Vec<Step> {
    engine.handle(Input::Admitted(runs), NOW, 1.0)
}

fn report(engine: &mut Engine, run: &Run, outcome: Outcome, now: Timestamp) -> Vec<Step> {
    let report = Report::Attempted { outcome, request: Some(b"exact".to_vec()), last: true };
    let (key, event) = (run.event.key.clone(), run.event.id.clone());
    engine.handle(Input::Reported { key, event, report }, now, 1.0)
}

fn done() -> Outcome {
    Outcome::Done(Effect { id: "1".into(), result: json!({}) })
}

/// Reports the run done and the end written; returns what follows.
fn finish(engine: &mut Engine, run: &Run) -> Vec<Step> {
    let steps = report(engine, run, done(), NOW);
    let Some(Step::Settle { settlement, .. }) = steps.into_iter().next() else { panic!("an end is written") };
    let (key, event) = (run.event.key.clone(), run.event.id.clone());
    engine.handle(Input::Settled { key, event, settlement, awake: false }, NOW, 1.0)
}

#[test]
fn runs_of_one_key_go_one_after_the_other_and_keys_at_the_same_time() {
    let mut engine = engine(10);
    assert_eq!(begun(&admit(&mut engine, vec![run("a", 1), run("b", 2), run("a", 3)])), ["a-1", "b-2"]);
    assert_eq!(begun(&finish(&mut engine, &run("a", 1))), ["a-3"]);
    assert_eq!(engine.in_flight(), 2);
}

#[test]
fn the_next_run_begins_only_when_the_end_of_the_last_is_written() {
    let mut engine = engine(10);
    admit(&mut engine, vec![run("a", 1), run("a", 2)]);
    assert_eq!(begun(&report(&mut engine, &run("a", 1), done(), NOW)), Vec::<String>::new());
}

#[test]
fn a_retry_holds_its_lane_and_no_other() {
    let mut engine = engine(10);
    admit(&mut engine, vec![run("a", 1), run("a", 2), run("b", 3)]);
    let steps = report(&mut engine, &run("a", 1), Outcome::retry(Cause::Timeout), NOW);
    assert_eq!(steps, []);
    assert_eq!(begun(&admit(&mut engine, vec![run("c", 4)])), ["c-4"], "others go on");
    let due = NOW.plus(Duration::from_secs(10));
    assert_eq!(begun(&engine.handle(Input::Tick, NOW.plus(Duration::from_secs(9)), 1.0)), Vec::<String>::new());
    let steps = engine.handle(Input::Tick, due, 1.0);
    assert_eq!(begun(&steps), ["a-1"], "the same run, not the next");
}

#[test]
fn an_unknown_outcome_repeats_the_exact_request_under_the_same_key_and_a_known_failure_does_not() {
    let again = |cause| {
        let mut engine = engine(1);
        admit(&mut engine, vec![run("a", 1)]);
        report(&mut engine, &run("a", 1), Outcome::retry(cause), NOW);
        match engine.handle(Input::Tick, NOW.plus(Duration::from_secs(60)), 1.0).pop() {
            Some(Step::Work(run)) => (run.request, run.generation, run.attempts),
            other => panic!("the attempt is repeated, not {other:?}"),
        }
    };
    assert_eq!(again(Cause::Timeout), (Some(b"exact".to_vec()), 0, 2));
    assert_eq!(again(Cause::Throttled), (None, 1, 2));
}

#[test]
fn an_open_outcome_stays_open_whatever_the_next_attempt_comes_to() {
    let mut engine = engine(1);
    admit(&mut engine, vec![run("a", 1)]);
    report(&mut engine, &run("a", 1), Outcome::retry(Cause::Timeout), NOW);
    let later = NOW.plus(Duration::from_secs(60));
    engine.handle(Input::Tick, later, 1.0);
    report(&mut engine, &run("a", 1), Outcome::retry(Cause::Throttled), later);
    match engine.handle(Input::Tick, later.plus(Duration::from_secs(60)), 1.0).pop() {
        Some(Step::Work(run)) => assert_eq!((run.request, run.generation), (Some(b"exact".to_vec()), 0)),
        other => panic!("the same request again, not {other:?}"),
    }
}

#[test]
fn what_comes_while_a_lane_is_loaded_is_neither_lost_nor_overtaken() {
    let mut engine = engine(10);
    let window = i64::try_from(WINDOW).expect("small");
    admit(&mut engine, (0..=window).map(|n| run("a", n)).collect());
    (0..window).for_each(|n| drop(finish(&mut engine, &run("a", n))));
    // The store was read before this one was written, so the answer does not hold it.
    admit(&mut engine, vec![run("a", window + 1)]);
    let loaded = Input::Loaded { key: Key::new("a"), runs: vec![run("a", window)], more: false };
    assert_eq!(begun(&engine.handle(loaded, NOW, 1.0)), [format!("a-{window}")]);
    let steps = finish(&mut engine, &run("a", window));
    assert_eq!(steps, [Step::Load(Key::new("a"))], "there is more to load");
    let nothing = Input::Loaded { key: Key::new("a"), runs: Vec::new(), more: false };
    admit(&mut engine, vec![run("a", window + 2)]);
    assert_eq!(engine.handle(nothing, NOW, 1.0), [Step::Load(Key::new("a"))], "and again, for what came meanwhile");
}

#[test]
fn a_run_that_has_ended_elsewhere_leaves_its_lane() {
    let mut engine = engine(1);
    admit(&mut engine, vec![run("a", 1), run("a", 2)]);
    let (key, event) = (Key::new("a"), EventId::new("a-1"));
    let steps = engine.handle(Input::Reported { key, event, report: Report::Ended }, NOW, 1.0);
    assert_eq!(begun(&steps), ["a-2"]);
}

#[test]
fn spent_retries_and_rejections_are_buried_and_the_lane_goes_on() {
    let mut engine = engine(1);
    admit(&mut engine, vec![run("a", 1), run("a", 2)]);
    let mut now = NOW;
    for _ in 0..2 {
        report(&mut engine, &run("a", 1), Outcome::retry(Cause::Unavailable), now);
        now = now.plus(Duration::from_secs(60));
        engine.handle(Input::Tick, now, 1.0);
    }
    let steps = report(&mut engine, &run("a", 1), Outcome::retry(Cause::Unavailable), now);
    assert!(matches!(&steps[..], [Step::Bury { reason: Reason::RetriesSpent, .. }]), "{steps:?}");
    let steps = engine.handle(Input::Buried { key: Key::new("a"), event: EventId::new("a-1") }, now, 1.0);
    assert_eq!(begun(&steps), ["a-2"]);
    let steps = report(&mut engine, &run("a", 2), Outcome::reject(Reason::InvalidRequest, "422"), now);
    assert!(matches!(&steps[..], [Step::Bury { reason: Reason::InvalidRequest, .. }]), "{steps:?}");
}

#[test]
fn what_has_expired_is_not_attempted() {
    let mut engine = engine(1);
    let steps = engine.handle(Input::Admitted(vec![run("a", 1)]), NOW.plus(Duration::from_secs(601)), 1.0);
    assert!(matches!(&steps[..], [Step::Bury { reason: Reason::Expired, .. }]), "{steps:?}");
}

#[test]
fn no_more_steps_are_under_way_than_allowed() {
    let mut engine = engine(2);
    assert_eq!(begun(&admit(&mut engine, (0..5).map(|n| run(&format!("k{n}"), n)).collect())).len(), 2);
    assert_eq!(begun(&finish(&mut engine, &run("k0", 0))), ["k2-2"]);
}

#[test]
fn a_long_lane_is_held_in_the_store_and_loaded_when_its_turn_comes() {
    let mut engine = engine(10);
    let count = i64::try_from(WINDOW).expect("small") + 5;
    admit(&mut engine, (0..count).map(|n| run("a", n)).collect());
    assert_eq!(engine.loaded(), WINDOW);
    let mut load = None;
    for n in 0..i64::try_from(WINDOW).expect("small") {
        let steps = finish(&mut engine, &run("a", n));
        load = steps.into_iter().find(|step| matches!(step, Step::Load(_))).or(load);
    }
    assert_eq!(load, Some(Step::Load(Key::new("a"))));
    // What comes meanwhile belongs behind what is in the store, so it stays there, too.
    assert_eq!(begun(&admit(&mut engine, vec![run("a", count)])), Vec::<String>::new());
    let rest = (i64::try_from(WINDOW).expect("small")..=count).map(|n| run("a", n)).collect();
    let steps = engine.handle(Input::Loaded { key: Key::new("a"), runs: rest, more: false }, NOW, 1.0);
    assert_eq!(begun(&steps), [format!("a-{WINDOW}")]);
}

#[test]
fn a_wait_releases_the_lane_and_news_that_came_meanwhile_end_it() {
    for (awake, next) in [(false, "a-2"), (true, "a-1")] {
        let mut engine = engine(1);
        admit(&mut engine, vec![run("a", 1), run("a", 2)]);
        let report = Report::Wait { until: NOW.plus(Duration::from_secs(5)), news_after: Some(1) };
        let (key, event) = (Key::new("a"), EventId::new("a-1"));
        let steps = engine.handle(Input::Reported { key: key.clone(), event: event.clone(), report }, NOW, 1.0);
        let Some(Step::Settle { settlement, .. }) = steps.into_iter().next() else { panic!("the wait is written") };
        let steps = engine.handle(Input::Settled { key, event, settlement, awake }, NOW, 1.0);
        assert_eq!(begun(&steps), [next]);
    }
}

#[test]
fn a_wait_whose_end_is_heard_of_before_its_beginning_is_not_forgotten() {
    let mut engine = engine(1);
    admit(&mut engine, vec![run("a", 1)]);
    let report = Report::Wait { until: NOW.plus(Duration::from_secs(5)), news_after: Some(1) };
    let (key, event) = (Key::new("a"), EventId::new("a-1"));
    let steps = engine.handle(Input::Reported { key: key.clone(), event: event.clone(), report }, NOW, 1.0);
    let Some(Step::Settle { settlement, .. }) = steps.into_iter().next() else { panic!("the wait is written") };
    // The wait was written, then ended by news; the two answers come the other way round.
    assert_eq!(admit(&mut engine, vec![run("a", 1)]), []);
    let steps = engine.handle(Input::Settled { key: key.clone(), event, settlement, awake: false }, NOW, 1.0);
    assert_eq!(steps, [Step::Load(key.clone())]);
    let steps = engine.handle(Input::Loaded { key, runs: vec![run("a", 1)], more: false }, NOW, 1.0);
    assert_eq!(begun(&steps), ["a-1"]);
}

#[test]
fn cancelling_takes_what_has_not_begun_and_leaves_what_is_under_way() {
    let mut engine = engine(10);
    admit(&mut engine, vec![run("a", 1), run("a", 2)]);
    let both = ["a-1", "a-2"].map(|id| (Key::new("a"), EventId::new(id))).to_vec();
    engine.handle(Input::Cancelled(both), NOW, 1.0);
    assert_eq!((engine.loaded(), engine.in_flight()), (1, 1));
    assert_eq!(begun(&finish(&mut engine, &run("a", 1))), Vec::<String>::new());
    assert_eq!(engine.loaded(), 0);
}

#[test]
fn what_comes_back_about_a_partition_that_was_taken_away_is_ignored() {
    let mut engine = engine(10);
    admit(&mut engine, vec![run("a", 1), run("a", 2)]);
    engine.handle(Input::Dropped(Partition(0)), NOW, 1.0);
    assert_eq!(report(&mut engine, &run("a", 1), done(), NOW), []);
    assert_eq!((engine.loaded(), engine.in_flight()), (0, 0));
}

#[test]
fn a_repeated_admission_changes_nothing() {
    let mut engine = engine(10);
    admit(&mut engine, vec![run("a", 1), run("a", 2)]);
    assert_eq!(admit(&mut engine, vec![run("a", 2), run("a", 1)]), []);
    assert_eq!(engine.loaded(), 2);
}
