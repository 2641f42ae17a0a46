//! News that are told before their events are admitted.

use super::*;

async fn state(subject: &TestStore, key: &str) -> Option<String> {
    subject.store.subject(&id(key)).await.unwrap()?.snapshot
}

async fn told(subject: &TestStore) -> Option<(Offset, String)> {
    subject.store.acquire(FLOW, &[ZERO], "next").await.unwrap().remove(0).told
}

pub(super) async fn news_are_told_before_the_events_are_admitted_and_wake_who_waits_for_them(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![news(0, "n0", "a", 1, true), arrival(1, "e1", "a"), arrival(2, "e2", "b")]).await;
    let revision = subject.store.subject(&id("a")).await.unwrap().unwrap().revision;
    subject.change(epoch, "e1", wait(1_000, Some(revision))).await;

    let starts = Arrival { starts: true, ..news(3, "n3", "a", 2, true) };
    let batch = batch(epoch, vec![starts, news(4, "n4", "c", 3, true)]);
    let answer = subject.store.tell(FLOW, &batch).await.unwrap();
    assert_eq!((names(&answer.woken), names(&answer.heads)), (vec!["e1".to_owned()], vec![]), "nothing new begins");
    assert_eq!(state(&subject, "a").await.as_deref(), Some("{\"v\":2}"));
    assert_eq!(state(&subject, "c").await.as_deref(), Some("{\"v\":3}"));
    let known = subject.store.frontiers(FLOW).await.unwrap();
    assert_eq!(known[&ZERO], Some(Offset(5)), "others need not wait for more");

    // Twice is as once, and the events are admitted all the same.
    assert_eq!(names(&subject.store.tell(FLOW, &batch).await.unwrap().woken), Vec::<String>::new());
    let admitted = subject.store.admit(FLOW, &batch).await.unwrap();
    assert_eq!((names(&admitted.followers), admitted.repeated), (vec!["n3".to_owned()], 0));

    let of_an_owner_before = Batch { epoch: Epoch(epoch.0 - 1), ..batch.clone() };
    assert!(matches!(subject.store.tell(FLOW, &of_an_owner_before).await, Err(StoreError::Fenced(ZERO))));
    assert_eq!(told(&subject).await, Some((Offset(5), batch.flow_version)), "the next owner hears of it");
}

pub(super) async fn a_position_that_an_operator_sets_forgets_how_far_the_news_are_told(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a")]).await;
    subject.store.tell(FLOW, &batch(epoch, vec![news(9, "n9", "a", 2, true)])).await.unwrap();
    // The offsets may be those of another log from now on.
    subject.store.seek(FLOW, &[(ZERO, Offset(0))].into(), "ann", Timestamp::from_seconds(1)).await.unwrap();
    assert_eq!(told(&subject).await, None);
}
