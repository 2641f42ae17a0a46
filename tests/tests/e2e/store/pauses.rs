//! Operators' pauses of a flow.

use super::*;

pub(super) async fn a_flow_is_paused_and_goes_on(subject: TestStore) {
    let now = Timestamp::from_seconds(1);
    assert!(subject.store.set_paused(FLOW, true, "ann", None, now).await.unwrap());
    assert!(!subject.store.set_paused(FLOW, true, "bob", None, now).await.unwrap(), "already");
    assert_eq!(subject.store.paused(FLOW).await.unwrap(), Some(now));
    assert_eq!(subject.store.paused("other").await.unwrap(), None);
    assert_eq!(subject.store.paused_flows().await.unwrap(), [FLOW]);
    assert!(subject.store.set_paused(FLOW, false, "ann", None, now).await.unwrap());
    assert_eq!(subject.store.paused(FLOW).await.unwrap(), None);
}

pub(super) async fn every_replica_that_owns_something_confirms_a_pause(subject: TestStore) {
    let store = &subject.store;
    store.acquire(FLOW, &[Partition(0), Partition(1)], "ann").await.unwrap();
    store.acquire(FLOW, &[Partition(2)], "bob").await.unwrap();
    let first = Timestamp::from_seconds(1);
    let second = Timestamp::from_seconds(2);
    let pausing = async || {
        let replicas = store.pausing(FLOW).await.unwrap();
        replicas.into_iter().map(|it| (it.owner, it.partitions, it.under_way)).collect::<Vec<_>>()
    };
    let ann = |under_way| ("ann".to_owned(), 2, under_way);
    let bob = |under_way| ("bob".to_owned(), 1, under_way);
    store.set_paused(FLOW, true, "op", None, first).await.unwrap();
    assert_eq!(pausing().await, [ann(None), bob(None)]);
    store.confirm_pause(FLOW, "ann", first, 3).await.unwrap();
    store.confirm_pause(FLOW, "bob", first, 0).await.unwrap();
    assert_eq!(pausing().await, [ann(Some(3)), bob(Some(0))]);
    store.confirm_pause(FLOW, "ann", first, 0).await.unwrap();
    assert_eq!(pausing().await, [ann(Some(0)), bob(Some(0))]);
    store.set_paused(FLOW, false, "op", None, second).await.unwrap();
    store.set_paused(FLOW, true, "op", None, second).await.unwrap();
    store.confirm_pause(FLOW, "bob", first, 0).await.unwrap();
    assert_eq!(pausing().await, [ann(None), bob(None)], "a word about an earlier pause does not count");
    store.leave("ann").await.unwrap();
    assert_eq!(pausing().await, [bob(None)], "who has stopped is not asked");
    let frontiers = store.frontiers(FLOW).await.unwrap();
    assert_eq!(frontiers, (0..3).map(|p| (Partition(p), None)).collect(), "it is still known to be part of the flow");
}
