//! Partitions come and go: taking one over in the store, finding what was unfinished in it, forgetting it.

use std::collections::VecDeque;

use anyhow::anyhow;
use usher_log::Assigned;
use usher_proto::{EventId, Partition};

use super::{Happened, Worker};
use crate::delivery::partitions::Owned;
use crate::engine::Input;
use crate::engine::start::start_offset;
use crate::store::{Batch, Ownership};

/// How many unfinished runs are found at once.
const FOUND_AT_ONCE: u32 = 500;

impl Worker {
    pub(super) fn acquire(&mut self, assignment: u64, assigned: Vec<Assigned>) {
        let (workshop, owner) = (self.workshop.clone(), self.owner.clone());
        let partitions: Vec<Partition> = assigned.iter().map(|assigned| assigned.partition).collect();
        self.acquiring.extend(&partitions);
        self.tasks.spawn(async move {
            let flow = workshop.versions.name();
            match workshop.ask(|| workshop.store.acquire(flow, &partitions, &owner)).await {
                Ok(owned) => Happened::Acquired { assignment, assigned, owned },
                Err(_) => Happened::Nothing,
            }
        });
    }

    pub(super) fn acquired(
        &mut self,
        assignment: u64,
        assigned: &[Assigned],
        owned: Vec<Ownership>,
    ) -> anyhow::Result<()> {
        let mut starts = Vec::with_capacity(assigned.len());
        for Ownership { partition, epoch, frontier } in owned {
            let known = assigned.iter().find(|assigned| assigned.partition == partition);
            let Some(known) = known.filter(|_| self.acquiring.remove(&partition)) else { continue };
            let start = start_offset(known.committed, frontier, known.low, known.end, self.flow.from)
                .map_err(|problem| anyhow!("flow {}, partition {partition}: {problem}", self.flow.name))?;
            starts.push((partition, start));
            let mut owned = Owned {
                assignment,
                epoch,
                end_seen: known.end,
                frontier: start,
                recovered: false,
                admitting: false,
                kept: frontier == Some(start),
                waiting: VecDeque::new(),
            };
            if !owned.kept {
                // Where it begins is kept before anything is read, so that the next start need not be told again.
                let (arrivals, flow_version) = (Vec::new(), self.flow.version.clone());
                owned.waiting.push_back(Batch { partition, epoch, frontier: start, arrivals, flow_version });
            }
            self.partitions.0.insert(partition, owned);
            self.find(partition, epoch, None);
        }
        tracing::info!(flow = self.flow.name, partitions = ?starts, "partitions are ours");
        let started: Vec<Partition> = starts.iter().map(|(partition, _)| *partition).collect();
        self.subscription.control.start(assignment, starts);
        if self.paused {
            started.into_iter().for_each(|partition| self.subscription.control.pause(partition));
        }
        Ok(())
    }

    /// Looks for the runs that were unfinished when the partition became ours.
    pub(super) fn find(&mut self, partition: Partition, epoch: i64, after: Option<(i64, EventId)>) {
        let workshop = self.workshop.clone();
        self.tasks.spawn(async move {
            let flow = workshop.versions.name();
            match workshop.ask(|| workshop.store.unfinished(flow, partition, after.clone(), FOUND_AT_ONCE)).await {
                Ok(runs) => {
                    let all = runs.len() < FOUND_AT_ONCE as usize;
                    Happened::Found { partition, epoch, runs, all }
                }
                Err(_) => Happened::Nothing,
            }
        });
    }

    pub(super) fn forget(&mut self, partition: Partition) {
        self.acquiring.remove(&partition);
        self.partitions.0.remove(&partition);
        self.handle(Input::Dropped(partition));
    }
}
