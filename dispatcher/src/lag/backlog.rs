//! The backlogs of flows: partitions with events that are not admitted yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use usher_eventlog::Watermarks;
use usher_proto::{Offset, Partition, Timestamp};
use usher_store::StoredFrontier;

/// Position of the first record of a backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FirstRecord {
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
}

/// The events of a partition that a flow has not admitted.
#[derive(Debug, Clone, Copy)]
struct Backlog {
    frontier: Offset,
    /// Position of its first record: the frontier, or the log's oldest record if that is later.
    from: Offset,
    /// The time since which the frontier is known not to move.
    since: Timestamp,
    /// Receipt of the first event. Until its record is read, that of an earlier one, or `since`.
    received_at: Timestamp,
    is_read: bool,
}

/// The backlogs of flows, by flow and partition. Partitions without one are absent.
#[derive(Debug, Default)]
pub(crate) struct Backlogs(BTreeMap<String, BTreeMap<Partition, Backlog>>);

impl Backlogs {
    /// Takes the present frontiers and ends of the log, and returns the records whose times are to be read.
    pub(crate) fn update(
        &mut self,
        frontiers: impl Iterator<Item = StoredFrontier>,
        watermarks: &BTreeMap<Partition, Watermarks>,
        now: Timestamp,
    ) -> BTreeSet<FirstRecord> {
        let mut unread = BTreeSet::new();
        for StoredFrontier { flow, partition, offset: frontier } in frontiers {
            let backlogs = self.0.entry(flow).or_default();
            let Some(marks) = watermarks.get(&partition).filter(|marks| frontier < marks.high) else {
                backlogs.remove(&partition);
                continue;
            };
            let from = frontier.max(marks.low);
            let known = backlogs.get(&partition).copied();
            let backlog = backlogs.entry(partition).or_insert(Backlog {
                frontier,
                from,
                since: now,
                received_at: now,
                is_read: false,
            });
            if let Some(known) = known {
                let since = if known.frontier == frontier { known.since } else { now };
                let is_read = known.is_read && known.from == from;
                *backlog = Backlog { frontier, from, since, received_at: known.received_at, is_read };
            }
            if !backlog.is_read {
                unread.insert(FirstRecord { partition, offset: from });
            }
        }
        unread
    }

    /// Takes the time at which the event of a record was received, for every flow whose backlog begins with it.
    pub(crate) fn learn(&mut self, first: FirstRecord, received_at: Timestamp) {
        for backlog in self.0.values_mut().filter_map(|backlogs| backlogs.get_mut(&first.partition)) {
            if backlog.from == first.offset {
                backlog.received_at = received_at;
                backlog.is_read = true;
            }
        }
    }

    /// Returns the age of the flow's oldest event that is not admitted; zero if there is none.
    pub(crate) fn age(&self, flow: &str, now: Timestamp) -> Duration {
        self.longest(flow, now, |backlog| backlog.received_at)
    }

    /// Returns the time for which a frontier has not moved although events wait; zero if none waits.
    pub(crate) fn frontier_age(&self, flow: &str, now: Timestamp) -> Duration {
        self.longest(flow, now, |backlog| backlog.since)
    }

    fn longest(&self, flow: &str, now: Timestamp, since: impl Fn(&Backlog) -> Timestamp) -> Duration {
        let backlogs = self.0.get(flow).into_iter().flat_map(BTreeMap::values);
        backlogs.map(|backlog| now.since(since(backlog))).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_767_261_600 + seconds)
    }

    fn frontier(flow: &str, offset: i64) -> StoredFrontier {
        StoredFrontier { flow: flow.to_owned(), partition: Partition(0), offset: Offset(offset) }
    }

    fn log(low: i64, high: i64) -> BTreeMap<Partition, Watermarks> {
        BTreeMap::from([(Partition(0), Watermarks { low: Offset(low), high: Offset(high) })])
    }

    fn first(offset: i64) -> FirstRecord {
        FirstRecord { partition: Partition(0), offset: Offset(offset) }
    }

    #[test]
    fn the_age_grows_while_a_frontier_stands_still_and_is_zero_once_it_is_at_the_end() {
        let mut backlogs = Backlogs::default();
        let seconds = |backlogs: &Backlogs, now| {
            (backlogs.age("a", at(now)).as_secs(), backlogs.frontier_age("a", at(now)).as_secs())
        };
        assert!(backlogs.update([frontier("a", 5)].into_iter(), &log(0, 5), at(0)).is_empty());
        assert_eq!(seconds(&backlogs, 100), (0, 0), "nothing waits");

        let unread = backlogs.update([frontier("a", 5)].into_iter(), &log(0, 9), at(100));
        assert_eq!(unread, [first(5)].into());
        backlogs.learn(first(5), at(70));
        assert_eq!(seconds(&backlogs, 100), (30, 0));
        assert!(backlogs.update([frontier("a", 5)].into_iter(), &log(0, 20), at(130)).is_empty(), "it is read already");
        assert_eq!(seconds(&backlogs, 130), (60, 30));

        let unread = backlogs.update([frontier("a", 8)].into_iter(), &log(0, 20), at(140));
        assert_eq!(unread, [first(8)].into());
        assert_eq!(seconds(&backlogs, 140), (70, 0), "at most that, until the record is read");
        backlogs.learn(first(8), at(135));
        assert_eq!(seconds(&backlogs, 140), (5, 0));

        backlogs.update([frontier("a", 20)].into_iter(), &log(0, 20), at(150));
        assert_eq!(seconds(&backlogs, 150), (0, 0));
    }

    #[test]
    fn a_backlog_begins_with_what_the_log_still_holds() {
        let mut backlogs = Backlogs::default();
        let unread = backlogs.update([frontier("a", 5), frontier("b", 8)].into_iter(), &log(7, 9), at(0));
        assert_eq!(unread, [first(7), first(8)].into());
        backlogs.learn(first(7), at(-50));
        assert_eq!(backlogs.age("a", at(0)).as_secs(), 50);
        assert_eq!(backlogs.age("b", at(10)).as_secs(), 10, "another record: unread, so its age counts from now");
        let unread = backlogs.update([frontier("a", 5), frontier("b", 8)].into_iter(), &log(8, 9), at(20));
        assert_eq!(unread, [first(8)].into(), "the first record has been deleted");
        assert_eq!(backlogs.frontier_age("a", at(20)).as_secs(), 20, "which moves no frontier");
    }
}
