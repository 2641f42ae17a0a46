//! Members of a group: partitions move between them, and no record is read twice or left out.

use std::collections::BTreeSet;

use usher_proto::{AssignedPartition, Assignment, Offset};
use usher_tests::broker::Broker;
use usher_tests::needs;

use super::*;

// While a group joins, the mock broker refuses commits (`rd_kafka_mock_cgrp_classic_check_state`), which Kafka accepts.
// There, the next owner reads some records again.
on_logs!([kafka] partitions_move_between_members_and_back_and_nothing_is_read_twice_or_left_out);

on_logs!(
    [mock_broker kafka]
    they_move_by_the_new_group_protocol_too,
    a_partition_that_left_while_it_was_paused_is_delivered_when_it_is_back,
    a_member_that_never_releases_loses_its_partitions_all_the_same,
    a_subscriber_that_is_gone_without_a_word_leaves_its_partitions_to_others,
    a_subscription_closes_whatever_it_waits_for,
);

/// One member of a group.
struct Member {
    subscription: Subscription,
    /// Owned partitions with the assignment that delivered them.
    owned: BTreeMap<Partition, Assignment>,
    /// True if revocations are acknowledged.
    releases: bool,
    /// True if the group may expel this member.
    may_lose: bool,
}

impl Member {
    async fn of(subject: &Subject) -> Self {
        let subscription = subject.log.subscribe("g", &subject.topic).await.unwrap();
        Self { subscription, owned: BTreeMap::new(), releases: true, may_lose: false }
    }

    /// Handles the next event as a subscriber does and commits every record at once.
    async fn step(&mut self, read: &mut Vec<(Partition, Offset)>) {
        match next(&mut self.subscription).await {
            LogEvent::Assigned { assignment, partitions } => {
                let start =
                    |assigned: &AssignedPartition| (assigned.partition, assigned.committed.unwrap_or(assigned.low));
                self.subscription.control.start(assignment, partitions.iter().map(start).collect());
                self.owned.extend(partitions.iter().map(|assigned| (assigned.partition, assignment)));
            }
            LogEvent::Records { assignment, partition, records } => {
                if self.owned.get(&partition) == Some(&assignment) {
                    read.extend(records.iter().map(|(offset, _)| (partition, *offset)));
                    let after = records.last().unwrap().0.next();
                    self.subscription.control.commit(partition, after);
                }
            }
            LogEvent::Reached { partition, next, .. } => self.subscription.control.commit(partition, next),
            LogEvent::Revoked { partitions, lost } => {
                self.owned.retain(|partition, _| !partitions.contains(partition));
                assert!(!lost || self.may_lose, "nobody was away");
                if self.releases && !lost {
                    self.subscription.control.release();
                }
            }
            LogEvent::Failed(error) => panic!("{error}"),
        }
    }

    /// Handles events until it owns all partitions.
    async fn take_all(&mut self, read: &mut Vec<(Partition, Offset)>) {
        while self.owned.len() < PARTITIONS as usize {
            self.step(read).await;
        }
    }
}

/// Handles the events of both members until each owns a share of the partitions.
async fn share(
    first: &mut Member,
    read: &mut Vec<(Partition, Offset)>,
    second: &mut Member,
    theirs: &mut Vec<(Partition, Offset)>,
) {
    while first.owned.len() + second.owned.len() != PARTITIONS as usize || second.owned.is_empty() {
        tokio::select! {
            () = first.step(read) => {}
            () = second.step(theirs) => {}
        }
    }
}

async fn partitions_move_between_members_and_back_and_nothing_is_read_twice_or_left_out(subject: Subject) {
    let mut read = Vec::new();
    let mut theirs = Vec::new();
    let mut first = Member::of(&subject).await;
    first.take_all(&mut read).await;
    append(&subject, 50).await;
    while read.len() < 50 {
        first.step(&mut read).await;
    }

    let mut second = Member::of(&subject).await;
    share(&mut first, &mut read, &mut second, &mut theirs).await;
    append(&subject, 50).await;
    while read.len() + theirs.len() < 100 {
        tokio::select! {
            () = first.step(&mut read) => {}
            () = second.step(&mut theirs) => {}
        }
    }
    assert!(!theirs.is_empty(), "the second has its share");

    second.subscription.control.close().await;
    first.take_all(&mut read).await;
    append(&subject, 50).await;
    while read.len() + theirs.len() < 150 {
        first.step(&mut read).await;
    }
    let mut seen: Vec<(Partition, Offset)> = read.into_iter().chain(theirs).collect();
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((count, seen.len()), (150, 150), "each record once");
    first.subscription.control.close().await;
}

async fn they_move_by_the_new_group_protocol_too(mut subject: Subject) {
    let new = ("group.protocol".to_owned(), "consumer".to_owned());
    subject.log = usher_eventlog::open(&subject.address, &[new]).await.unwrap();
    partitions_move_between_members_and_back_and_nothing_is_read_twice_or_left_out(subject).await;
}

async fn a_partition_that_left_while_it_was_paused_is_delivered_when_it_is_back(subject: Subject) {
    let mut read = Vec::new();
    let mut theirs = Vec::new();
    let mut first = Member::of(&subject).await;
    first.take_all(&mut read).await;
    for partition in first.owned.keys() {
        first.subscription.control.pause(*partition);
    }
    let mut second = Member::of(&subject).await;
    share(&mut first, &mut read, &mut second, &mut theirs).await;
    let moved: Vec<Partition> = second.owned.keys().copied().collect();
    second.subscription.control.close().await;
    first.take_all(&mut read).await;

    let appended = append(&subject, 50).await;
    let of_moved = appended.iter().filter(|record| moved.contains(&Partition::of(&record.key, PARTITIONS))).count();
    assert!(of_moved > 0, "some of ten keys are in the partitions that moved");
    while read.len() < of_moved {
        first.step(&mut read).await;
    }
    assert!(read.iter().all(|(partition, _)| moved.contains(partition)), "those that stayed are still paused");
    first.subscription.control.close().await;
}

async fn a_member_that_never_releases_loses_its_partitions_all_the_same(subject: Subject) {
    let mut read = Vec::new();
    let mut theirs = Vec::new();
    let mut first = Member::of(&subject).await;
    first.take_all(&mut read).await;
    first.releases = false;
    let mut second = Member::of(&subject).await;
    share(&mut first, &mut read, &mut second, &mut theirs).await;
    append(&subject, 50).await;
    while read.len() + theirs.len() < 50 {
        tokio::select! {
            () = first.step(&mut read) => {}
            () = second.step(&mut theirs) => {}
        }
    }
    assert!(!theirs.is_empty(), "the second reads what was not released");
    second.subscription.control.close().await;
    first.subscription.control.close().await;
}

async fn a_subscriber_that_is_gone_without_a_word_leaves_its_partitions_to_others(subject: Subject) {
    let mut read = Vec::new();
    let mut gone = Member::of(&subject).await;
    gone.take_all(&mut read).await;
    drop(gone);
    // The event channel is closed, but the control handle still exists.
    let mut deaf = Member::of(&subject).await;
    deaf.take_all(&mut read).await;
    let Subscription { events, control } = deaf.subscription;
    drop(events);
    let mut heir = Member::of(&subject).await;
    heir.take_all(&mut read).await;
    drop(control);
    heir.subscription.control.close().await;
}

async fn a_subscription_closes_whatever_it_waits_for(subject: Subject) {
    // Before any event.
    let unheard = subject.log.subscribe("g", &subject.topic).await.unwrap();
    unheard.control.close().await;
    // While a start is awaited.
    let (unstarted, _, _) = join(&subject, "g").await;
    unstarted.control.close().await;
    // While a release is awaited.
    let mut read = Vec::new();
    let mut first = Member::of(&subject).await;
    first.take_all(&mut read).await;
    first.releases = false;
    let mut second = Member::of(&subject).await;
    while first.owned.len() == PARTITIONS as usize {
        first.step(&mut read).await;
    }
    first.subscription.control.close().await;
    second.take_all(&mut read).await;
    second.subscription.control.close().await;
}

/// Handles events until `count` records have been read.
async fn step_until(member: &mut Member, read: &mut Vec<(Partition, Offset)>, count: usize) {
    while read.len() < count {
        member.step(read).await;
    }
}

#[needs(kafka_libs)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_outlives_its_broker_and_closes_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::prepare(folder.path(), &folder.path().join("data"));
    broker.start().await;
    let address = LogAddress::Kafka { brokers: broker.address() };
    let log = usher_eventlog::open(&address, &[]).await.unwrap();
    let topic = unique("t");
    let subject = Subject { log, address, spec: spec(&topic, PARTITIONS), topic, _folder: folder, _mock: None };
    subject.log.ensure(&[spec(&subject.topic, PARTITIONS)]).await.unwrap();
    let mut read = Vec::new();
    let mut member = Member::of(&subject).await;
    member.take_all(&mut read).await;
    append(&subject, 20).await;
    step_until(&mut member, &mut read, 20).await;

    // The group may have removed the member meanwhile; then records that were not committed are delivered again.
    member.may_lose = true;
    broker.kill();
    broker.start().await;
    append(&subject, 20).await;
    while read.iter().collect::<BTreeSet<_>>().len() < 40 {
        member.step(&mut read).await;
    }
    member.subscription.control.close().await;
    let (again, _, assigned) = join(&subject, "g").await;
    assert!(
        assigned.iter().all(|found| found.committed.is_none_or(|committed| committed == found.end)),
        "{assigned:?}"
    );
    assert_eq!(
        assigned.iter().filter_map(|found| found.committed).map(|committed| committed.0).sum::<i64>(),
        40,
        "all is committed"
    );

    broker.kill();
    timeout(DEADLINE, again.control.close()).await.expect("a close that does not wait for the broker");
}
