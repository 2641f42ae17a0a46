//! Tests of the words about runs.

use usher_proto::{EventId, Instance, Key, Offset, Source, SubjectId};
use usher_store::TroubleRecord;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

/// Returns a run of the flow `email` that calls `resend`, queued.
fn run() -> RunRecord {
    let instance = Instance::default();
    RunRecord {
        flow: "email".into(),
        event: "msg_1".into(),
        reference: EventRef::new(Source::Clerk, &instance, &EventId::new("msg_1")),
        subject: SubjectId::new(Source::Clerk, &instance, &Key::new("user_1")),
        kind: "user.created".into(),
        key: "user_1".into(),
        user: Some("user_1".into()),
        state: "queued".into(),
        step: 0,
        attempts: 0,
        destination: Some("resend".into()),
        failed_at: None,
        due_at: None,
        reason: None,
        error: None,
        note: None,
        newest_state: None,
        version: "v1".into(),
        awaits_news: false,
        source: "clerk".into(),
        instance: "default".into(),
        partition: 0,
        offset: Offset(1),
        pass: 0,
        deaths: 0,
        admitted_at: at(1),
        ended_at: None,
        effects: Vec::new(),
        story: Vec::new(),
    }
}

fn entry(outcome: &str, attempt: i64) -> AttemptRecord {
    AttemptRecord {
        step: 0,
        name: "welcome".into(),
        attempt,
        pass: 0,
        at: at(10),
        ms: 5,
        outcome: outcome.into(),
        status: (attempt > 0).then_some(503),
        error: (attempt > 0).then(|| "application_error".into()),
        next_at: (attempt > 0).then(|| at(62)),
        by: None,
    }
}

fn circumstances() -> RunCircumstances {
    RunCircumstances { at: at(60), worked: vec!["email".into()], ..RunCircumstances::default() }
}

fn ended(state: &str, story: Vec<AttemptRecord>) -> RunRecord {
    RunRecord { state: state.into(), ended_at: Some(at(20)), story, ..run() }
}

#[test]
fn a_cancelled_run_says_by_whom_or_by_which_event() {
    let by = |by| ended("cancelled", vec![AttemptRecord { by: Some(by), ..entry(CANCELLED, 0) }]);
    let operator = by(StoryCause::Operator { operator: "ann".into() });
    assert_eq!(circumstances().why(&operator), "cancelled by ann at 1970-01-01T00:00:10.000Z");
    let event = by(StoryCause::Event { event: "clerk/default/msg_2".into(), kind: "user.deleted".into() });
    assert_eq!(circumstances().why(&event), "cancelled by user.deleted msg_2");
    let doubtful = RunRecord { note: Some("in_doubt".into()), ..event };
    assert!(circumstances().why(&doubtful).ends_with("; its last attempt may have had its effect"));
    assert_eq!(circumstances().why(&ended("cancelled", vec![])), "cancelled", "by an earlier version");
}

#[test]
fn a_superseded_run_says_by_what() {
    let newest_state = Some("clerk/default/msg_9".to_owned());
    let deleted = RunRecord { newest_state, ..ended("superseded", vec![]) };
    assert_eq!(circumstances().why(&deleted), "its user or object is deleted, by msg_9");
    let overtaken = RunRecord { story: vec![entry("overtaken", 1)], ..deleted };
    assert_eq!(circumstances().why(&overtaken), "a later state was written first; the newest is that of msg_9");
}

#[test]
fn a_run_that_did_nothing_says_which_step_was_passed_over() {
    let toml = "on = [\"clerk/user.created\"]\n[[step]]\nname = \"welcome\"\nwhen = \"event.data.vip\"\n\
                use = \"database.sync_user\"\n";
    let source =
        FlowSource { name: "email".into(), file: "email.toml".into(), toml: toml.into(), templates: BTreeMap::new() };
    let mut circumstances = circumstances();
    let nothing = ended("done", vec![entry("condition", 0)]);
    assert_eq!(circumstances.why(&nothing), "step welcome: its `when` does not hold");
    let steps = Flow::read(source).expect("a good flow").steps;
    circumstances.steps.insert(FlowVersionName::of(&nothing), steps);
    assert_eq!(circumstances.why(&nothing), "step welcome: its `when` does not hold: event.data.vip");
    let in_place = ended("done", vec![entry("in_place", 0)]);
    assert_eq!(circumstances.why(&in_place), "step welcome: what it would write is there already");
    assert_eq!(circumstances.why(&ended("done", vec![entry("suppressed", 0)])), "step welcome: suppressed");
}

#[test]
fn an_open_run_says_what_it_waits_for() {
    let mut circumstances = circumstances();
    let failed = RunRecord { attempts: 3, state: "running".into(), story: vec![entry("unavailable", 3)], ..run() };
    assert_eq!(
        circumstances.why(&failed),
        "step 1 welcome, 3 attempts, unavailable 503 application_error at 1970-01-01T00:00:10.000Z, calls resend again at \
         1970-01-01T00:01:02.000Z (in 2 s)"
    );
    assert!(circumstances.why(&run()).starts_with("has not begun"));
    let waiting = RunRecord { state: "waiting".into(), due_at: Some(at(120)), ..run() };
    assert_eq!(circumstances.blocker(&waiting), "waits until 1970-01-01T00:02:00.000Z (in 1 min 0 s)");
    let news = RunRecord { awaits_news: true, ..waiting };
    assert!(circumstances.blocker(&news).starts_with("waits for news of its user or object, until "));

    circumstances.shares = vec![AccountShares { account: "resend".into(), processes: 1, wanting: 1 }];
    let used = QuotaUse { account: "resend".into(), span: "day".into(), used: 100, ends_at: at(90) };
    circumstances.quotas = vec![used];
    assert_eq!(
        circumstances.blocker(&run()),
        "waits for the quota of resend (handed out: 100 calls this day until 1970-01-01T00:01:30.000Z)"
    );
    let trouble = TroubleRecord { account: "resend".into(), since: at(0), next_probe: Some(at(62)), processes: 1 };
    circumstances.troubles = vec![trouble];
    let held = "held: resend has not served for 1 min 0 s, the next try is at 1970-01-01T00:01:02.000Z (in 2 s)";
    assert_eq!(circumstances.blocker(&failed), held);
    let pause = PauseRecord { who: "bob".into(), at: at(30), why: Some("prices".into()) };
    circumstances.paused.insert("email".into(), pause);
    assert!(circumstances.blocker(&failed).starts_with("the flow is paused by bob since "));
    circumstances.paused.clear();
    circumstances.worked.clear();
    assert_eq!(circumstances.blocker(&failed), "no process works on email");
}
