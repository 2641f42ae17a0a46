//! The console's views: the same on every store, in bounded pages.

use usher_proto::unsubscribe::address_key;
use usher_store::{BoundedCount, DeadLetterCursor, DeadLetterQuery, EventCursor, EventQuery};

use super::*;

/// Returns an arrival that was received at a time in seconds.
fn received(offset: i64, id: &str, seconds: i64) -> Arrival {
    let mut arrival = arrival(offset, id, "a");
    arrival.event.received_at = Timestamp::from_seconds(seconds);
    arrival
}

/// Admits ten events, of which two and two have the same time. The first four end: three well, and one does not.
async fn filled(subject: &TestStore) {
    subject.store.keep_flow(FLOW, "v1", "{}").await.unwrap();
    let epoch = subject.own().await;
    subject.admit(epoch, (0..10).map(|n| received(n, &format!("e{n}"), n / 2)).collect()).await;
    for event in ["e0", "e1", "e2"] {
        subject.change(epoch, event, end(RunState::Done)).await;
    }
    subject.change(epoch, "e3", dead(false)).await;
}

/// Returns the ids of all events of a query, read in pages of three.
async fn ids(subject: &TestStore, mut query: EventQuery) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let page = subject.store.events(&query, 3).await.unwrap();
        assert!(page.events.len() <= 3);
        ids.extend(page.events.iter().map(|event| event.reference.id().to_owned()));
        let Some(next) = page.next else { return ids };
        let text = next.to_string();
        query.after = Some(text.parse::<EventCursor>().unwrap());
    }
}

pub(super) async fn events_are_listed_newest_first_in_pages_and_filtered(subject: TestStore) {
    filled(&subject).await;
    let all = || EventQuery::default();
    let some = |state| EventQuery { state: Some(state), ..all() };
    let expected = |ids: &[i64]| ids.iter().map(|n| format!("e{n}")).collect::<Vec<_>>();
    for (query, found) in [
        (all(), expected(&[9, 8, 7, 6, 5, 4, 3, 2, 1, 0])),
        (EventQuery { flow: Some(FLOW.into()), ..all() }, expected(&[9, 8, 7, 6, 5, 4, 3, 2, 1, 0])),
        (EventQuery { flow: Some("other".into()), ..all() }, vec![]),
        (some(RunState::Done), expected(&[2, 1, 0])),
        (some(RunState::Dead), expected(&[3])),
        (some(RunState::Queued), expected(&[9, 8, 7, 6, 5, 4])),
        (EventQuery { kind: Some("user.created".into()), ..some(RunState::Queued) }, expected(&[9, 8, 7, 6, 5, 4])),
        (EventQuery { kind: Some("user.updated".into()), ..all() }, vec![]),
        (EventQuery { instance: Some(Instance::default()), ..some(RunState::Dead) }, expected(&[3])),
        (EventQuery { instance: Some("staging".parse().unwrap()), ..all() }, vec![]),
        (EventQuery { since: Some(Timestamp::from_seconds(4)), ..all() }, expected(&[9, 8])),
    ] {
        assert_eq!(ids(&subject, query.clone()).await, found, "{query:?}");
    }
    let event = subject.store.event(&reference("e3")).await.unwrap().expect("stored");
    assert_eq!((event.runs[0].state.as_str(), event.runs[0].flow_version.as_str()), ("dead", "v1"));
    assert!(subject.store.event_body(&reference("e3")).await.unwrap().expect("of a dead run").contains("Zo\u{eb}"));
    assert_eq!(subject.store.event_body(&reference("e0")).await.unwrap(), None, "its run has ended well");
    assert_eq!(subject.store.find_events("e3").await.unwrap(), [reference("e3")]);
    assert!(subject.store.find_events("none").await.unwrap().is_empty());
}

pub(super) async fn flows_are_counted_and_dead_letters_listed(subject: TestStore) {
    filled(&subject).await;
    subject.store.set_paused(FLOW, true, "ann", Some("new prices"), Timestamp::from_seconds(9)).await.unwrap();
    let [flow] = <[_; 1]>::try_from(subject.store.flow_counts().await.unwrap()).expect("one flow");
    assert_eq!(flow.of(RunState::Queued), BoundedCount { count: 6, more: false });
    assert_eq!(flow.all_open().count, 6);
    assert_eq!((flow.oldest, flow.newest_ended), (Some(Timestamp::from_seconds(2)), Some(Timestamp::from_seconds(1))));
    let pause = flow.paused.expect("it is paused");
    assert_eq!((pause.who.as_str(), pause.why.as_deref()), ("ann", Some("new prices")));
    assert!(flow.worked);
    let [version] = <[_; 1]>::try_from(subject.store.flow_versions(FLOW).await.unwrap()).expect("one version");
    assert_eq!((version.version.as_str(), version.open_runs.count), ("v1", 6));

    let recent = subject.store.recent_runs(FLOW, Timestamp::from_seconds(2), Duration::from_secs(1), 3).await.unwrap();
    assert_eq!((recent.count.count, recent.parts), (6, vec![2, 2, 2]));
    let dead = subject.store.dead_letters(&DeadLetterQuery::default(), 10).await.unwrap();
    assert_eq!(dead.iter().map(|row| row.reference.id()).collect::<Vec<_>>(), ["e3"]);
    assert_eq!((dead[0].reason.as_str(), dead[0].deaths), ("invalid_request", 1));
    let before = Timestamp::from_millis(dead[0].ended_at.millis() - 1);
    let none = [
        DeadLetterQuery { until: Some(before), ..DeadLetterQuery::default() },
        DeadLetterQuery { since: Some(Timestamp::from_millis(before.millis() + 2)), ..DeadLetterQuery::default() },
        DeadLetterQuery { subjects: Some(vec![]), ..DeadLetterQuery::default() },
        DeadLetterQuery { subjects: Some(vec![id("other")]), ..DeadLetterQuery::default() },
        DeadLetterQuery { after: Some((&dead[0]).into()), ..DeadLetterQuery::default() },
    ];
    for query in none {
        assert!(subject.store.dead_letters(&query, 10).await.unwrap().is_empty(), "{query:?}");
    }
    let place: DeadLetterCursor = DeadLetterCursor::from(&dead[0]).to_string().parse().unwrap();
    assert_eq!(place, DeadLetterCursor::from(&dead[0]));
    let subjects = Some(vec![id("other"), id("a")]);
    let query = DeadLetterQuery { subjects, ..DeadLetterQuery::default() };
    assert_eq!(subject.store.dead_letters(&query, 10).await.unwrap(), dead);
}

pub(super) async fn a_subject_is_found_by_its_key_and_by_an_address(subject: TestStore) {
    let epoch = subject.own().await;
    let snapshot =
        r#"{"primary_email_address_id":"i","email_addresses":[{"id":"i","email_address":"Dana@work.test"}]}"#;
    let mut user = news(0, "e0", "user_1", 1, true);
    user.snapshot = Some(Snapshot { updated_at: 1, occurred_at: 1, data: Some(snapshot.to_owned()) });
    let known_by_address = address_key(AddressDigest::of("dana@work.test"));
    subject.admit(epoch, vec![user, arrival(1, "e1", known_by_address.as_str())]).await;
    assert_eq!(subject.store.find_subjects("user_1").await.unwrap(), [id("user_1")]);
    assert_eq!(subject.store.find_subjects("clerk/default/user_1").await.unwrap(), [id("user_1")]);
    let mut found = subject.store.find_subjects("dana@WORK.test").await.unwrap();
    found.sort();
    let mut expected = vec![id("user_1"), id(known_by_address.as_str())];
    expected.sort();
    assert_eq!(found, expected);
    assert!(subject.store.find_subjects("zoe@work.test").await.unwrap().is_empty());
    let state = subject.store.subject_row(&id("user_1")).await.unwrap().expect("known");
    assert_eq!((state.snapshot.as_deref(), state.deleted_at), (Some(snapshot), None));
}
