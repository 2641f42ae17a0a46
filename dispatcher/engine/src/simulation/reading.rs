//! Reading of the log: in order, and ahead.

use rand::Rng as _;
use usher_proto::{Assignment, Offset, Snapshot, Timestamp};

use super::group::partition;
use super::happening::{self, Fate};
use super::plan::Defect;
use super::replica::index;
use super::world::World;
use crate::arrival::Arrival;
use crate::{AheadPage, AheadRange, Input};

/// The position at which reading of a partition goes on.
#[derive(Debug)]
pub(super) struct ReadPosition {
    pub(super) assignment: Assignment,
    pub(super) next: i64,
    pub(super) paused: bool,
}

impl World {
    /// Returns records as they arrive at the flow.
    fn arrivals(&self, records: &[(i64, u32)]) -> Vec<Arrival> {
        let arrival = |(offset, number): &(i64, u32)| {
            let of = &self.events[*number as usize];
            let at = of.at;
            let snapshot = of.snapshot.then(|| Snapshot { updated_at: at, occurred_at: at, data: Some(String::new()) });
            Arrival {
                offset: Offset(*offset),
                event: happening::event(*number as usize, of, &self.body),
                starts: of.starts,
                cancels: of.cancels,
                snapshot,
                remember: None,
                expires_at: self.plan.expires_after.map(|life| Timestamp::from_millis(at).plus(life)),
                command: None,
                suppression: of.suppresses.map(happening::suppression),
                verdict: (of.fate == Fate::Malformed).then(|| (usher_proto::Reason::Malformed, String::new())),
            }
        };
        records.iter().map(arrival).collect()
    }

    /// Reads a page of one of these ranges for a replica that reads ahead; sometimes the log does not answer.
    pub(super) fn reads_ahead(&mut self, r: usize, ranges: &[AheadRange]) {
        let AheadRange { partition, epoch, from, end } = ranges[self.rng.random_range(0..ranges.len())];
        let (records, next) = self.log.read(index(partition), from.0, self.plan.read_at_once);
        let records: Vec<_> = records.iter().copied().filter(|(offset, _)| *offset < end.0).collect();
        let mut arrivals = self.arrivals(&records);
        if self.plan.defect == Defect::EndingsUnseen {
            arrivals.iter_mut().for_each(|arrival| arrival.cancels = false);
        }
        let page = AheadPage { partition, epoch, from, next: Offset(next).min(end), arrivals };
        let page = self.is_answered().then_some(page);
        self.answers_later(r, Input::Ahead(page));
    }

    /// Reads the available records.
    pub(super) fn read(&mut self, r: usize) {
        let mut read = Vec::new();
        for (p, reader) in self.replicas[r].readers.iter_mut().filter(|(_, reader)| !reader.paused) {
            if reader.next >= self.log.0[*p].end {
                continue;
            }
            let (records, next) = self.log.read(*p, reader.next, self.plan.read_at_once);
            reader.next = next;
            read.push((reader.assignment, *p, next, records.to_vec()));
        }
        for (assignment, p, next, records) in read {
            let arrivals = self.arrivals(&records);
            let partition = partition(p);
            self.tell(r, Input::Read { assignment, partition, next: Offset(next), arrivals, refused: Vec::new() });
        }
    }
}
