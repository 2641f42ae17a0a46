//! Identity: the same key and id at two instances are different; a repeated event changes nothing; and pruning is
//! bounded by the events received, whatever a clock shows.

use usher_engine::arrival::RefusedRecord;
use usher_proto::suppression::{ALL_LISTS, SuppressionChange, SuppressionKind};
use usher_proto::{AddressDigest, Instance, subject_key};

use super::kept::has;
use super::*;

on_every_store!(
    an_instance_reaches_nothing_of_another,
    an_event_has_each_of_its_effects_once,
    another_body_under_a_known_id_is_kept_where_it_can_be_seen,
    a_record_that_no_flow_can_take_is_kept_once_for_all_of_them,
    a_suppression_of_one_instance_is_not_one_of_another,
    a_subject_that_is_an_address_is_the_one_living_user_who_has_it,
    an_event_of_a_sender_that_counts_deliveries_is_told_by_its_id_alone,
    what_another_log_has_at_a_place_is_kept_there,
    a_later_event_of_a_batch_cancels_what_a_command_before_it_has_queued,
    a_dead_run_goes_to_the_partition_that_its_key_has_now,
    whoever_lost_a_partition_hears_of_it_with_nothing_to_do,
    a_letter_is_not_erased_while_its_run_may_die_again,
    a_clock_that_jumps_forgets_nothing,
    a_horizon_that_a_wrong_clock_has_moved_is_set_back,
    what_a_clock_that_was_ahead_has_written_keeps_its_length,
);

fn staging() -> Instance {
    "staging".parse().unwrap()
}

/// Moves an arrival to the instance `staging`.
fn staged(arrival: Arrival) -> Arrival {
    let subject = SubjectId::new(Source::Clerk, &staging(), &Key::new(arrival.event.subject.key()));
    Arrival { event: Event { subject, ..arrival.event }, ..arrival }
}

fn cancels(arrival: Arrival) -> Arrival {
    Arrival { starts: false, cancels: true, ..arrival }
}

async fn an_instance_reaches_nothing_of_another(subject: TestStore) {
    let epoch = subject.own().await;
    let both = vec![arrival(0, "e0", "a"), staged(arrival(1, "e0", "a"))];
    let admitted = subject.admit(epoch, both).await;
    assert_eq!(
        (admitted.heads.len(), admitted.repeated),
        (2, 0),
        "one id at two instances is two events, in two lanes"
    );

    // A deletion, a cancellation and news at one instance have no effect at the other.
    subject.change(epoch, "e0", wait(100, Some(0))).await;
    let ended = subject.admit(epoch, vec![cancels(staged(news(2, "d", "a", 9, false)))]).await;
    assert_eq!(
        ended.cancelled,
        [(staged(arrival(0, "e0", "a")).event.subject, staged(arrival(0, "e0", "a")).event.reference())]
    );
    assert!(ended.woken.is_empty());
    assert_eq!(subject.store.subject(&id("a")).await.unwrap(), None);
    let there = SubjectId::new(Source::Clerk, &staging(), &Key::new("a"));
    assert!(subject.store.subject(&there).await.unwrap().unwrap().deleted);
    let woken = subject.admit(epoch, vec![news(3, "n", "a", 1, true)]).await.woken;
    assert_eq!(names(&woken), ["e0"]);
    assert!(!subject.store.subject(&id("a")).await.unwrap().unwrap().deleted);

    // Remembered fields and records are separate.
    let told = |offset, id: &str, v: i64| Arrival {
        starts: true,
        remember: Some([("email".to_owned(), json!(v))].into_iter().collect()),
        ..news(offset, id, "b", v, true)
    };
    subject.admit(epoch, vec![told(4, "t0", 1)]).await;
    let other = subject.admit(epoch, vec![staged(told(5, "t1", 2))]).await.heads.remove(0);
    assert_eq!(other.before.unwrap().changed, Vec::<String>::new(), "the first sight of this one");
    let runs = subject.store.runs(&RunFilter { event: Some("e0".into()), ..RunFilter::default() }, 10).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.instance.as_str()).collect::<Vec<_>>(), ["default", "staging"]);
    let own = RunFilter { event: Some("e0".into()), instance: Some(staging()), ..RunFilter::default() };
    assert_eq!(subject.store.runs(&own, 10).await.unwrap().remove(0).state, "cancelled");
    let whole = RunFilter { event: Some("clerk/staging/e0".into()), ..RunFilter::default() };
    assert_eq!(subject.store.runs(&whole, 10).await.unwrap().len(), 1);
}

async fn an_event_has_each_of_its_effects_once(subject: TestStore) {
    let epoch = subject.own().await;
    // Two events start runs and one between them cancels. Then that one is repeated, twice in a later batch.
    subject.admit(epoch, vec![arrival(0, "due1", "a"), cancels(arrival(1, "paid1", "a"))]).await;
    assert_eq!(subject.state("due1").await, "cancelled");
    subject.admit(epoch, vec![arrival(2, "due2", "a")]).await;
    let again = subject.admit(epoch, vec![cancels(arrival(3, "paid1", "a")), cancels(arrival(4, "paid1", "a"))]).await;
    assert_eq!((again.cancelled.len(), again.repeated), (0, 2));
    assert_eq!(subject.state("due2").await, "queued");

    // News end a wait once: repeated news do not affect a wait that began since.
    subject.admit(epoch, vec![news(5, "n1", "b", 1, true), arrival(6, "w", "b")]).await;
    let revision = subject.store.subject(&id("b")).await.unwrap().unwrap().revision;
    subject.change(epoch, "w", wait(1_000, Some(revision))).await;
    let again = subject.admit(epoch, vec![news(7, "n1", "b", 1, true)]).await;
    assert!(again.woken.is_empty() && subject.state("w").await == "waiting");

    // A repeated suppression does not override a later change.
    let said = |offset, id: &str, kind| {
        let change = SuppressionChange {
            kind,
            address: AddressDigest::of("a@b.test"),
            scope: ALL_LISTS.into(),
            reason: "test".into(),
            by: String::new(),
            instance: None,
        };
        let event = change.clone().into_event(EventId::new(id), super::id("k"), Timestamp::from_seconds(5));
        Arrival { starts: false, suppression: Some(change), ..Arrival::starting(offset, event) }
    };
    subject
        .admit(
            epoch,
            vec![said(Offset(8), "s", SuppressionKind::Suppressed), said(Offset(9), "t", SuppressionKind::Restored)],
        )
        .await;
    subject.admit(epoch, vec![said(Offset(10), "s", SuppressionKind::Suppressed)]).await;
    let listed = subject.store.listed(&[mail_to(Instance::DEFAULT, AddressDigest::of("a@b.test"))]).await.unwrap();
    assert_eq!(listed, [vec![]]);

    // Each flow is separate: another one has seen none of these events.
    let other = subject.store.acquire("other", &[ZERO], "me").await.unwrap()[0].epoch;
    subject.store.admit("other", &batch(other, vec![arrival(2, "due2", "a")])).await.unwrap();
    let there = batch(other, vec![cancels(arrival(3, "paid1", "a"))]);
    assert_eq!(subject.store.admit("other", &there).await.unwrap().cancelled.len(), 1);
}

async fn another_body_under_a_known_id_is_kept_where_it_can_be_seen(subject: TestStore) {
    let epoch = subject.own().await;
    let other = |offset, id: &str| {
        let event = Event { body: Bytes::from_static(b"{\"another\":1}"), ..event(id, "a") };
        Arrival { starts: false, cancels: true, ..Arrival::starting(offset, event) }
    };
    // Conflicts with a run, with an event that started none, and within one batch.
    subject.admit(epoch, vec![arrival(0, "e0", "a"), cancels(arrival(1, "c", "b"))]).await;
    let second = vec![
        other(Offset(2), "e0"),
        other(Offset(3), "c"),
        arrival(4, "e4", "a"),
        other(Offset(5), "e4"),
        arrival(6, "e4", "a"),
    ];
    let admitted = subject.admit(epoch, second).await;
    assert_eq!((admitted.cancelled.len(), admitted.refused, admitted.repeated), (0, 3, 1));
    let refused = subject.store.refused(Timestamp::default(), 10).await.unwrap();
    let shown: Vec<_> = refused.iter().map(|row| (row.offset, row.event.as_str(), row.reason.as_str())).collect();
    assert_eq!(
        shown,
        [(Offset(2), "e0", "event_conflict"), (Offset(3), "c", "event_conflict"), (Offset(5), "e4", "event_conflict")]
    );
    assert_eq!(subject.store.refused_body(ZERO, Offset(5)).await.unwrap().unwrap(), b"{\"another\":1}");
    // The same id at another instance is a different event and no conflict.
    assert_eq!(subject.admit(epoch, vec![staged(other(Offset(7), "e0"))]).await.refused, 0);
}

async fn a_record_that_no_flow_can_take_is_kept_once_for_all_of_them(subject: TestStore) {
    let refused = |offset| RefusedRecord {
        offset,
        reason: Reason::Malformed,
        error: "the body is not UTF-8 \0".into(),
        event: "a\0b".into(),
        key: Key::new("k\0"),
        body: Bytes::from_static(b"\xff\0"),
    };
    let mut counted = Vec::new();
    for flow in [FLOW, "other"] {
        let epoch = subject.store.acquire(flow, &[ZERO], "me").await.unwrap()[0].epoch;
        let batch = Batch {
            refused: vec![refused(Offset(3)), refused(Offset(4))],
            frontier: Offset(5),
            ..batch(epoch, vec![])
        };
        counted.push(subject.store.admit(flow, &batch).await.unwrap().refused);
    }
    assert_eq!(counted, [2, 0]);
    let rows = subject.store.refused(Timestamp::default(), 10).await.unwrap();
    const SHOWN: &str = "a\\u{0}b";
    assert_eq!(
        rows.iter().map(|row| (row.offset, row.event.as_str())).collect::<Vec<_>>(),
        [(Offset(3), SHOWN), (Offset(4), SHOWN)]
    );
    assert_eq!(subject.store.refused_body(ZERO, Offset(3)).await.unwrap().unwrap(), b"\xff\0");
}

async fn what_another_log_has_at_a_place_is_kept_there(subject: TestStore) {
    let refused = |body: &'static str| RefusedRecord {
        offset: Offset(3),
        reason: Reason::Malformed,
        error: "it is no event".into(),
        event: body.into(),
        key: Key::new("k"),
        body: Bytes::from_static(body.as_bytes()),
    };
    let epoch = subject.own().await;
    let mut counted = Vec::new();
    for body in ["one", "one", "other"] {
        let batch = Batch { refused: vec![refused(body)], ..batch(epoch, vec![]) };
        counted.push(subject.store.admit(FLOW, &batch).await.unwrap().refused);
    }
    assert_eq!(counted, [1, 0, 1], "the same again is nothing new");
    assert_eq!(subject.store.refused_body(ZERO, Offset(3)).await.unwrap().unwrap(), b"other");
    let rows = subject.store.refused(Timestamp::default(), 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.event.as_str()).collect::<Vec<_>>(), ["other"]);
}

async fn a_later_event_of_a_batch_cancels_what_a_command_before_it_has_queued(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a"), arrival(1, "e1", "b")]).await;
    subject.change(epoch, "e0", dead(false)).await;
    subject.change(epoch, "e1", dead(false)).await;
    let redrive =
        |offset, id: &str, key: &str, run: &str| order(offset, id, key, run, CommandKind::Redrive { deaths: 1 });
    let orders = vec![
        redrive(2, "o0", "a", "e0"),
        cancels(arrival(3, "gone-a", "a")),
        cancels(arrival(4, "gone-b", "b")),
        redrive(5, "o1", "b", "e1"),
    ];
    let admitted = subject.admit(epoch, orders).await;
    assert_eq!((names(&admitted.woken), admitted.cancelled), (vec!["e1".to_owned()], vec![(id("a"), reference("e0"))]));
    assert_eq!((subject.state("e0").await.as_str(), subject.head_names().await), ("cancelled", vec!["e1".to_owned()]));
}

async fn a_dead_run_goes_to_the_partition_that_its_key_has_now(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a"), arrival(1, "e1", "a")]).await;
    subject.change(epoch, "e0", dead(false)).await;
    subject.change(epoch, "e1", end(RunState::Done)).await;
    // Simulates a topic with another number of partitions.
    subject.execute("UPDATE usher_ended_run SET partition = 3").await;
    let redrive = order(2, "o0", "a", "e0", CommandKind::Redrive { deaths: 1 });
    let rerun = order(3, "o1", "a", "e1", CommandKind::Rerun { body: "{}".into() });
    let queued = subject.admit(epoch, vec![redrive, rerun]).await;
    assert_eq!((names(&queued.woken), queued.behind), (vec!["e0".to_owned()], vec![id("a")]));
    assert_eq!(subject.head_names().await, ["e0"]);
    assert_eq!(subject.change(epoch, "e0", claim(1, 0, b"x")).await, Changed::Written);
    subject.change(epoch, "e0", end(RunState::Done)).await;
    assert_eq!(subject.head_names().await, ["e1"]);
}

async fn whoever_lost_a_partition_hears_of_it_with_nothing_to_do(subject: TestStore) {
    let epoch = subject.own().await;
    let due = async || subject.store.due(FLOW, &[(ZERO, epoch)], Timestamp::from_seconds(1)).await.unwrap();
    assert_eq!(due().await.fenced, []);
    let offsets = [(ZERO, Offset(0))].into_iter().collect();
    subject.store.seek(FLOW, &offsets, "ann", Timestamp::from_seconds(1)).await.unwrap();
    assert_eq!(due().await.fenced, [(ZERO, epoch)]);
}

async fn a_letter_is_not_erased_while_its_run_may_die_again(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a")]).await;
    subject.change(epoch, "e0", dead(false)).await;
    let to_erase = async || subject.store.dead_letters_to_erase(FLOW, 10).await.unwrap();
    assert_eq!(to_erase().await, [], "it says what it is there for");
    subject.admit(epoch, vec![order(1, "o1", "a", "e0", CommandKind::Redrive { deaths: 1 })]).await;
    for kind in [claim(1, 1, b"x"), park(9, AttemptState::default(), Some(b"x"))] {
        assert_eq!(to_erase().await, []);
        assert_eq!(subject.change(epoch, "e0", kind).await, Changed::Written);
    }
    assert_eq!(to_erase().await, []);
    assert_eq!(subject.due(epoch, 9).await.0, ["e0"]);
    assert_eq!(subject.change(epoch, "e0", wait(20, None)).await, Changed::Written);
    assert_eq!(to_erase().await, []);
    assert_eq!(subject.due(epoch, 20).await.0, ["e0"]);
    subject.change(epoch, "e0", end(RunState::Done)).await;
    assert_eq!(to_erase().await, [reference("e0")]);
}

async fn a_suppression_of_one_instance_is_not_one_of_another(subject: TestStore) {
    let epoch = subject.own().await;
    let digest = AddressDigest::of("a@b.test");
    let said = |at: i64, kind, instance: Option<Instance>| {
        let change = SuppressionChange {
            kind,
            address: digest,
            scope: ALL_LISTS.into(),
            reason: "test".into(),
            by: String::new(),
            instance: instance.clone(),
        };
        let subject = SubjectId::new(Source::Usher, &instance.unwrap_or_default(), &Key::new("k"));
        let event = change.clone().into_event(EventId::new(format!("s{at}")), subject, Timestamp::from_seconds(at));
        Arrival { starts: false, suppression: Some(change), ..Arrival::starting(Offset(at), event) }
    };
    let listed = async |instance: &str| subject.store.listed(&[mail_to(instance, digest)]).await.unwrap() != [vec![]];
    use SuppressionKind::{Restored, Suppressed};
    subject.admit(epoch, vec![said(1, Suppressed, Some(staging()))]).await;
    assert_eq!((listed("default").await, listed("staging").await), (false, true));
    subject.admit(epoch, vec![said(2, Suppressed, None)]).await;
    assert_eq!((listed("default").await, listed("staging").await), (true, true), "an operator's word is for all");
    subject.admit(epoch, vec![said(3, Restored, Some(staging()))]).await;
    assert_eq!((listed("default").await, listed("staging").await), (true, false), "the newest word counts");
    subject.admit(epoch, vec![said(4, Restored, None)]).await;
    assert_eq!((listed("default").await, listed("staging").await), (false, false));
}

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn a_subject_that_is_an_address_is_the_one_living_user_who_has_it(subject: TestStore) {
    let epoch = subject.own().await;
    let asked =
        |instance: &Instance, email: &str| SubjectId::new(Source::Nylas, instance, &subject_key::address(email));
    let owner = async |email: &str| {
        let asked = asked(&Instance::default(), email);
        let found = subject.store.subject(&asked).await.unwrap();
        found.map(|found| {
            (found.deleted, found.revision, found.snapshot.is_some_and(|user| user.contains("one@work.test")))
        })
    };
    assert_eq!(owner("one@work.test").await, None);
    subject.admit(epoch, vec![has(0, "a", 1, Some("One@Work.test")), has(1, "c", 1, Some("two@work.test"))]).await;
    assert_eq!(owner("ONE@work.test").await, Some((false, 0, false)), "written as Clerk has it");
    assert_eq!(
        subject.store.subject(&asked(&staging(), "one@work.test")).await.unwrap(),
        None,
        "not of another instance"
    );
    subject.admit(epoch, vec![has(2, "b", 1, Some("one@work.test"))]).await;
    assert_eq!(owner("one@work.test").await, None, "of two, nobody could say which one is meant");
    subject.admit(epoch, vec![has(3, "a", 9, None)]).await;
    assert_eq!(owner("one@work.test").await, Some((false, 0, true)), "who is deleted does not count");
    let all = [asked(&Instance::default(), "one@work.test"), id("c"), asked(&Instance::default(), "nobody@work.test")];
    assert_eq!(subject.store.subjects(&all).await.unwrap().len(), 2, "asked together");
}

async fn an_event_of_a_sender_that_counts_deliveries_is_told_by_its_id_alone(subject: TestStore) {
    let epoch = subject.own().await;
    let of = |offset: i64, source: Source, body: &'static str| {
        let event = Event { source, body: body.into(), ..event("evt_1", "a") };
        Arrival::starting(Offset(offset), event)
    };
    for (offset, source, conflicts) in [(0, Source::Stripe, 0), (2, Source::Nylas, 0), (4, Source::Resend, 1)] {
        let first = of(offset, source, r#"{"pending_webhooks":2}"#);
        let admitted = subject.admit(epoch, vec![first]).await;
        assert_eq!((admitted.repeated, admitted.refused), (0, 0), "{source}");
        let admitted = subject.admit(epoch, vec![of(offset + 1, source, r#"{"pending_webhooks":1}"#)]).await;
        assert_eq!((admitted.repeated, admitted.refused), (1 - conflicts, conflicts), "{source}");
    }
}

async fn a_clock_that_jumps_forgets_nothing(subject: TestStore) {
    let epoch = subject.own().await;
    let now = subject.store.now().await.unwrap();
    let at = |offset: i64, id: &str, received_at: Timestamp| {
        Arrival::starting(
            Offset(offset),
            Event { received_at, occurred_at: Timestamp::from_seconds(9), ..event(id, id) },
        )
    };
    subject.admit(epoch, vec![at(0, "e0", now), at(1, "e1", now)]).await;
    subject.change(epoch, "e0", end(RunState::Done)).await;
    // Operators' events have the time of a machine that may be ahead. Webhooks are accepted only if the clocks agree.
    let ahead = now.plus(40 * DAY);
    let command = Event { source: Source::Usher, ..at(2, "o", ahead).event };
    subject.admit(epoch, vec![cancels(Arrival::starting(Offset(2), command))]).await;
    assert_eq!(subject.store.prune(FLOW, 35 * DAY, 10).await.unwrap(), 0);
    // A record with a future timestamp moves nothing beyond the store's own clock.
    subject.admit(epoch, vec![at(3, "liar", now.plus(400 * DAY))]).await;
    assert_eq!(subject.store.prune(FLOW, 35 * DAY, 10).await.unwrap(), 0);
    // An event received after that is new, however old its sender's timestamp is.
    let new = subject.admit(epoch, vec![at(4, "new", now)]).await;
    assert_eq!(new.heads[0].verdict, None);
    // An event from a clock that was behind is not taken for pruned.
    let behind = subject.admit(epoch, vec![at(5, "behind", now.minus(34 * DAY))]).await;
    assert_eq!(behind.heads[0].verdict, None);
}

async fn a_horizon_that_a_wrong_clock_has_moved_is_set_back(subject: TestStore) {
    let epoch = subject.own().await;
    let now = subject.store.now().await.unwrap();
    let at = |offset, id: &str, received_at| Arrival::starting(offset, Event { received_at, ..event(id, id) });
    subject.admit(epoch, vec![at(Offset(0), "e0", now)]).await;
    subject.execute(&format!("INSERT INTO usher_pruned VALUES ('{FLOW}', {})", now.plus(5 * DAY).millis())).await;
    let lost = subject.admit(epoch, vec![at(Offset(1), "e1", now.plus(Duration::from_secs(1)))]).await;
    assert!(matches!(lost.heads[0].verdict, Some((Reason::TooOld, _))), "spoilt");
    let mended = subject.store.mend_horizons().await.unwrap();
    assert_eq!((mended.len(), mended[0].flow.as_str()), (1, FLOW));
    assert_eq!((mended[0].was, mended[0].is), (now.plus(5 * DAY), Some(now.plus(Duration::from_secs(1)))));
    let next = subject.admit(epoch, vec![at(Offset(2), "e2", now.plus(Duration::from_secs(2)))]).await;
    assert_eq!(next.heads[0].verdict, None);
    let before = subject.admit(epoch, vec![at(Offset(3), "e3", now)]).await;
    assert!(matches!(before.heads[0].verdict, Some((Reason::TooOld, _))), "it may have been done and forgotten");
    assert!(subject.store.mend_horizons().await.unwrap().is_empty(), "once");
    subject.execute(&format!("INSERT INTO usher_pruned VALUES ('unseen', {})", now.millis())).await;
    let left = subject.store.mend_horizons().await.unwrap().remove(0);
    assert_eq!((left.flow.as_str(), left.was, left.is), ("unseen", now, None), "nothing shows whether it is right");
}

async fn what_a_clock_that_was_ahead_has_written_keeps_its_length(subject: TestStore) {
    let epoch = subject.own().await;
    let now = usher_service::clock::now();
    let hour = Duration::from_secs(3600);
    subject.admit(epoch, (0..3).map(|n| arrival(n, &format!("e{n}"), &format!("k{n}"))).collect()).await;
    let until = now.plus(3 * hour);
    for event in ["e0", "e1"] {
        subject.change(epoch, event, ChangeKind::Wait { until, news_after: None }).await;
    }
    let witness = subject.store.witness(now, true).await.unwrap();
    if witness.own.is_some() {
        return; // the store has a clock of its own; a process that disagrees with it starts nothing
    }
    assert_eq!(witness.last_used, None);
    assert_eq!(subject.store.witness(now, true).await.unwrap().last_used, Some(now));
    // A process whose clock is ahead uses the store: its wait is written 40 days too late.
    let ahead = now.plus(40 * DAY);
    subject.store.witness(ahead, false).await.unwrap();
    let shift = (40 * DAY).as_millis();
    subject
        .execute(&format!(
            "UPDATE usher_open_run SET due_at = due_at + {shift}, wakes_at = wakes_at + {shift}, \
               changed_at = changed_at + {shift} \
             WHERE event_ref LIKE '%/e1'"
        ))
        .await;
    let used = subject.store.witness(now.plus(hour), false).await.unwrap().last_used;
    assert_eq!(used, Some(now), "a clock that nobody has found right says nothing");
    let due = async |at: Timestamp| subject.store.due(FLOW, &[(ZERO, epoch)], at).await.unwrap().heads.len();
    assert_eq!(due(until.plus(Duration::from_secs(1))).await, 1);
    assert_eq!(due(until.plus(hour).plus(Duration::from_secs(1))).await, 1, "as long from now on as it was then");
}

impl TestStore {
    async fn execute(&self, sql: &str) {
        sqlx::any::install_default_drivers();
        let mut connection = sqlx::AnyConnection::connect(&self.url).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(sql.to_owned())).await.unwrap();
    }
}
