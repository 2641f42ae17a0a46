use super::*;

const FLOWS: [Expected; 2] = [
    Expected { flow: "mail", on: &["user.created", "user.updated"], steps: &["mail"], keeps_rows: false },
    Expected { flow: "db-sync", on: &["user.created", "user.updated"], steps: &[], keeps_rows: true },
];

/// Returns a correct ledger of one user's three events.
fn good() -> Ledger {
    let mut ledger = Ledger::default();
    for seq in 1..=3_u64 {
        let event = format!("msg_{seq}");
        let at = i64::try_from(seq).unwrap() * 100;
        let kind = if seq == 1 { "user.created" } else { "user.updated" };
        ledger.sent.push(SentWebhook {
            event: event.clone(),
            key: "user_1".into(),
            kind: kind.into(),
            seq,
            posts: 1,
            acknowledged: true,
        });
        for flow in ["mail", "db-sync"] {
            ledger.runs.push(RunRow {
                flow: flow.into(),
                event: event.clone(),
                key: "user_1".into(),
                state: "done".into(),
                reason: None,
                admitted_at: at,
                ended_at: Some(at + 20),
            });
        }
        let mark =
            Mark { flow: "mail".into(), step: "mail".into(), event, at: at + 10, status: Some(200), replayed: false };
        ledger.attempts.push(mark.clone());
        ledger.effects.push(mark);
    }
    ledger.rows.insert("user_1".into(), 3);
    ledger
}

/// Returns the violations after one change of a correct ledger.
fn found(spoil: impl FnOnce(&mut Ledger)) -> Vec<(ViolationKind, String, String)> {
    let mut ledger = good();
    spoil(&mut ledger);
    let found = check(&FLOWS, &ledger, &["not_found"]);
    found.into_iter().map(|violation| (violation.kind, violation.flow, violation.event)).collect()
}

fn one(kind: ViolationKind, flow: &str, event: &str) -> Vec<(ViolationKind, String, String)> {
    vec![(kind, flow.into(), event.into())]
}

fn run<'a>(ledger: &'a mut Ledger, flow: &str, event: &str) -> &'a mut RunRow {
    ledger.runs.iter_mut().find(|run| run.flow == flow && run.event == event).expect("a run")
}

#[test]
fn what_is_as_it_should_be_is_not_complained_of() {
    assert_eq!(found(|_| {}), []);
}

#[test]
fn an_acknowledged_event_without_a_run_is_lost() {
    let without =
        |ledger: &mut Ledger| ledger.runs.retain(|run| (run.flow.as_str(), run.event.as_str()) != ("mail", "msg_2"));
    assert_eq!(found(without), one(ViolationKind::Lost, "mail", "msg_2"));
    let unacknowledged = |ledger: &mut Ledger| {
        without(ledger);
        ledger.sent[1].acknowledged = false;
    };
    assert_eq!(found(unacknowledged), [], "nobody was promised anything");
}

#[test]
fn a_run_that_is_done_without_its_effect_is_lost() {
    assert_eq!(found(|ledger| drop(ledger.effects.remove(1))), one(ViolationKind::Lost, "mail", "msg_2"));
}

#[test]
fn an_older_row_is_a_lost_event_and_a_newer_one_is_not() {
    assert_eq!(
        found(|ledger| ledger.rows = [("user_1".into(), 2)].into()),
        one(ViolationKind::Lost, "db-sync", "msg_3")
    );
    assert_eq!(found(|ledger| ledger.rows.clear()), one(ViolationKind::Lost, "db-sync", "msg_3"));
    assert_eq!(found(|ledger| ledger.sent[2].acknowledged = false), []);
}

#[test]
fn superseded_is_right_only_where_something_newer_was_done() {
    assert_eq!(found(|ledger| run(ledger, "db-sync", "msg_1").state = "superseded".into()), []);
    let last = |ledger: &mut Ledger| run(ledger, "db-sync", "msg_3").state = "superseded".into();
    assert_eq!(found(last), one(ViolationKind::Lost, "db-sync", "msg_3"));
}

#[test]
fn a_second_effect_is_one_too_many_unless_it_is_a_replay() {
    let again = |replayed| {
        found(move |ledger| {
            let mark = Mark { replayed, ..ledger.effects[0].clone() };
            ledger.effects.push(mark);
        })
    };
    assert_eq!(again(false), one(ViolationKind::Twice, "mail", "msg_1"));
    assert_eq!(again(true), []);
}

#[test]
fn effects_in_another_order_than_the_events_are_told() {
    assert_eq!(found(|ledger| ledger.effects.swap(1, 2)), one(ViolationKind::Order, "mail", "msg_2"));
}

#[test]
fn an_attempt_before_the_end_of_the_one_before_is_told() {
    assert_eq!(found(|ledger| ledger.attempts[1].at = 119), one(ViolationKind::Order, "mail", "msg_2"));
    assert_eq!(found(|ledger| ledger.attempts[1].at = 120), [], "the very same moment proves nothing");
}

#[test]
fn turns_that_end_in_another_order_are_told() {
    let early = |ledger: &mut Ledger| run(ledger, "db-sync", "msg_2").ended_at = Some(119);
    assert_eq!(found(early), one(ViolationKind::Order, "db-sync", "msg_2"));
}

#[test]
fn a_run_that_has_not_ended_is_stuck_and_who_overtook_it_is_told() {
    let stuck = |event: &'static str| {
        move |ledger: &mut Ledger| {
            let run = run(ledger, "mail", event);
            run.state = "running".into();
            run.ended_at = None;
        }
    };
    assert_eq!(found(stuck("msg_3")), one(ViolationKind::Stuck, "mail", "msg_3"));
    let overtaken = [one(ViolationKind::Order, "mail", "msg_2"), one(ViolationKind::Stuck, "mail", "msg_1")].concat();
    assert_eq!(found(stuck("msg_1")), overtaken);
}

#[test]
fn a_dead_run_is_told_unless_its_reason_is_expected() {
    let dead = |reason: &'static str| {
        found(move |ledger| {
            let run = run(ledger, "mail", "msg_2");
            run.state = "dead".into();
            run.reason = Some(reason.into());
            ledger.effects.remove(1);
        })
    };
    assert_eq!(dead("not_found"), []);
    assert_eq!(dead("retries_spent"), one(ViolationKind::Dead, "mail", "msg_2"));
}
