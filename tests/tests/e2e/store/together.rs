//! Batches of several partitions that are admitted together.

use usher_engine::arrival::FirstClaim;
use usher_proto::Subject;
use usher_store::FirstClaims;

use super::*;

const ONE: Partition = Partition(1);

/// Claims nothing.
struct Nothing;

#[async_trait::async_trait]
impl FirstClaims for Nothing {
    async fn first_claim(&self, _: &Run, _: Option<&Subject>) -> Option<FirstClaim> {
        None
    }
}

impl TestStore {
    async fn own_both(&self) -> [Epoch; 2] {
        let owned = self.store.acquire(FLOW, &[ZERO, ONE], "me").await.unwrap();
        [owned[0].epoch, owned[1].epoch]
    }

    /// Admits a batch of the first partition and one of the second together.
    async fn together(&self, epochs: [Epoch; 2], arrivals: [Vec<Arrival>; 2]) -> Vec<Option<Admission>> {
        let [zero, one] = arrivals;
        let batches = [batch(epochs[0], zero), Batch { partition: ONE, ..batch(epochs[1], one) }];
        self.store.admit_claiming(FLOW, &batches, &Nothing).await.unwrap()
    }
}

fn heads(admissions: &[Option<Admission>]) -> Vec<Option<Vec<String>>> {
    admissions.iter().map(|admission| admission.as_ref().map(|admission| names(&admission.heads))).collect()
}

fn some<const N: usize>(names: [&str; N]) -> Option<Vec<String>> {
    Some(names.map(str::to_owned).into())
}

pub(super) async fn batches_of_several_partitions_are_admitted_together_each_with_its_own_result(subject: TestStore) {
    let epochs = subject.own_both().await;
    let waits = arrival(0, "waits", "b");
    subject.together(epochs, [vec![waits], vec![arrival(0, "old", "d")]]).await;
    let wait = Change {
        event: reference("waits"),
        key: id("b"),
        partition: ZERO,
        epoch: epochs[0],
        kind: wait(1_000, Some(0)),
        story: Box::default(),
    };
    subject.store.change(FLOW, &[wait]).await.unwrap();

    let zero =
        vec![arrival(1, "e1", "a"), arrival(2, "f1", "a"), news(3, "n1", "b", 1, true), arrival(3, "waits", "b")];
    let cancels = Arrival { starts: false, cancels: true, ..arrival(2, "gone", "d") };
    let one = vec![arrival(1, "e2", "c"), cancels];
    let admissions = subject.together(epochs, [zero, one]).await;
    assert_eq!(heads(&admissions), [some(["e1"]), some(["e2"])]);
    let [Some(zero), Some(one)] = &admissions[..] else { panic!("both are ours") };
    assert_eq!(
        (names(&zero.followers), names(&zero.woken), zero.repeated),
        (vec!["f1".into()], vec!["waits".into()], 1)
    );
    assert_eq!((one.repeated, &one.cancelled), (0, &vec![(id("d"), reference("old"))]));
    assert_eq!(zero.cancelled, []);
    let known = subject.store.frontiers(FLOW).await.unwrap();
    assert_eq!((known[&ZERO], known[&ONE]), (Some(Offset(4)), Some(Offset(3))));
}

pub(super) async fn of_batches_that_are_admitted_together_only_ours_are(subject: TestStore) {
    let [zero, one] = subject.own_both().await;
    subject.store.acquire(FLOW, &[ONE], "another").await.unwrap();
    let news_of_both =
        |zero, one| [vec![arrival(0, zero, zero)], vec![news(0, "n", one, 1, true), arrival(1, one, one)]];
    let admissions = subject.together([zero, one], news_of_both("e1", "e2")).await;
    assert_eq!(heads(&admissions), [some(["e1"]), None]);
    assert_eq!(subject.store.subject(&id("e2")).await.unwrap(), None);
    let known = subject.store.frontiers(FLOW).await.unwrap();
    assert_eq!((known[&ZERO], known[&ONE]), (Some(Offset(1)), None));
}

/// Only foreign producers cause this: a key has one partition.
pub(super) async fn what_two_partitions_have_in_common_is_admitted_in_order(subject: TestStore) {
    let [zero, one] = subject.own_both().await;
    let admissions = subject.together([zero, one], [vec![arrival(0, "e1", "a")], vec![arrival(0, "e1", "a")]]).await;
    assert_eq!(heads(&admissions), [some(["e1"]), some([])]);
    assert_eq!(admissions[1].as_ref().unwrap().repeated, 1);
    // The later one is admitted although the earlier one is somebody else's.
    subject.store.acquire(FLOW, &[ZERO], "another").await.unwrap();
    let admissions = subject.together([zero, one], [vec![arrival(1, "e2", "b")], vec![arrival(1, "e2", "b")]]).await;
    assert_eq!(heads(&admissions), [None, some(["e2"])]);
}
