//! The new records of the log, in the order of each partition. After an interruption it goes on where it ended, and tells of
//! what the log has deleted meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use usher_dispatcher::orders;
use usher_eventlog::{Log, LogError, ScanRange, Scanner, Watermarks};
use usher_proto::{Event, Offset, Partition, Record, Source, Timestamp};
use usher_service::clock;

use super::lines::ListenLine;

/// Time after which an unanswered request to the log counts as a failure.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum number of pages that one look reads, so that outcomes are shown in between.
const PAGES: usize = 8;

/// A reader of the log that remembers its position in each partition.
pub(super) struct LogTail {
    log: Arc<dyn Log>,
    topic: String,
    /// The offset that is read next.
    next: BTreeMap<Partition, Offset>,
    /// Time of the last answer.
    answered: Instant,
    /// True if the last request failed, and that was told.
    is_gone: bool,
}

impl LogTail {
    /// Begins after the last record, or with the first one since a time.
    ///
    /// # Errors
    ///
    /// The log does not answer.
    pub(super) async fn begin(log: Arc<dyn Log>, topic: String, since: Option<Timestamp>) -> Result<Self, LogError> {
        let next = match since {
            Some(since) => log.offsets_at(&topic, since).await?,
            None => log.watermarks(&topic).await?.into_iter().map(|(of, marks)| (of, marks.high)).collect(),
        };
        Ok(Self { log, topic, next, answered: Instant::now(), is_gone: false })
    }

    /// Returns the time since the last answer of the log.
    pub(super) fn age(&self) -> Duration {
        self.answered.elapsed()
    }

    /// Reads the new records.
    pub(super) async fn look(&mut self) -> Vec<ListenLine> {
        let mut lines = Vec::new();
        let failed = match tokio::time::timeout(PATIENCE, self.read(&mut lines)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        let at = clock::now();
        match failed {
            None => {
                let for_ms = u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX);
                self.answered = Instant::now();
                if std::mem::take(&mut self.is_gone) {
                    lines.insert(0, ListenLine::Reconnected { at, to: "log", for_ms });
                }
            }
            Some(why) => {
                if !std::mem::replace(&mut self.is_gone, true) {
                    lines.push(ListenLine::Disconnected { at, from: "log", why });
                }
            }
        }
        lines
    }

    async fn read(&mut self, lines: &mut Vec<ListenLine>) -> Result<(), LogError> {
        let watermarks = self.log.watermarks(&self.topic).await?;
        for (partition, marks) in &watermarks {
            lines.extend(self.gap(*partition, *marks));
        }
        // Most looks find nothing new, and nothing is kept open between them.
        let mut scanner: Option<Box<dyn Scanner>> = None;
        for _ in 0..PAGES {
            let end = |partition: &Partition| watermarks.get(partition).map(|marks| marks.high);
            let range = |(partition, from): (&Partition, &Offset)| {
                let end = end(partition).filter(|end| end > from)?;
                Some(ScanRange { partition: *partition, from: *from, end })
            };
            let ranges: Vec<ScanRange> = self.next.iter().filter_map(range).collect();
            if ranges.is_empty() {
                break;
            }
            let scanner = match &mut scanner {
                Some(scanner) => scanner,
                none => none.insert(self.log.scan(&self.topic)?),
            };
            let page = scanner.page(&ranges).await?;
            lines.extend(page.records.iter().filter_map(|(offset, record)| line(page.partition, *offset, record)));
            self.next.insert(page.partition, page.next);
        }
        Ok(())
    }

    /// Moves the position of a partition into the log, and tells of what is passed over by that.
    fn gap(&mut self, partition: Partition, marks: Watermarks) -> Option<ListenLine> {
        // A partition that was added since is read from its beginning.
        let next = self.next.entry(partition).or_insert(marks.low);
        let from = *next;
        if *next < marks.low {
            *next = marks.low;
            return Some(ListenLine::Gap { at: clock::now(), partition: partition.0, from: from.0, to: marks.low.0 });
        }
        if *next > marks.high {
            *next = marks.high;
            let why =
                format!("partition {partition} ended at {from}, and ends at {} now: it is another log", marks.high);
            return Some(ListenLine::Disconnected { at: clock::now(), from: "log", why });
        }
        None
    }
}

/// Returns the line of a record; `None` for one that is neither a sender's event nor an operator's command about a run.
fn line(partition: Partition, offset: Offset, record: &Record) -> Option<ListenLine> {
    let event = Event::from_record(record).ok()?;
    let (partition, offset) = (partition.0, offset.0);
    if let Some(command) = orders::command_in(&event) {
        return Some(ListenLine::Command {
            at: event.received_at,
            command: command.what,
            flow: command.flow,
            event: command.run,
            by: command.by,
            subject: event.subject,
            partition,
            offset,
        });
    }
    if event.source == Source::Usher {
        return None;
    }
    let user = event.subject.key().starts_with("user_").then(|| event.subject.key().to_owned());
    Some(ListenLine::Event {
        at: event.received_at,
        source: event.source.label().to_owned(),
        instance: event.instance().to_string(),
        event: event.reference(),
        kind: event.kind,
        user,
        subject: event.subject,
        partition,
        offset,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use usher_eventlog::{EmbeddedLog, LogLayout, LogRetention};
    use usher_proto::{EventId, Instance, Key, SubjectId};

    use super::*;

    fn event(id: &str) -> Record {
        let event = Event {
            id: EventId::new(id),
            kind: "user.created".into(),
            source: Source::Clerk,
            subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1")),
            occurred_at: Timestamp::from_seconds(1),
            received_at: Timestamp::from_seconds(1),
            provenance: Vec::new(),
            body: Bytes::from_static(b"{}"),
        };
        event.into_record()
    }

    #[tokio::test]
    async fn after_an_interruption_it_goes_on_where_it_ended_and_tells_of_both() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = EmbeddedLog::open(&folder.path().join("log.db"), LogRetention::default()).await.expect("a log");
        let layout = LogLayout { topics: "t".parse().expect("a prefix"), partitions: 1 };
        let topic = layout.topics.events();
        let mut tail = LogTail {
            log: Arc::new(log),
            topic: topic.clone(),
            next: BTreeMap::new(),
            answered: Instant::now(),
            is_gone: false,
        };
        // There is no topic yet, which is a failure as any other.
        assert!(matches!(tail.look().await.as_slice(), [ListenLine::Disconnected { from: "log", .. }]));
        assert!(tail.look().await.is_empty(), "it is told once");

        tail.log.ensure(&[layout.events()]).await.expect("a topic");
        for id in ["e0", "e1"] {
            tail.log.append(&layout.events(), event(id)).await.expect("appended");
        }
        let lines = tail.look().await;
        let [ListenLine::Reconnected { .. }, ListenLine::Event { event: e0, .. }, ListenLine::Event { event: e1, .. }] =
            lines.as_slice()
        else {
            panic!("{lines:?}")
        };
        assert_eq!((e0.id(), e1.id()), ("e0", "e1"));
        tail.log.append(&layout.events(), event("e2")).await.expect("appended");
        let lines = tail.look().await;
        assert!(matches!(lines.as_slice(), [ListenLine::Event { event, .. }] if event.id() == "e2"), "{lines:?}");
    }

    #[tokio::test]
    async fn what_the_log_has_deleted_meanwhile_is_a_gap() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = EmbeddedLog::open(&folder.path().join("log.db"), LogRetention::default()).await.expect("a log");
        let next = BTreeMap::from([(Partition(0), Offset(5))]);
        let mut tail =
            LogTail { log: Arc::new(log), topic: "t.events".into(), next, answered: Instant::now(), is_gone: false };
        let marks = |low, high| Watermarks { low: Offset(low), high: Offset(high) };
        assert_eq!(tail.gap(Partition(0), marks(2, 5)), None);
        let gap = tail.gap(Partition(0), marks(9, 12));
        assert!(matches!(gap, Some(ListenLine::Gap { partition: 0, from: 5, to: 9, .. })), "{gap:?}");
        assert_eq!(tail.next[&Partition(0)], Offset(9));
        let other = tail.gap(Partition(0), marks(0, 3));
        assert!(matches!(other, Some(ListenLine::Disconnected { ref why, .. }) if why.contains("another log")));
        assert_eq!(tail.gap(Partition(1), marks(4, 6)), None, "a partition that was added is read from its beginning");
        assert_eq!(tail.next[&Partition(1)], Offset(4));
    }
}
