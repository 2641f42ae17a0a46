//! The lag of flows: what of the log they have not admitted, and for how long. The metrics and the operator's status determine it
//! in the same way.

mod backlog;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use backlog::{Backlogs, FirstRecord};
use usher_eventlog::{Log, LogError, ScanRange, Watermarks};
use usher_proto::{Offset, Partition, Record, Timestamp, headers};
use usher_service::clock;

/// Number of offsets searched for the first record of a backlog: some offsets hold none.
const SEARCHED: i64 = 16;

/// Reads the times at which the first records of backlogs were received, and passes each on. A backlog whose first offsets hold
/// no record is left out.
///
/// # Errors
///
/// The log does not answer. Some times may have been passed on.
pub(crate) async fn read_first_records(
    log: &dyn Log,
    topic: &str,
    mut unread: BTreeSet<FirstRecord>,
    watermarks: &BTreeMap<Partition, Watermarks>,
    mut learn: impl FnMut(FirstRecord, Timestamp),
) -> Result<(), LogError> {
    // Several flows may need different records of one partition, which a scanner reads one after the other.
    while !unread.is_empty() {
        let mut round: BTreeMap<Partition, Offset> = BTreeMap::new();
        unread.retain(|first| {
            let is_later = round.contains_key(&first.partition);
            round.entry(first.partition).or_insert(first.offset);
            is_later
        });
        let mut scanner = log.scan(topic)?;
        let end = |partition: &Partition, from: Offset| {
            let high = watermarks.get(partition).map_or(from, |marks| marks.high);
            Offset((from.0 + SEARCHED).min(high.0))
        };
        let range = |(partition, from): (&Partition, &Offset)| ScanRange {
            partition: *partition,
            from: *from,
            end: end(partition, *from),
        };
        let mut ranges: Vec<ScanRange> = round.iter().map(range).collect();
        while !ranges.is_empty() {
            let page = scanner.page(&ranges).await?;
            ranges.retain(|range| range.partition != page.partition);
            if let Some((_, record)) = page.records.first() {
                learn(FirstRecord { partition: page.partition, offset: page.from }, received_at(record));
            }
        }
    }
    Ok(())
}

/// Returns the time at which ingest received the event; the present if the record has none.
fn received_at(record: &Record) -> Timestamp {
    record.header(headers::RECEIVED_AT).and_then(|text| text.parse().ok()).unwrap_or_else(clock::now)
}
