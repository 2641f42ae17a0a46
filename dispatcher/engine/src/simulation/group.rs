//! The log's consumer group: the assignment of partitions to replicas, and its changes.

use rand::Rng as _;
use usher_proto::{AssignedPartition, Assignment, Offset, Partition};

use super::world::{Occurrence, World};
use crate::Input;

/// Session timeout, in ms: the longest silence of a member.
const SESSION: i64 = 10_000;
/// The longest time that a member may take to hand back revoked partitions, in ms.
const HAND_BACK: i64 = 6_000;
/// Interval between the coordinator's checks, in ms.
pub(super) const TURN: i64 = 500;

/// One replica as the coordinator sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct SimulatedMember {
    joined: bool,
    /// The partitions that it must hand back, and the deadline.
    revoking: Option<(Vec<usize>, i64)>,
}

/// The group's coordinator.
#[derive(Debug)]
pub(super) struct SimulatedGroup {
    pub(super) owner: Vec<Option<usize>>,
    members: Vec<SimulatedMember>,
    assignment: Assignment,
    rotation: usize,
}

impl SimulatedGroup {
    pub(super) fn new(partitions: usize, replicas: usize) -> Self {
        Self {
            owner: vec![None; partitions],
            members: vec![SimulatedMember::default(); replicas],
            assignment: Assignment(0),
            rotation: 0,
        }
    }
}

pub(super) fn partition(index: usize) -> Partition {
    Partition(i32::try_from(index).expect("few"))
}

impl World {
    pub(super) fn group_turn(&mut self) {
        for r in 0..self.replicas.len() {
            let silent = self.replicas[r].silent_since.is_some_and(|since| self.now - since > SESSION);
            let late = self.group.members[r].revoking.as_ref().is_some_and(|(_, by)| self.now >= *by);
            if self.group.members[r].joined && (silent || late) {
                self.kick(r);
            }
        }
        self.rebalance();
    }

    /// Moves partitions towards the members that are to own them.
    fn rebalance(&mut self) {
        let members: Vec<usize> = (0..self.replicas.len()).filter(|r| self.group.members[*r].joined).collect();
        if members.is_empty() {
            return;
        }
        let mut given = vec![Vec::new(); self.replicas.len()];
        let mut taken = vec![Vec::new(); self.replicas.len()];
        for p in 0..self.plan.partitions {
            let target = members[(p + self.group.rotation) % members.len()];
            match self.group.owner[p] {
                None => given[target].push(p),
                Some(r) if r != target && self.group.members[r].revoking.is_none() => taken[r].push(p),
                Some(_) => {}
            }
        }
        for (r, partitions) in given.into_iter().enumerate().filter(|(_, partitions)| !partitions.is_empty()) {
            self.group.assignment = self.group.assignment.next();
            for p in &partitions {
                self.group.owner[*p] = Some(r);
            }
            let given = |p: &usize| AssignedPartition {
                partition: partition(*p),
                committed: self.log.0[*p].committed.map(Offset),
                low: Offset(0),
                end: Offset(self.log.0[*p].end),
            };
            let partitions = partitions.iter().map(given).collect();
            self.tell(r, Input::Assigned { assignment: self.group.assignment, partitions });
        }
        for (r, partitions) in taken.into_iter().enumerate().filter(|(_, partitions)| !partitions.is_empty()) {
            let names = partitions.iter().copied().map(partition).collect();
            self.group.members[r].revoking = Some((partitions, self.now + HAND_BACK));
            self.tell(r, Input::Revoked { partitions: names, lost: false });
        }
    }

    /// Takes back the partitions that a member has handed back.
    pub(super) fn released(&mut self, r: usize) {
        if let Some((partitions, _)) = self.group.members[r].revoking.take() {
            partitions.into_iter().for_each(|p| self.group.owner[p] = None);
            self.rebalance();
        }
    }

    /// Removes a member from the group: others may own its partitions, and it is informed when that is possible.
    pub(super) fn kick(&mut self, r: usize) {
        let lost = self.leaves(r);
        if self.replicas[r].up {
            // The member continues with its former partitions until its client has been informed.
            let unheard =
                if self.is_calm || self.plan.chaos_every.is_none() { 0 } else { self.rng.random_range(0..4_000) };
            self.replicas[r].last_told = self.replicas[r].last_told.max(self.now + unheard);
            let partitions = lost.into_iter().map(partition).collect();
            self.tell(r, Input::Revoked { partitions, lost: true });
            self.joins_later(r);
        }
    }

    /// Removes a member. Returns the partitions that it owned.
    pub(super) fn leaves(&mut self, r: usize) -> Vec<usize> {
        self.group.members[r] = SimulatedMember::default();
        let had: Vec<usize> = (0..self.plan.partitions).filter(|p| self.group.owner[*p] == Some(r)).collect();
        had.iter().for_each(|p| self.group.owner[*p] = None);
        had
    }

    pub(super) fn joins_later(&mut self, r: usize) {
        let pause = if self.plan.chaos_every.is_some() { self.rng.random_range(50..2_000) } else { 0 };
        let incarnation = self.replicas[r].incarnation;
        self.at(self.now + pause, Occurrence::Join { r, incarnation });
    }

    pub(super) fn joins(&mut self, r: usize) {
        self.group.members[r].joined = true;
        if self.rng.random_bool(0.3) {
            self.tell(r, Input::Assigned { assignment: self.group.assignment, partitions: Vec::new() });
        }
        if self.plan.chaos_every.is_none() {
            self.rebalance();
        }
    }

    /// Assigns every partition to another member.
    pub(super) fn rotate(&mut self) {
        self.group.rotation += 1;
        self.rebalance();
    }
}
