//! Backpressure: reading rests while the subscriber is busy.
//!
//! At first nothing is polled at all. A pause in librdkafka is dear: it discards what was fetched ahead, and after it
//! the fetching may start a second late, because no resume wakes the thread that fetches. So only what is held up for
//! [`PATIENCE`] is paused there, and then polling continues.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use usher_proto::Partition;

/// Time for which nothing is polled. It delays the answer to a rebalance, and is far below the timeouts of a group.
const PATIENCE: Duration = Duration::from_secs(1);

/// The reasons for which reading rests, each with the instant since which it holds.
#[derive(Debug, Default)]
pub(super) struct Backpressure {
    /// Set while events wait for space in the subscriber's queue.
    pending: Option<Instant>,
    /// The partitions that the subscriber has paused.
    paused: BTreeMap<Partition, Instant>,
    /// The partitions that are paused in librdkafka.
    in_librdkafka: BTreeSet<Partition>,
}

/// Partitions to pause and to resume in librdkafka.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PauseChanges {
    pub(super) pause: BTreeSet<Partition>,
    pub(super) resume: BTreeSet<Partition>,
}

impl Backpressure {
    /// Records if events wait for space in the subscriber's queue.
    pub(super) fn pending(&mut self, any: bool, now: Instant) {
        self.pending = any.then(|| self.pending.unwrap_or(now));
    }

    /// Records that the subscriber has paused a partition.
    pub(super) fn pause(&mut self, partition: Partition, now: Instant) {
        self.paused.entry(partition).or_insert(now);
    }

    /// Records that the subscriber has resumed a partition.
    pub(super) fn resume(&mut self, partition: Partition) {
        self.paused.remove(&partition);
    }

    /// Forgets partitions that this member reads no longer.
    pub(super) fn forget<'a>(&mut self, partitions: impl IntoIterator<Item = &'a Partition>) {
        for partition in partitions {
            self.paused.remove(partition);
            self.in_librdkafka.remove(partition);
        }
    }

    /// Returns true if reading rests for any reason.
    pub(super) fn is_any(&self) -> bool {
        self.pending.is_some() || !self.paused.is_empty() || !self.in_librdkafka.is_empty()
    }

    /// Returns true if polling does no harm: nothing is held up, or has been for so long that it is paused.
    pub(super) fn lets_read(&self, now: Instant) -> bool {
        self.pending.iter().chain(self.paused.values()).all(|since| lasts(*since, now))
    }

    /// Returns the changes that make the pauses in librdkafka those that last, and takes them for made.
    pub(super) fn changes(&mut self, owned: impl Iterator<Item = Partition>, now: Instant) -> PauseChanges {
        if !self.is_any() {
            return PauseChanges::default();
        }
        let all = self.pending.is_some_and(|since| lasts(since, now));
        let lasting = |partition: &Partition| all || self.paused.get(partition).is_some_and(|since| lasts(*since, now));
        let lasting: BTreeSet<Partition> = owned.filter(lasting).collect();
        let pause = lasting.difference(&self.in_librdkafka).copied().collect();
        let resume = self.in_librdkafka.difference(&lasting).copied().collect();
        self.in_librdkafka = lasting;
        PauseChanges { pause, resume }
    }
}

fn lasts(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= PATIENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition(3);

    fn set(partitions: &[i32]) -> BTreeSet<Partition> {
        partitions.iter().copied().map(Partition).collect()
    }

    #[test]
    fn a_short_pause_stops_polling_and_a_lasting_one_only_its_partition() {
        let owned = set(&[3, 4]);
        let start = Instant::now();
        let short = start + PATIENCE / 2;
        let long = start + PATIENCE;
        let mut backpressure = Backpressure::default();
        backpressure.pause(P, start);
        backpressure.pause(P, short);
        assert!(!backpressure.lets_read(short), "nothing is polled");
        assert_eq!(backpressure.changes(owned.iter().copied(), short), PauseChanges::default());
        assert!(backpressure.lets_read(long), "the group must see a living member");
        assert_eq!(
            backpressure.changes(owned.iter().copied(), long),
            PauseChanges { pause: set(&[3]), resume: set(&[]) }
        );
        assert_eq!(backpressure.changes(owned.iter().copied(), long), PauseChanges::default());
        backpressure.resume(P);
        assert_eq!(
            backpressure.changes(owned.iter().copied(), long),
            PauseChanges { pause: set(&[]), resume: set(&[3]) }
        );
        assert!(backpressure.lets_read(long));
    }

    #[test]
    fn events_that_find_no_space_for_long_pause_every_partition() {
        let start = Instant::now();
        let long = start + PATIENCE;
        let mut backpressure = Backpressure::default();
        backpressure.pending(true, start);
        assert!(!backpressure.lets_read(start));
        backpressure.pending(true, long);
        assert_eq!(backpressure.changes(set(&[3, 4]).into_iter(), long).pause, set(&[3, 4]));
        backpressure.pending(false, long);
        assert_eq!(backpressure.changes(set(&[3, 4]).into_iter(), long).resume, set(&[3, 4]));
        backpressure.pending(true, long);
        assert!(!backpressure.lets_read(long), "the time counts from the start");
    }

    #[test]
    fn a_partition_that_is_lost_holds_nothing_up() {
        let now = Instant::now();
        let mut backpressure = Backpressure::default();
        backpressure.pause(P, now);
        backpressure.changes(set(&[3]).into_iter(), now + PATIENCE);
        backpressure.forget(&set(&[3]));
        assert!(backpressure.lets_read(now));
        assert_eq!(backpressure.changes(set(&[]).into_iter(), now + PATIENCE), PauseChanges::default());
    }
}
