//! Reads pages of partitions with a consumer of its own, which joins no group. It reads all partitions at once, because
//! whatever it asks the broker for waits for the fetch before, up to half a second if there was nothing to fetch.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::oneshot;
use usher_proto::{Offset, Partition, Record};

use super::config::Settings;
use super::librdkafka_log::QueryContext;
use super::query::{READ_DEADLINE, high_watermark, low_watermark};
use super::record::record;
use super::unavailable;
use crate::LogError;
use crate::scan::{PAGE, PAGE_BYTES, ScanPage, ScanRange, Scanner};

/// Time without a record after which the end of a partition is taken for one that may be the present end.
const SILENT_AT_END: Duration = Duration::from_millis(50);
/// Size of all records read and not asked for above which the longest page is returned as it is, in bytes.
const MAX_BYTES: usize = PAGE_BYTES;

type Answer = oneshot::Sender<Result<ScanPage, LogError>>;

/// The reader described in the module documentation. The consumer has a thread of its own: it blocks, and may take a
/// while to end while brokers are unreachable.
pub(super) struct TopicScanner {
    requests: mpsc::Sender<(Vec<ScanRange>, Answer)>,
}

impl TopicScanner {
    /// Creates the consumer, and the thread that ends with this value.
    pub(super) fn open(settings: &Settings, topic: &str) -> Result<Self, LogError> {
        let consumer = settings
            .scanner(topic)
            .create_with_context(QueryContext(settings.logger()))
            .map_err(|error| LogError::configuration(&error))?;
        let (requests, asked) = mpsc::channel::<(Vec<ScanRange>, Answer)>();
        let mut pages = Pages { consumer, topic: topic.to_owned(), places: BTreeMap::new() };
        let serve = move || {
            for (ranges, answer) in asked {
                // Ignored: the caller may have stopped waiting.
                let _ = answer.send(pages.page(&ranges));
            }
        };
        std::thread::Builder::new().name("log-scan".into()).spawn(serve).map_err(unavailable)?;
        Ok(Self { requests })
    }
}

#[async_trait]
impl Scanner for TopicScanner {
    async fn page(&mut self, ranges: &[ScanRange]) -> Result<ScanPage, LogError> {
        let (answer, answered) = oneshot::channel();
        // If the thread has ended, the answer is dropped with the request.
        let _ = self.requests.send((ranges.to_vec(), answer));
        answered.await.unwrap_or_else(|_| Err(unavailable("the thread that reads has ended")))
    }
}

/// The records of a partition that are read and not handed out yet.
struct Place {
    /// The offset at which the next page begins.
    next: Offset,
    /// The offset below which everything is read.
    read: Offset,
    records: VecDeque<(Offset, Record)>,
    bytes: usize,
    end: End,
}

/// The knowledge of the end of a partition. librdkafka tells once that it has come to the end that the log had then, and not
/// which one that was: this may be told long after, when the log has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Records are still to come.
    Ahead,
    /// The consumer has come to an end, and nothing has come since.
    Told,
    /// The log reached at least to this offset before the consumer was placed, so that an end told since is not below it.
    Reaches(Offset),
}

impl Place {
    fn at(next: Offset, read: Offset) -> Self {
        Self { next, read, records: VecDeque::new(), bytes: 0, end: End::Ahead }
    }

    /// Notes that the consumer has come to an end. `asked` is the end of the range that is read, if one is.
    fn come_to_end(&mut self, asked: Option<Offset>) {
        match (self.end, asked) {
            // The offsets between the last record and the end hold none.
            (End::Reaches(known), Some(asked)) if known >= asked => self.read = self.read.max(asked),
            _ => self.end = End::Told,
        }
    }

    /// Returns true if a page is full, or everything below `end` is read.
    fn is_ready(&self, end: Offset) -> bool {
        self.read >= end || self.records.len() >= PAGE || self.bytes >= PAGE_BYTES
    }

    /// Removes and returns the first page of this range.
    fn take(&mut self, range: &ScanRange) -> ScanPage {
        let below = self.records.partition_point(|(offset, _)| *offset < range.end);
        let records: Vec<(Offset, Record)> = self.records.drain(..below.min(PAGE)).collect();
        let all = records.len() == below && self.read >= range.end;
        let last = records.last().map_or(range.from, |(last, _)| last.next());
        self.next = if all { range.end } else { last };
        self.bytes -= records.iter().map(|(_, record)| record.size()).sum::<usize>();
        ScanPage { partition: range.partition, from: range.from, records, next: self.next }
    }
}

/// The reason why no page could be read.
enum Trouble {
    /// The log no longer holds the first records.
    Deleted,
    Unavailable(LogError),
}

struct Pages {
    consumer: BaseConsumer<QueryContext>,
    topic: String,
    /// The places at which the consumer reads. Empty if it must be placed first.
    places: BTreeMap<Partition, Place>,
}

impl Pages {
    fn page(&mut self, ranges: &[ScanRange]) -> Result<ScanPage, LogError> {
        let continues = |range: &ScanRange| self.places.get(&range.partition).is_some_and(|at| at.next == range.from);
        if !ranges.iter().all(continues) {
            self.place(ranges, |range| range.from)?;
        }
        let page = match self.read(ranges) {
            Err(Trouble::Deleted) => {
                let oldest = |range: &ScanRange| low_watermark(&self.consumer, &self.topic, range.partition);
                let floors: BTreeMap<Partition, Offset> = ranges
                    .iter()
                    .map(|range| Ok((range.partition, oldest(range)?)))
                    .collect::<Result<_, LogError>>()?;
                self.place(ranges, |range| range.from.max(floors[&range.partition]))?;
                self.read(ranges)
            }
            page => page,
        };
        page.map_err(|trouble| {
            self.places.clear();
            match trouble {
                Trouble::Deleted => unavailable("the log has deleted what was to be read"),
                Trouble::Unavailable(error) => error,
            }
        })
    }

    /// Moves the consumer to these ranges, each from an offset that is not below its beginning.
    fn place(&mut self, ranges: &[ScanRange], first: impl Fn(&ScanRange) -> Offset) -> Result<(), LogError> {
        self.places.clear();
        let mut list = TopicPartitionList::new();
        let mut places = BTreeMap::new();
        for range in ranges {
            let ScanRange { partition, from, .. } = *range;
            let read = first(range);
            list.add_partition_offset(&self.topic, partition.0, KafkaOffset::Offset(read.0)).map_err(unavailable)?;
            places.insert(partition, Place::at(from, read));
        }
        self.consumer.assign(&list).map_err(unavailable)?;
        self.places = places;
        Ok(())
    }

    /// Finds out whether the log reaches to the ends of ranges whose partitions are silent at an end, and places the consumer
    /// where it stands: the next end that it tells is then one that was found after that.
    fn check_ends(&mut self, ranges: &[ScanRange]) -> Result<(), LogError> {
        for range in ranges {
            let Some(place) = self.places.get_mut(&range.partition).filter(|place| place.end == End::Told) else {
                continue;
            };
            let high = high_watermark(&self.consumer, &self.topic, range.partition)?;
            if high < range.end {
                let Partition(partition) = range.partition;
                return Err(unavailable(format!(
                    "partition {partition} ends at {high}, and was told to end at {}",
                    range.end
                )));
            }
            place.end = End::Reaches(high);
        }
        let mut list = TopicPartitionList::new();
        for (partition, place) in &self.places {
            let at = KafkaOffset::Offset(place.read.0);
            list.add_partition_offset(&self.topic, partition.0, at).map_err(unavailable)?;
        }
        self.consumer.assign(&list).map_err(unavailable)
    }

    fn read(&mut self, ranges: &[ScanRange]) -> Result<ScanPage, Trouble> {
        let deadline = Instant::now() + READ_DEADLINE;
        let mut trouble = "no answer in time".to_owned();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let full = self.places.values().map(|place| place.bytes).sum::<usize>() >= MAX_BYTES;
            let ready = ranges.iter().find(|range| self.places[&range.partition].is_ready(range.end));
            if let Some(range) = ready.or_else(|| self.longest(ranges).filter(|_| full || left.is_zero()))
                && let Some(place) = self.places.get_mut(&range.partition)
            {
                return Ok(place.take(range));
            }
            if left.is_zero() {
                // A partition that does not exist is silent, too.
                let ask = |range: &ScanRange| low_watermark(&self.consumer, &self.topic, range.partition).err();
                let missing = ranges.iter().find_map(ask);
                return Err(Trouble::Unavailable(missing.unwrap_or_else(|| unavailable(trouble))));
            }
            let is_silent = |range: &ScanRange| {
                let place = &self.places[&range.partition];
                place.end == End::Told && place.read < range.end
            };
            let at_end = ranges.iter().any(is_silent);
            match self.consumer.poll(if at_end { left.min(SILENT_AT_END) } else { left }) {
                None if at_end => self.check_ends(ranges).map_err(Trouble::Unavailable)?,
                None => {}
                Some(Ok(message)) => {
                    if let Some(place) = self.places.get_mut(&Partition(message.partition())) {
                        let offset = Offset(message.offset());
                        let read = record(&message);
                        place.bytes += read.size();
                        place.read = offset.next();
                        if place.end == End::Told {
                            place.end = End::Ahead;
                        }
                        place.records.push_back((offset, read));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let asked = ranges.iter().find(|range| range.partition.0 == partition).map(|range| range.end);
                    if let Some(place) = self.places.get_mut(&Partition(partition)) {
                        place.come_to_end(asked);
                    }
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        return Err(Trouble::Deleted);
                    }
                    // A broker restarts, or a leader moves: librdkafka keeps retrying.
                    _ => trouble = error.to_string(),
                },
            }
        }
    }

    /// Returns the range of which most is read, if anything is.
    fn longest<'a>(&self, ranges: &'a [ScanRange]) -> Option<&'a ScanRange> {
        let bytes = |range: &&ScanRange| self.places[&range.partition].bytes;
        ranges.iter().max_by_key(bytes).filter(|range| bytes(range) > 0)
    }
}
