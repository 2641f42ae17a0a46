//! Rebalance events sent to the subscriber and not yet acknowledged.
//!
//! The group may rebalance again before an acknowledgement arrives, and an acknowledgement may arrive after
//! its deadline. So each is matched with its event: starts carry their assignment, and releases arrive in the order
//! of the revocations.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use usher_proto::{Assignment, Partition};

/// Assignments that await a start and revocations that await a release.
#[derive(Default)]
pub(super) struct PendingRebalances {
    /// Partitions to start, by assignment.
    starts: BTreeMap<Assignment, BTreeSet<Partition>>,
    /// Revocations to release, in the order in which they were sent.
    releases: VecDeque<Release>,
    /// Number of releases still expected for revocations that were handed back at their deadline.
    late: usize,
}

struct Release {
    partitions: BTreeSet<Partition>,
    deadline: Instant,
}

impl PendingRebalances {
    /// Returns true if no acknowledgement is awaited.
    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.releases.is_empty()
    }

    pub(super) fn assigned(&mut self, assignment: Assignment, partitions: &[Partition]) {
        self.starts.insert(assignment, partitions.iter().copied().collect());
    }

    /// Takes the acknowledgement of an assignment. Returns its partitions that are still assigned.
    pub(super) fn start(&mut self, assignment: Assignment) -> BTreeSet<Partition> {
        self.starts.remove(&assignment).unwrap_or_default()
    }

    pub(super) fn revoked(&mut self, partitions: &[Partition], deadline: Instant) {
        self.no_longer_to_start(partitions);
        self.releases.push_back(Release { partitions: partitions.iter().copied().collect(), deadline });
    }

    /// Takes the acknowledgement of the oldest revocation. Returns the partitions to hand back, or `None` if they were
    /// handed back at their deadline.
    pub(super) fn release(&mut self) -> Option<BTreeSet<Partition>> {
        if self.late > 0 {
            self.late -= 1;
            return None;
        }
        self.take_release()
    }

    /// Returns the partitions of the oldest revocation if its deadline has passed without a release.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<BTreeSet<Partition>> {
        self.releases.front().filter(|release| release.deadline <= now)?;
        self.late += 1;
        self.take_release()
    }

    /// Removes lost partitions: they can neither be started nor handed back.
    pub(super) fn lost(&mut self, partitions: &[Partition]) {
        self.no_longer_to_start(partitions);
        for release in &mut self.releases {
            release.partitions.retain(|partition| !partitions.contains(partition));
        }
    }

    /// Takes all partitions that await a start.
    pub(super) fn starts(&mut self) -> impl Iterator<Item = Partition> {
        std::mem::take(&mut self.starts).into_values().flatten()
    }

    /// Takes the partitions of the oldest revocation that awaits a release and still has partitions.
    pub(super) fn next_release(&mut self) -> Option<BTreeSet<Partition>> {
        while !self.releases.is_empty() {
            if let Some(partitions) = self.take_release() {
                return Some(partitions);
            }
        }
        None
    }

    fn take_release(&mut self) -> Option<BTreeSet<Partition>> {
        self.releases.pop_front().map(|release| release.partitions).filter(|partitions| !partitions.is_empty())
    }

    fn no_longer_to_start(&mut self, partitions: &[Partition]) {
        for awaited in self.starts.values_mut() {
            awaited.retain(|partition| !partitions.contains(partition));
        }
        self.starts.retain(|_, awaited| !awaited.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A: Partition = Partition(0);
    const B: Partition = Partition(1);

    fn only(partition: Partition) -> BTreeSet<Partition> {
        BTreeSet::from([partition])
    }

    #[test]
    fn two_assignments_are_started_each_by_its_own_answer() {
        let mut pending = PendingRebalances::default();
        pending.assigned(Assignment(1), &[A]);
        pending.assigned(Assignment(2), &[B]);
        assert_eq!(pending.start(Assignment(2)), only(B));
        assert_eq!(pending.start(Assignment(1)), only(A));
        assert_eq!(pending.start(Assignment(1)), BTreeSet::new(), "once");
    }

    #[test]
    fn what_is_taken_before_its_start_is_not_started_and_the_rest_is() {
        let mut pending = PendingRebalances::default();
        pending.assigned(Assignment(1), &[A, B]);
        pending.revoked(&[A], Instant::now());
        assert_eq!(pending.start(Assignment(1)), only(B));
    }

    #[test]
    fn two_revocations_are_released_in_their_order() {
        let mut pending = PendingRebalances::default();
        let later = Instant::now() + Duration::from_secs(60);
        pending.revoked(&[A], later);
        pending.revoked(&[B], later);
        assert_eq!(pending.overdue(Instant::now()), None);
        assert_eq!(pending.release(), Some(only(A)));
        assert_eq!(pending.release(), Some(only(B)));
        assert_eq!(pending.release(), None);
    }

    #[test]
    fn a_release_that_comes_late_is_not_taken_for_the_next_one() {
        let mut pending = PendingRebalances::default();
        let now = Instant::now();
        pending.revoked(&[A], now);
        assert_eq!(pending.overdue(now), Some(only(A)));
        pending.revoked(&[B], now + Duration::from_secs(60));
        assert_eq!(pending.release(), None, "it answers the first");
        assert_eq!(pending.release(), Some(only(B)));
    }

    #[test]
    fn what_is_lost_is_not_handed_back_and_its_release_is_still_awaited() {
        let mut pending = PendingRebalances::default();
        let later = Instant::now() + Duration::from_secs(60);
        pending.revoked(&[A], later);
        pending.lost(&[A]);
        pending.revoked(&[B], later);
        assert_eq!(pending.release(), None);
        assert_eq!(pending.release(), Some(only(B)));
    }
}
