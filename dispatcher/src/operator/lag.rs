//! The lag of flows: what of the log is not admitted to the store yet.

use std::collections::BTreeMap;

use serde::Serialize;
use usher_eventlog::{Log, LogError, Watermarks};
use usher_proto::{Partition, Timestamp, headers};

use super::{OperatorCommands, OperatorError, PartitionStatus};

/// The lag of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FlowLag {
    /// Events in the log that are not admitted yet.
    pub events: i64,
    /// Time since the receipt of the oldest of these events, in seconds; 0 if there are none.
    pub seconds: u64,
}

impl OperatorCommands {
    /// Returns the lag of each flow that has ever read the log.
    ///
    /// # Errors
    ///
    /// The store or the log does not answer.
    pub async fn lags(&self, now: Timestamp) -> Result<BTreeMap<String, FlowLag>, OperatorError> {
        let topic = self.layout.topics.events();
        let watermarks = self.log.watermarks(&topic).await?;
        let mut flows: BTreeMap<String, Vec<PartitionStatus>> = BTreeMap::new();
        for position in self.store.positions().await? {
            let partition = PartitionStatus { partition: position.partition, frontier: position.frontier, end: None };
            flows.entry(position.flow).or_default().push(partition);
        }
        let mut lags = BTreeMap::new();
        for (flow, mut partitions) in flows {
            lags.insert(flow, of_flow(&*self.log, &topic, &watermarks, &mut partitions, now).await?);
        }
        Ok(lags)
    }
}

/// Compares the frontiers with the log's ends. The age is that of the first record at or after the frontier.
pub(super) async fn of_flow(
    log: &dyn Log,
    topic: &str,
    watermarks: &BTreeMap<Partition, Watermarks>,
    partitions: &mut [PartitionStatus],
    now: Timestamp,
) -> Result<FlowLag, LogError> {
    let mut lag = FlowLag::default();
    for status in partitions {
        let Some(watermarks) = watermarks.get(&Partition(status.partition)) else { continue };
        status.end = Some(watermarks.high);
        let Some(frontier) = status.frontier else { continue };
        let first = frontier.max(watermarks.low);
        if first >= watermarks.high {
            continue;
        }
        lag.events += watermarks.high.0 - first.0;
        let record = log.read(topic, Partition(status.partition), first).await?;
        let received_at = record.and_then(|record| record.header(headers::RECEIVED_AT)?.parse::<Timestamp>().ok());
        lag.seconds = lag.seconds.max(received_at.map_or(0, |at| now.since(at).as_secs()));
    }
    Ok(lag)
}
