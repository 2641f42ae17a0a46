//! Reads records ahead for a flow, with a reader of its own beside the subscription.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use usher_engine::arrival::Arrival;
use usher_engine::{AheadPage, AheadRange, Input};
use usher_eventlog::{Log, LogError, ScanPage, ScanRange, Scanner};
use usher_flows::Flow;
use usher_proto::{Offset, Record};

use super::arrivals::{self, Meaning};

/// Delay before the answer that a page could not be read, after which it is asked for again.
const AFTER_ERROR: Duration = Duration::from_millis(500);
/// Time without a request after which the reader of the log is dropped, with its connection.
const KEPT_OPEN: Duration = Duration::from_secs(5);

/// The reader of a flow.
pub(super) struct AheadReader {
    pub(super) flow: Arc<Flow>,
    pub(super) log: Arc<dyn Log>,
    pub(super) topic: String,
    pub(super) answers: mpsc::UnboundedSender<Input>,
}

impl AheadReader {
    /// Starts the reader, which ends with the returned handle. The engine asks for one page at a time.
    pub(super) fn start(self) -> mpsc::UnboundedSender<Vec<AheadRange>> {
        let (requests, queue) = mpsc::unbounded_channel();
        tokio::spawn(self.run(queue));
        requests
    }

    async fn run(self, mut queue: mpsc::UnboundedReceiver<Vec<AheadRange>>) {
        while let Some(first) = queue.recv().await {
            let mut scanner = None;
            let mut failed = false;
            let mut next = Some(first);
            while let Some(ranges) = next {
                let page = match self.page(&ranges, &mut scanner).await {
                    Ok(page) => page,
                    Err(error) => {
                        scanner = None;
                        self.report(&error, failed);
                        tokio::time::sleep(AFTER_ERROR).await;
                        None
                    }
                };
                failed = page.is_none();
                // The consumer is gone only after a stop.
                let _ = self.answers.send(Input::Ahead(page));
                next = tokio::time::timeout(KEPT_OPEN, queue.recv()).await.ok().flatten();
            }
        }
    }

    /// Logs a failure. Nothing is sent while a flow cannot read ahead, so the first one in a row is a warning.
    fn report(&self, error: &LogError, again: bool) {
        let flow = self.flow.name.as_str();
        if again {
            tracing::debug!(flow, %error, "reading ahead failed again; retrying");
        } else {
            tracing::warn!(flow, %error, "reading ahead failed; retrying, and nothing begins while catching up");
        }
    }

    async fn page(
        &self,
        ranges: &[AheadRange],
        scanner: &mut Option<Box<dyn Scanner>>,
    ) -> Result<Option<AheadPage>, LogError> {
        let scanner = match scanner {
            Some(scanner) => scanner,
            None => scanner.insert(self.log.scan(&self.topic)?),
        };
        let range = |range: &AheadRange| ScanRange { partition: range.partition, from: range.from, end: range.end };
        let asked: Vec<ScanRange> = ranges.iter().map(range).collect();
        let ScanPage { partition, from, next, records } = scanner.page(&asked).await?;
        let epoch = ranges.iter().find(|range| range.partition == partition).map(|range| range.epoch);
        Ok(epoch.map(|epoch| AheadPage { partition, epoch, from, next, arrivals: self.arrivals(records) }))
    }

    /// Returns the records that mean something to the flow. Those that are no events are reported when they are admitted.
    fn arrivals(&self, records: Vec<(Offset, Record)>) -> Vec<Arrival> {
        let meanings = records.into_iter().map(|(offset, record)| arrivals::meaning(&self.flow, offset, record));
        let arrival = |meaning| match meaning {
            Meaning::Arrival(arrival) => Some(*arrival),
            Meaning::Nothing | Meaning::Refused(_) => None,
        };
        meanings.filter_map(arrival).collect()
    }
}
