//! The progress of scheduled flows, and the users among whom a firing selects.

use usher_engine::firing::{Firing, ScheduleProgress};
use usher_store::{NextFiring, ScheduleStore as _};

use super::*;

pub(super) async fn the_progress_of_a_schedule_is_written_by_its_owner_only(subject: TestStore) {
    let store = &subject.store;
    assert_eq!(store.schedule_progress(FLOW).await.unwrap(), None);
    let first = store.acquire(FLOW, &[ZERO], "ann").await.unwrap()[0].epoch;
    let next = Some(Timestamp::from_seconds(200));
    let new = ScheduleProgress::new("@daily in UTC", Timestamp::from_seconds(100));
    assert!(store.keep_schedule(FLOW, (ZERO, first), &new, next).await.unwrap());
    assert_eq!(store.schedule_progress(FLOW).await.unwrap().as_ref(), Some(&new));
    assert_eq!(store.schedule_progress("other").await.unwrap(), None);

    let begun = new.firing(Firing { at: Timestamp::from_seconds(200), after: Some(id("user_1")) });
    let second = store.acquire(FLOW, &[ZERO], "bob").await.unwrap()[0].epoch;
    assert!(store.keep_schedule(FLOW, (ZERO, second), &begun, None).await.unwrap());
    let late = begun.settled(Timestamp::from_seconds(300));
    for owned in [(ZERO, first), (Partition(1), second), (ZERO, Epoch(second.0 + 1))] {
        assert!(!store.keep_schedule(FLOW, owned, &late, next).await.unwrap(), "{owned:?}");
    }
    assert!(!store.keep_schedule("other", (ZERO, second), &late, next).await.unwrap(), "of another flow");
    assert_eq!(store.schedule_progress(FLOW).await.unwrap(), Some(begun.clone()));
    let told = |at, under_way| NextFiring { flow: FLOW.into(), at, under_way };
    assert_eq!(store.next_firings().await.unwrap(), [told(None, Some(Timestamp::from_seconds(200)))]);

    assert!(store.keep_schedule(FLOW, (ZERO, second), &late, next).await.unwrap());
    assert_eq!(store.schedule_progress(FLOW).await.unwrap(), Some(late));
    assert_eq!(store.next_firings().await.unwrap(), [told(next, None)]);
}

pub(super) async fn living_users_come_in_pages_and_the_deleted_do_not(subject: TestStore) {
    let epoch = subject.own().await;
    let keys = ["user_B", "user_a", "user_b", "user_c", "user_d", "user_e"];
    let known = keys.iter().zip(0_i64..).map(|(key, offset)| news(offset, &format!("e{offset}"), key, 10, true));
    subject.admit(epoch, known.collect()).await;
    subject.admit(epoch, vec![news(10, "gone", "user_c", 20, false), arrival(11, "org", "org_1")]).await;
    for page in [1, 2, 5, 100] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let users = subject.store.living_users(after.as_ref(), page).await.unwrap();
            seen.extend(users.iter().map(|user| user.subject.key().to_owned()));
            assert!(users.iter().all(|user| user.snapshot == "{\"v\":10}"));
            if users.len() < page {
                break;
            }
            after = users.last().map(|user| user.subject.clone());
        }
        seen.sort();
        assert_eq!(seen, ["user_B", "user_a", "user_b", "user_d", "user_e"], "{page}");
    }
}
