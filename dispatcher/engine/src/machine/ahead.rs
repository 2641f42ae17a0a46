//! Reading ahead: what a backlog tells of people, and what it ends, is known before the runs in it are admitted.

use usher_proto::{Epoch, Offset, Partition};

use super::admission::Records;
use super::{Decision, Engine};
use crate::arrival::Admission;
use crate::partitions::Owned;
use crate::{AheadPage, AheadRange, Step, StoreRequest, StoreWrite};

/// Maximum number of writes of news on their way.
const MAX_WRITES: usize = 2;

impl Engine {
    /// Requests the next page of the partitions that are far behind.
    pub(super) fn read_ahead(&mut self, decision: &mut Decision<'_>) {
        let writing: usize = self.partitions.0.values().map(|owned| owned.ahead.writing).sum();
        // Not before all partitions have begun, because they are read together.
        if self.stopping || !self.has_begun() || self.awaits_page || writing >= MAX_WRITES {
            return;
        }
        let all = self.is_catching_up_ahead();
        let far = |owned: &Owned| all || owned.end - owned.frontier > self.limits.far_behind;
        let wanted = self.partitions.0.iter().filter(|(_, owned)| !owned.is_leaving() && far(owned));
        let range = |(partition, owned): (&Partition, &Owned)| AheadRange {
            partition: *partition,
            epoch: owned.epoch,
            from: owned.ahead.read,
            end: owned.end,
        };
        let ranges: Vec<AheadRange> = wanted.map(range).filter(|range| range.from < range.end).collect();
        if !ranges.is_empty() {
            self.awaits_page = true;
            decision.steps.push(Step::ReadAhead(ranges));
        }
    }

    /// Takes a page; `None` if none could be read.
    pub(super) fn page(&mut self, page: Option<AheadPage>, decision: &mut Decision<'_>) {
        self.awaits_page = false;
        let Some(AheadPage { partition, epoch, from, next, arrivals }) = page else { return };
        let fits = |owned: &&mut Owned| owned.has_started() && owned.ahead.read == from;
        let Some(owned) = self.partitions.current(partition, epoch).filter(fits) else { return };
        let told = owned.ahead.told;
        let arrivals = owned.ahead.note(next, arrivals);
        if next <= told {
            return owned.ahead.told(next);
        }
        owned.ahead.writing += 1;
        let batch = self.batch(partition, epoch, next, Records { arrivals, refused: Vec::new() });
        decision.steps.push(Step::Store(StoreRequest::Write(StoreWrite::Tell(batch))));
    }

    /// Takes the store's answer to news.
    pub(super) fn told(
        &mut self,
        (partition, epoch): (Partition, Epoch),
        below: Offset,
        admission: Option<Admission>,
        retried: bool,
        decision: &mut Decision<'_>,
    ) {
        let Some(owned) = self.partitions.current(partition, epoch) else { return };
        owned.ahead.writing -= 1;
        let Some(Admission { woken, behind, .. }) = admission else {
            return self.rejoin("the store says that a partition is somebody else's", decision);
        };
        owned.ahead.told(below);
        if retried {
            owned.search_again();
        }
        if !owned.is_leaving() && !self.stopping {
            woken.into_iter().for_each(|run| self.take_in(run, true));
        }
        behind.iter().for_each(|key| self.lanes.behind(key));
    }
}
