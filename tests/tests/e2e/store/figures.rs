//! Counts and frontiers, as the metrics read them.

use usher_store::StoredFrontier;

use super::*;

pub(super) async fn runs_are_counted_by_state(subject: TestStore) {
    let epoch = subject.own().await;
    let received = |n: i64| Timestamp::from_seconds(1_767_261_600 + n);
    let received_at = |n: i64| {
        let mut arrival = arrival(n, &format!("e{n}"), &format!("k{n}"));
        arrival.event.received_at = received(n);
        arrival
    };
    subject.admit(epoch, (0..5).map(received_at).collect()).await;
    subject.change(epoch, "e0", dead(false)).await;
    subject.change(epoch, "e1", end(RunState::Done)).await;
    subject.change(epoch, "e2", park(9, AttemptState::default(), None)).await;
    let mut counts = subject.store.run_counts().await.unwrap();
    counts.retain(|count| count.flow == FLOW);
    counts.sort_by_key(|count| count.state.label());
    let by_state: Vec<(RunState, i64)> = counts.iter().map(|count| (count.state, count.runs)).collect();
    assert_eq!(by_state, [(RunState::Dead, 1), (RunState::Parked, 1), (RunState::Queued, 2)]);
    assert_eq!((counts[1].oldest, counts[2].oldest), (received(2), received(3)), "by the receipt of the oldest event");

    let mut frontiers = subject.store.stored_frontiers().await.unwrap();
    frontiers.retain(|frontier| frontier.flow == FLOW);
    assert_eq!(frontiers, [StoredFrontier { flow: FLOW.to_owned(), partition: ZERO, offset: Offset(5) }]);
}
