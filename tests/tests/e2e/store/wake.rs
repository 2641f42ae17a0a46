//! Runs that an operator wakes.

use super::*;

on_every_store!(
    a_woken_run_goes_on_at_once_and_its_wait_is_over,
    a_run_that_waits_for_a_value_is_woken_to_look_for_it_and_keeps_its_time,
    a_parked_run_is_woken_and_stays_the_head_of_its_lane,
    a_run_that_does_not_wait_is_not_woken,
);

fn wake(offset: i64, id: &str, of: &str) -> Arrival {
    order(offset, id, "a", of, CommandKind::Wake)
}

async fn came(subject: &TestStore, of: &str) -> Vec<String> {
    subject.store.actions(FLOW, &reference(of)).await.unwrap().into_iter().map(|action| action.came).collect()
}

async fn a_woken_run_goes_on_at_once_and_its_wait_is_over(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a")]).await;
    let far = Timestamp::from_millis(i64::MAX / 2);
    subject.change(epoch, "e0", ChangeKind::Wait { until: far, news_after: None }).await;
    let woken = subject.admit(epoch, vec![wake(1, "o1", "e0")]).await.woken.remove(0);
    let now = usher_service::clock::now();
    assert!(woken.wait_until.is_some_and(|until| until <= now), "{:?}", woken.wait_until);
    assert_eq!((subject.state("e0").await.as_str(), subject.head_names().await), ("queued", vec!["e0".to_owned()]));
    let due = subject.store.due(FLOW, &[(ZERO, epoch)], far).await.unwrap();
    assert!(due.heads.is_empty() && due.next.is_none(), "it waits no more");
    assert_eq!(subject.admit(epoch, vec![wake(2, "o2", "e0")]).await.woken.len(), 0, "it goes on already");
    assert_eq!(came(&subject, "e0").await, ["woken", "nothing"]);
}

async fn a_run_that_waits_for_a_value_is_woken_to_look_for_it_and_keeps_its_time(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a")]).await;
    let far = Timestamp::from_millis(i64::MAX / 2);
    subject.change(epoch, "e0", ChangeKind::Wait { until: far, news_after: Some(0) }).await;
    let woken = subject.admit(epoch, vec![wake(1, "o1", "e0")]).await.woken.remove(0);
    assert_eq!(woken.wait_until, Some(far), "nothing is given up before that time");
}

async fn a_parked_run_is_woken_and_stays_the_head_of_its_lane(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a"), arrival(1, "e1", "a")]).await;
    subject.change(epoch, "e0", claim(3, 1, b"x")).await;
    let tries = AttemptState { attempts: 3, generation: 1, ..AttemptState::default() };
    subject.change(epoch, "e0", park(i64::MAX / 2_000, tries, Some(b"x"))).await;
    assert!(subject.head_names().await.is_empty(), "it holds its lane");
    let woken = subject.admit(epoch, vec![wake(2, "o1", "e0")]).await.woken.remove(0);
    assert_eq!((woken.tries.attempts, woken.tries.generation, woken.request.as_deref()), (3, 1, Some(&b"x"[..])));
    assert!(woken.begun);
    assert_eq!(subject.head_names().await, ["e0"]);
}

async fn a_run_that_does_not_wait_is_not_woken(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a"), arrival(1, "e1", "a")]).await;
    subject.change(epoch, "e0", end(RunState::Done)).await;
    let orders = vec![wake(2, "o1", "e0"), wake(3, "o2", "e1"), wake(4, "o3", "none")];
    assert!(subject.admit(epoch, orders).await.woken.is_empty());
    assert_eq!(
        (came(&subject, "e0").await, came(&subject, "e1").await),
        (vec!["nothing".into()], vec!["nothing".into()])
    );
    assert_eq!(subject.state("e0").await, "done");
}
