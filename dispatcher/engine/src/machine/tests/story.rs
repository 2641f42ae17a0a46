//! Tests of the story that the changes of a run tell.

use super::*;
use crate::{DestinationAnswer, NotCalled, StoryEntry};

/// Returns what the entries tell: attempt, outcome, whether another attempt is to follow, and whether the request is kept.
fn told(story: &[StoryEntry]) -> Vec<(u32, &'static str, bool, bool)> {
    story.iter().map(|entry| (entry.number, entry.outcome, entry.next_at.is_some(), entry.sent.is_some())).collect()
}

#[test]
fn each_attempt_is_told_once_with_the_change_that_follows_from_it() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    let steps = bench.attempted_unwritten("a-1", Outcome::retry(Cause::Unavailable), NextStep::End);
    let change = written(&steps);
    let ChangeKind::Retry { at, .. } = &change.kind else { panic!("{change:?}") };
    assert_eq!(told(&change.story), [(1, "unavailable", true, true)]);
    assert_eq!(change.story[0].next_at, Some(*at), "the time that is told is the time that holds");
    let at = *at;
    assert!(bench.at_work.is_empty(), "nothing begins before it is written: {steps:?}");
    bench.wrote(change, Changed::Written);
    bench.now = at;
    bench.give(Input::Wakeup);
    let change = written(&bench.attempted("a-1", done()));
    assert_eq!(told(&change.story), [], "the effect tells of it");
    let ChangeKind::End { effect: Some(effect), .. } = &change.kind else { panic!("{change:?}") };
    assert_eq!((effect.attempt, effect.took), (2, Some(SEEN.took)));
}

#[test]
fn the_answer_of_a_refusal_is_told_when_the_run_is_dead() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    let outcome = Outcome::reject(Reason::InvalidRequest, "422");
    let answer = Some(DestinationAnswer::new(Some(422), Some("validation_error"), Some("to is no address")));
    let seen = Some(AttemptSeen { answer: answer.clone(), ..SEEN });
    let (request, next) = (Some(b"exact".to_vec()), NextStep::End);
    let steps = bench.report("a-1", StepReport::Attempted { outcome, request, step: "s".into(), next, seen });
    let buried = steps.iter().find_map(|step| match step {
        Step::DeadLetter { run, epoch, reason, error } => Some(dead_letter_change(run, *epoch, *reason, error.clone())),
        _ => None,
    });
    let change = buried.expect("a dead letter");
    assert_eq!(told(&change.story), [(1, "invalid_request", false, true)]);
    assert_eq!(change.story[0].answer, answer);
}

#[test]
fn a_step_that_is_passed_over_is_told_with_its_reason() {
    let mut bench = Bench::owning(limits());
    bench.admit(vec![run("a", 1)]);
    let (step, why, next) = ("s".to_owned(), NotCalled::Condition, NextStep::End);
    let change = written(&bench.report("a-1", StepReport::Skipped { step, why, next }));
    assert_eq!(told(&change.story), [(0, "condition", false, false)]);
}
